"""Which neurons sit on which core: what placements make, and what simulations and exports read.

This module imports nothing of the simulator, so that exports may use it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pcsim.errors import ConfigurationError, nearest
from pcsim.hardware.chip import Chip
from pcsim.hidden_file import replacing
from pcsim.places import check_new_file

FORMAT, VERSION = "pcsim-mapping", 1


@dataclass(frozen=True, order=True)
class Tile:
    """Neurons [first, last) of a layer, on one core, with the weights that lead out of them.

    Attributes:
        layer: 0 the input, L the output.
        first: first neuron of the layer that it holds.
        last: one behind its last neuron.
        core: row · columns + column.
    """

    layer: int
    first: int
    last: int
    core: int

    @property
    def neurons(self) -> int:
        """How many neurons it holds."""
        return self.last - self.first


@dataclass(frozen=True)
class Mapping:
    """Tiles of a network on the cores of a chip; every neuron is in exactly one tile.

    Attributes:
        machine: name of the machine that the chip is part of.
        chip: the mesh.
        sizes: neurons a layer, (n_0, …, n_L).
        tiles: by layer, then by first neuron; several may share a core.
        placement: how they were placed: row, snake, traffic, or a file's name.

    Raises:
        ConfigurationError: neurons that no tile or two tiles hold, or a core that is not on the mesh.
    """

    machine: str
    chip: Chip
    sizes: tuple[int, ...]
    tiles: tuple[Tile, ...]
    placement: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple(self.sizes))
        object.__setattr__(self, "tiles", tuple(sorted(self.tiles)))
        _check_cover(self.sizes, self.tiles)
        for tile in self.tiles:
            if not 0 <= tile.core < self.chip.cores:
                mesh = f"{self.chip.rows}x{self.chip.columns}"
                raise ConfigurationError(
                    f"{_name(tile)} is on core {tile.core}: expected 0 to {self.chip.cores - 1} "
                    f"of the {mesh} mesh"
                )

    def of_layer(self, layer: int) -> tuple[Tile, ...]:
        """Return the tiles of a layer, by first neuron."""
        return tuple(tile for tile in self.tiles if tile.layer == layer)

    @property
    def cores(self) -> tuple[int, ...]:
        """The cores that hold anything, ascending."""
        return tuple(sorted({tile.core for tile in self.tiles}))

    def to_json(self) -> dict[str, Any]:
        """Return the mapping, fit for JSON."""
        known = {name: value for name, value in asdict(self.chip).items() if value is not None}
        return {
            "format": FORMAT,
            "version": VERSION,
            "machine": self.machine,
            "mesh": [self.chip.rows, self.chip.columns],
            "chip": known,
            "sizes": list(self.sizes),
            "placement": self.placement,
            "tiles": [asdict(tile) for tile in self.tiles],
        }

    @classmethod
    def from_json(cls, given: object) -> Mapping:
        """Read what `to_json` returns; "chip" may be missing, then only the mesh is known.

        Raises:
            ConfigurationError: it is no such thing, or no possible mapping; says what is wrong.
        """
        if not isinstance(given, dict) or given.get("format") != FORMAT:
            raise ConfigurationError(f'not a mapping: expected JSON with "format": "{FORMAT}"')
        if given.get("version") != VERSION:
            raise ConfigurationError(f"mapping of version {_short(given.get('version'))}: expected {VERSION}")
        known = ("format", "version", "machine", "mesh", "chip", "sizes", "placement", "tiles")
        for key in given:
            if key not in known:
                raise ConfigurationError(f"mapping.{_cut(key)}: unknown key: {nearest(_cut(key), known)}")
        return cls(
            machine=_text(given, "machine"),
            chip=_chip(given),
            sizes=tuple(_numbers(given.get("sizes"), "sizes")),
            tiles=tuple(_tile(one) for one in _list(given, "tiles")),
            placement=_text(given, "placement"),
        )

    def save(self, path: Path, *, overwrite: bool = False) -> None:
        """Write the mapping as JSON, a line a tile.

        Raises:
            ConfigurationError: the file exists and is not to be overwritten, or cannot be written.
        """
        check_new_file(path, overwrite)
        facts = self.to_json()
        tiles = ",\n".join(f"    {json.dumps(tile)}" for tile in facts.pop("tiles"))
        head = "".join(f"  {json.dumps(name)}: {json.dumps(value)},\n" for name, value in facts.items())
        try:
            with replacing(path) as file:
                file.write(f'{{\n{head}  "tiles": [\n{tiles}\n  ]\n}}\n'.encode())
        except OSError as error:
            raise ConfigurationError(f"{path}: cannot be written ({error.strerror})") from error

    @classmethod
    def load(cls, path: Path) -> Mapping:
        """Read a mapping from its file.

        Raises:
            ConfigurationError: no such file, no JSON, or no possible mapping.
        """
        try:
            given = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigurationError(f"{path}: cannot be read ({error.strerror})") from error
        except (ValueError, RecursionError) as error:
            raise ConfigurationError(f"{path}: not JSON ({error}); expected a mapping") from error
        try:
            return cls.from_json(given)
        except ConfigurationError as error:
            raise ConfigurationError(f"{path}: {error}") from error


def _short(value: object) -> str:
    """What was given, on one line that can be read."""
    return _cut(repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:97]}..."


def _name(tile: Tile) -> str:
    return f"tile {tile.first}–{tile.last} of layer {tile.layer}"


def _check_cover(sizes: Sequence[int], tiles: Sequence[Tile]) -> None:
    """Check that sorted tiles follow one another without gap or overlap, layer by layer."""
    reached = [0] * len(sizes)
    for tile in tiles:
        if not 0 <= tile.layer < len(sizes):
            raise ConfigurationError(f"{_name(tile)}: expected a layer from 0 to {len(sizes) - 1}")
        if tile.first != reached[tile.layer] or not tile.first < tile.last <= sizes[tile.layer]:
            raise ConfigurationError(
                f"{_name(tile)}: expected it to begin at neuron {reached[tile.layer]} "
                f"and to end by {sizes[tile.layer]}"
            )
        reached[tile.layer] = tile.last
    for layer, (end, size) in enumerate(zip(reached, sizes, strict=True)):
        if end != size:
            raise ConfigurationError(f"neurons {end} to {size} of layer {layer} are on no core")


def _text(given: dict[str, Any], name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str):
        raise ConfigurationError(f"mapping.{name} = {_short(value)}: expected a text")
    return value


def _list(given: dict[str, Any], name: str) -> list[Any]:
    value = given.get(name)
    if not isinstance(value, list):
        raise ConfigurationError(f"mapping.{name} = {_short(value)}: expected a list")
    return value


def _numbers(value: object, name: str) -> list[int]:
    if not isinstance(value, list) or not value or any(type(one) is not int or one < 0 for one in value):
        raise ConfigurationError(f"mapping.{name} = {_short(value)}: expected whole numbers")
    return value


def _tile(given: object) -> Tile:
    names = ("layer", "first", "last", "core")
    if not isinstance(given, dict) or set(given) != set(names):
        raise ConfigurationError(f"tile {_short(given)}: expected {', '.join(names)}")
    return Tile(*_numbers([given[name] for name in names], "tile"))


def _chip(given: dict[str, Any]) -> Chip:
    mesh = _numbers(given.get("mesh"), "mesh")
    if len(mesh) != 2:
        raise ConfigurationError(f"mapping.mesh = {_short(mesh)}: expected [rows, columns]")
    facts = given.get("chip", {"rows": mesh[0], "columns": mesh[1]})
    try:
        chip = Chip(**facts)
    except TypeError as error:
        raise ConfigurationError(f"mapping.chip = {_short(facts)}: expected the fields of a chip") from error
    if [chip.rows, chip.columns] != mesh:
        raise ConfigurationError(
            f"mapping.mesh = {_short(mesh)}, but its chip is {_short(chip.rows)}x{_short(chip.columns)}"
        )
    return chip
