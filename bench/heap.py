"""Whether memory that is freed stays with the process: most of the time of large CPU tensors.

glibc gives every block above some megabytes back to the system when it is freed, and gets fresh
pages for the next, each of which costs a fault. The official order makes tensors of tens of
megabytes, a dozen per layer; in the largest layers four fifths of its time can be faults. That is
what anybody gets who runs it. `keep` shows what it takes with an allocator that keeps memory; our
own forms reuse their buffers, so it makes no difference to them. One process has one or the other:
what an allocator has kept cannot be taken from it again.
"""

from __future__ import annotations

import ctypes

# malloc.h: option to value
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_KEEP = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1}

DEFAULT, KEPT = "gives memory back, as it is by default", "keeps memory"


def keep() -> str:
    """From now on what is freed stays with the process. Call it first of all.

    Returns:
        What the allocator does now, in words: it is glibc's only that can be told.
    """
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 - others have a mallopt that ignores everything
        mallopt = library.mallopt
    except (OSError, AttributeError, TypeError):
        return DEFAULT
    return KEPT if all(mallopt(option, value) for option, value in _KEEP.items()) else DEFAULT
