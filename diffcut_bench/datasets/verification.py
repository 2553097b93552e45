"""Is a data set what it should be? Reads every pair, and says what is wrong and how to mend it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffcut_bench.datasets.base import SegmentationDataset

Report = Callable[[int, int], None]

# A label follows the edges of its own image better than those of another image: nearly always if the pairs are right,
# half of the time by chance. Below this share of at least _ENOUGH pairs, images and labels have shifted.
_ALIGNED = 0.65
_ENOUGH = 10
_SMALL = 256  # pixels of the side at which edges are compared
_BLANK = 1e-6  # gradient of a picture of one colour, but for rounding; a step by one grey level has 1e-3


@dataclass(frozen=True)
class Verification:
    """What was found.

    Attributes:
        pairs: images with a label.
        expected: pairs of the published split; None where nothing was published.
        problems: one line each, the file named; empty if all is well.
        pixels: pixels of each class, by name, and of void; of annotators of all their segments together.
        aligned: share of the comparable images whose own label follows their edges better than another's; None where
            too few were comparable.
        fingerprint: of the content; None where a file can't be read.
    """

    pairs: int
    expected: int | None
    problems: list[str]
    pixels: dict[str, int]
    aligned: float | None
    fingerprint: str | None

    @property
    def verdict(self) -> str:
        """One line: fine, or what to do."""
        if self.problems:
            return f"off: {len(self.problems)} problems; fetch or unpack the named files again, then prepare and verify"
        if self.aligned is not None and self.aligned < _ALIGNED:
            off = f"off: only {100 * self.aligned:.0f} % of the labels follow the edges of their own image better than"
            return f"{off} another's; images and labels have shifted against each other: unpack both again"
        if self.expected is not None and self.pairs != self.expected:
            off = f"off: {self.pairs} pairs, but the published split has {self.expected}"
            return f"{off}; restore the list of images and the files it names"
        return "fine: " + ("the published split" if self.expected else "every pair can be read")

    @property
    def fine(self) -> bool:
        """Whether nothing is off."""
        return self.verdict.startswith("fine")


def verify(dataset: SegmentationDataset, report: Report | None = None) -> Verification:
    """Decode every pair; compare sizes, label values, number of pairs, and whether labels follow their image's edges.

    Args:
        dataset: opened.
        report: called with pairs done and pairs in all.
    """
    names = ("void", *(("segments",) if dataset.annotators else dataset.class_names))
    pixels = np.zeros(len(names), dtype=np.int64)
    problems: list[str] = []
    aligned: list[bool] = []
    ids = dataset.ids
    before: NDArray[np.bool_] | None = None
    for index in range(len(dataset)):
        try:
            if not dataset.intact(index):
                raise ValueError("its bytes are not those that were prepared")
            image, label = dataset.read(index)
        except (ValueError, OSError) as error:
            # The error names a prepared pair's file without its folder, and may not name a label with its own reader.
            problems.append(f"{error}" if f"{ids[index]}" in f"{error}" else f"{ids[index]}: {error}")
        else:
            counted = np.minimum(label, 0) if dataset.annotators else label
            pixels += np.bincount(counted.ravel() + 1, minlength=len(pixels))
            edges, gradient = _edges(image, label[0] if dataset.annotators else label)
            is_blank = gradient.max() < _BLANK  # no label follows edges that are not there
            if before is not None and before.any() and edges.any() and not is_blank:
                aligned.append(bool(gradient[edges].mean() > gradient[before].mean()))
            before = edges
        if report:
            report(index + 1, len(dataset))
    try:
        fingerprint = dataset.fingerprint()
    except (ValueError, OSError):  # the file is among the problems
        fingerprint = None
    return Verification(
        pairs=len(dataset),
        expected=dataset.n_expected,
        problems=problems,
        pixels=dict(zip(names, pixels.tolist(), strict=True)),
        aligned=float(np.mean(aligned)) if len(aligned) >= _ENOUGH else None,
        fingerprint=fingerprint,
    )


def _edges(image: Image.Image, label: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Boundaries of the label and gradient of the image, both small and square so that any two can be compared."""
    from skimage.color import rgb2gray  # only here: these take a third of a second to import
    from skimage.filters import sobel
    from skimage.segmentation import find_boundaries

    size = (_SMALL, _SMALL)
    grey = rgb2gray(np.asarray(image.resize(size, Image.Resampling.BILINEAR)))
    small = np.asarray(Image.fromarray(label.astype(np.int32)).resize(size, Image.Resampling.NEAREST))
    return find_boundaries(small, mode="thick", background=-2), sobel(grey)
