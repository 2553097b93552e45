"""Hungarian matching of predicted clusters to annotated classes, and the background rules before it."""

from collections.abc import Sequence
from typing import NamedTuple, get_args

import torch
from jaxtyping import Float, Int, Integer
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from diffcut_bench.protocol import BackgroundRule, Criterion, Surplus

IGNORED = -1
# Clusters that an accelerator has room for while it is not known how many there are; where there are more, it counts
# again.
_SUPPOSED_CLUSTERS = 256


class Counts(NamedTuple):
    """True positive, false positive and false negative pixels of each class."""

    tp: Int[Tensor, " classes"]
    fp: Int[Tensor, " classes"]
    fn: Int[Tensor, " classes"]


def contingency_tables(
    prediction: Integer[Tensor, "batch height width"], label: Integer[Tensor, "batch height width"], num_classes: int
) -> list[Int[Tensor, "classes clusters"]]:
    """Pixels shared by each annotated class and each predicted cluster of each image, counted where the images are.

    Args:
        prediction: cluster ids from 0.
        label: class ids from 0 to ``num_classes`` − 1; pixels of −1 are left out.
        num_classes: number of classes scored.

    Returns:
        For each image ``num_classes`` × ``max(num_classes, clusters)`` counts on the host, so that every class can have
        a cluster.

    Raises:
        ValueError: shapes differ, or an id is out of range.
    """
    tables, clusters = _count_pixels(prediction.long(), label.long(), num_classes)
    return [table[1:, : max(num_classes, count)] for table, count in zip(tables, clusters, strict=True)]


def _count_pixels(prediction: Tensor, label: Tensor, num_classes: int) -> tuple[Tensor, list[int]]:
    """Tables [batch, 1 + classes, columns], the first row for the pixels that are left out; and the number after the
    greatest cluster id of each image."""
    if prediction.shape != label.shape:
        raise ValueError(f"prediction {list(prediction.shape)} and label {list(label.shape)} differ in shape")
    supposed = int(prediction.max()) + 1 if prediction.device.type == "cpu" else _SUPPOSED_CLUSTERS
    extremes, tables = _fetch_counts(prediction, label, num_classes, max(num_classes, supposed))
    least, most, least_label, most_label = extremes.tolist()
    if min(least) < 0:
        raise ValueError(f"cluster ids must be >= 0, found {min(least)}")
    if min(least_label) < IGNORED or max(most_label) >= num_classes:
        raise ValueError(f"label ids must lie in -1..{num_classes - 1}, found {min(least_label)}..{max(most_label)}")
    if max(most) >= tables.shape[2]:
        _, tables = _fetch_counts(prediction, label, num_classes, max(most) + 1)
    return tables, [each + 1 for each in most]


def _fetch_counts(prediction: Tensor, label: Tensor, num_classes: int, columns: int) -> tuple[Tensor, Tensor]:
    """Extremes of cluster and label ids [4, batch] and tables [batch, 1 + classes, columns], in one copy to the host;
    the tables mean nothing where an id is out of range."""
    extremes = torch.stack([*prediction.flatten(1).aminmax(dim=1), *label.flatten(1).aminmax(dim=1)])
    size = torch.Size((len(label), num_classes + 1, columns))
    first_cells = torch.arange(columns, size.numel() + columns, (num_classes + 1) * columns, device=label.device)
    cells = torch.add(prediction, label, alpha=columns).add_(first_cells[:, None, None]).clamp_(0, size.numel() - 1)
    counts = torch.zeros(size.numel(), dtype=torch.int32, device=label.device)
    counts.scatter_add_(0, cells.flatten(), counts.new_ones(()).expand(cells.numel()))
    found = torch.cat([extremes.flatten().view(torch.int32), counts]).cpu()
    numbers = 2 * extremes.numel()
    return found[:numbers].view(torch.int64).view(extremes.shape), found[numbers:].long().view(size)


def contingency_table(
    prediction: Integer[Tensor, "height width"], label: Integer[Tensor, "height width"], num_classes: int
) -> Int[Tensor, "classes clusters"]:
    """`contingency_tables` of one image."""
    return contingency_tables(prediction[None], label[None], num_classes)[0]


def number_by_first_pixel(labels: Integer[Tensor, "batch height width"]) -> Int[Tensor, "batch height width"]:
    """Segments numbered in the order in which they begin, row by row: the same whatever numbers they had before.

    Args:
        labels: ids from 0.

    Returns:
        Ids contiguous from 0 within each image.
    """
    flat = labels.flatten(1).long()
    pixels = torch.arange(flat.shape[1], device=flat.device).expand_as(flat)
    begin = torch.full((len(flat), int(flat.max()) + 1), flat.shape[1], device=flat.device)
    begin.scatter_reduce_(1, flat, pixels, "amin")
    return begin.argsort(dim=1).argsort(dim=1).gather(1, flat).view_as(labels)


