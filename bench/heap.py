"""Whether memory that is freed stays with the process: half the time of large CPU tensors.

glibc gives every block above some megabytes back to the system when it is freed, and gets fresh
pages for the next, each of which costs a fault. The official order makes tensors of tens of
megabytes by the dozen per layer, and on some machines spends most of its time so. That is what
anybody gets who runs it; `kept` shows what it would take with an allocator that keeps memory. Our
own forms reuse their buffers, so it makes no difference to them.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_KEEP = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1}
# Where glibc's own adjustment ends up once large tensors have come and gone; setting any of these
# turns that adjustment off.
_ADJUSTED = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 32 << 20, _TRIM_THRESHOLD: 64 << 20}


@functools.cache
def _mallopt() -> Callable[[int, int], int] | None:
    """glibc's, or None where the C library has none that does anything."""
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 - others have a mallopt that ignores all
        return library.mallopt  # type: ignore[no-any-return]
    except (OSError, AttributeError, TypeError):
        return None


def can_keep() -> bool:
    """Whether `kept` changes anything here."""
    return _mallopt() is not None


@contextmanager
def kept() -> Iterator[None]:
    """What is freed inside stays with the process until the end; then it goes back."""
    mallopt = _mallopt()
    if mallopt is None:
        yield
        return
    for option, value in _KEEP.items():
        mallopt(option, value)
    try:
        yield
    finally:
        for option, value in _ADJUSTED.items():
            mallopt(option, value)
        ctypes.CDLL(None).malloc_trim(0)
