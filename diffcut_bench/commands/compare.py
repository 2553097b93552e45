"""``diffcut-bench compare``: two cells on the same images, by the paired bootstrap."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from diffcut_bench.commands.terminal import console, warn_left_out
from diffcut_bench.commands.words import find_cell, split_words
from diffcut_bench.config import load_config
from diffcut_bench.errors import UserError
from diffcut_bench.evaluation import (
    FEWEST_IMAGES,
    ImageTable,
    Metric,
    PairedDifference,
    compare_images,
    known_metrics,
)
from diffcut_bench.reporting import (
    Column,
    ImageScore,
    Table,
    cells_along,
    common_images,
    compare_at_segments,
    difference_texts,
    number_columns,
    results_table,
)
from diffcut_bench.scoring.summary import image_table
from diffcut_bench.store import Result, check_published, read_result

_SHOWN = 5  # images on either side


def compare(options: argparse.Namespace) -> int:
    """The difference of two finished cells: of every score and each class, with 95 % intervals and p-values.

    Raises:
        UserError: a cell is not found, or the two can't be compared.
    """
    at, word = _number_or_word(options.at_segments or "")
    names, words = split_words([*word, *options.cells, *options.overrides])
    if len(names) != 2:
        what = f"two cells are compared, and {'one is' if len(names) == 1 else f'{len(names)} are'} named"
        raise UserError(what, " ".join([*names, *words]), "diffcut-bench compare CELL CELL")
    config = load_config([f"score={word[7:]}" if word.startswith("metric=") else word for word in words])
    cells = [find_cell(name, Path(config.output_dir)) for name in names]
    first, second = (result for _, result in cells)
    if first.class_names != second.class_names:
        where = f"{first.dataset.name} and {second.dataset.name}"
        raise UserError("the cells score different classes", where, "compare cells of one data set")
    if options.at_segments is not None:
        return _compare_at_segments(cells, config.score, at, options.draw)
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
    notes += [f"{which}: {folder.name}" for which, (folder, _) in zip(("first", "second"), cells, strict=True)]
    left_out = sum(map(len, own)) - 2 * len(ids)
    notes += [f"{left_out} images are in one cell only and left out"] if left_out else []
    versions = [str(result.identity.get("numerics_version", "unknown")) for result in (first, second)]
    if len(set(versions)) > 1:
        told = " and ".join(versions)
        notes.append(f"computed by versions {told} of this program's numerics, which is a difference of its own")
    leading = known_metrics()[config.score if config.score in differences else next(iter(differences))]
    if leading.name != config.score:
        lacking = known_metrics()[config.score].heading
        notes.append(f"no {lacking} of both cells: {leading.heading} leads (if_exists=overwrite scores images again)")
    annotated = dict(zip(first.class_names, images[0].images_per_class().tolist(), strict=True))
    results_table(cells, score=config.score).print(console)
    _difference_table(differences, leading, len(ids), annotated, notes).print(console)
    _moved(ids, images, leading).print(console)
    return 0


def _number_or_word(text: str) -> tuple[float | None, list[str]]:
    """What stands behind ``--at-segments``: a number, or a cell or override that follows the flag alone."""
    try:
        return (float(text), []) if text else (None, [])
    except ValueError:
        return None, [text]


def _compare_at_segments(cells: Sequence[tuple[Path, Result]], score: str, at: float | None, seed: int) -> int:
    """The difference of two methods, each a curve of cells, at equal numbers of segments."""
    first, second = (cells_along(cell, _beside(cell[0])) for cell in cells)
    rows = [[check_published(folder)[1] for folder, _ in side.cells] for side in (first, second)]
    table = compare_at_segments((first, second), rows, score, at, seed)
    results_table([*first.cells, *second.cells], score=score).print(console)
    table.print(console)
    return 0


def _beside(folder: Path) -> list[tuple[Path, Result]]:
    """Finished cells in the same folder as one of them; those that can't be read are named and left out."""
    found = []
    for path in sorted(folder.parent.glob("*/result.json")):
        try:
            found.append((path.parent, read_result(path.parent)))
        except UserError as error:
            warn_left_out(path, error.what)
    return found


def _difference_table(
    differences: Mapping[str, PairedDifference],
    leading: Metric,
    images: int,
    classes: Mapping[str, int],
    notes: Sequence[str],
) -> Table:
    """Scores with their difference; a score of too few images has no interval that means anything.

    Args:
        differences: by the metric's name.
        leading: metric that stands first.
        images: that both have.
        classes: in how many of these each class is annotated.
        notes: under the table.
    """
    scores: list[tuple[str, ...]] = []
    of_classes: list[tuple[str, ...]] = []
    for metric in sorted((known_metrics()[name] for name in differences), key=lambda metric: metric is not leading):
        of_class = metric.class_heading or metric.heading
        are_told = metric.per_class is not None and (metric.in_tables or metric is leading)
        told = [(f"{of_class} of {name}", count) for name, count in classes.items() if are_told]
        for column, (name, count) in enumerate([(metric.heading, images), *told]):
            line = difference_texts(metric, differences[metric.name], column, name, count)
            (of_classes if column else scores).append(line)
        if told:
            notes = [f"{metric.heading} is of all classes together, “{of_class} of …” of one class", *notes]
    columns = (Column("score"), *number_columns("first", "second", "difference", "95 % interval", "p"))
    return Table("difference", "Difference", columns, (*scores, *of_classes), tuple(notes))


def _moved(ids: Sequence[str], images: Sequence[ImageTable], leading: Metric) -> Table:
    """The images on which the two differ most, by the metric that leads."""
    by = ImageScore.of(leading)
    metric = by.metric
    first, second = (metric.of_each(own) for own in images)
    order = (second - first).nan_to_num().argsort().tolist()
    shown = dict.fromkeys([*order[:_SHOWN], *order[-_SHOWN:]])
    scores = torch.stack([first, second, second - first], dim=1).tolist()
    rows = tuple((ids[i], *map(metric.text, scores[i])) for i in shown)
    columns = (Column("image"), *number_columns("first", "second", "difference"))
    return Table("moved", "Images that differ most", columns, rows, (by.about,))
