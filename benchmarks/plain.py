"""The stages around the cut as a textbook writes them: image by image, pixel by pixel. What `stages` compares with.

They share no code with `refinement` and `evaluation`.
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import interpolate, normalize, one_hot, pad, unfold


def plain_labels(sides: Sequence[Tensor], reached_at: Sequence[Tensor], taus: Sequence[float]) -> list[list[Tensor]]:
    """Segments at every tau: for each tau and image the different bit strings over the cuts made.

    Args:
        sides: of each image [cuts, nodes].
        reached_at: of each image [cuts]; see `diffcut_bench.ncut.ImageTree`.
        taus: thresholds.
    """
    return [
        [
            (image[reached < tau]).unique(dim=1, return_inverse=True)[1]
            if (reached < tau).any()
            else torch.zeros(image.shape[1], dtype=torch.int64, device=image.device)
            for image, reached in zip(sides, reached_at, strict=True)
        ]
        for tau in taus
    ]


def plain_assignment(features: Tensor, partition: Tensor, size: tuple[int, int]) -> Tensor:
    """Concept of each pixel: every upsampled pixel's feature vector against every concept, dot product.

    Args:
        features: [batch, channels, rows, cols].
        partition: [batch, rows, cols].
        size: of the label map.
    """
    maps = []
    for image, segments in zip(normalize(features.float(), dim=1), partition, strict=True):
        members = one_hot(segments.flatten()).to(image.dtype)
        concepts = image.flatten(1) @ members / members.sum(dim=0)  # channels × segments
        pixels = interpolate(image[None], size, mode="bilinear", align_corners=False)[0].flatten(1)
        maps.append((concepts.T @ pixels).argmax(dim=0).view(size))
    return torch.stack(maps)


def plain_refinement(
    images: Tensor, labels: Tensor, iterations: int = 10, dilations: Sequence[int] = (1, 2, 4, 8)
) -> Tensor:
    """Masks numbered, PAMR, median filter, image by image; 32 copies of each mask hold its neighbours.

    Args:
        images: [batch, 3, height, width] in [0, 1].
        labels: [batch, height, width].
        iterations, dilations: of PAMR.
    """
    refined = []
    for image, segments in zip(images, labels, strict=True):
        height, width = segments.shape

        def neighbours(planes: Tensor, height: int = height, width: int = width) -> Tensor:
            windows = [
                unfold(pad(planes[:, None], [d] * 4, mode="replicate"), 3, dilation=d).view(-1, 9, height, width)
                for d in dilations
            ]
            return torch.stack(windows, dim=1)  # planes × dilations × 9 × height × width

        around = neighbours(image)
        scale = 1e-8 + 0.1 * around.flatten(1, 2).std(dim=1)[:, None]
        outer = [index for index in range(9) if index != 4]
        logits = -((around[:, :, outer].flatten(1, 2) - image[:, None]).abs() / scale).mean(dim=0)
        affinity = logits.softmax(dim=0)
        masks = one_hot(segments.unique(return_inverse=True)[1]).movedim(2, 0).to(image.dtype)
        for _ in range(iterations):
            masks = (neighbours(masks)[:, :, outer].flatten(1, 2) * affinity).sum(dim=1)
        best = masks.argmax(dim=0)
        windows = unfold(pad(best[None, None].float(), [1] * 4, mode="replicate"), 3)
        refined.append(windows[0].median(dim=0).values.long().view(height, width))
    return torch.stack(refined)


def plain_scores(prediction: Tensor, labels: Tensor, num_classes: int, background: int | None) -> list[np.ndarray]:
    """Background rule and matching of the released evaluation: one pass over the pixels for every table entry.

    Args:
        prediction, labels: [batch, height, width]; label −1 is left out.
        num_classes: classes scored.
        background: class that unmatched clusters are merged into; None: no such rule.

    Returns:
        For each image TP, FP and FN of each class [3, classes].
    """
    counts = []
    for clusters, truth in zip(prediction.cpu().numpy(), labels.cpu().numpy(), strict=True):
        if background is not None:
            foreground = [each for each in range(num_classes) if each != background]
            table = _table(clusters, truth, foreground, int(clusters.max()) + 1)
            rows, columns = linear_sum_assignment(table, maximize=True)
            kept = {column for row, column in zip(rows, columns, strict=True) if table[row].sum()}
            clusters = np.where(np.isin(clusters, list(kept)), clusters, clusters.max() + 1)
        table = _table(clusters, truth, list(range(num_classes)), int(clusters.max()) + 1)
        _, columns = linear_sum_assignment(table, maximize=True)
        hits = table[np.arange(num_classes), columns]
        counts.append(np.stack([hits, table.sum(axis=0)[columns] - hits, table.sum(axis=1) - hits]))
    return counts


def _table(clusters: np.ndarray, truth: np.ndarray, classes: list[int], count: int) -> np.ndarray:
    table = np.zeros((len(classes), max(len(classes), count)), dtype=np.int64)
    for row, each in enumerate(classes):
        for cluster in range(count):
            table[row, cluster] = np.logical_and(truth == each, clusters == cluster).sum()
    return table
