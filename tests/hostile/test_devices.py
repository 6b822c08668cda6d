"""Running as root, `-o /dev/null --force` must not put a file in the place of the device."""

import os
import stat

import pytest

from pcsim.errors import ConfigurationError
from pcsim.export.target import new_file
from pcsim.hardware.chip import Chip
from pcsim.hardware.mapping import Mapping, Tile
from pcsim.report.files import refuse_place


@pytest.fixture
def pipe(tmp_path):
    """A named pipe, which anybody can make and which stands for any device."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    yield path
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_pictures_and_pages(pipe):
    """Whatever is drawn goes to files."""
    with pytest.raises(ConfigurationError, match="is a device or a pipe"):
        refuse_place(pipe, overwrite=True)


def test_exports(pipe, tmp_path):
    """Whatever is exported, too."""
    with (
        pytest.raises(ConfigurationError, match="is a device or a pipe"),
        new_file(pipe, overwrite=True, keep=tmp_path / "t.h5"),
    ):
        pass


def test_mappings(pipe):
    """And a mapping."""
    mapping = Mapping("unit", Chip(1, 1), (2, 2), (Tile(0, 0, 2, 0), Tile(1, 0, 2, 0)), "row")
    with pytest.raises(ConfigurationError, match="is a device or a pipe"):
        mapping.save(pipe, overwrite=True)
