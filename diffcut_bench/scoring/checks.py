"""What a stage of somebody else's must give: looked at where it comes in, so that nonsense never becomes a score."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffcut_bench.segmenters import Inputs, Segmenter

_MANY = 65_536  # ids that any map may use; a larger one as many as it has pixels


def check_segments(segmenter: Segmenter, given: Any, inputs: Inputs, shape: Sequence[int]) -> Tensor:
    """What a segmenter gave for a batch, if it is segments of the size that it says it gives.

    Args:
        segmenter: which says it.
        given: for the batch, or a list with an entry for each image.
        inputs: of the batch.
        shape: of what is scored: the batch first, height and width last.

    Returns:
        Segment ids [batch, rows, cols] where the segmenter left them.

    Raises:
        ValueError: these are no segments.
    """
    size: Sequence[int | None] = (None, None)
    if segmenter.gives == "label_map":
        size = shape[-2:]
    elif segmenter.gives == "partition" and inputs.features is not None:
        size = inputs.features.shape[2:]
    check = partial(check_label_map, "segmenter", any_number=segmenter.gives == "label_map")
    if segmenter.one_by_one:
        given = torch.stack([check(each, size) for each in given])
    return check(given, (shape[0], *size))


def check_label_map(stage: str, ids: object, size: Sequence[int | None], *, any_number: bool = False) -> Tensor:
    """Ids that a stage gave, if they are whole numbers from 0 on in a map of the size that was asked for.

    Args:
        stage: its name, for the message.
        ids: what it gave.
        size: [batch, rows, cols], or [rows, cols]; None for an axis of any length.
        any_number: ids may be as great as they are.

    Raises:
        ValueError: they are not; the message names the stage.
    """
    if not isinstance(ids, Tensor):
        raise ValueError(f"the {stage} gave {type(ids).__name__}, not a tensor of segment ids")
    fits = len(ids.shape) == len(size) and all(due in (None, side) for side, due in zip(ids.shape, size, strict=True))
    if ids.dtype == torch.bool or ids.is_floating_point() or ids.is_complex() or not fits:
        due = f"whole numbers [{', '.join('any' if side is None else str(side) for side in size)}]"
        raise ValueError(f"the {stage} gave {str(ids.dtype).removeprefix('torch.')} {list(ids.shape)}, not {due}")
    ids = ids.long()
    least, most = torch.stack(torch.aminmax(ids)).tolist()
    if least < 0 or (not any_number and most >= max(_MANY, ids.shape[-1] * ids.shape[-2])):
        raise ValueError(f"the {stage} gave segment ids {least}..{most}; they count from 0")
    return ids
