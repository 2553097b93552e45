"""``diffcut-bench compare``: two cells on the same images, by the paired bootstrap; ``show``: one cell in detail."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from diffcut_bench.commands.terminal import console, say
from diffcut_bench.config import load_config
from diffcut_bench.errors import UserError, did_you_mean
from diffcut_bench.evaluation import FEWEST_IMAGES, ImageTable, PairedDifference, compare_images, known_metrics
from diffcut_bench.paths import expanded
from diffcut_bench.reporting import (
    ABOUT_IMAGES,
    Column,
    Table,
    class_table,
    common_images,
    interval_text,
    percent,
    rank_table,
    results_table,
)
from diffcut_bench.scoring.summary import image_table
from diffcut_bench.store import Result, check_published, read_result

_SHOWN = 5


def add_compare_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``compare``."""
    parser.add_argument("cells", nargs=2, metavar="CELL", help="folder, its name in results/, or the key's beginning")
    parser.add_argument("--draw", type=int, default=42, metavar="SEED", help="seed of the bootstrap (default 42)")


def add_show_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``show``."""
    parser.add_argument("cell", metavar="CELL", help="folder, its name in results/, or the key's beginning")
    parser.add_argument("--images", type=int, default=_SHOWN, help=f"best and worst images shown (default {_SHOWN})")


def compare(options: argparse.Namespace) -> int:
    """The difference of two finished cells: of every score and each class, with 95 % intervals and p-values.

    Raises:
        UserError: a cell is not found, or the two can't be compared.
    """
    output_dir = Path(load_config(options.overrides).output_dir)
    (first_folder, first), (second_folder, second) = (find_cell(name, output_dir) for name in options.cells)
    if first.class_names != second.class_names:
        raise UserError(
            "the cells score different classes",
            f"{first.dataset.name} and {second.dataset.name}",
            "compare cells of one data set",
        )
    own = [check_published(folder)[1] for folder in (first_folder, second_folder)]
    in_first, in_second = common_images(own)
    left_out = sum(map(len, own)) - 2 * len(in_first)
    if not in_first:
        raise UserError(
            "the cells have no image in common", " and ".join(options.cells), "compare cells of one data set"
        )
    images = image_table(in_first), image_table(in_second)
    differences = {
        name: difference
        for name, difference in compare_images(*images, first.protocol, seed=options.draw).items()
        if not known_metrics()[name].inapplicable(second.protocol)
    }
    table = results_table([(first_folder, first), (second_folder, second)], "compared", "The two cells")
    table.print(console)
    notes = [f"no interval and no p: a class annotated in fewer than {FEWEST_IMAGES} images, or fewer in all"]
    notes += [f"paired bootstrap over {len(in_first)} images, 2000 resamples; the second cell less the first"]
    notes += [f"{left_out} images are in one cell only and left out"] if left_out else []
    versions = [str(result.identity.get("numerics_version", "unknown")) for result in (first, second)]
    if len(set(versions)) > 1:
        told_apart = " and ".join(versions)
        notes.append(f"computed by versions {told_apart} of this program's numerics, which is a difference of its own")
    annotated = dict(zip(first.class_names, images[0].images_per_class().tolist(), strict=True))
    _difference_table(differences, len(in_first), annotated, notes).print(console)
    _moved([row.id for row in in_first], images).print(console)
    return 0


def show(options: argparse.Namespace) -> int:
    """One finished cell: every class with its interval, the worst and best images.

    Raises:
        UserError: the cell is not found.
    """
    if options.images < 0:
        raise UserError("--images takes a number from 0 on", f"--images {options.images}", "such as --images 3")
    folder, result = find_cell(options.cell, Path(load_config(options.overrides).output_dir))
    _, rows = check_published(folder)
    results_table([(folder, result)]).print(console)
    class_table(result, rows).print(console)
    rank_table(rows, options.images).print(console)
    say(f"result   {folder / 'result.json'}")
    return 0


def find_cell(name: str, output_dir: Path) -> tuple[Path, Result]:
    """A finished cell by its folder, by the folder's name below ``results/``, or by the beginning of its key.

    Raises:
        UserError: there is none, or several.
    """
    results = output_dir / "results"
    known = {path.parent.name: path.parent for path in sorted(results.glob("*/result.json"))}
    folder = Path(expanded(name, "CELL")) if name else results
    found = [folder] if (folder / "result.json").is_file() else [known[name]] if name in known else []
    if not found:
        found = [path for title, path in known.items() if title.rpartition("-")[2].startswith(name)]
    if len(found) > 1:
        raise UserError(f"{len(found)} cells begin with {name!r}", str(results.absolute()), "give more of the key")
    if not found:
        raise UserError(f"no finished cell {name!r}", str(results.absolute()), did_you_mean(name, known))
    return found[0], read_result(found[0])


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
    metrics = [known_metrics()[name] for name in differences]
    told = [(metric, 0, metric.heading, images) for metric in metrics]
    for metric in metrics:
        if metric.per_class is not None:
            prefix = "" if metric.name == "miou" else f"{metric.class_heading or metric.heading}, "
            told += [(metric, i, f"{prefix}{name}", count) for i, (name, count) in enumerate(classes.items(), 1)]
    rows = []
    for metric, column, name, count in told:
        found = differences[metric.name]
        scores = (found.first, found.second, found.difference)
        interval = interval_text(found.interval[:, column].tolist(), count, metric)
        p_value = found.p_value[column].item()
        p_text = "–" if interval == "–" else f"{p_value:.3f}" if p_value > 0.0005 else "≤ 0.0005"
        rows.append((name, *(metric.text(score[column].item()) for score in scores), interval, p_text))
    headings = ("first", "second", "difference", "95 % interval", "p")
    columns = (Column("score"), *(Column(each, numeric=True) for each in headings))
    return Table("difference", "Difference", columns, tuple(rows), tuple(notes))


def _moved(ids: Sequence[str], images: Sequence[ImageTable]) -> Table:
    """The images on which the two differ most."""
    first, second = (known_metrics()["jaccard"].of_each(own) for own in images)
    order = (second - first).nan_to_num().argsort().tolist()
    shown = list(dict.fromkeys([*order[:_SHOWN], *order[-_SHOWN:]]))
    columns = (Column("image"), *(Column(each, numeric=True) for each in ("first", "second", "difference")))
    rows = tuple(
        (ids[i], *(percent(value.item()) for value in (first[i], second[i], second[i] - first[i]))) for i in shown
    )
    return Table("moved", "Images that differ most", columns, rows, (ABOUT_IMAGES,))
