"""Keep freed memory in the process: on the CPU, returning it to the kernel takes longer than the network itself.

By default glibc maps new memory for every large activation and unmaps it when freed, so that each layer touches new
pages. With these settings it reuses them. Only the command line does this: a library leaves its host's allocator alone.
"""

import ctypes

# From malloc.h of glibc.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_LARGEST_INT = 2**31 - 1
_MOST_MAPS = 65536  # glibc's own
_LARGE_BLOCK = 8 << 20  # bytes; Pillow holds a large picture in blocks of 16 MiB
_keeping = False


def keep_freed_memory() -> bool:
    """Ask glibc to reuse freed memory; False where the C library is another one."""
    global _keeping
    try:
        library = ctypes.CDLL(None)
        _keeping = bool(library.mallopt(_M_MMAP_MAX, 0) and library.mallopt(_M_TRIM_THRESHOLD, _LARGEST_INT))
    except (OSError, AttributeError, TypeError):
        return False
    return _keeping


def return_large_blocks(wanted: bool, *, now: bool = True) -> None:
    """After `keep_freed_memory`, give large blocks that are freed later back to the kernel, for work that needs room
    more than speed; or keep all of it again. Without `keep_freed_memory` nothing happens.

    Args:
        wanted: give back; False: keep again.
        now: give back what is free now, too.
    """
    if _keeping:
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)
        library.mallopt(_M_MMAP_MAX, _MOST_MAPS if wanted else 0)
        library.mallopt(_M_TRIM_THRESHOLD, _LARGE_BLOCK if wanted else _LARGEST_INT)
        if wanted and now:
            library.malloc_trim(0)
