"""``diffcut-bench compare``: two cells on the same images, by the paired bootstrap; ``show``: one cell in detail."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from diffcut_bench.commands.terminal import console, say
from diffcut_bench.config import load_config
from diffcut_bench.errors import UserError, did_you_mean
from diffcut_bench.evaluation import (
    FEWEST_IMAGES,
    PairedDifference,
    image_scores,
    images_per_class,
    paired_bootstrap,
)
from diffcut_bench.paths import expanded
from diffcut_bench.reporting import (
    Column,
    Table,
    class_table,
    common_images,
    counts_of,
    image_table,
    interval_text,
    percent,
    results_table,
    row_counts,
)
from diffcut_bench.store import ImageRow, Result, check_published, read_result

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
    """The difference of two finished cells: of mIoU, accuracy and each class, with 95 % intervals and p-values.

    Raises:
        UserError: a cell is not found, or the two can't be compared.
    """
    output_dir = Path(load_config(options.overrides).output_dir)
    (first_folder, first), (second_folder, second) = (find_cell(name, output_dir) for name in options.cells)
    names = tuple(first.metrics.iou_per_class)
    if names != tuple(second.metrics.iou_per_class):
        raise UserError(
            "the cells score different classes",
            f"{first.dataset.name} and {second.dataset.name}",
            "compare cells of one data set",
        )
    own = [check_published(folder)[1] for folder in (first_folder, second_folder)]
    in_first, in_second = common_images(own)
    pairs = list(zip(in_first, in_second, strict=True))
    left_out = sum(map(len, own)) - 2 * len(pairs)
    if not pairs:
        raise UserError(
            "the cells have no image in common", " and ".join(options.cells), "compare cells of one data set"
        )
    metrics = [counts_of(rows, first) for rows in (in_first, in_second)]
    before, after = (metric.columns() for metric in metrics)
    told = paired_bootstrap(before, after, metrics[0].scores_of, seed=options.draw)
    table = results_table([(first_folder, first), (second_folder, second)], "compared", "The two cells")
    table.print(console)
    notes = [f"no interval and no p: a class annotated in fewer than {FEWEST_IMAGES} images, or fewer in all"]
    notes += [f"paired bootstrap over {len(pairs)} images, 2000 resamples; the second cell less the first"]
    notes += [f"{left_out} images are in one cell only and left out"] if left_out else []
    versions = [str(result.identity.get("numerics_version", "unknown")) for result in (first, second)]
    if len(set(versions)) > 1:
        told_apart = " and ".join(versions)
        notes.append(f"computed by versions {told_apart} of this program's numerics, which is a difference of its own")
    annotated = images_per_class(metrics[0].table()[2]).tolist()
    _difference_table(told, names, [len(pairs), len(pairs), *annotated], notes).print(console)
    _moved(pairs).print(console)
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
    image_table(rows, options.images).print(console)
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
    told: PairedDifference, names: Sequence[str], images: Sequence[int], notes: Sequence[str]
) -> Table:
    """Scores with their difference; a score of too few images has no interval that means anything."""
    columns = [Column("score"), *(Column(n, numeric=True) for n in ("first", "second", "difference", "95 % interval"))]
    rows = []
    for place, name in enumerate(("mIoU", "pixel accuracy", *names)):
        ends = told.interval[:, place].tolist()
        row = (percent(told.first[place].item()), percent(told.second[place].item()))
        p_value = told.p_value[place].item()
        difference = told.difference[place].item()
        interval = interval_text(ends, images[place])
        p_text = "–" if interval == "–" else f"{p_value:.3f}" if p_value > 0.0005 else "≤ 0.0005"
        rows.append((name, *row, percent(difference), interval, p_text))
    columns.append(Column("p", numeric=True))
    return Table("difference", "Difference", tuple(columns), tuple(rows), tuple(notes))


def _moved(pairs: Sequence[tuple[ImageRow, ImageRow]]) -> Table:
    """The images on which the two differ most."""
    first, second = (image_scores(row_counts([pair[side] for pair in pairs])) for side in (0, 1))
    order = (second - first).nan_to_num().argsort().tolist()
    shown = list(dict.fromkeys([*order[:_SHOWN], *order[-_SHOWN:]]))
    columns = (Column("image"), *(Column(n, numeric=True) for n in ("first", "second", "difference")))
    rows = tuple(
        (pairs[i][0].id, *(percent(value.item()) for value in (first[i], second[i], second[i] - first[i])))
        for i in shown
    )
    return Table(
        "moved",
        "Images that differ most",
        columns,
        rows,
        ("mIoU of an image: the mean over the classes annotated or predicted in it",),
    )
