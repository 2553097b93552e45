"""A published benchmark: where its original files are, what its labels mean, and how it is opened."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from diffcut_bench.datasets.base import LabelledData, SegmentationDataset, existing_root
from diffcut_bench.datasets.card import Card
from diffcut_bench.datasets.records import Records, records_from_files
from diffcut_bench.errors import UserError


@dataclass(frozen=True)
class Pairs:
    """Files of a split, paired by name.

    Attributes:
        ids: names of the images.
        images, labels: their files, in the order of ``ids``.
    """

    ids: Sequence[str]
    images: Sequence[Path]
    labels: Sequence[Path]

    @classmethod
    def of(
        cls, names: Sequence[str], images: Path, labels: Path, suffixes: tuple[str, str] = (".jpg", ".png")
    ) -> "Pairs":
        """The files of two folders that have these names and the suffix of each folder; ids are without sub-folders."""
        return cls(
            [PurePosixPath(name).name for name in names],
            [images / f"{name}{suffixes[0]}" for name in names],
            [labels / f"{name}{suffixes[1]}" for name in names],
        )


@dataclass(frozen=True, kw_only=True)
class Benchmark(LabelledData):
    """A data set with a published split, before it is opened.

    Attributes:
        card: homepage, licence, archives.
        source: name of its prepared form: the raw pairs and the choice among them (``voc-val``). Benchmarks that read
            the same pairs (COCO's two) share it.
        root: folder of the original files; None if only a prepared form is there.
        find: from the root to the pairs; raises a `UserError` that says what was looked for.
    """

    card: Card
    source: str
    root: str | None
    find: Callable[[Path], Pairs]

    @property
    def root_path(self) -> Path | None:
        """The root as a path; YAML reads a folder named 2012 as a number."""
        return None if self.root is None else Path(str(self.root)).expanduser()

    def from_originals(self) -> SegmentationDataset:
        """The data set read from its original files.

        Raises:
            UserError: the root, a list or a named file is missing.
        """
        pairs = self.find(existing_root(self.root))
        return self.from_records(records_from_files(pairs.ids, pairs.images, pairs.labels))

    def from_records(self, records: Records) -> SegmentationDataset:
        """The data set with rows that exist already."""
        known = {each.name: getattr(self, each.name) for each in fields(LabelledData)}
        return SegmentationDataset(records=records, **known)


def first_existing(root: Path, paths: Iterable[str], what: str) -> Path:
    """The first of the usual paths below ``root`` that exists.

    Raises:
        UserError: none does; lists all that were looked for.
    """
    candidates = [root / path for path in paths]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    where = f"looked for {', '.join(map(str, candidates))}"
    raise UserError(f"{what} not found", where, "set dataset.root to the folder that holds one of these")


def names_in(
    images: Path, labels: Path, pattern: str = "[!.]*", suffixes: tuple[str, str] = (".jpg", ".png")
) -> list[str]:
    """Names, without suffix, of the files in two folders; one that is in one folder only is there too.

    Args:
        images, labels: the folders.
        pattern: which names, such as ``*/frame_*`` where the files are in sub-folders; by default all in the folder
            itself that are not hidden.
        suffixes: of the images and of the labels.

    Raises:
        UserError: there is none.
    """
    names = {
        path.relative_to(folder).as_posix().removesuffix(suffix)
        for folder, suffix in ((images, suffixes[0]), (labels, suffixes[1]))
        for path in folder.glob(f"{pattern}{suffix}")
    }
    if not names:
        raise UserError("no image there", str(images), "unpack the data set's archive there")
    return sorted(names)


def table(name: str) -> dict[str, Any]:
    """What a JSON file beside this module says of a data set: names of its classes, meaning of its raw values."""
    content: dict[str, Any] = json.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))
    return content


def listed_ids(path: Path) -> list[str]:
    """Ids of a list file: the first word of each line; blank lines are skipped.

    A word with a picture's suffix (``/JPEGImages/x.jpg /SegmentationClass/x.png``, as in many lists of VOC) means its
    stem; all such words of a line have to agree.

    Raises:
        UserError: the list is no text, is empty, names an id twice, or pairs an image with another one's label.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # some editors begin a file with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the list of images can't be read ({error})", str(path), "save it as UTF-8 text") from error
    ids = [_listed_id(line, path) for line in lines if line.strip()]
    if not ids:
        raise UserError("the list of images is empty", str(path), "restore it from the data set's archive")
    if len(set(ids)) < len(ids):
        twice = next(image_id for image_id, count in Counter(ids).items() if count > 1)
        raise UserError(f"the list names {twice} twice", str(path), "restore it from the data set's archive")
    return ids


def _listed_id(line: str, path: Path) -> str:
    words = line.split()
    pictures = [word for word in words if PurePosixPath(word).suffix.lower() in Image.registered_extensions()]
    stems = [PurePosixPath(word).stem for word in pictures]
    if len(set(stems)) > 1:
        raise UserError(f"the list pairs {pictures[0]} with {pictures[1]}", str(path), "each line names one image")
    return stems[0] if words[0] in pictures else words[0]
