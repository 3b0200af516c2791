"""Nameless shared memory: what is too big for a socket lies in a file that only descriptors know.

The kernel frees a segment when the last descriptor and mapping of it are gone, so that a crash leaks nothing.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import tempfile
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from pickle import PickleBuffer
from typing import Any

__all__ = [
    "ALIGNMENT",
    "Flat",
    "aligned",
    "close",
    "copy_in",
    "copy_out",
    "create",
    "look",
    "make_private",
    "map_privately",
    "map_shared",
    "unmap",
    "unmap_after",
]

Flat = bytes | memoryview
"""Bytes in one piece: indexed by byte, `len` in bytes."""

ALIGNMENT = 64
"""Frames start at multiples of this many bytes, so that arrays over them are aligned as allocated ones are."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64]
_libc.munmap.restype = ctypes.c_int
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.madvise.restype = ctypes.c_int
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_MAP_FAILED = ctypes.c_void_p(-1).value
# The module mmap does not name these two. The second, where there is one, makes no claim on memory beforehand.
_MAP_FIXED = 0x10
_MAP_NORESERVE = {"linux": 0x4000, "darwin": 0x40}.get(sys.platform, 0)
_HUGE = 4 * 1024 * 1024  # bytes from which NumPy asks for huge pages as well
_LARGEST_SPARE = 32 * 1024 * 1024
_MOST_SPARES = 2  # private memory that a process keeps for the next frames: 64 MB, what one direction's slots may take
_spares: deque[tuple[int, int]] = deque()


def aligned(size: int) -> int:
    """The next multiple of `ALIGNMENT`, in bytes."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def create(frames: Sequence[Flat], room: int = 0) -> tuple[int, int]:
    """Copy the frames one after another into a new segment: its descriptor, owned by the caller, and its size in bytes.

    The segment is at least `room` bytes large.
    Raises `OSError` when memory or descriptors run out.
    """
    fd = _nameless_file()
    try:
        offset = 0
        for frame in frames:
            # write() copies into fresh pages without zeroing them first, which a mapping would.
            with memoryview(frame) as view:
                written = 0
                while written < len(view):
                    written += os.pwrite(fd, view[written:], offset + written)
            offset += aligned(len(frame))
        offset = max(offset, room)
        os.ftruncate(fd, offset)
    except BaseException:
        os.close(fd)
        raise
    return fd, offset


def map_privately(fd: int, size: int) -> memoryview:
    """The segment's bytes, writable, shared until written; closes `fd` in every case.

    The mapping lives as long as anything looks into it. `mmap.mmap` would keep one descriptor for each
    mapping, so that a thousand results held by a caller would use up the default limit of descriptors.
    """
    try:
        prot = mmap.PROT_READ | mmap.PROT_WRITE
        address = _libc.mmap(None, size, prot, mmap.MAP_PRIVATE, fd, 0)
        if address == _MAP_FAILED:  # the kernel's limit of mappings is reached: a copy does as well
            return _read_all(fd, size)
    finally:
        os.close(fd)
    return _owned(address, size)


def map_shared(fd: int, size: int) -> int:
    """The address of the segment's bytes, writable, seen by all who map it; `unmap` it. Raises `OSError`."""
    address = _libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, 0)
    if address == _MAP_FAILED:
        raise OSError(ctypes.get_errno(), "a shared segment cannot be mapped")
    return int(address)


def unmap(address: int, size: int) -> None:
    """Give up a mapping that nothing looks into."""
    _libc.munmap(address, size)


def make_private(address: int, size: int, fd: int) -> None:
    """Turn a mapping made by `map_shared` of `fd` into one whose writes nobody else sees, in place and without copying.

    The segment must not be written to any more. Raises `OSError`.
    """
    flags = mmap.MAP_PRIVATE | _MAP_FIXED | _MAP_NORESERVE
    if _libc.mmap(address, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, fd, 0) == _MAP_FAILED:
        raise OSError(ctypes.get_errno(), "a shared segment cannot be made private")


def look(address: int, size: int) -> tuple[memoryview, weakref.finalize[Any, Any]]:
    """A writable view of the bytes there, and what is alive as long as anything looks into them through it."""
    block = (ctypes.c_ubyte * size).from_address(address)
    ending = weakref.finalize(block, _nothing)
    ending.atexit = False
    return PickleBuffer(block).raw(), ending


def unmap_after(looking: weakref.finalize[Any, Any], address: int, size: int) -> None:
    """Give up a mapping as soon as nothing looks into it through that view, which may be now."""
    found = looking.detach()  # in one step: the view may be dropped in any thread
    if found is None:
        unmap(address, size)
    else:
        weakref.finalize(found[0], unmap, address, size).atexit = False


def close(fd: int) -> None:
    """Give up a descriptor; the segment lives on in its mappings."""
    os.close(fd)


def copy_in(address: int, frames: Sequence[Flat]) -> None:
    """Copy the frames one after another to an address, as `create` lays them out."""
    for frame in frames:
        target = memoryview((ctypes.c_ubyte * len(frame)).from_address(address)).cast("B")
        target[:] = frame
        address += aligned(len(frame))


def copy_out(address: int, size: int) -> memoryview:
    """A copy of the bytes there, writable, and the caller's alone. Raises `OSError`."""
    spare = _take_spare(size)
    if spare is not None:
        ctypes.memmove(spare[0], address, size)
        return _owned(*spare, _keep_spare)[:size]
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    target = _libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
    if target == _MAP_FAILED:
        raise OSError(ctypes.get_errno(), f"no memory for a copy of {size} bytes")
    if size >= _HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
        _libc.madvise(target, size, mmap.MADV_HUGEPAGE)
    ctypes.memmove(target, address, size)
    return _owned(target, size, _keep_spare)


def _nothing() -> None:
    """A view ends, and its mapping stays."""


def _take_spare(size: int) -> tuple[int, int] | None:
    for _ in range(len(_spares)):
        try:
            spare = _spares.popleft()  # in one step, as finalizers run in any thread
        except IndexError:
            return None
        if size <= spare[1] <= 2 * size:
            return spare
        unmap(*spare)
    return None


def _keep_spare(address: int, size: int) -> None:
    if _HUGE <= size <= _LARGEST_SPARE and len(_spares) < _MOST_SPARES:
        _spares.append((address, size))
    else:
        unmap(address, size)


def _owned(address: int, size: int, end: Callable[[int, int], object] = unmap) -> memoryview:
    """A view of a mapping that is passed to `end` when nothing looks into it any more."""
    block = (ctypes.c_ubyte * size).from_address(address)
    ending = weakref.finalize(block, end, address, size)
    ending.atexit = False  # arrays may still be read while the interpreter ends
    return PickleBuffer(block).raw()


def _read_all(fd: int, size: int) -> memoryview:
    view = memoryview(bytearray(size))
    done = 0
    while done < size:
        got = os.preadv(fd, [view[done:]], done)
        if not got:
            raise OSError(f"a shared segment of {size} bytes ends after {done}")
        done += got
    return view


def _nameless_file() -> int:
    if hasattr(os, "memfd_create"):  # Linux
        return os.memfd_create("hypernodes", os.MFD_CLOEXEC)
    fd, path = tempfile.mkstemp(prefix="hypernodes-")
    os.unlink(path)
    return fd
