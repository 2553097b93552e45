"""The fully connected CRF of Krähenbühl and Koltun on a label map, by their own code. Knows tensors only."""

from dataclasses import dataclass
from math import log

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from diffcut_bench.extras import require
from diffcut_bench.ncut.arguments import check_count, check_number

# Far below it the authors' lattice writes beyond its memory; no pixel hears another one at this already.
_LEAST_SIGMA = 0.1


@dataclass(frozen=True)
class CrfRefiner:
    """Dense CRF (Krähenbühl & Koltun, NeurIPS 2011) over the segments of a label map; the ``refiner=crf`` option.

    A pixel starts with ``confidence`` in its own segment; the other segments of the picture share the rest equally.
    Mean-field iterations follow, in which every pixel hears every other one: the nearer and the more alike in colour
    two pixels are, the more it costs to keep them in different segments (Potts). Kernels are normalised symmetrically.
    It runs on the host, one picture after the other, in the authors' code (package ``pydensecrf2``, extra ``crf``).

    The defaults are those of CLASP (arXiv 2509.25016). MaskCut (Wang et al., CVPR 2023) refines one mask after the
    other: 10 iterations, confidence e / (1 + e) = 0.731, Gaussian 3 pixels and weight 7, bilateral 50 pixels, 5 grey
    levels and weight 10.

    Memory: about 24 bytes for each pixel and segment. As any pixel may change any other, a picture is never refined in
    tiles: labels of one larger than 1536 pixels are refined at that size, then enlarged. Sigmas are at least 0.1.

    Args:
        iterations: of mean field; 0 changes nothing.
        confidence: probability of a pixel's own segment before the first iteration, above 0.5 and below 1.
        gaussian_sigma: of the kernel of distance alone, in pixels of the label map.
        gaussian_weight: of that kernel, at most 1e6, as the other one's.
        bilateral_sigma: of the kernel of distance and colour: distance, in pixels of the label map.
        colour_sigma: of the same kernel: difference of colour, in grey levels (0..255) of each channel.
        bilateral_weight: of that kernel.

    Raises:
        ValueError: an option is out of range.
        UserError: the package is not installed.
    """

    iterations: int = 20
    confidence: float = 0.8
    gaussian_sigma: float = 4
    gaussian_weight: float = 4
    bilateral_sigma: float = 80
    colour_sigma: float = 13
    bilateral_weight: float = 10

    def __post_init__(self) -> None:
        check_count("iterations", self.iterations, 0)
        check_number("confidence", self.confidence, 0.5, 1)
        if self.confidence in (0.5, 1):
            raise ValueError(f"confidence must be above 0.5 and below 1, not {self.confidence}")
        for name in ("gaussian_sigma", "bilateral_sigma", "colour_sigma"):
            check_number(name, getattr(self, name), _LEAST_SIGMA, 1e6)
        for name in ("gaussian_weight", "bilateral_weight"):
            check_number(name, getattr(self, name), 0, 1e6)
        require("crf", "refiner=crf", "pydensecrf")

    def __call__(
        self, image: Float[Tensor, "batch 3 height width"], labels: Int[Tensor, "batch height width"]
    ) -> Int[Tensor, "batch height width"]:
        """Segment ids after the last iteration: those of ``labels``, of which some may be missing.

        Args:
            image: colours in [0, 1], at the resolution of the labels; they are rounded to 256 levels.
            labels: segment ids.
        """
        colours = (image.float() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
        refined = []
        for picture, ids in zip(colours, labels.cpu().numpy(), strict=True):
            present, own = np.unique(ids, return_inverse=True)
            alone = len(present) == 1
            best = np.zeros(ids.size, int) if alone else self._beliefs(picture, own.reshape(ids.shape)).argmax(axis=0)
            refined.append(present[best].reshape(ids.shape))
        return torch.from_numpy(np.stack(refined)).to(labels.device, non_blocking=True)

    def _beliefs(self, picture: NDArray[np.uint8], segments: NDArray[np.integer]) -> NDArray[np.float32]:
        """Probabilities [segments, pixels] of a picture's segments, at least two, which are numbered without gaps."""
        from pydensecrf.densecrf import DenseCRF2D

        (height, width), count = segments.shape, int(segments.max()) + 1
        unary = np.full((count, segments.size), -log((1 - self.confidence) / (count - 1)), np.float32)
        unary[segments.ravel(), np.arange(segments.size)] = -log(self.confidence)
        crf = DenseCRF2D(width, height, count)
        crf.setUnaryEnergy(unary)  # it keeps a copy
        del unary
        crf.addPairwiseGaussian(self.gaussian_sigma, self.gaussian_weight)
        crf.addPairwiseBilateral(self.bilateral_sigma, self.colour_sigma, picture, self.bilateral_weight)
        beliefs, *scratch = crf.startInference()
        for _ in range(self.iterations):  # one at a time, so that a signal can interrupt them
            crf.stepInference(beliefs, *scratch)
        return np.asarray(beliefs)
