"""Each stage after the backbone alone: images/s against a plain version of it and against its floor, and its memory.

The floor is the time that a stage can't go below on this device without doing less: its operations over the rate of a
matrix product, or the bytes that it must read and write over the rate of reading, both measured in the same run.
Rates are those of arrays of the stage's own size, so that caches count. Nothing here prints or writes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics.functional.clustering import adjusted_rand_score

from benchmarks.ceiling import VectorProducts, read_rate
from benchmarks.cut import Textbook, mean_segments, share_equal
from benchmarks.material import Material, tiled
from benchmarks.plain import plain_assignment, plain_labels, plain_refinement, plain_scores
from benchmarks.timing import peak_bytes, timed
from diffcut_bench.environment import matrix_rate
from diffcut_bench.evaluation import contingency_tables, count_matches, merge_backgrounds
from diffcut_bench.ncut import NCutTree, affinity, ncut_tree, recursive_ncut
from diffcut_bench.ncut.textbook import textbook_affinity
from diffcut_bench.refinement import assign_concepts, refine_labels

STAGES = ("affinity", "cut", "labels", "concepts", "matching", "pamr")
Floor = Literal["operations", "bytes"]
_ENOUGH = 5.0  # seconds, after which a stage is not repeated
_ITERATIONS, _NEIGHBOURS = 10, 32


@dataclass(frozen=True)
class Stage:
    """One stage at one size.

    Attributes:
        stage: of `STAGES`; ``cut`` is `ncut_tree` whole, affinity included, because that is what a user calls.
        patches: a side.
        images: at a time.
        alpha: of the affinity.
        segments: mean an image.
        images_per_s: the best of the repeats.
        floor: what bounds the stage.
        floor_images_per_s: no faster without doing less.
        floor_share: ``images_per_s / floor_images_per_s``.
        peak_bytes: most memory beyond what its inputs hold; None where the system does not tell.
        plain_s: seconds an image of the plain version; None where it was not run.
        plain_images: different images that it was run on.
        ratio: seconds of the plain version over ours, on the same images.
        equal: share that is the same: of images (cut, labels, matching; partitions up to renaming) or of pixels.
        ari_to_dense: of the cut: mean adjusted Rand index to the dense solver, on the images of the plain version.
    """

    stage: str
    patches: int
    images: int
    alpha: float
    segments: float
    images_per_s: float
    floor: Floor
    floor_images_per_s: float
    floor_share: float
    peak_bytes: int | None
    plain_s: float | None = None
    plain_images: int = 0
    ratio: float | None = None
    equal: float | None = None
    ari_to_dense: float | None = None


def measure_stages(
    material: Material, images: int, alpha: float, tau: float, textbook: Textbook | None, repeats: int = 2
) -> Iterator[Stage]:
    """Time every stage on features of one size.

    Args:
        material: on the device that is measured.
        images: at a time, copies where there are not enough.
        alpha, tau: of the cut.
        textbook: what its cut of the first images gave; None: the cut is compared with nothing.
        repeats: of ours and of plain versions other than the cut's; the least time counts.

    Yields:
        A row for each stage, when it is done.
    """
    given = len(material.features[:images])  # different ones
    material = material.repeated(images)
    maps, nodes, device = material.features, material.nodes, material.features.device
    (n, channels), patches = nodes.shape[1:], maps.shape[-1]
    height, width = material.labels.shape[1:]
    rates: dict[Floor, float] = {"operations": matrix_rate(torch.float32, device), "bytes": read_rate(n, device)}
    with VectorProducts() as products:
        tree = ncut_tree(nodes, tau, alpha)
    partition = tree.labels(tau)
    segments = mean_segments(partition)
    grid = partition.view(images, patches, patches)
    prediction = assign_concepts(maps, grid, (height, width))

    def measured(
        stage: str,
        ours: Callable[[], Any],
        floor: Floor,
        amount: float,
        plain: Callable[[], Any] | None = None,
        equal: Callable[[Any, Any], float] = lambda a, b: (a == b).float().mean().item(),
    ) -> Stage:
        """``amount``: operations or bytes of one image; ``equal``: share of two results that is the same."""
        peak = peak_bytes(ours, device)
        one, *other = timed([ours] if plain is None else [ours, plain], repeats, device, _ENOUGH)
        bound = rates[floor] / amount
        row = Stage(
            stage=stage,
            patches=patches,
            images=images,
            alpha=alpha,
            segments=segments,
            images_per_s=images / one.least,
            floor=floor,
            floor_images_per_s=bound,
            floor_share=images / one.least / bound,
            peak_bytes=peak,
        )
        if not other:
            return row
        return replace(
            row,
            plain_s=other[0].least / images,
            plain_images=given,
            ratio=other[0].least / one.least,
            equal=equal(one.result, other[0].result),
        )

    yield measured(
        "affinity",
        lambda: affinity(nodes, alpha),
        "operations",
        2 * n * n * channels,  # cosines: a product of features with themselves
        lambda: torch.stack([textbook_affinity(image, alpha) for image in nodes]),
        lambda a, b: (a - b).abs().amax(dim=(1, 2)).lt(1e-3).float().mean().item(),
    )

    def cut(of: Tensor) -> Tensor:
        return ncut_tree(of, tau, alpha).labels(tau)

    row = measured("cut", lambda: cut(nodes), "bytes", products.read / images)
    if textbook is not None:
        theirs, seconds = textbook.partitions[:images], textbook.seconds[:images]
        plain_s, images_per_s = sum(seconds) / len(theirs), row.images_per_s
        if len(theirs) < given:  # the ratio wants the same images on both sides
            same = tiled(nodes[: len(theirs)], images)
            (again,) = timed([lambda: cut(same)], repeats, device, _ENOUGH)
            images_per_s = images / again.least
        dense = recursive_ncut(nodes[: len(theirs)], tau, alpha, solver="eigh")
        likeness = [adjusted_rand_score(*pair).item() for pair in zip(partition, dense, strict=False)]
        row = replace(
            row,
            plain_s=plain_s,
            plain_images=len(theirs),
            ratio=plain_s * images_per_s,
            equal=share_equal(partition, theirs),
            ari_to_dense=sum(likeness) / len(likeness),
        )
    yield row

    taus = [tau * (step + 1) / 20 for step in range(20)]
    cuts = sum(len(image.parents) for image in tree.images) / images
    sides, reached = [image.sides for image in tree.images], [image.reached_at for image in tree.images]
    yield measured(
        "labels",
        # A new tree each time: what it keeps from one tau to the next is part of the cost.
        lambda: [NCutTree([replace(image) for image in tree.images], tau).labels(each) for each in taus],
        "bytes",
        cuts * n + 8 * n * len(taus),
        lambda: plain_labels(sides, reached, taus),
        lambda a, b: share_equal(a[-1], b[-1]),
    )
    yield measured(
        "concepts",
        lambda: assign_concepts(maps, grid, (height, width)),
        "operations",
        4 * n * channels * segments,
        lambda: plain_assignment(maps, grid, (height, width)),
    )

    labels, num_classes, background = material.labels, material.num_classes, material.background

    def scores() -> list[Tensor]:
        merged = prediction
        if background is not None:
            merged = merge_backgrounds(prediction, labels, num_classes, background, material.rule)
        return [torch.stack(count_matches(table)) for table in contingency_tables(merged, labels, num_classes)]

    comparable = background is None or material.rule == "unmatched"
    yield measured(
        "matching",
        scores,
        "bytes",
        16 * height * width,
        (lambda: plain_scores(prediction, labels, num_classes, background)) if comparable else None,
        lambda a, b: sum(torch.equal(ours, torch.from_numpy(plain)) for ours, plain in zip(a, b, strict=True)) / len(a),
    )
    yield measured(
        "pamr",
        lambda: refine_labels(material.photos, prediction),
        "bytes",
        4 * _ITERATIONS * (2 * round(segments) + _NEIGHBOURS) * height * width,
        lambda: plain_refinement(material.photos, prediction),
    )
