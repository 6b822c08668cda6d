"""Which part of a chip is described to SANA-FE, and how its cores are called there."""

from __future__ import annotations

from dataclasses import dataclass

from pcsim.hardware.chip import Chip
from pcsim.hardware.mapping import Mapping

# SANA-FE 2.2's cycle-accurate model simulates a mesh of this size, whatever arch.yaml says.
CYCLE_ROWS, CYCLE_COLUMNS = 4, 8


@dataclass(frozen=True)
class Mesh:
    """A rectangle of SANA-FE's tiles, with one core each.

    Attributes:
        rows: of tiles.
        columns: of tiles.
        chip: whose part it is.
        first_row: row of the chip that is row 0 here.
        first_column: column of the chip that is column 0 here.
    """

    rows: int
    columns: int
    chip: Chip
    first_row: int = 0
    first_column: int = 0

    @classmethod
    def around(cls, mapping: Mapping) -> Mesh:
        """Return the cycle-accurate model's mesh if all cores in use fit into it, else the whole chip's.

        A route leads along a row, then along a column, so it never leaves the rectangle around its ends:
        cores that are left out or added beside change none.
        """
        places = [mapping.chip.place(core) for core in mapping.cores]
        (top, left), (bottom, right) = (tuple(map(end, zip(*places, strict=True))) for end in (min, max))
        if bottom - top < CYCLE_ROWS and right - left < CYCLE_COLUMNS:
            return cls(CYCLE_ROWS, CYCLE_COLUMNS, mapping.chip, top, left)
        return cls(mapping.chip.rows, mapping.chip.columns, mapping.chip)

    @property
    def cycle_accurate(self) -> bool:
        """Whether SANA-FE's cycle-accurate model simulates this mesh."""
        return (self.rows, self.columns) == (CYCLE_ROWS, CYCLE_COLUMNS)

    def tile(self, core: int) -> int:
        """Return SANA-FE's number of the tile that a core is; it counts column by column."""
        row, column = self.chip.place(core)
        return (column - self.first_column) * self.rows + row - self.first_row

    def core(self, tile: int) -> int | None:
        """Return the core that a tile is; None beside the chip."""
        column, row = divmod(tile, self.rows)
        row, column = row + self.first_row, column + self.first_column
        return (
            row * self.chip.columns + column if row < self.chip.rows and column < self.chip.columns else None
        )
