"""The Verilog that comes with a test bench: a reference unit and a bench that compares it with the words."""

from __future__ import annotations

from pcsim.export.fixed_point import FixedPoint

COMPARE_UNIT = """\
// Reference unit: error = activity - prediction, on the finest grid of the three formats, then rounded to the
// error's (to the nearest, ties to even) and saturated. Put yours in its place, with the same ports.
`timescale 1ns / 1ps
module compare_unit #(
    parameter ACTIVITY_WIDTH = 16,
    parameter ACTIVITY_FRACTION = 12,
    parameter PREDICTION_WIDTH = 16,
    parameter PREDICTION_FRACTION = 12,
    parameter ERROR_WIDTH = 16,
    parameter ERROR_FRACTION = 12
) (
    input  wire signed [ACTIVITY_WIDTH-1:0] activity,
    input  wire signed [PREDICTION_WIDTH-1:0] prediction,
    output wire signed [ERROR_WIDTH-1:0] error
);
    // A FRACTION counts the bits after the binary point; both operands and the result are shifted to FINEST.
    localparam OPERANDS = ACTIVITY_FRACTION > PREDICTION_FRACTION ? ACTIVITY_FRACTION : PREDICTION_FRACTION;
    localparam FINEST = OPERANDS > ERROR_FRACTION ? OPERANDS : ERROR_FRACTION;
    localparam ACTIVITY_SHIFT = FINEST - ACTIVITY_FRACTION;
    localparam PREDICTION_SHIFT = FINEST - PREDICTION_FRACTION;
    localparam ERROR_SHIFT = FINEST - ERROR_FRACTION;
    localparam WIDE = ACTIVITY_WIDTH + ACTIVITY_SHIFT + PREDICTION_WIDTH + PREDICTION_SHIFT
                    + ERROR_WIDTH + ERROR_SHIFT;  // more than enough
    localparam signed [WIDE-1:0] LARGEST = {{(WIDE - ERROR_WIDTH + 1) {1'b0}}, {(ERROR_WIDTH - 1) {1'b1}}};
    localparam signed [WIDE-1:0] SMALLEST = {{(WIDE - ERROR_WIDTH + 1) {1'b1}}, {(ERROR_WIDTH - 1) {1'b0}}};
    localparam signed [WIDE-1:0] ONE = {{(WIDE - 1) {1'b0}}, 1'b1};

    wire signed [WIDE-1:0] wide_activity = activity;
    wire signed [WIDE-1:0] wide_prediction = prediction;
    wire signed [WIDE-1:0] exact = (wide_activity <<< ACTIVITY_SHIFT)
                                 - (wide_prediction <<< PREDICTION_SHIFT);
    wire signed [WIDE-1:0] half = (ONE <<< ERROR_SHIFT) >>> 1;
    wire signed [WIDE-1:0] odd = (exact >>> ERROR_SHIFT) & ONE;
    wire signed [WIDE-1:0] raised = exact + half - ONE + odd;
    wire signed [WIDE-1:0] rounded = ERROR_SHIFT == 0 ? exact : raised >>> ERROR_SHIFT;
    assign error = rounded > LARGEST ? LARGEST[ERROR_WIDTH-1:0]
                 : rounded < SMALLEST ? SMALLEST[ERROR_WIDTH-1:0] : rounded[ERROR_WIDTH-1:0];
endmodule
"""

_TESTBENCH = """\
// Feeds the recorded activity and prediction of layer {layer} to compare_unit and counts the errors that
// differ from the recorded one by more than TOLERANCE least significant bits of the error: what rounding can
// do to a right answer, that of the operands, {activity.name} and {prediction.name}, and of the error,
// {error.name}.
//   iverilog -g2005 -Wall -o testbench testbench.v compare_unit.v && vvp testbench
`timescale 1ns / 1ps
module testbench;
    localparam ACTIVITY_WIDTH = {activity.bits};
    localparam PREDICTION_WIDTH = {prediction.bits};
    localparam ERROR_WIDTH = {error.bits};
    localparam WORDS = {words};
    localparam signed [ERROR_WIDTH:0] TOLERANCE = {difference_width}'sd{tolerance};

    reg signed [ACTIVITY_WIDTH-1:0] activities [0:WORDS-1];
    reg signed [PREDICTION_WIDTH-1:0] predictions [0:WORDS-1];
    reg signed [ERROR_WIDTH-1:0] expected [0:WORDS-1];
    reg signed [ACTIVITY_WIDTH-1:0] activity;
    reg signed [PREDICTION_WIDTH-1:0] prediction;
    wire signed [ERROR_WIDTH-1:0] error;
    reg signed [ERROR_WIDTH:0] difference;
    integer index;
    integer mismatches;
    integer inexact;
    integer telling;  // words that a unit whose answer is always 0 would get wrong

    compare_unit #(
        .ACTIVITY_WIDTH(ACTIVITY_WIDTH), .ACTIVITY_FRACTION({activity.fraction_bits}),
        .PREDICTION_WIDTH(PREDICTION_WIDTH), .PREDICTION_FRACTION({prediction.fraction_bits}),
        .ERROR_WIDTH(ERROR_WIDTH), .ERROR_FRACTION({error.fraction_bits})
    ) unit (.activity(activity), .prediction(prediction), .error(error));

    initial begin
        $readmemh("activity.hex", activities);
        $readmemh("prediction_in.hex", predictions);
        $readmemh("error.hex", expected);
        mismatches = 0;
        inexact = 0;
        telling = 0;
        for (index = 0; index < WORDS; index = index + 1) begin
            activity = activities[index];
            prediction = predictions[index];
            #1;
            difference = error - expected[index];
            if (expected[index] > TOLERANCE || expected[index] < -TOLERANCE) telling = telling + 1;
            if (^difference === 1'bx) begin
                mismatches = mismatches + 1;
                $display("word %0d: unknown bits", index);
            end else begin
                if (difference != 0) inexact = inexact + 1;
                if (difference > TOLERANCE || difference < -TOLERANCE) begin
                    mismatches = mismatches + 1;
                    $display("word %0d: got %0d, expected %0d", index, error, expected[index]);
                end
            end
        end
        $display("%0d words, %0d of them beyond the tolerance of %0d, %0d within rounding, %0d mismatches",
                 WORDS, telling, TOLERANCE, inexact, mismatches);
        if (mismatches != 0) $display("FAIL");
        else if (telling == 0) $display("NOTHING TESTED: a unit whose answer is always 0 would pass");
        else if (telling < {enough})
            $display("ALMOST NOTHING TESTED: an answer of 0 is wrong for less than 1 %% of the words");
        else $display("PASS");
        $finish;
    end
endmodule
"""


def write_testbench(
    activity: FixedPoint,
    prediction: FixedPoint,
    error: FixedPoint,
    *,
    words: int,
    layer: int,
    tolerance: int,
    enough: int,
) -> str:
    """Return the bench for so many words of these formats; the tolerance is in bits of the error.

    It says PASS only if enough words are beyond the tolerance.
    """
    return _TESTBENCH.format(
        activity=activity,
        prediction=prediction,
        error=error,
        words=words,
        layer=layer,
        difference_width=error.bits + 1,
        tolerance=min(tolerance, 2**error.bits - 1),
        enough=enough,
    )
