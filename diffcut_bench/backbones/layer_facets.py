"""What the attention of several layers of a vision transformer projects patches to, side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffcut_bench.backbones.base import Outline
from diffcut_bench.backbones.vision_transformer import FACETS, VisionTransformer, find_part
from diffcut_bench.errors import UserError, did_you_mean


class LayerFacets(VisionTransformer):
    """Keys, queries or values of several layers, as EAGLE (Kim et al., CVPR 2024) takes the keys of DINO's last three.

    Args:
        layers: their numbers, from 0, or negative from the end; channels are in this order.
        facet: ``keys``, ``queries`` or ``values``.
        name, model, revision, image_size, dtype, gated: see `VisionTransformer`.

    Raises:
        UserError: files are missing or damaged, the kind of model is unknown, or an argument is out of range.
    """

    # Told by the fingerprint's `layer`, by numbers from 0.
    immaterial = (*VisionTransformer.immaterial, "layers")

    def __init__(
        self,
        name: str,
        model: str,
        revision: str = "main",
        layers: Sequence[int] = (-3, -2, -1),
        facet: str = "keys",
        image_size: int | None = None,
        dtype: str = "auto",
        gated: bool = False,
    ) -> None:
        if facet == "tokens":
            known = [each for each in FACETS if each != "tokens"]
            raise UserError("tokens of several layers are not taken", "backbone.facet", did_you_mean("", known))
        where, hint = f"backbone.layers={layers}", "numbers of layers that ascend, such as backbone.layers=[-3,-2,-1]"
        if not isinstance(layers, (list, tuple)) or not layers:
            raise UserError("layers are no list of numbers", where, hint)
        super().__init__(name, model, revision, facet=facet, image_size=image_size, dtype=dtype, gated=gated)
        depth = self._config.num_hidden_layers
        if any(not isinstance(each, int) or isinstance(each, bool) or not -depth <= each < depth for each in layers):
            raise UserError(f"the network has layers 0 to {depth - 1}, or -{depth} to -1", where, hint)
        self._numbers = [each % depth for each in layers]
        if any(first >= second for first, second in pairwise(self._numbers)):
            raise UserError(f"layers {self._numbers} do not ascend", where, hint)
        self._layer, self.layer = self._numbers[-1], "+".join(map(str, self._numbers))
        self.channels *= len(self._numbers)
        self._kept: list[Tensor] = []

    @classmethod
    def outline(cls, settings: Mapping[str, Any], image_size: int, device_type: str, aspect: int = 1) -> Outline | None:
        layers = settings.get("layers", (-3, -2, -1))
        facet = settings.get("facet", "keys")
        one = super().outline({**settings, "facet": facet, "layer": layers[-1]}, image_size, device_type, aspect)
        return None if one is None else replace(one, channels=one.channels * len(layers))

    def _read(self) -> None:
        super()._read()
        layers = next(module for module in self.network.modules() if isinstance(module, nn.ModuleList))
        for number in self._numbers[:-1]:  # the last one's are what the network gives
            find_part(layers[number], FACETS[self.facet])[1].register_forward_hook(self._keep)

    def _keep(self, _: nn.Module, __: Any, projected: Tensor) -> None:
        self._kept.append(projected)

    def _extract(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channels rows cols"]:
        self._kept.clear()
        last = super()._extract(images)
        rows, cols = last.shape[2:]
        patches = [projected[:, -rows * cols :] for projected in self._kept]  # class and register tokens come first
        self._kept.clear()
        return torch.cat([*(each.transpose(1, 2).unflatten(2, (rows, cols)) for each in patches), last], dim=1)