def assign_clusters(
    tables: Int[Tensor, "*images classes clusters"], criterion: Criterion = "overlap", surplus: Surplus = "absent_class"
) -> Int[Tensor, " classes"]:
    """Cluster of each class in the one-to-one assignment of greatest total overlap or IoU.

    Args:
        tables: contingency table with at least as many clusters (columns) as classes; or those of several images, whose
            sum is assigned once.
        criterion: ``overlap`` sums shared pixels (released), ``iou`` sums intersection over union (paper's text).
        surplus: what becomes of a cluster that the assignment gives to a class it shares no pixel with:
            ``absent_class`` (released): it is that class's, ties broken as SciPy does, so that the order of the columns
            decides; ``unmatched``: nobody's, and no order of the columns changes what is counted.

    Returns:
        Column assigned to each class; −1 for a class without a cluster, under ``unmatched``.
    """
    table = tables.sum(dim=0) if tables.dim() == 3 else tables
    classes = len(table)
    if surplus == "absent_class" or not classes:
        return _best_columns(table, criterion)
    # Columns in an order that only their contents decide; the empty ones come last, and what no class needs is dropped.
    contents = tables.flatten(0, -2)
    order = contents.unique(dim=1, return_inverse=True)[1].argsort(descending=True, stable=True)
    order = order[: max(classes, int(contents.any(dim=0).sum()))]
    assigned = order[_best_columns(table[:, order], criterion)]
    return assigned.where(table[torch.arange(classes), assigned] > 0, -1)


def _best_columns(table: Tensor, criterion: Criterion) -> Tensor:
    """Column of each class in the assignment of greatest score, as SciPy finds it."""
    score = table.double()
    if criterion == "iou":
        union = score.sum(dim=1, keepdim=True) + score.sum(dim=0, keepdim=True) - score
        score = score / union.clamp_min(1)
    _, columns = linear_sum_assignment(score.numpy(), maximize=True)
    return torch.from_numpy(columns).long()


def merge_backgrounds(
    prediction: Integer[Tensor, "batch height width"],
    label: Integer[Tensor, "batch height width"],
    num_classes: int,
    background: int,
    rule: BackgroundRule,
    criterion: Criterion = "overlap",
    surplus: Surplus = "absent_class",
) -> Integer[Tensor, "batch height width"]:
    """Merge predicted clusters into one background cluster; uses the annotation, as every rule of the field does.

    Args:
        prediction: cluster ids from 0.
        label: class ids, −1 ignored.
        num_classes: number of classes, background included.
        background: id of the background class.
        rule: ``unmatched`` (released): match the foreground classes alone, background pixels ignored; what is not
            assigned to a class present in the label is background. ``overlap`` (paper, supplement H): a cluster whose
            most frequent class is the background is background. ``one_to_one``: nothing is merged.
        criterion: of the foreground matching under the rule ``unmatched``.
        surplus: of that matching, see `assign_clusters`; where clusters tie in all that they share with the
            foreground, their numbers decide (`number_by_first_pixel`).

    Returns:
        Cluster ids; the merged one is ``max(prediction) + 1`` of its image.

    Raises:
        ValueError: shapes differ, or an id is out of range.
    """
    if rule == "one_to_one":
        return prediction
    return merge_and_count(prediction, label, num_classes, background, rule, criterion, surplus)[0]


def merge_and_count(
    prediction: Integer[Tensor, "batch height width"],
    label: Integer[Tensor, "batch height width"],
    num_classes: int,
    background: int,
    rule: BackgroundRule,
    criterion: Criterion = "overlap",
    surplus: Surplus = "absent_class",
) -> tuple[Integer[Tensor, "batch height width"], list[Int[Tensor, "classes clusters"]]]:
    """`merge_backgrounds`, and `contingency_tables` of what it gives; pixels are counted, and come over, once for both.

    Args:
        prediction, label, num_classes, background, rule, criterion, surplus: see `merge_backgrounds`.

    Raises:
        ValueError: shapes differ, or an id is out of range.
    """
    if rule == "one_to_one":
        return prediction, contingency_tables(prediction, label, num_classes)
    if not 0 <= background < num_classes:
        raise ValueError(f"background must be a class id from 0 to {num_classes - 1}, not {background}")
    prediction = prediction.long()
    tables, clusters = _count_pixels(prediction, label.long(), num_classes)
    becomes = torch.arange(max(clusters)).repeat(len(tables), 1)
    merged_tables = []
    for ids, table, count in zip(becomes, tables, clusters, strict=True):
        of_classes = table[1:, : max(num_classes, count)]
        foreground = torch.cat([of_classes[:background], of_classes[background + 1 :]])
        if rule == "unmatched":
            present = foreground.sum(dim=1) > 0
            merged = torch.ones(of_classes.shape[1], dtype=torch.bool)
            kept = assign_clusters(foreground[:, : max(num_classes - 1, count)], criterion, surplus)[present]
            merged[kept[kept >= 0]] = False
        else:
            merged = of_classes[background] > (foreground.amax(dim=0) if len(foreground) else 0)
        ids[:count][merged[:count]] = count
        after = table.new_zeros(len(table), max(num_classes, count + 1)).index_add_(1, ids[:count], table[:, :count])
        merged_tables.append(after[1:, : max(num_classes, count + bool(after[:, count].any()))])
    becomes = becomes.int().to(prediction.device, non_blocking=True)  # few enough bytes that nothing waits for the copy
    return becomes.gather(1, prediction.flatten(1)).long().view_as(prediction), merged_tables


