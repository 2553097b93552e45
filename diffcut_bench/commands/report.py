"""``diffcut-bench report``: tables and one HTML page from the results of an output folder."""

import argparse
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from diffcut_bench.backbones import cache_only
from diffcut_bench.commands.terminal import errors, say
from diffcut_bench.config import RunConfig, load_config
from diffcut_bench.errors import UserError
from diffcut_bench.evaluation import Counts, ImageCounts
from diffcut_bench.experiment import open_pass
from diffcut_bench.paths import expanded, reopened
from diffcut_bench.reporting import (
    Column,
    Curve,
    DatasetPart,
    Drawing,
    GalleryPicture,
    Headline,
    Page,
    Reproduction,
    RunDetails,
    Table,
    choose_images,
    class_table,
    draw_class_bars,
    draw_curves,
    draw_outcome,
    embed_picture,
    heading,
    interval_text,
    percent,
    render_page,
    results_table,
    settings_of,
    sweep_figures,
    varying_names,
)
from diffcut_bench.running import picture_path
from diffcut_bench.store import ImageRow, Result, read_rows, write_atomically

_Found = tuple[Path, Result]
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, UserError)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own flag."""
    parser.add_argument(
        "--gallery", type=int, default=2, metavar="N", help="N best, median and worst images a data set (default 2)"
    )


def report(options: argparse.Namespace) -> int:
    """Write ``reports/index.html`` and ``reports/tables/`` into an output folder; what can't be read is named.

    Raises:
        UserError: there are no results.
    """
    if options.gallery < 0:
        raise UserError("--gallery takes a number from 0 on", f"--gallery {options.gallery}", "such as --gallery 3")
    folder = _output_dir(options.overrides)
    found = _read_results(folder)
    if not found:
        hint = "diffcut-bench run first, or name the folder: diffcut-bench report DIR"
        raise UserError("no results to report", str(folder / "results"), hint)
    page = _page(found, _read_reproductions(folder), options.gallery, folder)
    index = folder / "reports" / "index.html"
    write_atomically(index, render_page(page))
    say(f"page     {index}")
    for table in page.tables():
        table.write(index.parent / "tables")
        say(f"tables   {index.parent / 'tables' / table.name}.md .tex .csv")
    return 0


def _output_dir(words: Sequence[str]) -> Path:
    """The folder that is named, or the config's."""
    folders = [word for word in words if "=" not in word or Path(word).is_dir()]
    if len(folders) > 1:
        raise UserError("a report is of one folder", " ".join(folders), f"diffcut-bench report {folders[0]}")
    config = load_config([word for word in words if word not in folders])
    return Path(expanded(folders[0], "DIR") if folders else config.output_dir)


def _read_results(folder: Path) -> list[_Found]:
    """Every result that can be read, by data set, backbone, segmenter and settings."""
    found = []
    for path in sorted(folder.glob("results/*/result.json")):
        try:
            found.append((path.parent, Result.from_json(path.read_text())))
        except _UNREADABLE as error:
            _say_left_out(path, error)
    return sorted(found, key=lambda cell: _rank(cell[1]))


def _rank(result: Result) -> tuple[object, ...]:
    """Settings in an order that does not change, numbers as numbers."""
    settings = settings_of(result)
    ranks = [
        (name, 0, value, "") if isinstance(value, (int, float)) else (name, 1, 0, str(value))
        for name, value in settings.items()
    ]
    return result.dataset.name, settings["backbone"], settings["segmenter"], ranks, result.key


def _read_reproductions(folder: Path) -> tuple[Reproduction, ...]:
    """What ``diffcut-bench reproduce`` wrote: tables by number, then figures."""

    def rank(path: Path) -> tuple[object, ...]:
        name = path.parent.name
        parts = [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]
        return not name.startswith("table"), parts

    found = []
    for path in sorted(folder.glob("reproductions/*/reproduction.json"), key=rank):
        try:
            found.append(_reproduction(json.loads(path.read_text()), path.parent.name))
        except _UNREADABLE as error:
            _say_left_out(path, error)
    return tuple(found)


def _reproduction(raw: dict[str, Any], name: str) -> Reproduction:
    # The folder's name, which is one, is that of the table's files.
    table = Table.from_dict({**raw["table"], "name": name})
    if any(len(row) != len(table.columns) for row in table.rows):
        raise ValueError("a row has not as many cells as there are columns")
    drawn = None
    if raw.get("curves") and raw["curves"]["curves"]:
        curves = [
            Curve(each["label"], *(tuple(map(float, each.get(part) or ())) for part in ("x", "y", "low", "high")))
            for each in raw["curves"]["curves"]
        ]
        references = [(str(label), float(value)) for label, value in raw["curves"].get("references", ())]
        drawn = draw_curves(curves, raw["curves"]["x_label"], raw["curves"]["y_label"], references)
    return Reproduction(raw["title"], table, drawn)


def _say_left_out(path: Path, error: Exception) -> None:
    text = f"left out, can't be read ({type(error).__name__}: {error}): {path}"
    errors.print(text, style="yellow", highlight=False, markup=False, soft_wrap=True)


