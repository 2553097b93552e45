"""TokenCut: one bipartition of the binary affinity graph; the object is the side that stands out."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffcut_bench.ncut import fiedler_vector
from diffcut_bench.ncut.arguments import as_nodes
from diffcut_bench.segmenters.objects import (
    binary_affinity,
    check_graph,
    images_at_once,
    objects_at,
    thresholds,
    unused_threshold,
)


@dataclass(frozen=True)
class TokenCut:
    """TokenCut (Wang et al., CVPR 2022): one object an image, the rest of it the other segment.

    The second eigenvector v of ``(D − W) v = λ D v`` is cut at its mean; the foreground is the side of the greatest
    |v|, and the object its connected component that holds that patch.

    Args:
        tau: patches of greater cosine are joined by an edge of weight 1.
        eps: weight of all other edges.
        tau_quantile: take the place of ``tau`` by the cosine above which the rest of the image's pairs of patches lies:
            0.6 joins the 40 % of pairs that are most alike. None, as published: ``tau`` is the same in all images.

    Raises:
        ValueError: an argument is out of range.
    """

    tau: float = 0.2
    eps: float = 1e-5
    tau_quantile: float | None = None

    def __post_init__(self) -> None:
        check_graph(self.tau, self.eps, self.tau_quantile)

    @property
    def immaterial(self) -> tuple[str, ...]:
        return unused_threshold(self.tau_quantile)

    def __call__(self, features: Float[Tensor, "batch channels rows cols"]) -> Int[Tensor, "batch rows cols"]:
        """Segment of each patch: 0, and 1 for the object.

        Raises:
            ValueError: the features hold NaN or infinity.
        """
        nodes = as_nodes(features)
        if nodes.shape[1] < 2:
            return torch.zeros_like(features[:, 0], dtype=torch.int64)
        vectors = []
        for group in nodes.split(images_at_once(nodes.shape[1])):
            weights = binary_affinity(group, thresholds(group, self.tau, self.tau_quantile), self.eps)
            vectors.append(fiedler_vector(weights, weights.sum(dim=2)))  # its greatest magnitude is positive
        vector = torch.cat(vectors)
        return objects_at(vector > vector.mean(dim=1, keepdim=True), vector.argmax(dim=1), features.shape[2:])
