"""The explorer of a picture whose patches were cut; and of an image that a cell scored, named by the classes that its
segments matched."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from diffcut_bench.datasets import SegmentationDataset
from diffcut_bench.ncut import ImageTree
from diffcut_bench.refinement import Similarity, assign_cut_by_cut
from diffcut_bench.reporting.explorer import Explorer
from diffcut_bench.reporting.pictures import match_outcome
from diffcut_bench.scoring.framing import at_most, resize_pixels
from diffcut_bench.scoring.pipeline import Outcome
from diffcut_bench.scoring.stages import Pipeline
from diffcut_bench.scoring.time_limit import time_limit
from diffcut_bench.scoring.upload import upload


@torch.inference_mode()
def explore_cuts(
    pixels: UInt8[Tensor, "3 height width"],
    features: Float[Tensor, "channels rows cols"],
    cuts: ImageTree,
    similarity: Similarity,
    *,
    max_tau: float,
    tau: float,
    tau_meaning: str = "",
    largest: int = 1024,
) -> Explorer:
    """The segments of a picture at every tau up to ``max_tau``.

    Args:
        pixels: colours, 0..255.
        features: of the picture's patches, where the cuts are.
        cuts: of the patches.
        similarity: see `assign_cut_by_cut`.
        max_tau, tau, tau_meaning: see `Explorer`.
        largest: pixels of the longer side that the page's picture has at most.
    """
    size = at_most(largest, (pixels.shape[1], pixels.shape[2]))
    leaves = assign_cut_by_cut(features, cuts.sides, cuts.divided, size, similarity)
    shown = (resize_pixels(pixels, size) * 255).round().byte().permute(1, 2, 0)
    return Explorer(shown.cpu().numpy(), cuts, leaves.cpu().numpy(), max_tau, tau, tau_meaning=tau_meaning)


@torch.inference_mode()
def explore_outcome(outcome: Outcome, pipeline: Pipeline, dataset: SegmentationDataset) -> Explorer:
    """The segments of a scored image at every tau up to the ``slider_end`` of its method, or to the cell's own where
    that is greater.

    Segments are those of exact label codes, before any background rule. At the cell's tau they have the names of the
    classes that the cell's prediction was matched with there, unless labels are of annotators.

    Args:
        outcome: with its picture.
        pipeline: of the cell; which has a `Pipeline.tree_method`.
        dataset: of the image.

    Raises:
        ValueError: the graph is too large for the memory that the segmenter may take.
        TookTooLongError: the cut took longer than ``max_seconds``.
    """
    method, source = pipeline.tree_method, pipeline.features
    assert method is not None
    (there,) = upload([outcome.example], source.device)
    assert there.pixels is not None
    features = source.of([there])
    with time_limit(pipeline.max_seconds, [there.id]):
        tree = method.tree(features, max(method.slider_end, method.tau))
    (cuts,) = tree.images
    explorer = explore_cuts(
        there.pixels,
        features[0],
        cuts,
        pipeline.protocol.similarity,
        max_tau=tree.max_tau,
        tau=method.tau,
        tau_meaning=method.tau_meaning,
    )
    if dataset.annotators:
        return explorer
    names = [dataset.class_names[own] if own >= 0 else "" for own in match_outcome(outcome, dataset)[1]]
    return explorer.named(outcome.prediction.numpy(), names)
