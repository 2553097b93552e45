"""Which pictures are meant by files, folders, patterns and lists; and where each lies in the folder that named it."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from PIL import Image

from diffcut_bench.errors import UserError
from diffcut_bench.paths import expanded

RECORD_NAMES = ("segments.json", "segments.jsonl")  # a folder with one of them is written by `diffcut-bench segment`
_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class NamedPicture:
    """A picture's file.

    Attributes:
        path: of the file.
        relative: the same below the folder, or the fixed part of the pattern, that named it; its name alone where the
            file itself was named.
    """

    path: Path
    relative: PurePath


def named_pictures(
    words: Sequence[str],
    recursive: bool = False,
    listed: Iterable[str] = (),
    is_written: Callable[[Path], bool] = lambda path: False,
) -> list[NamedPicture]:
    """Every picture that is named, or that lies in a folder that is named; none twice.

    Folders and patterns give files that end as pictures do, sorted, without hidden ones, and without what this command
    has written.

    Args:
        words: files, folders, and patterns such as ``photos/**/*.jpg`` (``**``: any folders).
        recursive: with the folders inside folders.
        listed: paths of files, taken as they are. A relative one keeps its folders.
        is_written: whether a file was written by this command into the folder that it writes to now.

    Raises:
        UserError: there is no picture in a folder, or none that a pattern fits.
    """
    found: dict[Path, NamedPicture] = {}
    for word in words:
        for each in _of_word(word, recursive, is_written):
            found.setdefault(each.path, each)
    for path in map(Path, listed):
        keeps_folders = not path.is_absolute() and ".." not in path.parts
        found.setdefault(path, NamedPicture(path, path if keeps_folders else PurePath(path.name)))
    return list(found.values())


def split_list(text: bytes) -> list[str]:
    """Paths of a list as `find` prints them: a line each, or with ``-print0`` between bytes of zero."""
    lines = text.split(b"\0") if b"\0" in text else text.splitlines()
    return [line.decode(errors="surrogateescape") for line in lines if line]


def _of_word(word: str, recursive: bool, is_written: Callable[[Path], bool]) -> Iterator[NamedPicture]:
    path = Path(expanded(word, "picture"))
    fixed = len(path.parts)
    if not path.exists() and _MAGIC.search(str(path)):
        fixed = next(number for number, part in enumerate(path.parts) if _MAGIC.search(part))
    elif not path.is_dir():
        yield NamedPicture(path, PurePath(path.name))
        return
    root = Path(*path.parts[:fixed])
    pattern = "/".join(path.parts[fixed:]) or ("**/*" if recursive else "*")
    if pattern.endswith("**"):  # folders alone
        pattern += "/*"
    try:
        files = root.glob(pattern)
        paths = sorted(each for each in files if _is_picture(each.relative_to(root)) and each.is_file())
    except ValueError as error:  # ** beside other letters
        raise UserError(str(error), word, "** stands for any folders, as in 'photos/**/*.jpg'") from error
    ours: dict[Path, bool] = {root: False}  # whether a folder, or one around it below the root, is one of ours
    paths = [each for each in paths if not _is_ours(each.parent, ours) and not is_written(each)]
    if not paths:
        if path.is_dir():
            hint = "name the pictures, or a folder that holds them" + (
                "" if recursive else "; --recursive looks deeper"
            )
            raise UserError("no picture in this folder", str(path), hint)
        raise UserError("no picture fits this pattern", word, "'photos/**/*.jpg' is of all folders in photos")
    yield from (NamedPicture(each, each.relative_to(root)) for each in paths)


def _is_picture(relative: PurePath) -> bool:
    hidden = any(part.startswith(".") for part in relative.parts)
    return not hidden and relative.suffix.lower() in Image.registered_extensions()


def _is_ours(folder: Path, known: dict[Path, bool]) -> bool:
    if folder not in known:
        known[folder] = any((folder / name).is_file() for name in RECORD_NAMES) or _is_ours(folder.parent, known)
    return known[folder]
