"""A table that becomes several where the terminal is too narrow: no number is ever cut."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table

LEAST_WORDS = 8  # letters that a column of words keeps, however narrow the terminal
UNLIMITED = 100_000  # letters in a line


class FittingTable(Table):
    """A table that is split by columns where it does not fit; its first columns are in each part.

    Words wrap between words, and only if a column alone is too wide also within them; columns that are
    `no_wrap` keep their width.

    Attributes:
        names: how many first columns each part repeats.
    """

    names: int = 1

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render the title over the whole width, and the parts below each other."""
        if self.title:
            yield console.render_str(str(self.title), style="table.title", highlight=False)
        if not self.columns:
            return
        most = [self._widest(console, options, column).maximum for column in self.columns]
        least = [
            width if column.no_wrap else self._widest(console, options, column).minimum
            for column, width in zip(self.columns, most, strict=True)
        ]
        _, right, _, left = self.padding
        padding, gap = (left, right), left + right + 1
        if sum(least) + (len(least) - 1) * gap > options.max_width >= sum(least) + len(least) - 1:
            padding, gap = (0, 0), 1  # closer together rather than in parts
        least = self._capped(least, options.max_width, gap)
        for place, part in enumerate(self._parts(least, options.max_width, gap)):
            if place:
                yield ""
            room = options.max_width - gap * (len(part) - 1)
            yield self._part(part, _widths(part, least, most, room), padding)

    def _widest(self, console: Console, options: ConsoleOptions, column: Column) -> Measurement:
        """Return the widths of a column's longest word and longest line."""
        wide = options.update_width(UNLIMITED)
        measured = [Measurement.get(console, wide, cell) for cell in (column.header, *column.cells)]
        return Measurement(max(one.minimum for one in measured), max(one.maximum for one in measured))

    def _capped(self, least: Sequence[int], room: int, gap: int) -> list[int]:
        """Return widths with which each column fits beside the names."""
        rest = [width for width, column in zip(least, self.columns, strict=True) if column.no_wrap]
        rest = rest[self.names :] if self.columns[0].no_wrap else rest
        beside = max(rest, default=0)
        names = max(LEAST_WORDS, (room - beside) // self.names - gap)
        first = [min(width, names) for width in least[: self.names]]
        others = max(LEAST_WORDS, room - sum(first) - gap * self.names)
        return [*first, *(min(width, others) for width in least[self.names :])]

    def _parts(self, least: Sequence[int], room: int, gap: int) -> list[list[int]]:
        """Return the columns of each part: as few parts as fit, and these about as wide as each other."""
        parts = self._filled(least, room, gap)
        for narrower in range(room - 1, 0, -1) if len(parts) > 1 else ():
            tried = self._filled(least, narrower, gap)
            if len(tried) > len(parts):
                break
            parts = tried
        return parts

    def _filled(self, least: Sequence[int], room: int, gap: int) -> list[list[int]]:
        """Return the columns of each part, one part after the other filled."""
        names = list(range(self.names))
        parts = [list(names)]
        for place in range(self.names, len(least)):
            width = sum(least[one] + gap for one in parts[-1]) + least[place]
            if parts[-1] != names and width > room:
                parts.append(list(names))
            parts[-1].append(place)
        return parts

    def _part(self, part: Sequence[int], widths: Sequence[int], padding: tuple[int, int]) -> Table:
        """Return a table of these columns."""
        left, right = padding
        table = Table(
            box=self.box, show_edge=self.show_edge, pad_edge=self.pad_edge, padding=(0, right, 0, left)
        )
        columns = [self.columns[place] for place in part]
        for column, width in zip(columns, widths, strict=True):
            table.add_column(column.header, justify=column.justify, width=width, overflow="fold")
        cells = zip(*(column.cells for column in columns), strict=True)
        for row, texts in zip(self.rows, cells, strict=True):
            table.add_row(*texts, style=row.style, end_section=row.end_section)
        return table


def _widths(part: Sequence[int], least: Sequence[int], most: Sequence[int], room: int) -> list[int]:
    """Return the widths of columns; those that lack the fewest letters get the room that is left first."""
    widths = {place: least[place] for place in part}
    spare = room - sum(widths.values())
    for place in sorted(part, key=lambda one: most[one] - least[one]):
        more = max(0, min(spare, most[place] - least[place]))
        widths[place] += more
        spare -= more
    return list(widths.values())
