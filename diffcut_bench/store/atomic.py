"""The one module that writes files: whole or not at all, and safe against a power failure."""

import contextlib
import glob
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from diffcut_bench.errors import UserError

fcntl: Any = None
with contextlib.suppress(ImportError):  # Windows, where leftovers are known by their age alone
    import fcntl

_PARTIAL = ".partial"  # what ends the name of a file that is being written
_DAY_S = 86_400
_TRIES = 10
_HINT = "choose another folder with output_dir=DIR"


def write_atomically(path: Path, content: bytes | str, hint: str = _HINT) -> None:
    """Write a file so that readers, crashes and power cuts see the old content or the new, never a part.

    Args:
        path: of the file; its folder is made if missing.
        content: bytes, or text that is written as UTF-8.
        hint: what a user can do where it can't be written.

    Raises:
        UserError: the folder can't be written, or the disk is full.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{_PARTIAL}")
    try:
        make_folder(path.parent)
        try:
            # Made with open's own mode, so that the kernel applies the user's umask.
            with temporary.open("xb") as file:
                _lock(file)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise unwritable(path, error, hint) from error


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, in a way that survives a power failure."""
    for attempt in range(_TRIES):
        try:
            for each in (*reversed(folder.parents), folder):
                if not each.is_dir():
                    each.mkdir(exist_ok=True)
                    sync_folder(each.parent)
            return
        except (FileNotFoundError, FileExistsError):  # another process took an empty folder away meanwhile
            if attempt == _TRIES - 1:
                raise


@contextlib.contextmanager
def only_writer(folder: Path, hint: str = _HINT) -> Iterator[None]:
    """Within, no other process that asks for it writes a folder, which is made if missing.

    Raises:
        UserError: another one does, or the folder can't be made.
    """
    try:
        make_folder(folder)
        opened = os.open(folder, os.O_RDONLY) if fcntl is not None else None
    except OSError as error:
        raise unwritable(folder, error, hint) from error
    try:
        if opened is not None:
            with contextlib.suppress(OSError):  # some file systems lock no folders
                try:
                    fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    what = "another process is writing this folder"
                    raise UserError(what, str(folder.absolute()), f"wait for it, or {hint}") from error
        yield
    finally:
        if opened is not None:
            os.close(opened)


def sync_folder(folder: Path) -> None:
    """Let new, moved and deleted names in a folder survive a power failure, if the system can."""
    if os.name != "posix":
        return
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # some network and FUSE file systems refuse it, and there is no other way
            os.fsync(opened)
    finally:
        os.close(opened)


def sync_tree(folder: Path) -> None:
    """Let a folder and all files in it survive a power failure, before a rename marks it as complete."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with (Path(parent) / name).open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(parent))


def remove_partial(path: Path) -> None:
    """Delete what killed writers left of a file, or of the files in a folder. No process may be writing them."""
    left = list(path.parent.glob(f".{glob.escape(path.name)}.*{_PARTIAL}"))
    if path.is_dir() and not path.is_symlink():
        left += path.glob(f".*{_PARTIAL}")
    for each in left:
        each.unlink(missing_ok=True)


def remove_leftovers(folder: Path, pattern: str = f".*{_PARTIAL}") -> None:
    """Delete what killed writers left in a folder: temporary files that no process holds and that are a day old.

    A live writer holds a lock on its file, so that no clock decides if locks are shared between the hosts. The age is
    measured by the file system's own clock, so that a host with a wrong clock does not delete the files of others.

    Args:
        folder: of the files.
        pattern: of their names; by default what `write_atomically` writes to.
    """
    leftovers = list(folder.glob(pattern))
    if not leftovers:
        return
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            now = min(os.fstat(probe.fileno()).st_mtime, time.time())
        for leftover in leftovers:
            if now - leftover.stat().st_mtime > _DAY_S:
                with leftover.open("rb") as file:
                    is_left = _lock(file)  # no process writes it any more
                if is_left:
                    leftover.unlink(missing_ok=True)
    except OSError:  # a folder that can't be written, or another process was first
        return


def _lock(file: IO[bytes]) -> bool:
    """Lock a file for as long as this process has it open; False if another process holds it, or none can."""
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


def unwritable(path: Path, error: OSError, hint: str = _HINT) -> UserError:
    """The user error for a failed write."""
    return UserError(f"can't write ({error.strerror or error})", str(path.absolute()), hint)