def _page(found: Sequence[_Found], reproductions: tuple[Reproduction, ...], gallery: int, folder: Path) -> Page:
    results = [result for _, result in found]
    varying = varying_names([settings_of(result) for result in results])
    best = _best_cells(found)
    backbones = {settings_of(result)["backbone"] for result in results}
    failed = sum(len(result.failures) for result in results)
    lead = (
        f"{_counted(len(results), 'result')} on {_counted(len(best), 'data set')} "
        f"with {_counted(len(backbones), 'backbone')}; {_counted(failed, 'image') if failed else 'no image'} failed"
    )
    return Page(
        title="Unsupervised segmentation results",
        lead=lead,
        headlines=tuple(_headline(name, result, varying) for name, (_, result) in best.items()),
        reproductions=reproductions,
        results=results_table(found, "results", "All results"),
        sweeps=tuple(Drawing(sweep.title, sweep.figure) for sweep in sweep_figures(results)),
        datasets=tuple(_dataset_part(name, *cell, varying, gallery) for name, cell in best.items()),
        versions=_versions(results),
        details=tuple(_details(*cell, varying, folder) for cell in found),
    )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _best_cells(found: Sequence[_Found]) -> dict[str, _Found]:
    """The highest mIoU on each data set under the released protocol; limited or other cells where there is none.

    A published split is known by its name, the user's own data by its options; of several with one name all but the
    first are numbered.
    """
    best: dict[tuple[str, str], _Found] = {}
    for cell in found:
        dataset = cell[1].dataset
        identity = dataset.name, str(cell[1].config.get("dataset")) if dataset.n_expected is None else ""
        if identity not in best or _merit(cell[1]) > _merit(best[identity][1]):
            best[identity] = cell
    named: dict[str, _Found] = {}
    seen: Counter[str] = Counter()
    for (name, _), cell in best.items():
        seen[name] += 1
        named[name if seen[name] == 1 else f"{name} ({seen[name]})"] = cell
    return named


def _merit(result: Result) -> tuple[bool, bool, int, float]:
    score = result.metrics.miou
    # Scores of different protocols, or of images that were easy enough not to fail, are not comparable.
    released = result.protocol.get("name") == "released"
    return not result.limited, released, -len(result.failures), score if score == score else -1.0


def _described(result: Result, varying: Sequence[str]) -> str:
    """The settings that tell a result from the others, in one line."""
    settings = settings_of(result)
    stages = ("dataset", "backbone", "segmenter")
    names = [name for name in dict.fromkeys(["segmenter.tau", "segmenter.alpha", *varying]) if name not in stages]
    own = [f"{heading(name)}={settings[name]}" for name in names if name in settings]
    return ", ".join([settings["backbone"], settings["segmenter"], *own])


def _headline(name: str, result: Result, varying: Sequence[str]) -> Headline:
    low, high = (100 * end for end in result.metrics.miou_ci95)
    images, expected = result.dataset.n_images - len(result.failures), result.dataset.n_expected
    scored = f"{images} of {expected} images" if result.limited and expected else _counted(images, "image")
    settings = _described(result, varying)
    return Headline(name, 100 * result.metrics.miou, low, high, settings, scored, result.limited)


def _dataset_part(name: str, folder: Path, result: Result, varying: Sequence[str], gallery: int) -> DatasetPart:
    """The best cell's classes and pictures; a note stands for what is not to be had."""
    notes: list[str] = []
    rows: list[ImageRow] = []
    try:
        rows = read_rows(folder)
    except _UNREADABLE as error:
        notes.append(f"no pictures: per_image.parquet can't be read ({error})")
    intervals = _class_intervals(result, rows)
    stem = re.sub(r"[^A-Za-z0-9-]+", "_", name).strip("_")
    told = replace(result, metrics=replace(result.metrics, iou_per_class_ci95=intervals))
    table = class_table(told, f"classes_{stem}")
    present = {name: 100 * iou for name, iou in result.metrics.iou_per_class.items() if iou is not None}
    ends = [tuple(100 * end for end in intervals.get(name) or (float("nan"),) * 2) for name in present]
    lows, highs = ([pair[side] for pair in ends] for side in (0, 1))
    bars = draw_class_bars(list(present), list(present.values()), lows, highs) if present else None
    shown, missing = _gallery(folder, result, rows, gallery)
    settings = _described(result, varying)
    return DatasetPart(name, settings, table, bars, shown, (*notes, *missing))


def _class_intervals(result: Result, rows: Sequence[ImageRow]) -> dict[str, tuple[float, float] | None]:
    """95 % interval of each class; of an older result they are computed from its rows, if they are there."""
    names = list(result.metrics.iou_per_class)
    if result.metrics.iou_per_class_ci95 or any(len(row.tp) != len(names) for row in rows) or not rows:
        return result.metrics.iou_per_class_ci95
    metric = ImageCounts(len(names), seed=result.environment.seed, sync_on_compute=False)
    for row in rows:
        metric.update(row.index, Counts(*(torch.tensor(c) for c in (row.tp, row.fp, row.fn))), row.pixels)
    ends = metric.compute()["iou_per_class_ci95"].T.tolist()
    return {name: None if low != low else (low, high) for name, (low, high) in zip(names, ends, strict=True)}


