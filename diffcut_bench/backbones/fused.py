"""Several backbones side by side: their features at length 1, weighted, on one grid. Knows tensors only."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from diffcut_bench.backbones.base import Backbone
from diffcut_bench.backbones.none import NoBackbone
from diffcut_bench.errors import UserError


class Fused(Backbone):
    """Weighted concatenation of the unit features of two or more backbones (an ablation that others published).

    A patch's features of each part are brought to length 1, in float32, and multiplied by the part's weight; a zero
    vector stays zero. So the cosine of two patches is the mean of the parts' cosines, weighted by the *squares* of the
    weights. The grid is the finest of the parts' grids; a coarser part's unit features are resized to it bilinearly and
    brought to length 1 again.

    A run shows each part the picture at the part's own size, and stores each part's features by themselves
    (`FusedFeatures` in scoring/features.py). `forward` shows all parts the same images.

    Args:
        of: names of the parts, in the order of their channels and weights.
        parts: backbone of each name.
        weights: of each, from 1e-6 to 1e6; None: 1 each.

    Attributes:
        parts: by their names, in order.

    Raises:
        UserError: there are fewer than two parts, one is missing, has attention for channels or no features, or a
            weight is out of range.
    """

    name = "fused"
    # Told by the fingerprint, which holds those of the parts.
    immaterial = ("of", "parts", "weights")

    def __init__(
        self, of: Sequence[str], parts: Mapping[str, Backbone], weights: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        where = f"backbone.of=[{','.join(of)}]"
        if len(set(of)) < 2:
            hint = "name two backbones, such as backbone.of=[ssd1b,dinov3_b16], or choose backbone=NAME alone"
            raise UserError("a fused backbone has two parts or more", where, hint)
        if len(set(of)) < len(of) or {*of} != {*parts}:
            hint = "name each part once"
            raise UserError(f"the parts are {', '.join(parts)}, and named are {', '.join(of)}", where, hint)
        for name in of:
            _check_part(name, parts[name], where)
        self.weights = _checked_weights(weights, of)
        self.parts = {name: parts[name] for name in of}
        self._modules_of_parts = torch.nn.ModuleList(self.parts.values())  # so that .to() moves them
        self.channels = sum(part.channels for part in self.parts.values())
        self.stride = min(part.stride for part in self.parts.values())

    def finest(self, image_size: int) -> Backbone:
        """The part of the most patches along the longer side, the first of equals.

        Args:
            image_size: pixels of the (longer) side that the protocol gives; a part's own size goes before it.
        """
        return max(self.parts.values(), key=lambda part: (part.image_size or image_size) / part.stride)

    def join(
        self, maps: Sequence[Float[Tensor, "batch _ _ _"]], grid: tuple[int, int]
    ) -> Float[Tensor, "batch channels rows cols"]:
        """Features of the parts [batch, channels, rows, cols], of any grids and precisions, as one map in float32.

        Args:
            maps: of each part, in order.
            grid: rows and columns.
        """
        units = [_on_grid(normalize(map_.float(), dim=1), grid) for map_ in maps]
        return torch.cat([weight * unit for weight, unit in zip(self.weights, units, strict=True)], dim=1)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channels rows cols"]:
        """All parts on the same images, whose sides are multiples of every part's stride."""
        height, width = images.shape[2:]
        maps = [part(images) for part in self.parts.values()]
        return self.join(maps, (height // self.stride, width // self.stride))

    def fingerprint(self) -> dict[str, str]:
        told = {"model": self.name, "parts": _formula(self.weights, self.parts)}
        fingerprints = {name: part.fingerprint() for name, part in self.parts.items()}
        for name, part in self.parts.items():
            own = fingerprints[name] | {"image_size": str(part.image_size or "the protocol's")}
            told |= {f"{name}.{key}": value for key, value in own.items()}
        drawn = [own["noise_generator"] for own in fingerprints.values() if "noise_generator" in own]
        return told | ({"noise_generator": "|".join(dict.fromkeys(drawn))} if drawn else {})


def _check_part(name: str, part: Backbone, where: str) -> None:
    what = None
    if isinstance(part, Fused):
        what = "is a fused backbone itself"
    elif isinstance(part, NoBackbone):
        what = "has no features"
    elif part.channels_are_patches:
        what = "has a channel for each patch, of which pictures have different numbers"
    elif part.attention_channels:
        what = "has attention for channels"
    if what is not None:
        raise UserError(f"{name} {what}: no part of a fused backbone", where, "name backbones with features of patches")


def _checked_weights(weights: Sequence[float] | None, of: Sequence[str]) -> tuple[float, ...]:
    if weights is None:
        return (1.0,) * len(of)
    where, hint = f"backbone.weights={weights}", f"backbone.weights=[{','.join('1' * len(of))}], one for each part"
    if not isinstance(weights, (list, tuple)) or len(weights) != len(of):
        raise UserError(f"the parts {', '.join(of)} take {len(of)} weights", where, hint)
    for weight in weights:
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 1e-6 <= weight <= 1e6:
            hint = "leave a part of no weight out of backbone.of; a single one is backbone=NAME"
            raise UserError(f"a weight must be a number from 1e-6 to 1e6, not {weight}", where, hint)
    return tuple(map(float, weights))


def _on_grid(unit: Tensor, grid: tuple[int, int]) -> Tensor:
    if tuple(unit.shape[2:]) == grid:
        return unit
    return normalize(interpolate(unit, grid, mode="bilinear", align_corners=False), dim=1)


def _formula(weights: Sequence[float], names: Mapping[str, Backbone]) -> str:
    return " + ".join(f"{weight!r}·{name}" for weight, name in zip(weights, names, strict=True))
