"""Segments of an image, before concept assignment and background rule: how finely a method divides."""

import torch

from diffcut_bench.evaluation.metrics import Metric, ratio

METRIC = Metric(
    name="segments",
    heading="segments",
    statistic=lambda images: torch.stack([images.segments, torch.ones_like(images.segments)], dim=1),
    reduce=ratio,
    higher_is_better=None,
    is_fraction=False,
    order=90,
)
