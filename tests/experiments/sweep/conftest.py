"""Small studies: a data set of a few hundred samples, and sweep files on it."""

import numpy as np
import pytest

MODEL = """
[network]
layers = [16, 12, 4]

[data]
name = "npz"
path = "{data}"
validation_fraction = 0.2

[schedule]
iterations = 2

[learning]
rule = "adam"
rate = 1e-3

[training]
epochs = 2
batch = 16

[trace]
events = false
"""


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A model file whose classes can be learned: four noisy corners."""
    folder = tmp_path_factory.mktemp("model")
    rng = np.random.default_rng(0)
    corners = rng.random((4, 16))
    labels = rng.integers(0, 4, 400)
    inputs = np.clip(corners[labels] + rng.normal(0, 0.3, (400, 16)), 0, 1)
    arrays = {
        "x_train": inputs[:320],
        "y_train": labels[:320],
        "x_test": inputs[320:],
        "y_test": labels[320:],
    }
    np.savez(folder / "data.npz", **arrays)
    (folder / "model.toml").write_text(MODEL.format(data=folder / "data.npz"))
    return folder / "model.toml"


@pytest.fixture
def sweep_file(tmp_path, model):
    """Return a function that writes a sweep file on that model, and returns its path."""

    def write(text, name="study"):
        path = tmp_path / f"{name}.toml"
        path.write_text(f'model = "{model}"\n{text}')
        return path

    return write
