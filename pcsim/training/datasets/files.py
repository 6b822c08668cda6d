"""Reading files that may be damaged or hostile: every read has a limit, and nothing is ever extracted."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from pcsim.errors import DataError

MIB = 1 << 20


def read_file(path: Path, limit: int) -> bytes:
    """Read a whole file.

    Args:
        path: the file.
        limit: most bytes that are accepted.

    Raises:
        DataError: missing, unreadable or larger.
    """
    try:
        if not path.is_file():
            raise DataError(f"no file {path}")
        with path.open("rb") as stream:
            data = read_at_most(stream, limit + 1)
    except OSError as error:
        raise DataError(f"{path}: unreadable ({error})") from None
    if len(data) > limit:
        raise DataError(f"{path}: more than {limit} bytes: expected at most that")
    return data


def read_at_most(stream: IO[bytes] | gzip.GzipFile, limit: int) -> bytes:
    """Read up to `limit` bytes in small chunks: a single large read would allocate all of it beforehand."""
    chunks = bytearray()
    while chunk := stream.read(min(MIB, limit - len(chunks))):
        chunks += chunk
    return bytes(chunks)


class _Limited:
    """A stream that ends in an error instead of running on for ever: what a gzip bomb would do."""

    def __init__(self, stream: gzip.GzipFile, limit: int, name: str) -> None:
        self._stream, self._left, self._name = stream, limit, name

    def read(self, size: int) -> bytes:
        data = self._stream.read(min(size, MIB))
        self._left -= len(data)
        if self._left < 0:
            raise DataError(f"{self._name}: unpacks to more than expected: expected the official archive")
        return data


def tar_members(path: Path, names: Collection[str], limit: int) -> Iterator[tuple[str, bytes]]:
    """Read members of a .tar.gz in memory, in the order of the archive; nothing is written anywhere.

    Args:
        path: the archive.
        names: full names of the members wanted; the others are skipped, wherever they claim to belong.
        limit: most bytes that a member may have; the archive may unpack to twice as much for each.

    Yields:
        Name and content, each name at most once.

    Raises:
        DataError: damaged, or larger than the limits.
    """
    wanted = set(names)
    try:
        with gzip.open(path) as unpacked:
            stream = _Limited(unpacked, 2 * limit * len(names), str(path))
            with tarfile.open(fileobj=stream, mode="r|") as archive:  # type: ignore[call-overload]
                for member in archive:
                    name = str(PurePosixPath(member.name))
                    if name not in wanted or not member.isreg():
                        continue
                    if member.size > limit:
                        raise DataError(f"{path}: {name} has {member.size} bytes: expected at most {limit}")
                    content = archive.extractfile(member)
                    assert content is not None  # a regular file has content
                    data = read_at_most(content, member.size)
                    if len(data) != member.size:
                        raise DataError(f"{path}: {name} ends early: expected {member.size} bytes")
                    wanted.discard(name)
                    yield name, data
            while stream.read(MIB):  # up to the checksum at the very end
                pass
    except DataError:
        raise
    # gzip, zlib and tarfile raise a dozen unrelated types on what is damaged.
    except Exception as error:
        raise DataError(f"{path}: damaged or no .tar.gz ({reason(error)})") from None


def reason(error: Exception) -> str:
    """What an error of a library says, on one short line."""
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
