"""What every data set gives: rows of (id, image, label), and the meaning of its labels."""

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffcut_bench.datasets.decoding import MAX_PIXELS, StoredPicture, conversion, decode, grey_step
from diffcut_bench.datasets.records import Encoded, Records
from diffcut_bench.errors import UserError

VOID = -1
"""What a class map holds where nothing is annotated."""
DIGEST = "sha256"  # column of a prepared data set: digest of each pair's bytes
_UNKNOWN = -2

LabelReader = Callable[[Path], Image.Image]


@dataclass(frozen=True, kw_only=True)
class LabelledData:
    """What is known of a data set before its images are opened: how raw label values become classes.

    Attributes:
        name: option name.
        class_names: the classes scored, in the order of their ids.
        lookup: class id of each raw label value from 0 on (`label_lookup`); −1 is void.
        background: id of the class treated by the background rule, if there is one.
        n_expected: images in the published split; None where nothing was published.
        read_label_file: how a label file becomes an index picture, if it isn't one (``.mat``).
        annotators: a label is several maps of segments, each of one annotator, one below the other in its picture, and
            no map of classes; ids are those of segments, from 0 in each map.
    """

    name: str
    class_names: tuple[str, ...]
    lookup: NDArray[np.int64]
    background: int | None = None
    n_expected: int | None = None
    read_label_file: LabelReader | None = None
    annotators: bool = False


@dataclass(frozen=True, kw_only=True)
class SegmentationDataset(LabelledData):
    """A data set that is open: images with annotations.

    Attributes:
        records: id, image and label of each pair, the label in raw values; see `Records`.
        max_pixels: largest width times height that is decoded; it changes no number, so it is in no key.
    """

    records: Records
    max_pixels: int = MAX_PIXELS

    def __len__(self) -> int:
        return len(self.records)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @cached_property
    def ids(self) -> list[str]:
        """Names of the images, in the data set's order."""
        return [*self.records["id"]]

    def select(self, limit: int | None, seed: int | None = None) -> "SegmentationDataset":
        """``limit`` images (all if None) in the data set's order: the first ones, or drawn at random with a seed."""
        if limit is None or limit >= len(self):
            return self
        indices = range(limit) if seed is None else np.sort(np.random.default_rng(seed).permutation(len(self))[:limit])
        return replace(self, records=self.records.select(indices))

    def pair(self, index: int) -> "Pair":
        """One image and its label, of which no more than the image's header is read yet.

        Raises:
            ValueError: the image can't be read, is no picture, or is too large; the message names the file.
        """
        row = self._row(index)
        image = StoredPicture(_bytes(row["image"]), row["image"]["path"], self.max_pixels)
        return Pair(self, image, row["label"])

    def read(self, index: int) -> tuple[Image.Image, NDArray[np.int64]]:
        """Decode one image and its class map.

        Returns:
            RGB image, and `Pair.classes`.

        Raises:
            ValueError: a file can't be decoded or is too large, sizes differ, or a label value is unknown; the message
                names the file.
        """
        pair = self.pair(index)
        return pair.image.rgb(), pair.classes()

    def raw_label(self, index: int) -> NDArray[np.integer]:
        """Raw label values [height, width].

        Raises:
            ValueError: the file can't be decoded, or is no index picture.
        """
        return self._raw_label(self._row(index)["label"])

    def _raw_label(self, encoded: Encoded) -> NDArray[np.integer]:
        where, data = encoded["path"], self._label_bytes(encoded)
        label = decode(data, where, self.max_pixels)
        if label.mode not in ("L", "P", "1", "I", "I;16", "I;16B"):
            raise ValueError(f"{where}: label is a {label.mode} picture, not an index PNG (mode L or P)")
        return np.asarray(label) // grey_step(data)

    def _label_bytes(self, encoded: Encoded) -> bytes:
        """The label file, or the PNG of raw values that `read_label_file` makes of it."""
        if self.read_label_file is None or encoded["bytes"] is not None:
            return _bytes(encoded)
        png = io.BytesIO()
        try:
            self.read_label_file(Path(encoded["path"])).save(png, format="PNG")
        except (ValueError, OSError) as error:
            raise ValueError(f"{encoded['path']}: can't be decoded ({error})") from error
        return png.getvalue()

    def image_digest(self, index: int) -> str:
        """SHA-256 of an image file's bytes, and of how its colours are made where they are not the stored ones.

        Raises:
            ValueError: the file can't be read.
        """
        data = _bytes(self._row(index)["image"])
        return hashlib.sha256(data + conversion(data, self.max_pixels)).hexdigest()

    def intact(self, index: int) -> bool:
        """Whether a prepared pair still has the bytes it was prepared with; True where no digest was kept."""
        if DIGEST not in self.records.column_names:
            return True
        row = self._row(index)
        return bool(row[DIGEST] == pair_digest(*self.encoded(row)))

    def class_map(self, raw: NDArray[np.integer], where: str) -> NDArray[np.int64]:
        """Class ids of raw label values; ``where`` names the file in the error.

        Raises:
            ValueError: there is a raw value that this data set's encoding does not have.
        """
        classes = self.lookup[np.clip(raw, 0, len(self.lookup) - 1)]
        unknown = (classes == _UNKNOWN) | (raw < 0) | (raw >= len(self.lookup))
        if unknown.any():
            values = np.unique(raw[unknown])[:5].tolist()
            legal = np.flatnonzero(self.lookup != _UNKNOWN)
            raise ValueError(f"{where}: label value {values} out of range; {self.name} has {_ranges(legal)}")
        return classes

    def fingerprint(self) -> str:
        """SHA-256 of ids, image and label bytes, and the meaning of the labels.

        A prepared data set carries each pair's digest, so that its files need not be read again.

        Raises:
            ValueError: a file can't be read.
        """
        digest = hashlib.sha256(repr((self.class_names, self.lookup.tolist(), self.background)).encode())
        if DIGEST in self.records.column_names:
            pairs = list(zip(self.ids, self.records[DIGEST], strict=True))
        else:
            encoded = ((row["id"], *self.encoded(row)) for row in self.records)
            pairs = [(i, pair_digest(image + conversion(image, self.max_pixels), label)) for i, image, label in encoded]
        for image_id, pair in pairs:
            digest.update(f"\0{image_id}\0{pair}".encode())
        return digest.hexdigest()

    def encoded(self, row: dict[str, Any]) -> tuple[bytes, bytes]:
        """Bytes of an undecoded row's image file and of its label as an index picture with raw values."""
        return _bytes(row["image"]), self._label_bytes(row["label"])

    def _row(self, index: int) -> dict[str, Any]:
        """One row; a picture that is no file is named after its row."""
        row = self.records[index]
        named = {
            name: {**row[name], "path": row[name]["path"] or f"{name} of {row['id']}"} for name in ("image", "label")
        }
        return {**row, **named}