def count_assigned(table: Int[Tensor, "classes _"], clusters: Int[Tensor, " classes"]) -> Counts:
    """TP, FP, FN of each class with the cluster that it was assigned.

    Args:
        table: of the image, see `contingency_tables`.
        clusters: of each class, see `assign_clusters`; one without (−1) has false negatives alone.
    """
    assigned = clusters >= 0
    tp = table[torch.arange(len(table)), clusters] * assigned
    return Counts(tp, table.sum(dim=0)[clusters] * assigned - tp, table.sum(dim=1) - tp)


def count_matches(
    table: Int[Tensor, "classes clusters"], criterion: Criterion = "overlap", surplus: Surplus = "absent_class"
) -> Counts:
    """TP, FP, FN of each class after the one-to-one assignment of clusters to classes in an image.

    Args:
        table: of the image, see `contingency_tables`.
        criterion, surplus: see `assign_clusters`.

    Returns:
        Pixels. Clusters left over by the assignment count as no class's false positives.
    """
    return count_assigned(table, assign_clusters(table, criterion, surplus))


def count_matches_together(
    tables: Sequence[Int[Tensor, "classes _"]], criterion: Criterion = "overlap", surplus: Surplus = "absent_class"
) -> list[Counts]:
    """TP, FP, FN of each image after *one* assignment of clusters to classes for all of them (``matching=dataset``).

    Args:
        tables: of each image; cluster ids mean the same in all.
        criterion, surplus: see `assign_clusters`.

    Returns:
        Counts of each image; what the assignment leaves over counts as no class's false positives.
    """
    columns = max(table.shape[1] for table in tables)
    padded = torch.stack([torch.nn.functional.pad(table, (0, columns - table.shape[1])) for table in tables])
    assigned = assign_clusters(padded, criterion, surplus)
    return [count_assigned(table, assigned) for table in padded]


def match_image(
    prediction: Integer[Tensor, "height width"],
    label: Integer[Tensor, "height width"],
    num_classes: int,
    background_rule: BackgroundRule = "one_to_one",
    *,
    background: int | None = None,
    criterion: Criterion = "overlap",
    surplus: Surplus = "absent_class",
) -> Counts:
    """Score one image: background rule, then Hungarian matching (PAMR between the two is the pipeline's affair).

    Args:
        prediction: cluster ids from 0.
        label: class ids from 0 to ``num_classes`` − 1; −1 is ignored.
        num_classes: number of classes scored, background included where there is one.
        background_rule: see `merge_backgrounds`.
        background: id of the background class; the last one unless given. Not looked at under ``one_to_one``.
        criterion, surplus: see `assign_clusters`. Under ``unmatched`` no number of a cluster changes the counts.

    Returns:
        TP, FP and FN pixels, ``num_classes`` of each.

    Raises:
        ValueError: shapes differ, or an id or a name is out of range.

    >>> prediction = torch.tensor([[0, 0, 1, 1]])
    >>> label = torch.tensor([[1, 1, 0, -1]])
    >>> match_image(prediction, label, num_classes=2)
    Counts(tp=tensor([1, 2]), fp=tensor([0, 0]), fn=tensor([0, 0]))
    """
    choices = {"background_rule": (background_rule, BackgroundRule), "criterion": (criterion, Criterion)}
    for name, (value, allowed) in (choices | {"surplus": (surplus, Surplus)}).items():
        if value not in get_args(allowed):
            raise ValueError(f"{name} must be one of {', '.join(get_args(allowed))}, not {value!r}")
    background = num_classes - 1 if background is None else background
    predictions, labels = prediction[None], label[None]
    if surplus == "unmatched":
        predictions = number_by_first_pixel(predictions)
    _, (table,) = merge_and_count(predictions, labels, num_classes, background, background_rule, criterion, surplus)
    return count_matches(table, criterion, surplus)


def iou_per_class(
    tp: Float[Tensor, "*batch classes"], fp: Float[Tensor, "*batch classes"], fn: Float[Tensor, "*batch classes"]
) -> Float[Tensor, "*batch classes"]:
    """``TP / (TP + FP + FN)``, NaN for a class neither annotated nor predicted."""
    return tp / (tp + fp + fn)
