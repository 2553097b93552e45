"""The hierarchy as JSON: the regions of the tree, their parents, and the tau at which each appears."""

import json

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from diffcut_bench.segmentation.formats.interface import Format, Segmented


def _encode(segmented: Segmented) -> str:
    labels, hierarchy = segmented.result.labels, segmented.result.hierarchy()
    height, width = labels.shape
    record = {"image": segmented.image, "width": width, "height": height, **hierarchy.to_dict()}
    if segmented.tau is not None:
        regions = regions_of_labels(labels, hierarchy.regions(segmented.tau))
        record |= {"tau": segmented.tau, "region_of_label": regions}
    return json.dumps(record) + "\n"


def regions_of_labels(labels: NDArray[np.int64], regions: NDArray[np.int64]) -> list[int]:
    """The region of the tree that each segment of a label map is, found by the pixels that they share.

    Upsampling and refinement move borders, and a region that wins no pixel has no segment; so regions go to segments
    one to one, such that they share as many pixels as they can.

    Args:
        labels: segment of each pixel [height, width], contiguous from 0.
        regions: region of each patch [rows, cols].
    """
    row, col = (np.arange(size) * count // size for size, count in zip(labels.shape, regions.shape, strict=True))
    names, numbers = np.unique(regions, return_inverse=True)
    numbers = numbers.reshape(regions.shape)[row[:, None], col]
    pairs = np.bincount((labels * len(names) + numbers).ravel(), minlength=(int(labels.max()) + 1) * len(names))
    shared = pairs.reshape(-1, len(names))
    found: list[int] = names[linear_sum_assignment(shared, maximize=True)[1]].tolist()
    return found


TREE = Format("tree", "_tree.json", _encode, needs_tree=True)
