"""What segmenters share that read a file an image, made by another program."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from diffcut_bench.errors import UserError


@dataclass(frozen=True)
class FilesOfImages:
    """A folder with a file for each image of the data set.

    Args:
        folder: of the files.
        pattern: name of an image's file below the folder; ``{id}`` stands for the image's id.

    Raises:
        UserError: the folder is missing.
        ValueError: the pattern names no image.
    """

    folder: str | None
    pattern: str = "{id}.png"

    immaterial = ("folder", "pattern")  # what the files hold counts instead

    def __post_init__(self) -> None:
        if "{id}" not in self.pattern:
            raise ValueError(f"pattern must hold {{id}}, not {self.pattern!r}")
        if self.folder is None:
            where = f"segmenter={type(self).__name__.lower()}"
            raise UserError("segmenter.folder is not set", where, "add segmenter.folder=DIR")
        if not self._folder.is_dir():
            where = str(self._folder.absolute())
            raise UserError("folder of predictions not found", where, "check the path, or set segmenter.folder=DIR")

    @property
    def _folder(self) -> Path:
        return Path(str(self.folder)).expanduser()

    def path(self, image_id: str) -> Path:
        """Where the file of an image has to lie."""
        return self._folder / self.pattern.replace("{id}", image_id)

    @contextmanager
    def opening(self, image_id: str) -> Iterator[Path]:
        """The path of an image's file; within, what reading it raises is a ValueError that names it."""
        path = self.path(image_id)
        try:
            yield path
        except (OSError, SyntaxError, ValueError) as error:
            reason = "no prediction" if isinstance(error, FileNotFoundError) else f"can't be read ({error})"
            raise ValueError(f"{path}: {reason}") from error

    def depends_on(self, image_ids: Sequence[str]) -> dict[str, str]:
        """SHA-256 of the files of these images, for the key of a cell.

        Raises:
            UserError: there is none for any of them.
        """
        digest = hashlib.sha256()
        found = 0
        for image_id in image_ids:
            path = self.path(image_id)
            state = path.stat() if path.is_file() else None
            content = _digest(path, state.st_size, state.st_mtime_ns) if state is not None and state.st_size else _EMPTY
            found += content != _EMPTY
            digest.update(f"{image_id}\0".encode() + content)
        if not found:
            suffix = Path(self.pattern).suffix
            raise UserError(
                f"no predictions for any of the {len(image_ids)} images",
                f"looked for {self.path(image_ids[0])} and so on",
                f"name the files after the images' ids, or set segmenter.pattern, such as '{{id}}_pred{suffix}'",
            )
        return {"predictions": digest.hexdigest()}


_EMPTY = hashlib.sha256().digest()


@lru_cache(maxsize=10_000)
def _digest(path: Path, size: int, time_ns: int) -> bytes:
    """SHA-256 of a file, once for all settings that read it; ``size`` and ``time_ns`` tell a changed one."""
    return hashlib.sha256(path.read_bytes()).digest()
