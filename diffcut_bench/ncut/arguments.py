"""Checks of arguments: a user's value of whatever type, and an error that names it. Knows tensors only."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def check_number(name: str, value: object, low: float, high: float) -> None:
    """Raise a ValueError that names an argument outside of [low, high]."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name} must lie in [{low:g}, {high:g}], not {value!r}")


def check_count(name: str, value: object, low: int) -> None:
    """Raise a ValueError that names an argument which is no whole number of at least ``low``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise ValueError(f"{name} must be a whole number of at least {low}, not {value!r}")


def check_seed(seed: object) -> None:
    """Raise a ValueError for what can't be the start of torch's random numbers."""
    if not isinstance(seed, int) or isinstance(seed, bool) or not -(2**63) <= seed < 2**64:
        raise ValueError(f"seed must be a whole number of at most 64 bits, not {seed!r}")


def check_positive(name: str, value: object) -> None:
    """Raise a ValueError that names an argument which is no finite number above 0."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < float("inf"):
        raise ValueError(f"{name} must be positive and finite, not {value!r}")


def check_choice(name: str, value: object, allowed: Sequence[str]) -> None:
    """Raise a ValueError that names an argument which is none of the words allowed."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")


def check_features(features: Tensor) -> Float[Tensor, "batch nodes channels"]:
    """The features, in single or double precision: half precision becomes float32. No gradient goes through a cut.

    Raises:
        ValueError: they are not [batch, nodes, channels], are none, or hold NaN or infinity.
    """
    if features.ndim != 3 or not features.shape[0] or not features.shape[1]:
        raise ValueError(f"features must be [batch >= 1, nodes >= 1, channels], not {list(features.shape)}")
    if not torch.isfinite(features).all():
        bad = (~torch.isfinite(features)).any(dim=2).nonzero()[0].tolist()
        raise ValueError(f"features hold NaN or infinity, first in image {bad[0]} of the batch at patch {bad[1]}")
    features = features.detach()
    return features if features.dtype in (torch.float32, torch.float64) else features.float()


def as_nodes(features: Float[Tensor, "batch channels rows cols"]) -> Float[Tensor, "batch nodes channels"]:
    """Patches of feature maps in reading order, as `check_features` gives them.

    Raises:
        ValueError: the features are none, or hold NaN or infinity.
    """
    return check_features(features.flatten(2).mT)
