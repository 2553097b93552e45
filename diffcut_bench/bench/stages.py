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
from torch.nn.functional import interpolate

from diffcut_bench.bench.ceiling import VectorProducts, matrix_rate, read_rate
from diffcut_bench.bench.plain import plain_assignment, plain_labels, plain_refinement, plain_scores
from diffcut_bench.bench.segmenter import Textbook, same_partition, textbook_within
from diffcut_bench.bench.timing import peak_bytes, timed
from diffcut_bench.evaluation import contingency_tables, count_matches, merge_backgrounds
from diffcut_bench.evaluation.matching import BackgroundRule
from diffcut_bench.ncut import NCutTree, affinity, ncut_tree
from diffcut_bench.ncut.textbook import textbook_affinity
from diffcut_bench.refinement import assign_concepts, refine_labels

STAGES = ("affinity", "cut", "labels", "concepts", "matching", "pamr")
Floor = Literal["operations", "bytes"]
_NOISE = 1e-3  # of the features' own deviation: parts upsampled patches whose cosines would tie
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
        plain_s: seconds an image of the plain version; None where it was not run.
        plain_images: different images that it was run on.
        ratio: seconds of the plain version over ours, on the same images.
        equal: share that is the same: of images (cut, labels, matching; partitions up to renaming) or of pixels.
        floor: what bounds the stage.
        floor_images_per_s: no faster without doing less.
        floor_share: ``images_per_s / floor_images_per_s``.
        peak_bytes: most memory beyond what its inputs hold; None where the system does not tell.
    """

    stage: str
    patches: int
    images: int
    alpha: float
    segments: float
    images_per_s: float
    plain_s: float | None
    plain_images: int
    ratio: float | None
    equal: float | None
    floor: Floor
    floor_images_per_s: float
    floor_share: float
    peak_bytes: int | None


@dataclass(frozen=True)
class Material:
    """What the stages work on.

    Attributes:
        features: real patch features [images, channels, rows, cols], any number and grid.
        photos: colours [images, 3, height, width] at the scored resolution; they and the labels take turns.
        labels: class ids [images, height, width], −1 is void.
        num_classes, background: of the labels.
        rule: of the background.
    """

    features: Tensor
    photos: Tensor
    labels: Tensor
    num_classes: int
    background: int | None
    rule: BackgroundRule

    def at(self, patches: int, images: int) -> "Material":
        """As many images as wanted, copies where there are not enough, with features of ``patches`` a side."""
        return replace(
            self,
            features=tiled(resized(self.features[:images], patches), images),
            photos=tiled(self.photos, images),
            labels=tiled(self.labels, images),
        )


@dataclass(frozen=True)
class Effort:
    """How much is run.

    Attributes:
        repeats: of ours, and of plain versions other than the cut's; the least time counts.
        plain_up_to: seconds after which no further image is given to a plain version; None: all of them.
        largest_plain: patches a side beyond which the textbook cut, cubic in their number, is not run.
    """

    repeats: int = 2
    plain_up_to: float | None = 20.0
    largest_plain: int = 32


def resized(features: Tensor, patches: int, seed: int = 0) -> Tensor:
    """Feature maps [images, channels, rows, cols] bilinearly on ``patches`` × ``patches``, with a little noise."""
    if features.shape[-2:] == (patches, patches):
        return features
    larger = interpolate(features, (patches, patches), mode="bilinear", align_corners=False)
    noise = torch.randn(larger.shape, generator=torch.Generator().manual_seed(seed)).to(larger)
    return larger + _NOISE * features.std() * noise


def tiled(values: Tensor, count: int) -> Tensor:
    """The first ``count`` along the first axis, begun anew where there are fewer."""
    return values[torch.arange(count, device=values.device) % len(values)]


def measure_stages(
    material: Material,
    patches: int,
    images: int,
    alpha: float,
    tau: float,
    effort: Effort,
    textbook: Textbook | None = None,
) -> Iterator[Stage]:
    """Time every stage at one size.

    Args:
        material: on the device that is measured.
        patches: a side.
        images: at a time.
        alpha, tau: of the cut.
        effort: how much is run.
        textbook: what its cut of the first of these images gave; None: it is run.

    Yields:
        A row for each stage, when it is done.
    """
    given = len(material.features[:images])  # different ones
    taus = [tau * (step + 1) / 20 for step in range(20)]
    material = material.at(patches, images)
    maps, device = material.features, material.features.device
    nodes = maps.flatten(2).transpose(1, 2).contiguous()
    n, channels = nodes.shape[1:]
    height, width = material.labels.shape[1:]
    matrices, reading = matrix_rate(torch.float32, device), read_rate(n, device)
    with VectorProducts() as products:
        tree = ncut_tree(nodes, tau, alpha)
    partition = tree.labels(tau)
    segments = (partition.amax(dim=1) + 1).float().mean().item()
    grid = partition.view(images, patches, patches)
    prediction = assign_concepts(maps, grid, (height, width))
    most, cuts = int(segments + 0.5), sum(len(image.parents) for image in tree.images) / images

    def row(
        stage: str,
        ours: Callable[[], Any],
        plain: Callable[[], Any] | None,
        equal: Callable[[Any, Any], float],
        floor: Floor,
        amount: float,
    ) -> Stage:
        peak = peak_bytes(ours, device)
        times = timed([ours] if plain is None else [ours, plain], effort.repeats, device, _ENOUGH)
        agreement = None if plain is None else equal(times[0].result, times[1].result)
        plain_s = None if plain is None else times[1].seconds
        return finished(stage, times[0].seconds, plain_s, images, agreement, floor, amount, peak)

    def finished(
        stage: str,
        ours_s: float,
        plain_s: float | None,
        plain_images: int,
        agreement: float | None,
        floor: Floor,
        amount: float,
        peak: int | None,
    ) -> Stage:
        bound = (matrices if floor == "operations" else reading) / amount
        return Stage(
            stage,
            patches,
            images,
            alpha,
            segments,
            images_per_s=images / ours_s,
            plain_s=None if plain_s is None else plain_s / images,
            plain_images=0 if plain_s is None else min(plain_images, given),
            ratio=None if plain_s is None else plain_s / ours_s,
            equal=agreement,
            floor=floor,
            floor_images_per_s=bound,
            floor_share=images / ours_s / bound,
            peak_bytes=peak,
        )

    # Cosines: a product of features with themselves.
    yield row(
        *("affinity", lambda: affinity(nodes, alpha)),
        lambda: torch.stack([textbook_affinity(image, alpha) for image in nodes]),
        lambda a, b: (a - b).abs().amax(dim=(1, 2)).lt(1e-3).float().mean().item(),
        *("operations", 2 * n * n * channels),
    )

    peak = peak_bytes(lambda: ncut_tree(nodes, tau, alpha), device)
    (cut,) = timed([lambda: ncut_tree(nodes, tau, alpha).labels(tau)], effort.repeats, device, _ENOUGH)
    plain_s = agreement = None
    if textbook is None and patches <= effort.largest_plain:
        textbook = textbook_within(nodes[:given], tau, alpha, effort.plain_up_to)
    reference = [] if textbook is None else textbook.partitions[:images]
    if textbook is not None:
        plain_s = sum(textbook.seconds[:images]) * images / len(reference)
        agreement = sum(map(same_partition, cut.result, reference)) / len(reference)
    row_of_cut = finished("cut", cut.seconds, plain_s, len(reference), agreement, "bytes", products.read / images, peak)
    if plain_s is not None and len(reference) < min(given, images):  # the ratio wants the same images on both sides
        some = tiled(nodes[: len(reference)], images)
        (same,) = timed([lambda: ncut_tree(some, tau, alpha).labels(tau)], effort.repeats, device, _ENOUGH)
        row_of_cut = replace(row_of_cut, ratio=plain_s / same.seconds)
    yield row_of_cut

    sides, reached = [[getattr(image, name) for image in tree.images] for name in ("sides", "reached_at")]
    yield row(
        "labels",
        # A new tree each time: what it keeps from one tau to the next is part of the cost.
        lambda: [NCutTree([replace(image) for image in tree.images], tau).labels(each) for each in taus],
        lambda: plain_labels(sides, reached, taus),
        lambda a, b: float(same_partition(a[-1][0], b[-1][0])),
        *("bytes", cuts * n + 8 * n * len(taus)),
    )
    yield row(
        *("concepts", lambda: assign_concepts(maps, grid, (height, width))),
        lambda: plain_assignment(maps, grid, (height, width)),
        lambda a, b: (a == b).float().mean().item(),
        *("operations", 4 * n * channels * segments),
    )

    def scores() -> list[Tensor]:
        merged, truth = prediction, material.labels
        if material.background is not None:
            place, rule = material.background, material.rule
            merged = merge_backgrounds(prediction, truth, material.num_classes, place, rule)
        tables = contingency_tables(merged, truth, material.num_classes)
        return [torch.stack(count_matches(table)) for table in tables]

    comparable = material.background is None or material.rule == "unmatched"
    background = material.background
    yield row(
        *("matching", scores),
        (lambda: plain_scores(prediction, material.labels, material.num_classes, background)) if comparable else None,
        lambda a, b: sum(map(_same_counts, a, b)) / len(a),
        *("bytes", 16 * height * width),
    )
    yield row(
        *("pamr", lambda: refine_labels(material.photos, prediction)),
        lambda: plain_refinement(material.photos, prediction),
        lambda a, b: (a == b).float().mean().item(),
        *("bytes", 4 * _ITERATIONS * (2 * most + _NEIGHBOURS) * height * width),
    )


def _same_counts(ours: Tensor, plain: Any) -> bool:
    return torch.equal(ours, torch.from_numpy(plain))