@dataclass(frozen=True)
class Pair:
    """One image and its label, not decoded: whoever wants classes or colours asks for them.

    Attributes:
        dataset: that it is of.
        image: its file.
        label: path and bytes.
    """

    dataset: SegmentationDataset
    image: StoredPicture
    label: Encoded

    def classes(self) -> NDArray[np.int64]:
        """Class ids [height, width] with −1 for void; of annotators segment ids [annotators, height, width].

        Raises:
            ValueError: the label can't be decoded, is of another size than the image, or has an unknown value; the
                message names the file.
        """
        raw, where = self.dataset._raw_label(self.label), self.label["path"]
        height, width = self.image.size
        several = self.dataset.annotators and len(raw) > 0 and len(raw) % height == 0  # maps lie one below the other
        if raw.shape != (len(raw) if several else height, width):
            size = f"{raw.shape[1]}×{raw.shape[0]}"
            raise ValueError(f"{where}: label is {size} but its image is {width}×{height}")
        classes = self.dataset.class_map(raw, where)
        return classes.reshape(-1, height, width) if self.dataset.annotators else classes

    def digest(self) -> str:
        """`SegmentationDataset.image_digest`, without reading the file again."""
        return hashlib.sha256(self.image.data + self.image.conversion).hexdigest()


def label_lookup(classes: dict[int, int], void: Sequence[int] = (), size: int = 256) -> NDArray[np.int64]:
    """Look-up table from raw label value to class id; values in neither argument are errors.

    Args:
        classes: raw value → class id.
        void: raw values without annotation; they become −1.
        size: number of raw values that the encoding can hold.
    """
    table = np.full(size, _UNKNOWN, dtype=np.int64)
    for value, index in classes.items():
        table[value] = index
    table[list(void)] = VOID
    return table


def pair_digest(image: bytes, label: bytes) -> str:
    """SHA-256 of an image's and its label's bytes."""
    return hashlib.sha256(hashlib.sha256(image).digest() + hashlib.sha256(label).digest()).hexdigest()


def existing_root(root: str | Path | None) -> Path:
    """The data set's folder.

    Raises:
        UserError: not given, or no folder is there.
    """
    if root is None:
        raise UserError("dataset.root is not set", "the data set's folder", "add dataset.root=DIR")
    path = Path(str(root)).expanduser()  # YAML reads a folder named 2012 as a number
    if not path.is_dir():
        raise UserError("data set folder not found", str(path.absolute()), "check the path, or set dataset.root=DIR")
    return path


def _bytes(encoded: Encoded) -> bytes:
    if encoded["bytes"] is not None:
        return encoded["bytes"]
    try:
        return Path(encoded["path"]).read_bytes()
    except OSError as error:
        raise ValueError(f"{encoded['path']}: can't be read ({error.strerror or error})") from error


def _ranges(values: NDArray[np.integer]) -> str:
    """``0..20, 255`` for a sorted list of values."""
    runs = np.split(values, np.flatnonzero(np.diff(values) != 1) + 1)
    return ", ".join(f"{run[0]}..{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs if len(run))
