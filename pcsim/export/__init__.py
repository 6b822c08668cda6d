"""Traces for other tools: each format is a module that reads a trace and writes what its reader expects."""

from pcsim.export.formats import FLAGS, FORMATS, Exported, Format, export
from pcsim.export.options import Options, Prices

__all__ = ["FLAGS", "FORMATS", "Exported", "Format", "Options", "Prices", "export"]
