"""What the server of `command_line` loads once: commands, compiled code, and what a run makes of both."""

from contextlib import suppress

import pcsim.cli
import pcsim.commands.run
import pcsim.tracing.recorder  # noqa: F401
from pcsim.config import load_model
from pcsim.experiments.experiment import Experiment
from pcsim.experiments.run import run

with suppress(ImportError):  # what backpropagation takes
    import torch  # noqa: F401
run(Experiment.from_model(load_model("digits", ["training.epochs=1"])))
