"""The one place that writes files: whole or not at all."""

import os
import tempfile
from pathlib import Path

from diffcut_bench.errors import UserError


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file so that readers and crashes see the old content or the new, never a part.

    Raises:
        UserError: the folder can't be written, or the disk is full.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> UserError:
    """The user error for a failed write."""
    return UserError(
        f"can't write ({error.strerror or error})", str(path.absolute()), "choose another folder with output_dir=DIR"
    )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
