"""Variables of MATLAB 5 files. Nothing in a file is run, and nothing is unpacked before its size is known."""

import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HEADER = 128  # bytes; the last two say the byte order
_COMPRESSED = 15
_NUMBER = 8  # bytes of the largest


def read_variable(path: Path, name: str, most: int) -> NDArray[Any]:
    """One variable of a .mat file: an array, or a cell array as an array of objects.

    Args:
        path: of the file.
        name: of the variable.
        most: numbers that it may hold.

    Raises:
        ValueError: no MATLAB 5 file, it has no such variable, or that is too large.
        OSError: there is no such file.
    """
    import scipy.io  # only here: it takes a fifth of a second
    from scipy.io.matlab import MatReadError

    try:
        # A few bytes of .mat can unpack to gigabytes: sizes are read before the content.
        kinds = {known: (shape, kind) for known, shape, kind in scipy.io.whosmat(path)}
        if name not in kinds:
            raise ValueError(f"no variable {name}, but {', '.join(kinds) or 'none'}")
        shape, kind = kinds[name]
        if math.prod(shape) > most:
            raise ValueError(f"a {name} of {'×'.join(map(str, shape))} is too large")
        if kind in ("cell", "struct", "object"):  # which says nothing of what is inside
            _check_unpacked(path.read_bytes(), name, most * _NUMBER)
        return np.asarray(scipy.io.loadmat(path, variable_names=[name])[name])
    except (MatReadError, TypeError, KeyError, IndexError, NotImplementedError, EOFError, zlib.error) as error:
        raise ValueError(f"no MATLAB 5 file ({error})") from error


def _check_unpacked(data: bytes, name: str, most: int) -> None:
    """Raise a ValueError where an element of a file unpacks to more bytes than that."""
    order = "<" if data[_HEADER - 2 : _HEADER] == b"IM" else ">"
    start = _HEADER
    while start + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, start)
        start += 8 + size
        packed = data[start - size : start]
        if kind == _COMPRESSED and len(zlib.decompressobj().decompress(packed, most + 1)) > most:
            raise ValueError(f"{name} unpacks to more than {most} bytes")
