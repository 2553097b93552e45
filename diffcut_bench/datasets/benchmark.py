"""A published benchmark: where its originals lie, what its labels mean, and how it is opened."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets as hf
import numpy as np
from numpy.typing import NDArray

from diffcut_bench.datasets.base import LabelReader, SegmentationDataset, existing_root, records_from_files
from diffcut_bench.datasets.card import Card
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


@dataclass(frozen=True)
class Benchmark:
    """A data set with a published split, before it is opened.

    Attributes:
        name: option name.
        card: homepage, licence, archives.
        source: names its prepared form: the raw pairs and the choice among them (``voc-val``). Benchmarks that read
            the same pairs (COCO's two) share it.
        root: folder of the originals; None if only a prepared form is at hand.
        find: from the root to the pairs; raises a `UserError` that says what was looked for.
        class_names, lookup, background, n_expected, read_label_file: see `SegmentationDataset`.
    """

    name: str
    card: Card
    source: str
    root: str | None
    find: Callable[[Path], Pairs]
    class_names: tuple[str, ...]
    lookup: NDArray[np.int64]
    background: int | None = None
    n_expected: int | None = None
    read_label_file: LabelReader | None = None

    def from_originals(self) -> SegmentationDataset:
        """The data set read from its original files.

        Raises:
            UserError: the root, a list or a named file is missing.
        """
        pairs = self.find(existing_root(self.root, "dataset.root"))
        records = records_from_files(pairs.ids, pairs.images, pairs.labels)
        return self.from_records(records, self.read_label_file)

    def from_records(self, records: hf.Dataset, read_label_file: LabelReader | None = None) -> SegmentationDataset:
        """The data set with rows that were made before."""
        return SegmentationDataset(
            name=self.name,
            records=records,
            class_names=self.class_names,
            lookup=self.lookup,
            background=self.background,
            n_expected=self.n_expected,
            read_label_file=read_label_file,
        )


def first_place(root: Path, places: Iterable[str], what: str) -> Path:
    """The first of the usual places that exists below ``root``.

    Raises:
        UserError: none does; lists all that were looked for.
    """
    candidates = [root / place for place in places]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    raise UserError(
        f"{what} not found",
        f"looked for {', '.join(map(str, candidates))}",
        "point dataset.root at the folder that holds one of these",
    )


def listed_ids(path: Path) -> list[str]:
    """Ids of a list file: the first word of each line, blank lines passed over.

    Raises:
        UserError: the list is no text, is empty, or names an id twice.
    """
    try:
        ids = [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the list of images can't be read ({error})", str(path), "save it as UTF-8 text") from error
    if not ids:
        raise UserError("the list of images is empty", str(path), "restore it from the data set's archive")
    if len(set(ids)) < len(ids):
        twice = next(image_id for image_id in ids if ids.count(image_id) > 1)
        raise UserError(f"the list names {twice} twice", str(path), "restore it from the data set's archive")
    return ids
