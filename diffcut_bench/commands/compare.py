"""``diffcut-bench compare``: two cells on the same images, by the paired bootstrap."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from diffcut_bench.commands.terminal import console
from diffcut_bench.commands.words import CELL_HELP, find_cell, split_words
from diffcut_bench.config import load_config
from diffcut_bench.errors import UserError
from diffcut_bench.evaluation import FEWEST_IMAGES, ImageTable, PairedDifference, compare_images, known_metrics
from diffcut_bench.reporting import (
    ABOUT_IMAGES,
    Column,
    Table,
    common_images,
    image_metric,
    interval_text,
    number_columns,
    results_table,
)
from diffcut_bench.scoring.summary import image_table
from diffcut_bench.store import check_published

_SHOWN = 5  # images on either side


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("cells", nargs=2, metavar="CELL", help=CELL_HELP)
    parser.add_argument("--draw", type=int, default=42, metavar="SEED", help="seed of the bootstrap (default 42)")


def compare(options: argparse.Namespace) -> int:
    """The difference of two finished cells: of every score and each class, with 95 % intervals and p-values.

    Raises:
        UserError: a cell is not found, or the two can't be compared.
    """
    names, words = split_words(options.cells)
    if words:
        raise UserError("two cells are compared, and one is named", words[0], "diffcut-bench compare CELL CELL")
    output_dir = Path(load_config(options.overrides).output_dir)
    cells = [find_cell(name, output_dir) for name in names]
    first, second = (result for _, result in cells)
    if first.class_names != second.class_names:
        where = f"{first.dataset.name} and {second.dataset.name}"
        raise UserError("the cells score different classes", where, "compare cells of one data set")
    own = [check_published(folder)[1] for folder, _ in cells]
    common = common_images(own)
    ids = [row.id for row in common[0]]
    if not ids:
        where = " and ".join(names)
        raise UserError("the cells have no image in common", where, "compare cells of one data set")
    images = image_table(common[0]), image_table(common[1])
    differences = compare_images(*images, (first.protocol, second.protocol), seed=options.draw)
    notes = [f"no interval and no p: a class annotated in fewer than {FEWEST_IMAGES} images, or fewer in all"]
    notes += [f"paired bootstrap over {len(ids)} images, 2000 resamples; the second cell less the first"]
    left_out = sum(map(len, own)) - 2 * len(ids)
    notes += [f"{left_out} images are in one cell only and left out"] if left_out else []
    versions = [str(result.identity.get("numerics_version", "unknown")) for result in (first, second)]
    if len(set(versions)) > 1:
        told = " and ".join(versions)
        notes.append(f"computed by versions {told} of this program's numerics, which is a difference of its own")
    annotated = dict(zip(first.class_names, images[0].images_per_class().tolist(), strict=True))
    results_table(cells).print(console)
    _difference_table(differences, len(ids), annotated, notes).print(console)
    _moved(ids, images).print(console)
    return 0


def _difference_table(
    differences: Mapping[str, PairedDifference], images: int, classes: Mapping[str, int], notes: Sequence[str]
) -> Table:
    """Scores with their difference; a score of too few images has no interval that means anything.

    Args:
        differences: by the metric's name.
        images: that both have.
        classes: in how many of these each class is annotated.
        notes: under the table.
    """
    scores: list[tuple[str, ...]] = []
    of_classes: list[tuple[str, ...]] = []
    for metric, found in ((known_metrics()[name], found) for name, found in differences.items()):
        if not metric.in_tables:
            continue
        prefix = "" if metric.name == "miou" else f"{metric.class_heading or metric.heading}, "
        told = [(f"{prefix}{name}", count) for name, count in classes.items() if metric.per_class is not None]
        for column, (name, count) in enumerate([(metric.heading, images), *told]):
            texts = [metric.text(each[column].item()) for each in (found.first, found.second, found.difference)]
            interval = interval_text(found.interval[:, column].tolist() if count >= FEWEST_IMAGES else None, metric)
            p_value = found.p_value[column].item()
            p_text = "–" if interval == "–" else f"{p_value:.3f}" if p_value > 0.0005 else "≤ 0.0005"
            (of_classes if column else scores).append((name, *texts, interval, p_text))
    columns = (Column("score"), *number_columns("first", "second", "difference", "95 % interval", "p"))
    return Table("difference", "Difference", columns, (*scores, *of_classes), tuple(notes))


def _moved(ids: Sequence[str], images: Sequence[ImageTable]) -> Table:
    """The images on which the two differ most."""
    metric = image_metric()
    first, second = (metric.of_each(own) for own in images)
    order = (second - first).nan_to_num().argsort().tolist()
    shown = dict.fromkeys([*order[:_SHOWN], *order[-_SHOWN:]])
    scores = torch.stack([first, second, second - first], dim=1).tolist()
    rows = tuple((ids[i], *map(metric.text, scores[i])) for i in shown)
    columns = (Column("image"), *number_columns("first", "second", "difference"))
    return Table("moved", "Images that differ most", columns, rows, (ABOUT_IMAGES,))
