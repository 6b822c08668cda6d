"""A chip: cores on a mesh, what one core can hold, and how fast its links are."""

from __future__ import annotations

from dataclasses import dataclass

from pcsim.errors import ConfigurationError, refuse_unless

MOST_CORES = 2**22  # of a mesh that is simulated: every core and link has numbers of its own


@dataclass(frozen=True)
class Chip:
    """Equal cores on a rectangular mesh; each pair of neighbours has one link each way.

    Cores are numbered row by row: core = row · columns + column, row 0 at the top.

    Attributes:
        rows: of the mesh.
        columns: of the mesh.
        neurons_per_core: that one core can hold; None: any number.
        synapse_bytes_per_core: memory for weights and biases in one core; None: unlimited, or not known.
        buffer_bytes_per_core: memory for messages that have come in; None: unlimited, or not known.
        link_bytes_per_ns: width of a link; None: not known, and taken as unlimited.
        hop_ns_horizontal: latency of a hop along a row; None: not known, and taken as 0.
        hop_ns_vertical: latency of a hop along a column; None: not known, and taken as 0.

    Raises:
        ConfigurationError: a number out of its range.
    """

    rows: int
    columns: int
    neurons_per_core: int | None = None
    synapse_bytes_per_core: int | None = None
    buffer_bytes_per_core: int | None = None
    link_bytes_per_ns: float | None = None
    hop_ns_horizontal: float | None = None
    hop_ns_vertical: float | None = None

    def __post_init__(self) -> None:
        for name in ("rows", "columns"):
            _check_whole(name, getattr(self, name))
        for name in ("neurons_per_core", "synapse_bytes_per_core", "buffer_bytes_per_core"):
            if getattr(self, name) is not None:
                _check_whole(name, getattr(self, name))
        for name in ("link_bytes_per_ns", "hop_ns_horizontal", "hop_ns_vertical"):
            number = getattr(self, name)
            if number is not None:
                good = isinstance(number, int | float) and not isinstance(number, bool)
                least = "above 0" if name == "link_bytes_per_ns" else "of 0 or more"
                good = good and 0 <= number < float("inf") and (number > 0 or name != "link_bytes_per_ns")
                refuse_unless(good, f"chip.{name}", number, f"a finite number {least}")

    @property
    def cores(self) -> int:
        """How many cores there are."""
        return self.rows * self.columns

    def check_simulated(self, machine: str) -> None:
        """Refuse a mesh that is too large for a simulation to hold.

        Raises:
            ConfigurationError: more than `MOST_CORES` cores.
        """
        if self.cores > MOST_CORES:
            raise ConfigurationError(
                f"hardware '{machine}' has {self.rows}x{self.columns} = {self.cores:,} cores: expected at "
                f"most {MOST_CORES:,} to simulate their mesh; give it fewer rows or columns"
            )

    def place(self, core: int) -> tuple[int, int]:
        """Return (row, column) of a core."""
        return divmod(core, self.columns)

    def distance(self, source: int, target: int) -> int:
        """Return the hops from one core to another: |rows apart| + |columns apart|."""
        (row, column), (other_row, other_column) = self.place(source), self.place(target)
        return abs(row - other_row) + abs(column - other_column)


def _check_whole(name: str, number: object) -> None:
    good = type(number) is int and number >= 1
    refuse_unless(good, f"chip.{name}", number, "a whole number from 1")
