"""Does a segmenter keep its contract? Tried on two small planted pictures, for whoever adds one."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import interpolate

from diffcut_bench.config import RunConfig, instantiate
from diffcut_bench.environment import choose_device
from diffcut_bench.errors import UserError
from diffcut_bench.escaping import counted
from diffcut_bench.scoring.checks import check_segments
from diffcut_bench.scoring.contract import Finding
from diffcut_bench.scoring.framing import Framing, prepare_prediction
from diffcut_bench.segmenters import Inputs, Segmenter, as_segmenter, segment_together
from diffcut_bench.store import cell_key
from diffcut_bench.traces import Trace, described, error_in_code, is_debugging

# Regions of the planted pictures; a patch has this many pixels a side.
_PLANTED = (
    ("000000000000", "011100022220", "011100022220", "011100022220", "000000000000", "033333333330", "033333333330"),
    ("111100000000", "111100000000", "000000033300", "000000033300", "000000033300", "000000000000", "000000000000"),
)
_PATCH, _CHANNELS = 16, 16
IMAGE_IDS = ("planted0", "planted1")
_CONTRACT = "docs/adding_a_segmenter.md says what a segmenter has"


def planted_regions() -> Tensor:
    """Region of each patch [2, rows, cols]: 0 is the ground, and a number means the same in both."""
    return torch.tensor([[[int(region) for region in row] for row in picture] for picture in _PLANTED])


def planted_inputs(attention_channels: int, device: torch.device, channels: int = _CHANNELS) -> Inputs:
    """All that a segmenter may ask for of the two pictures: each region has a direction of features and a colour of its
    own, with a little noise, and is a class.

    Args:
        attention_channels: last channels of the features that are attention: it is on what is not ground.
        device: of the features and pictures.
        channels: of the features beside attention, 4 or more.
    """
    generator = torch.Generator().manual_seed(0)
    regions = planted_regions()
    directions = torch.linalg.qr(torch.randn(channels, 4, generator=generator)).Q.mT
    features = directions[regions].movedim(3, 1)
    features = features + 0.02 * torch.randn(features.shape, generator=generator)
    if attention_channels:
        attention = (regions > 0)[:, None].float().expand(-1, attention_channels, -1, -1)
        noise = 0.1 * torch.rand(attention.shape, generator=generator)
        features = torch.cat([features, attention + noise], dim=1)
    labels = regions.repeat_interleave(_PATCH, 1).repeat_interleave(_PATCH, 2)
    colours = torch.tensor([[0.5, 0.5, 0.5], [0.9, 0.2, 0.1], [0.1, 0.8, 0.2], [0.2, 0.2, 0.9]])
    images = colours[labels].movedim(3, 1)
    images = (images + 0.02 * torch.randn(images.shape, generator=generator)).clamp(0, 1)
    rows, cols = regions.shape[1:]
    size = (rows * _PATCH, cols * _PATCH)
    framing = Framing("none", max(size), "original", "background")
    return Inputs(
        features.contiguous().to(device),
        images.contiguous().to(device),
        [len(each.unique()) for each in regions],
        list(IMAGE_IDS),
        [partial(prepare_prediction, frame=size, framing=framing)] * 2,
        [size] * 2,
        labels.to(device),
        [(rows, cols)] * 2,
    )


def check_segmenter(config: RunConfig) -> list[Finding]:
    """Size and type of its segments, determinism, independence of the batch and of its order, what it says about its
    numbers, and its key, of a config's segmenter.

    Raises:
        UserError: it can't be built or run, or gives no segments.
    """
    device = choose_device(config.device)
    segmenter = as_segmenter(instantiate("segmenter", config.segmenter))
    where = f"segmenter={config.choices.get('segmenter')}"
    own = getattr(segmenter.method, "channels", None)  # of one that takes no other number
    width = own if isinstance(own, int) and own > 3 else _CHANNELS
    inputs = planted_inputs(segmenter.attention_channels or 0, device, width)
    assert inputs.features is not None and inputs.images is not None

    def segment(inputs: Inputs) -> Tensor:
        return _segments([segmenter], inputs)[0].cpu()

    try:
        (given,) = _segments([segmenter], inputs)
        first = given.cpu()
        key = cell_key(segmenter.identity(config.segmenter, IMAGE_IDS))
        constant = cell_key(segmenter.identity(config.segmenter, IMAGE_IDS)) == key
    except UserError:
        raise
    except Exception as error:  # whatever a new segmenter raises is the finding
        raise error_in_code(error, where, _CONTRACT) from error
    alone, other, turned = (_of(inputs, which) for which in ([0], [0, 0], [1, 0]))
    channels = inputs.features.shape[1] - (segmenter.attention_channels or 0)
    mixed = torch.cat([torch.arange(channels).flip(0), torch.arange(channels, inputs.features.shape[1])])
    found = [
        Finding("takes", f"{', '.join(segmenter.parameters)}: {_how(segmenter)}"),
        Finding("gives", segmenter.gives.replace("_", " ")),
        Finding("input", f"features {list(inputs.features.shape)}, pictures {list(inputs.images.shape)}"),
        Finding("segments", f"{list(given.shape)}, {given.dtype} on {given.device}"),
        Finding("planted regions", _recovered(first)),
        _agree("deterministic", first, lambda: segment(inputs), exact=True),
        _agree("batch of 1 = batch of 2", first[:1], lambda: segment(alone)),
        _agree("another neighbour", first[:1], lambda: segment(other)[:1]),
        _agree("order of the batch", first.flip(0), lambda: segment(turned)),
    ]
    if hasattr(segmenter.method, "together"):
        found.append(_agree("two settings at once", first, lambda: _segments([segmenter] * 2, inputs)[1].cpu()))
    if segmenter.consistent_ids:
        fine = _mean_the_same(first)
        found.append(Finding("consistent ids", "yes" if fine else "NO: a region has two numbers", fine))
    if "features" in segmenter.needs:
        moved = replace(inputs, features=inputs.features[:, mixed].contiguous())
        found.append(_told("channels in another order", first, lambda: segment(moved)))
    found += [
        _survives("a plain picture", lambda: segment(_plain(inputs))),
        Finding("key", key if constant else f"NO: {key}, and another when asked again", constant),
    ]
    return found


def _how(segmenter: Segmenter) -> str:
    return "one image at a time" if segmenter.one_by_one else "a batch at a time"


def _segments(segmenters: Sequence[Segmenter], inputs: Inputs) -> list[Tensor]:
    assert inputs.scored_sizes is not None
    shape = (len(inputs.scored_sizes), *inputs.scored_sizes[0])
    given = segment_together(segmenters, inputs)
    # A copy: a method may give the same memory at each call.
    return [check_segments(one, ids, inputs, shape).clone() for one, ids in zip(segmenters, given, strict=True)]


def _of(inputs: Inputs, which: Sequence[int]) -> Inputs:
    """Some images of a batch."""
    chosen: dict[str, Any] = {
        name: value[list(which)] if isinstance(value, Tensor) else [value[index] for index in which]
        for name, value in vars(inputs).items()
    }
    return Inputs(**chosen)


def _plain(inputs: Inputs) -> Inputs:
    """Pictures in which nothing is to be told apart, as a wall or the sky."""
    assert inputs.features is not None and inputs.images is not None and inputs.labels is not None
    return replace(
        inputs,
        features=torch.ones_like(inputs.features),
        images=torch.full_like(inputs.images, 0.5),
        labels=torch.zeros_like(inputs.labels),
        class_counts=[1, 1],
    )


def _recovered(segments: Tensor) -> str:
    """How many segments there are for the planted regions, and the share of the area on which pairs of them agree."""
    counts, shares = [], []
    for ids, regions in zip(segments, _planted_at(segments), strict=True):
        _, found = ids.unique(return_inverse=True)
        table = torch.bincount((regions * (found.max() + 1) + found).flatten(), minlength=4 * int(found.max() + 1))
        pairs = linear_sum_assignment(-table.view(4, -1))
        shares.append(f"{table.view(4, -1)[pairs].sum() / ids.numel():.0%}")
        counts.append(f"{len(ids.unique())} for {len(regions.unique())}")
    return f"{' and '.join(counts)}; {' and '.join(shares)} of the area agree"


def _planted_at(segments: Tensor) -> Tensor:
    """The planted regions at the resolution of segments."""
    planted = planted_regions().double()[:, None]
    return interpolate(planted, segments.shape[1:], mode="nearest-exact")[:, 0].long()


def _agree(what: str, first: Tensor, again: Callable[[], Tensor], exact: bool = False) -> Finding:
    """Whether segments are the same, in the same numbers or (unless ``exact``) in others."""
    try:
        second = again()
    except Exception as error:  # which the first time did not come
        return _raised(what, error)
    if first.shape == second.shape and torch.equal(first, second):
        return Finding(what, "yes")
    if not exact and first.shape == second.shape and all(map(_is_same, first, second)):
        return Finding(what, "yes, with other numbers")
    return Finding(
        what, f"NO: {(first != second).float().mean():.0%} differ" if first.shape == second.shape else "NO", False
    )


def _told(what: str, first: Tensor, again: Callable[[], Tensor]) -> Finding:
    """The same of what no segmenter has to keep."""
    found = _agree(what, first, again)
    return found if found.fine else Finding(what, f"{found.value.removeprefix('NO: ')}, which is allowed")


def _survives(what: str, segment: Callable[[], Tensor]) -> Finding:
    try:
        segments = segment()
    except Exception as error:  # whatever a new segmenter raises is the finding
        return _raised(what, error)
    return Finding(what, counted(len(segments[0].unique()), "segment"))


def _raised(what: str, error: Exception) -> Finding:
    if is_debugging():
        raise error
    trace = Trace.of(error)
    told = described(error) if trace is None else f"{trace.error} ({trace.place})"
    return Finding(what, f"NO: {told}", fine=False)


def _is_same(first: Tensor, second: Tensor) -> bool:
    """Equal up to numbers."""
    pairs = torch.stack([first.flatten(), second.flatten()]).unique(dim=1).shape[1]
    return pairs == len(first.unique()) == len(second.unique())


def _mean_the_same(segments: Tensor) -> bool:
    """Whether each region that both pictures have is of the same numbers in both."""
    regions = _planted_at(segments)
    shared = set(regions[0].unique().tolist()) & set(regions[1].unique().tolist())
    first, second = (
        {region: ids[of == region].mode().values.item() for region in shared}
        for ids, of in zip(segments, regions, strict=True)
    )
    return first == second
