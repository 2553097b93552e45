"""Do the labels of a user's own data hold what the options say? A wrong value is found before it becomes a score."""

import contextlib
from collections.abc import Sequence

import numpy as np

from diffcut_bench.datasets.base import SegmentationDataset
from diffcut_bench.errors import UserError

# A share of void that is more than thin borders, and one that leaves next to nothing to score.
_A_CLASS = 0.10
_NEARLY_ALL = 0.95


def check_coverage(dataset: SegmentationDataset, indices: Sequence[int]) -> None:
    """Check that ``ignore_index`` does not swallow a class, as it does with masks of 0 and 255.

    Published splits are not checked. Labels that can't be read are left out.

    Args:
        dataset: opened.
        indices: of the images that are scored.

    Raises:
        UserError: some pixels are void, and all others are of one class; or void is a tenth of all and exactly one
            class never occurs; or nearly everything is void.
    """
    if dataset.n_expected is not None:
        return
    pixels = np.zeros(1 + dataset.num_classes, dtype=np.int64)  # of void and of each class
    for index in indices:
        with contextlib.suppress(ValueError):
            label = dataset.class_map(dataset.raw_label(index), "")
            pixels += np.bincount(label.ravel() + 1, minlength=len(pixels))
    void = pixels[0] / max(pixels.sum(), 1)
    absent = [name for name, count in zip(dataset.class_names, pixels[1:], strict=True) if not count]
    present = dataset.num_classes - len(absent)
    if not ((void > 0 and absent and present <= 1) or (void >= _A_CLASS and len(absent) == 1) or void > _NEARLY_ALL):
        return
    share = f"{100 * void:.1f} % of the pixels are void, which no score looks at" if present else "every label is void"
    never = f"; never annotated: {', '.join(absent[:5])}{' …' if len(absent) > 5 else ''}" if absent else ""
    where = f"labels of dataset={dataset.name}, {len(indices)} images"
    hint = "check the label values and dataset.ignore_index; accept_labels=true scores them as they are"
    raise UserError(f"{share}{never}", where, hint)
