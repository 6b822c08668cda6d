"""The model files that come with pcsim, and how a bare name such as `digits` finds one.

In a checkout they lie beside the package, in models/; the wheel carries the same files as pcsim/models.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from pcsim.errors import ConfigurationError, nearest


def models_folder() -> Path:
    """Return the folder with the model files of this installation."""
    installed = Path(__file__).with_name("models")
    return installed if installed.is_dir() else Path(__file__).parents[1] / "models"


def names_model(given: Path) -> bool:
    """Whether this is the path of a model file, or the name of a shipped model."""
    return given.suffix == ".toml" or _shipped(given) is not None


def find_model(given: str | PathLike[str]) -> Path:
    """Return the model file that a path, or the bare name of a shipped model, stands for.

    A file of that name wins; a folder does not, so that `digits` is the model even beside a folder of data.

    Args:
        given: path of a TOML file, or a name without folder and suffix.

    Raises:
        ConfigurationError: a bare name that is neither a file nor a shipped model.
    """
    path = Path(given)
    if path.suffix == ".toml" or _is_file(path) or not _is_bare(path):
        return path
    shipped = _shipped(path)
    if shipped is None:
        known = [one.stem for one in models_folder().glob("*.toml")]
        raise ConfigurationError(
            f"model '{path}': no such file, and pcsim ships no model of this name: "
            f"expected MODEL.toml or a name that `pcsim models` lists; {nearest(str(path), known)}"
        )
    return shipped


def find_sweep(given: Path) -> Path:
    """Return the sweep file that a path, or the bare name of a shipped sweep, stands for."""
    shipped = models_folder() / "sweeps" / f"{given}.toml"
    return shipped if _is_bare(given) and not _is_file(given) and _is_file(shipped) else given


def _shipped(path: Path) -> Path | None:
    file = models_folder() / f"{path}.toml"
    return file if _is_bare(path) and not _is_file(path) and _is_file(file) else None


def _is_file(path: Path) -> bool:
    """Whether there is such a file; a name that no file can have, too long for one, names none."""
    try:
        return path.is_file()
    except OSError:
        return False


def _is_bare(path: Path) -> bool:
    return path.name == str(path)
