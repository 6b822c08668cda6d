"""The order in which a trace's bytes reach its file, so that a killed process leaves a readable one.

HDF5 updates a file in place: on a flush it writes its changed metadata in the order of addresses, and the
superblock, which says how long the file is, last. Killed half-way, such a file can refuse to open or lose
the index of data that was there before. `OrderedFile` is the file object that h5py writes to instead. It
puts what is new behind the end of the committed file at once, where nothing points yet; what would change
committed bytes it holds in memory until `commit`, which writes it in an order that is valid after each step:

1. the superblock with the new length,
2. the nodes of the chunk indices, from the root down: a new parent never needs a changed child,
3. everything else in the order written: rows first, then object headers, whose shapes make the rows visible.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from pcsim import hidden_file

_SUPERBLOCK = b"\x89HDF\r\n\x1a\n"
_TREE = b"TREE"
# Says that blocks cannot be shared here, nothing of the disk; EPERM is what filters of containers say.
_NO_SHARING = {errno.ENOSYS, errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM}


class OrderedFile:
    """A new file that changes its committed bytes only in `commit`, and appears under its name at the first.

    Until the first commit the bytes lie in a hidden file beside `path`, which then gets its name in one step:
    a name that another file has got meanwhile only with `replace`. What killed writers of the same `path`
    have left there is removed first. After a failed write (a full disk, say) nothing more is written, so that
    the file keeps its last committed state; `failure` says what happened, and `commit` raises it.

    Args:
        path: where the file appears at the first commit.
        start_from: a file whose bytes it begins with; nothing if not given.
        replace: an older file of that name.

    Raises:
        OSError: the hidden file cannot be created, or `start_from` not copied.
    """

    def __init__(self, path: Path, start_from: Path | None = None, *, replace: bool = False) -> None:
        self.path, self._replace = path, replace
        self.failure: OSError | None = None
        hidden_file.remove_abandoned(path)
        self._temporary: Path | None
        self._temporary, self._descriptor = hidden_file.create(path)
        self._held: dict[int, bytes] = {}
        self._committed = 0  # bytes below this are in use by the committed state
        self._size = 0
        self._position = 0
        if start_from is not None:
            try:
                self._size = _copy(start_from, self._descriptor)
            except OSError:
                self.close()
                raise

    @property
    def committed(self) -> bool:
        """Whether the file has appeared under its name."""
        return self._temporary is None

    def tell(self) -> int:
        """Return the present position."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a byte; returns the new position."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def read(self, size: int) -> bytes:
        """Return `size` bytes from the present position on, held writes included, zeros where nothing is."""
        start, end = self._position, self._position + size
        data = bytearray(os.pread(self._descriptor, size, start))
        data.extend(bytes(size - len(data)))
        for offset, held in self._held.items():
            first, last = max(start, offset), min(end, offset + len(held))
            if first < last:
                data[first - start : last - start] = held[first - offset : last - offset]
        self._position = end
        return bytes(data)

    def write(self, data: bytes | memoryview) -> int:
        """Write behind the committed end, or hold what would change committed bytes."""
        view = memoryview(data).cast("B")
        if self._position < self._committed:
            self._hold(self._position, bytes(view))
        else:
            self._put(self._position, view)
        self._position += len(view)
        self._size = max(self._size, self._position)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Set the length; takes effect at the next commit."""
        self._size = self._position if size is None else size
        return self._size

    def flush(self) -> None:
        """Do nothing: HDF5 calls this, but only the writer knows when a state is whole."""

    def commit(self) -> None:
        """Make everything written so far the file's state, in an order that is readable after each step.

        Raises:
            FileExistsError: another file has got the name meanwhile; this one appears nowhere.
            OSError: now or earlier a write failed, or the file has lost its name to another one; it keeps its
                last readable state.
        """
        self._resize(grow=True)
        for offset in sorted(self._held, key=lambda offset: _rank(self._held[offset])):
            self._put(offset, memoryview(self._held[offset]))
        self._resize(grow=False)
        self._held.clear()
        self._committed = self._size
        if self.failure is not None:
            raise self.failure
        if self._temporary is not None:
            hidden_file.appear(self._temporary, self._descriptor, self.path, replace=self._replace)
            self._temporary = None
        elif not self._has_its_name():
            self.failure = OSError(errno.ESTALE, "somebody else has replaced or removed it")
            raise self.failure

    def _has_its_name(self) -> bool:
        """Return whether whoever opens the path finds this file; only if that can be looked up."""
        try:
            own, named = os.fstat(self._descriptor), os.stat(self.path)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return os.path.samestat(own, named)

    def close(self) -> None:
        """Release the file; what was not committed is lost."""
        os.close(self._descriptor)
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)

    def _hold(self, offset: int, data: bytes) -> None:
        """Keep one write for the commit; what it covers is cut out of earlier ones, so that none overlap."""
        end = offset + len(data)
        earlier = self._held.pop(offset, b"")
        if len(earlier) != len(data):
            if earlier:
                self._held[offset] = earlier
            for other in [o for o, held in self._held.items() if o < end and offset < o + len(held)]:
                held = self._held.pop(other)
                if other < offset:
                    self._held[other] = held[: offset - other]
                if other + len(held) > end:
                    self._held[end] = held[end - other :]
        self._held[offset] = data

    def _put(self, offset: int, view: memoryview) -> None:
        """Write to the disk, unless that failed before."""
        try:
            while self.failure is None and len(view) > 0:
                written = os.pwrite(self._descriptor, view, offset)
                view, offset = view[written:], offset + written
        except OSError as error:
            self.failure = error

    def _resize(self, *, grow: bool) -> None:
        """Bring the file to its length: growing comes first in a commit, shrinking last."""
        try:
            length = os.fstat(self._descriptor).st_size
            if self.failure is None and length != self._size and (length < self._size) == grow:
                os.ftruncate(self._descriptor, self._size)
        except OSError as error:
            self.failure = error


def _copy(source: Path, target: int) -> int:
    """Copy a file into an open one, sharing blocks where the file system can; return how many bytes."""
    with source.open("rb") as file, open(target, "wb", closefd=False) as copy:
        done = _share(file.fileno(), target)
        file.seek(done)
        copy.seek(done)
        shutil.copyfileobj(file, copy)
        return copy.tell()


def _share(source: int, target: int) -> int:
    """Let the system copy a file from its beginning; return how far it came, nowhere where it cannot."""
    done = 0
    if not hasattr(os, "copy_file_range"):  # macOS has none
        return done
    try:
        while copied := os.copy_file_range(source, target, 2**30, done, done):
            done += copied
    except OSError as error:
        if error.errno not in _NO_SHARING:
            raise
    return done


def _rank(data: bytes) -> int:
    """Place of a held write in a commit: superblock, index nodes from the root down, the rest as written."""
    if data.startswith(_SUPERBLOCK):
        return -256
    return -data[5] if data.startswith(_TREE) and len(data) > 5 else 1
