"""Names of processors and libraries: what self-tests are kept by, and what a trace says of its last bits."""

import sys
from pathlib import Path

import pytest

from pcsim.kernels.software import installed, processor, versions

ARM = "processor\t: 0\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x3\nCPU part\t: 0xd0c\n"
X86 = "processor\t: 0\nvendor_id\t: A\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n"


@pytest.mark.parametrize(("told", "name"), [(ARM, "0x41 8 0x3 0xd0c"), (X86, "AMD EPYC 25 17")])
def test_processors_have_names(told, name, monkeypatch):
    """Two different ARM processors had the same name, none, and took over each other's choices."""
    monkeypatch.setattr(Path, "read_text", lambda _: told)
    assert processor() == name


def test_a_folder_is_no_library(tmp_path, monkeypatch):
    """A folder called torch, where pcsim is run, looked like an installed torch."""
    (tmp_path / "heavy_library").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not installed("heavy_library")
    (tmp_path / "light_library.py").touch()
    assert installed("light_library")
    assert versions("light_library", "heavy_library") == {"light_library": "unknown"}
    assert installed("numpy")
    assert "heavy_library" not in sys.modules
