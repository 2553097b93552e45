"""Patch affinity: the weighted graph that the Normalized Cut partitions. Knows tensors only."""

import torch
from jaxtyping import Float
from torch import Tensor

# Cosines of identical float32 features differ by rounding alone; a narrower range than this is no contrast.
_NO_CONTRAST = 1e-5


def cosine_matrix(features: Float[Tensor, "batch nodes channels"]) -> Float[Tensor, "batch nodes nodes"]:
    """Cosine similarity of every pair of patches, in [-1, 1].

    Args:
        features: patch features of each image, any scale.

    Returns:
        The Gram matrix of the channel-normalised features. A patch whose feature is zero has similarity 0
        to every patch, itself included.
    """
    # By a power of two, which rounds nothing, so that neither tiny nor huge features leave the range of their norms.
    exponent = torch.frexp(features.abs().amax(dim=(1, 2), keepdim=True)).exponent
    unit = torch.nn.functional.normalize(torch.ldexp(features, -exponent), dim=-1)
    return unit @ unit.transpose(-1, -2)


def affinity(features: Float[Tensor, "batch nodes channels"], alpha: float) -> Float[Tensor, "batch nodes nodes"]:
    """Affinity ``W = minmax(cosine) ** alpha`` of DiffCut (Couairon et al., NeurIPS 2024, section 3.2).

    The cosines of one image are scaled so that its least similar pair is exactly 0 and its most similar
    pair exactly 1, diagonal included; the power is a soft threshold.

    Args:
        features: patch features of each image.
        alpha: exponent, > 0; 10 in the paper.

    Returns:
        Symmetric affinities in [0, 1]. An image without contrast (all features equal) gets affinity 1 everywhere.
    """
    weights = cosine_matrix(features)
    least, most = weights.amin(dim=(1, 2), keepdim=True), weights.amax(dim=(1, 2), keepdim=True)
    span = most - least
    flat = span <= _NO_CONTRAST
    scaled = weights.sub_(least).div_(span.masked_fill(flat, 1.0)).pow_(alpha)
    return scaled.masked_fill_(flat, 1.0)
