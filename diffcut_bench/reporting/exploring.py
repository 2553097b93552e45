"""The explorer of an image that a cell scored: the cuts of its segmenter, named by the classes that they matched."""

import torch

from diffcut_bench.datasets import SegmentationDataset
from diffcut_bench.ncut import ncut_trees
from diffcut_bench.refinement import assign_cut_by_cut
from diffcut_bench.reporting.explorer import MAX_TAU, Explorer
from diffcut_bench.reporting.pictures import match_outcome
from diffcut_bench.scoring.framing import resize_image
from diffcut_bench.scoring.pipeline import Outcome
from diffcut_bench.scoring.stages import Pipeline
from diffcut_bench.scoring.time_limit import time_limit
from diffcut_bench.scoring.upload import upload
from diffcut_bench.segmenters import DiffCut

_LARGEST = 1024  # pixels of the longer side of the page's picture


@torch.inference_mode()
def explore_outcome(outcome: Outcome, pipeline: Pipeline, dataset: SegmentationDataset) -> Explorer:
    """The segments of a scored image at every tau up to 0.8, or to the cell's own where that is greater.

    Segments are those of exact label codes, before any background rule. At the cell's tau they have the names of the
    classes that the cell's prediction was matched with there, unless labels are of annotators.

    Args:
        outcome: with its picture.
        pipeline: of the cell; `Pipeline.has_tree`.
        dataset: of the image.

    Raises:
        ValueError: the graph is too large for the memory that the segmenter may take.
        TookTooLongError: the cut took longer than ``max_seconds``.
    """
    method, source = pipeline.segmenter.method, pipeline.features
    assert isinstance(method, DiffCut)
    (there,) = upload([outcome.example], source.device)
    assert there.pixels is not None
    features = source.of([there])
    with time_limit(pipeline.max_seconds, [there.id]):
        (tree,) = ncut_trees(features.flatten(2).mT, [(max(MAX_TAU, method.tau), method.alpha)], method)
    (cuts,) = tree.images
    rows, cols = there.pixels.shape[1:]
    scale = min(_LARGEST / max(rows, cols), 1)
    size = max(round(rows * scale), 1), max(round(cols * scale), 1)
    leaves = assign_cut_by_cut(features[0], cuts.sides, cuts.divided, size, pipeline.protocol.similarity)
    pixels = (resize_image(there.pixels / 255, size).permute(1, 2, 0) * 255).round().byte()
    explorer = Explorer(pixels.cpu().numpy(), cuts, leaves.cpu().numpy(), tree.max_tau, method.tau)
    if dataset.annotators:
        return explorer
    names = [dataset.class_names[own] if own >= 0 else "" for own in match_outcome(outcome, dataset)[1]]
    return explorer.named(outcome.prediction.numpy(), names)
