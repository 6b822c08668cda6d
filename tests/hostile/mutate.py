"""Seeded damage: bytes, lines of text, values of JSON. The same random numbers give the same damage."""

from __future__ import annotations

import json
import random
from typing import Any

NASTY_BYTES = (
    b"\x00",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\xff" * 8,
    b"\x7f\xff\xff\xff",
    b"\x80",
    b"\n",
    b"\x00" * 16,
)
NASTY_TOML = (
    *(
        "-1",
        "0",
        "1e308",
        "-1e308",
        "inf",
        "nan",
        "9223372036854775807",
        "99999999999999999999999999",
        "true",
    ),
    *(
        '""',
        "[]",
        "{}",
        '"\\u0000"',
        "1979-05-27T07:32:00Z",
        '"../../../etc/passwd"',
        '"/dev/zero"',
        '"é [/red]"',
    ),
    *(
        "[[[[[[1]]]]]]",
        "[1, 'a', {}]",
        "{a = {b = {c = 1}}}",
        "[" * 2000 + "]" * 2000,
        "0x7fffffffffffffff",
        "'",
    ),
    *(
        f"1{'0' * 400}",
        f"1{'0' * 5000}",
        f"{{ low = 0, high = {2**63 - 1} }}",
        f"{{low = -{2**63}, high = 1}}",
    ),
    *(
        "1000000000",
        f"{{ low = 0.5, high = 1{'0' * 400} }}",
        "1e-320",
        "[true, 1.5, '']",
        '["a=b", "schedule.x=1"]',
    ),
    *("[1000000000, 1000000000]", "[64, 0, 10]", "{low = 1, high = 2}", "{low = 0, high = 1e999}"),
)
NASTY_JSON: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        -1,
        0,
        1,
        2**31,
        2**63,
        2**64,
        10**400,
        1e308,
        -0.0,
        float("nan"),
        float("inf"),
        1.5,
    ),
    *("", "x" * 3000, "\x00", "../../etc/passwd", "PCG64", "é [/red]", [], {}, [[]], [None], {"": {}}),
    *([2**40, 2**40], [-1], [[[[[]]]]], {"rows": 1}, "F32", "1", [1, 2, 3, 4, 5]),
)


def damage_bytes(chance: random.Random, content: bytes, dense: int = 0) -> bytes:
    """Change, put in, take out or double a few bytes; `dense` favours so many bytes at the beginning."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        if not data:
            break
        limit = min(dense, len(data)) if dense and chance.random() < 0.6 else len(data)
        at = chance.randrange(limit)
        match chance.randrange(7):
            case 0 | 1:
                data[at] = chance.randrange(256)
            case 2:
                data[at] ^= 1 << chance.randrange(8)
            case 3:
                nasty = chance.choice(NASTY_BYTES)
                data[at : at + len(nasty)] = nasty
            case 4:
                data[at:at] = chance.randbytes(chance.randint(1, 9))
            case 5:
                del data[at : at + chance.randint(1, 40)]
            case _:
                length, other = chance.randint(1, 40), chance.randrange(len(data))
                data[at : at + length] = data[other : other + length]
    return bytes(data[: chance.randint(0, len(data))] if chance.random() < 0.08 else data)


def damage_in_place(chance: random.Random, content: bytes) -> bytes:
    """Change bytes that are not zero and move none: what leaves the offsets of a binary format right."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        at = chance.randrange(len(data))
        while data[at] == 0 and chance.random() < 0.9:
            at = chance.randrange(len(data))
        match chance.randrange(4):
            case 0:
                data[at] = chance.randrange(256)
            case 1:
                data[at] ^= 1 << chance.randrange(8)
            case 2:
                data[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
            case _:
                nasty = chance.choice(NASTY_BYTES)[: len(data) - at]
                data[at : at + len(nasty)] = nasty
    return bytes(data)


def damage_toml(chance: random.Random, content: bytes) -> bytes:
    """Give keys other values, and drop, double or swap lines; now and then damage bytes."""
    lines = content.decode().splitlines()
    for _ in range(chance.choice((1, 1, 2, 3))):
        at = chance.randrange(len(lines))
        match chance.randrange(5):
            case 0 | 1:
                key, equals, _ = lines[at].partition("=")
                lines[at] = f"{key}= {chance.choice(NASTY_TOML)}" if equals else chance.choice(NASTY_TOML)
            case 2:
                lines.insert(at, lines[chance.randrange(len(lines))])
            case 3:
                other = chance.randrange(len(lines))
                lines[at], lines[other] = lines[other], lines[at]
            case _:
                if len(lines) > 1:
                    del lines[at]
    text = "\n".join(lines).encode()
    return damage_bytes(chance, text) if chance.random() < 0.3 else text


def damage_json(chance: random.Random, content: bytes) -> bytes:
    """Replace, drop, add or rename values anywhere in a document; now and then damage its text."""
    document = json.loads(content)
    for _ in range(chance.choice((1, 1, 2, 3))):
        document = _damage_value(chance, document)
    text = json.dumps(document).encode()
    if chance.random() < 0.03:  # deeper than any parser's stack
        deep = chance.choice((5_000, 200_000))
        text = text.replace(b"1", b"[" * deep + b"]" * deep, 1)
    return damage_bytes(chance, text) if chance.random() < 0.3 else text


def _damage_value(chance: random.Random, value: Any) -> Any:
    """Damage one value, or one somewhere within it."""
    if not isinstance(value, dict | list) or not value or chance.random() < 0.12:
        return chance.choice(NASTY_JSON)
    if isinstance(value, list):
        at = chance.randrange(len(value))
        return [*value[:at], *_instead(chance, value[at]), *value[at + 1 :]]
    key = chance.choice(sorted(value))
    rest = {name: one for name, one in value.items() if name != key}
    name = chance.choice(("", "x", f"{key}_", "__class__")) if chance.random() < 0.1 else key
    found = _instead(chance, value[key])
    return rest | {name: found[0]} if found else rest


def _instead(chance: random.Random, value: Any) -> list[Any]:
    """What takes a value's place: nothing, a damaged one, or it and another."""
    fate = chance.random()
    if fate < 0.15:
        return []
    return [value, chance.choice(NASTY_JSON)] if fate < 0.2 else [_damage_value(chance, value)]
