"""Which pictures are meant by files, folders, patterns and lists; and where each lies in the folder that named it."""

import codecs
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from PIL import Image

from diffcut_bench.errors import UserError
from diffcut_bench.paths import expanded
from diffcut_bench.segmentation.reading import check_no_address

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
    is_written: Callable[[Path, Path], bool] = lambda path, root: False,
) -> list[NamedPicture]:
    """Every picture that is named, or that lies in a folder that is named; none twice.

    Folders and patterns give files that end as pictures do, sorted, without hidden ones, and without what this command
    has written.

    Args:
        words: files, folders, and patterns such as ``photos/**/*.jpg`` (``**``: any folders).
        recursive: with the folders inside folders.
        listed: paths of files, taken as they are. A relative one keeps its folders.
        is_written: whether a file below a folder was written by this command, see `WrittenFiles`.

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
    """Paths of a list as `find` prints them: a line each, or with ``-print0`` between bytes of zero. Blank lines are
    none. A list of Windows may be UTF-16, or begin with a byte order mark."""
    if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # of PowerShell
        text = text.decode("utf-16", errors="replace").encode()
    text = text.removeprefix(codecs.BOM_UTF8)
    lines = text.split(b"\0") if b"\0" in text else text.splitlines()
    return [line.decode(errors="surrogateescape") for line in lines if line.strip()]


def _of_word(word: str, recursive: bool, is_written: Callable[[Path, Path], bool]) -> Iterator[NamedPicture]:
    check_no_address(word)
    path = Path(expanded(word, "picture"))
    fixed = len(path.parts)
    try:
        exists, is_folder = path.exists(), path.is_dir()
    except OSError:  # a name that is too long
        exists = is_folder = False
    if not exists and _MAGIC.search(str(path)):
        fixed = next(number for number, part in enumerate(path.parts) if _MAGIC.search(part))
    elif not is_folder:
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
    paths = [each for each in paths if not is_written(each, root)]
    if not paths:
        if is_folder:
            hint = "name the pictures, or a folder that holds them" + (
                "" if recursive else "; --recursive looks deeper"
            )
            raise UserError("no picture in this folder", str(path), hint)
        raise UserError("no picture fits this pattern", word, "'photos/**/*.jpg' is of all folders in photos")
    yield from (NamedPicture(each, each.relative_to(root)) for each in paths)


def _is_picture(relative: PurePath) -> bool:
    hidden = any(part.startswith(".") for part in relative.parts)
    return not hidden and relative.suffix.lower() in Image.registered_extensions()
