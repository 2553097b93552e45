"""FOUND's first stage: the background by a seed that nobody looks at; the objects are what is left."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffcut_bench.errors import UserError
from diffcut_bench.ncut.affinity import unit_features
from diffcut_bench.ncut.arguments import as_nodes, check_count, check_number


@dataclass(frozen=True)
class Found:
    """Background seed of FOUND (Siméoni et al., CVPR 2023), without its trained refinement: background and foreground.

    The seed is the patch of least attention by the class token, in the mean over heads: FOUND weights heads by how
    sparse their attention is, which the benchmark's paper does not describe. The background is every patch whose
    cosine to the seed is above ``tau``, wherever it lies.

    Args:
        tau: cosine above which a patch is background.
        attention_channels: last channels of the features that are attention, which `VisionTransformer` appends with
            ``attention=True``, one a head; 0: there are none, and the seed is the patch of greatest mean cosine to
            all others, since the ground is what most of a picture is alike.

    Raises:
        ValueError: an argument is out of range.
    """

    tau: float = 0.3
    attention_channels: int = 0

    def __post_init__(self) -> None:
        check_number("tau", self.tau, -1, 1)
        check_count("attention_channels", self.attention_channels, 0)

    def __call__(self, features: Float[Tensor, "batch channels rows cols"]) -> Int[Tensor, "batch rows cols"]:
        """Segment of each patch: background and foreground.

        Raises:
            ValueError: the features hold NaN or infinity.
            UserError: no channel is left beside attention.
        """
        rows, cols = features.shape[2:]
        nodes = as_nodes(features)
        kept = nodes.shape[2] - self.attention_channels
        if kept < 1:
            raise UserError(
                f"{self.attention_channels} of the {nodes.shape[2]} feature channels are said to be attention",
                "segmenter.attention_channels",
                "set it to the heads of a backbone with backbone.attention=true, such as 6 for dino_s8",
            )
        unit = unit_features(nodes[:, :, :kept])
        if self.attention_channels:
            seed = nodes[:, :, kept:].mean(dim=2).argmin(dim=1)
        else:
            # A patch's cosine to itself is the same for all, so the mean over all patches has the same order.
            seed = (unit @ unit.mean(dim=1)[:, :, None])[:, :, 0].argmax(dim=1)
        cosine = (unit @ unit[torch.arange(len(unit), device=unit.device), seed][:, :, None])[:, :, 0]
        background = cosine > self.tau
        # One segment where all is background, or (a seed of zero) nothing.
        mixed = background.any(dim=1, keepdim=True)
        return (~background & mixed).long().unflatten(1, (rows, cols))
