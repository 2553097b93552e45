"""Keep freed memory in the process: on the CPU, returning it to the kernel takes longer than the network itself.

By default glibc maps new memory for every large activation and unmaps it when freed, so that each layer touches new
pages. With these settings it reuses them. Only the command line does this: a library leaves its host's allocator alone.
"""

import ctypes

# From malloc.h of glibc.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Ask glibc to reuse freed memory; False where the C library is another one."""
    try:
        library = ctypes.CDLL(None)
        return bool(library.mallopt(_M_MMAP_MAX, 0) and library.mallopt(_M_TRIM_THRESHOLD, _LARGEST_INT))
    except (OSError, AttributeError, TypeError):
        return False