def _gallery(
    folder: Path, result: Result, rows: Sequence[ImageRow], each: int
) -> tuple[tuple[tuple[str, tuple[GalleryPicture, ...]], ...], list[str]]:
    """Best, median and worst images with their pictures, and notes on pictures that are missing."""
    chosen = choose_images(rows, each)
    notes = _draw_missing(folder, result, [row for _, images in chosen for row, _ in images])
    shown = []
    for kind, images in chosen:
        pictures = []
        for row, score in images:
            about = f"mean IoU {percent(score)} %, {_counted(row.segments, 'segment')}"
            try:
                uri, width, height = embed_picture(picture_path(folder / "pictures", row.id))
            except FileNotFoundError:
                notes.append(f"{row.id} ({kind}, {about}): no picture")
                continue
            except OSError as error:
                notes.append(f"{row.id} ({kind}, {about}): its picture can't be read ({error})")
                continue
            alt = f"{row.id}: image, label and prediction side by side; {about}"
            pictures.append(GalleryPicture(uri, width, height, alt, f"{row.id}: {about}"))
        if pictures:
            shown.append((kind.capitalize(), tuple(pictures)))
    return tuple(shown), notes


def _draw_missing(folder: Path, result: Result, rows: Sequence[ImageRow]) -> list[str]:
    """Draw the pictures that a cell lacks, from data and weights at hand, and say what can't be drawn.

    Nothing is downloaded.
    """
    pictures = folder / "pictures"
    missing = [row.index for row in rows if not picture_path(pictures, row.id).is_file()]
    if not missing:
        return []
    try:
        config = RunConfig(**reopened(result.config, folder.parent.parent))
    except TypeError as error:
        return [f"pictures can't be drawn: the config is of another version ({error})"]
    say(f"drawing  {_counted(len(missing), 'picture')} of {folder.name}")
    try:
        with cache_only():
            opened = open_pass(config)
            try:
                cell = opened.cell(config)
                if cell.key != result.key:
                    return ["pictures can't be drawn: data, weights, device or versions are not those of the result"]
                for outcome in cell.outcomes(missing):
                    draw_outcome(outcome, opened.images.dataset, picture_path(pictures, outcome.example.id))
            finally:
                opened.features.close()
    except UserError as error:
        return [f"pictures can't be drawn: {error.what} ({error.where})"]
    return []


def _versions(results: Sequence[Result]) -> Table:
    """Each package in the versions that the results were made with."""
    by_package: dict[str, list[str]] = {}
    for result in results:
        for package, version in result.environment.packages.items():
            if version not in by_package.setdefault(package, []):
                by_package[package].append(version)
    rows = tuple((package, ", ".join(versions)) for package, versions in sorted(by_package.items()))
    return Table("versions", "Versions", (Column("package"), Column("version")), rows)


def _details(folder: Path, result: Result, varying: Sequence[str], root: Path) -> RunDetails:
    """All that result.json says of how a result came about."""
    dataset, segments, made_in = result.dataset, result.segments_per_image, result.environment
    seconds = {
        name.removesuffix("_s"): value for name, value in asdict(result.timings).items() if name != "images_per_s"
    }
    settings = [f"{name}={value}" for name, value in settings_of(result).items() if not name.startswith("protocol.")]
    expected = f" of {dataset.n_expected} published" if dataset.n_expected else ""
    commit = made_in.git.get("commit") or "not in a checkout"
    facts = (
        ("mIoU", f"{percent(result.metrics.miou)} [{interval_text(result.metrics.miou_ci95)}]"),
        (
            "pixel accuracy",
            f"{percent(result.metrics.pixel_accuracy)} [{interval_text(result.metrics.pixel_accuracy_ci95)}]",
        ),
        ("segments", f"{segments.mean:.1f} an image, {segments.min} to {segments.max}"),
        ("images", f"{dataset.n_images}{expected}; fingerprint {dataset.fingerprint}"),
        ("settings", ", ".join(settings)),
        ("protocol", ", ".join(f"{name}={value}" for name, value in result.protocol.items())),
        ("device", made_in.device),
        ("noise drawn on", made_in.noise_generator),
        ("seed", str(made_in.seed)),
        ("commit", f"{commit}{' with local changes' if made_in.git.get('dirty') else ''}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in made_in.packages.items())),
        ("timings", ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())),
        ("speed", f"{result.timings.images_per_s:.2f} images/s"),
        ("key", result.key),
        ("folder", str(folder.relative_to(root))),
    )
    return RunDetails(
        title=f"{dataset.name}, {_described(result, varying)}:",
        score=percent(result.metrics.miou),
        limited=result.limited,
        facts=facts,
        failures=tuple(f"{failure.id}: {failure.error}" for failure in result.failures),
    )
