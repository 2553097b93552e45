"""``diffcut-bench coherence``: ROC and AUC of patch similarity as a same-class classifier, and its heat maps."""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from diffcut_bench.coherence import (
    BackgroundRule,
    Curve,
    Mark,
    MixedRule,
    PairChoice,
    PatchChoice,
    PatchGrid,
    Picture,
    Plan,
    SamplingOptions,
    auc,
    auc_interval,
    choose_mark,
    draw_heatmaps,
    draw_pairs,
    draw_roc,
    grid_features,
    grid_shape,
    label_patches,
    make_plan,
    mark_between,
    pair_scores,
    roc_points,
    similarity_map,
)
from diffcut_bench.commands.terminal import console, progress, say
from diffcut_bench.config import RunConfig, build_protocol, load_config
from diffcut_bench.datasets import SegmentationDataset
from diffcut_bench.environment import choose_device, environment
from diffcut_bench.errors import UserError, did_you_mean
from diffcut_bench.evaluation import FEWEST_IMAGES
from diffcut_bench.interruption import held_back
from diffcut_bench.reporting import encode_figure
from diffcut_bench.scoring.features import FeatureSource
from diffcut_bench.scoring.framing import Example, Framing, prepare_example, seen_choices
from diffcut_bench.scoring.passes import open_dataset, open_features
from diffcut_bench.scoring.reading import example_loader, read_ahead, read_label
from diffcut_bench.store import DatasetRecord, Environment, Failure, cell_key, write_atomically


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own flags; ``backbone=A,B``, ``dataset=…``, ``limit=…`` and ``seed=…`` are overrides."""
    defaults = SamplingOptions()

    def choice(flag: str, allowed: Any, text: str) -> None:
        default = getattr(defaults, flag)
        parser.add_argument(f"--{flag}", choices=get_args(allowed), default=default, help=f"{text} (default {default})")

    def number(flag: str, text: str) -> None:
        default = getattr(defaults, flag.replace("-", "_"))
        parser.add_argument(f"--{flag}", type=type(default), default=default, help=f"{text} (default {default})")

    choice("pairs", PairChoice, "patches of two different images, of the same image, or both")
    number("image-pairs", "at most so many pairs of images; images, under --pairs within")
    number("patches", "at most so many patches an image")
    choice("sampling", PatchChoice, "all patches alike, or as many of each class of an image as possible")
    choice("mixed", MixedRule, "patches with several classes: drop those below --purity, or take the majority's class")
    number("purity", "least share of the majority class in a patch's pixels")
    choice("background", BackgroundRule, "patches of the background class")
    number("grid", "patches along the longer side of an image, for all backbones")
    parser.add_argument("--mark", metavar="ROW,COL", help="patch of the heat maps, counted from 0; needs --mark-images")
    parser.add_argument("--mark-images", metavar="A,B", help="ids of the marked patch's image and of the other one")


@dataclass(frozen=True)
class _Measured:
    """A backbone's figures; similarity maps in the marked patch's image and in the other, if a patch is marked."""

    curve: Curve
    fingerprint: dict[str, str]
    maps: tuple[NDArray[np.float32], NDArray[np.float32]] | None


def coherence(options: argparse.Namespace) -> int:
    """Measure every backbone on the same patches; print the table, write coherence.json and the figures.

    Raises:
        UserError: an option is out of range, there are no pairs to compare, or data or weights are missing.
    """
    measure_coherence(_configs(options.overrides), options)
    return 0


def measure_coherence(configs: Sequence[RunConfig], options: argparse.Namespace) -> dict[str, Any]:
    """The same for composed configs that differ in their backbone; returns what coherence.json holds."""
    config = configs[0]
    device = choose_device(config.device)
    choices = {name: getattr(options, name) for name in asdict(SamplingOptions()) if name != "seed"}
    sampling = SamplingOptions(**choices, seed=config.seed)
    whole = open_dataset(config)
    dataset = whole.select(config.limit)
    background = dataset.background
    place = {image: index for index, image in enumerate(dataset.records["id"][:])}
    marked, patch = _wanted_mark(options, place)

    pairs = draw_pairs(list(place), sampling)
    needed = sorted({image for pair in pairs for image in pair} | set(marked or ()))
    grids, failures = _read_grids(config, dataset, [place[image] for image in needed], sampling.grid)
    plan = make_plan(grids, pairs, background, sampling)
    try:
        described = DatasetRecord(dataset.name, dataset.fingerprint(), len(dataset), whole.n_expected)
    except ValueError as error:
        raise UserError(f"{error}", f"dataset={dataset.name}", "fetch or unpack this file again") from error
    if marked is None:
        mark = choose_mark({image: grids[image] for image in plan.ids}, background, sampling)
    else:
        mark = mark_between(*_readable(marked, failures), grids, background, sampling, patch)

    measured = [_measure(each, dataset, place, grids, plan, mark, device) for each in configs]
    what = None if mark is None else "void" if mark.label < 0 else dataset.class_names[mark.label]
    identity = {
        "options": asdict(sampling),
        "protocol": seen_choices(config.protocol),
        "dataset": asdict(described),
        "mark": {**asdict(mark), "class": what} if mark else None,
        "device_type": device.type,
        "features_dtype": "the backbone's" if (kept := config.features.get("dtype", "auto")) == "auto" else kept,
    }
    noise = "|".join(dict.fromkeys(each.fingerprint.get("noise_generator", "none") for each in measured))
    record = _record(identity, plan, measured, failures, environment(device, config.seed, noise))
    _print(record)
    title = "-".join([dataset.name, *(each.curve.name for each in measured)])
    folder = Path(config.output_dir) / "coherence" / f"{title}-{record['key'][:12]}"
    write_atomically(folder / "coherence.json", json.dumps(record, indent=1) + "\n")
    say(f"record   {folder / 'coherence.json'}")
    curves = [each.curve if _is_told(record) else replace(each.curve, interval=None) for each in measured]
    roc = draw_roc(curves, f"Semantic coherence on {dataset.name}", _notes(record))
    figures = {"roc.png": encode_figure(roc, "png"), "roc.svg": encode_figure(roc, "svg")}
    if mark is None or what is None:
        console.print("no heat maps: no class is in two of the images", style="dim")
    else:
        first, second = _pictures(config, dataset, [place[mark.first], place[mark.second]], grids, mark)
        maps = [(each.curve.name, *each.maps) for each in measured if each.maps]
        heatmaps = draw_heatmaps(maps, first, second, (mark.row, mark.col), what)
        figures["heatmaps.png"] = encode_figure(heatmaps, "png")
    for name, content in figures.items():
        write_atomically(folder / name, content)
        say(f"figure   {folder / name}")
    return record


def _configs(overrides: Sequence[str]) -> list[RunConfig]:
    """A config for each backbone of ``backbone=A,B``."""
    named = [word for word in overrides if word.startswith("backbone=")]
    rest = [word for word in overrides if not word.startswith("backbone=")]
    names = dict.fromkeys(name for word in named[-1:] for name in word.removeprefix("backbone=").split(",") if name)
    return [load_config([*rest, f"backbone={name}"]) for name in names] or [load_config(rest)]


def _wanted_mark(
    options: argparse.Namespace, place: dict[str, int]
) -> tuple[tuple[str, str] | None, tuple[int, int] | None]:
    """The user's two image ids and patch; None: choose."""
    patch = None
    if options.mark is not None:
        row, _, col = options.mark.partition(",")
        if not (row.strip().isdecimal() and col.strip().isdecimal()):
            raise UserError(f"{options.mark!r} is no patch", "--mark", "write ROW,COL, such as --mark 12,20")
        patch = int(row), int(col)
    if options.mark_images is None:
        if patch is not None:
            raise UserError("a patch is marked, but not in which image", "--mark", "add --mark-images A,B")
        return None, None
    first, _, second = (part.strip() for part in options.mark_images.partition(","))
    for image in (first, second):
        if image not in place:
            raise UserError(f"no image {image!r} for the heat maps", "--mark-images A,B", did_you_mean(image, place))
    return (first, second), patch


def _readable(images: tuple[str, str], failures: Sequence[Failure]) -> tuple[str, str]:
    """The user's two images, if both could be read."""
    for failure in failures:
        if failure.id in images:
            raise UserError(failure.error, f"--mark-images: {failure.id}", "mend the file, or name another image")
    return images


def _read_grids(
    config: RunConfig, dataset: SegmentationDataset, indices: Sequence[int], longer: int
) -> tuple[dict[str, PatchGrid], list[Failure]]:
    """Patch labels by image id, and the images that can't be read."""
    grids, failures = {}, []
    with progress("labels", "images") as report:
        for done, item in enumerate(_labelled(config, dataset, indices), start=1):
            if isinstance(item, Failure):
                failures.append(item)
            else:
                label = item.label.numpy()
                shape = grid_shape(label.shape[0], label.shape[1], longer)
                grids[item.id] = label_patches(label, dataset.num_classes, shape)
            report(done, len(indices))
    if config.max_failures is not None and len(failures) > config.max_failures:
        raise UserError(
            f"{len(failures)} images can't be read, more than max_failures={config.max_failures}; {failures[-1].error}",
            failures[-1].id,
            "mend the data, or raise max_failures",
        )
    return grids, failures


def _labelled(config: RunConfig, dataset: SegmentationDataset, indices: Sequence[int]) -> Iterator[Example | Failure]:
    """Images with labels as finely resolved as the network's input, so that a patch has many pixels; void is void.

    No backbone has a say here, so the patches are the same for all.
    """
    protocol = build_protocol(config.protocol)
    framing = Framing(protocol.crop, protocol.image_size, eval_size=protocol.image_size, void="ignore")
    ids: list[str] = dataset.records["id"][:]
    for index in indices:
        try:
            picture, label = read_label(dataset, index, framing.void)
        except (ValueError, OSError) as error:
            yield Failure(ids[index], str(error))
            continue
        yield prepare_example(index, ids[index], picture, label, framing)


def _measure(
    config: RunConfig,
    dataset: SegmentationDataset,
    place: dict[str, int],
    grids: dict[str, PatchGrid],
    plan: Plan,
    mark: Mark | None,
    device: torch.device,
) -> _Measured:
    """One backbone on the plan's pairs; of each image only the drawn patches' features are kept."""
    source = open_features(config, device)
    name = config.choices["backbone"]

    def on_grid(images: Sequence[str]) -> Iterator[Tensor]:
        maps = _features(config, source, dataset, [place[image] for image in images])
        for image, features in zip(images, maps, strict=True):
            rows, cols = grids[image].labels.shape
            yield grid_features(features, (rows, cols))

    for line in source.announce(dataset, [place[image] for image in plan.ids]):
        say(line)
    features: list[Tensor] = []
    try:
        with progress(name, "images") as report:
            for patches, grid in zip(plan.patches, on_grid(plan.ids), strict=True):
                features.append(grid.flatten(1).T[torch.from_numpy(patches).to(device)])
                report(len(features), len(plan.ids))
    finally:
        with held_back():
            lines = source.close()
        for line in lines:
            say(line)
    scores = pair_scores(features, plan)
    interval = auc_interval(scores, plan, seed=config.seed)
    curve = Curve(name, roc_points(scores, plan.same), auc(scores, plan.same), interval)
    maps = None
    if mark is not None:
        first, second = on_grid([mark.first, mark.second])
        query = first[:, mark.row, mark.col]
        maps = similarity_map(query, first), similarity_map(query, second)
    return _Measured(curve, source.backbone.fingerprint(), maps)


def _features(
    config: RunConfig, source: FeatureSource, dataset: SegmentationDataset, indices: Sequence[int]
) -> Iterator[Tensor]:
    """Feature map [channels, rows, cols] of each image."""
    loader = example_loader(dataset, indices, source, batch_size=config.batch_size, num_workers=config.num_workers)
    for batch in read_ahead(loader):
        for item in batch:
            if isinstance(item, Failure):
                raise UserError(item.error, item.id, "the file was readable before; run again")
            yield source.of([item])[0]


def _pictures(
    config: RunConfig,
    dataset: SegmentationDataset,
    indices: Sequence[int],
    grids: dict[str, PatchGrid],
    mark: Mark,
) -> list[Picture]:
    """The heat maps' two images, the patches of the marked class outlined."""
    return [
        Picture(item.id, item.eval_image.permute(1, 2, 0).numpy(), grids[item.id].labels == mark.label)
        for item in _labelled(config, dataset, indices)
        if isinstance(item, Example)
    ]


def _record(
    identity: dict[str, Any],
    plan: Plan,
    measured: Sequence[_Measured],
    failures: Sequence[Failure],
    made_in: Environment,
) -> dict[str, Any]:
    """What coherence.json holds; ``identity`` is all but the backbones that can change the numbers."""
    backbones = [
        {
            **{"name": each.curve.name, "fingerprint": each.fingerprint},
            **{"auc": each.curve.auc, "auc_ci95": each.curve.interval, "roc": each.curve.points.round(6).tolist()},
        }
        for each in measured
    ]
    positive = int(plan.same.sum())
    return {
        "schema_version": 1,
        "key": cell_key({**identity, "backbones": [each.fingerprint for each in measured]}),
        **identity,
        "counts": {
            **{"images": len(plan.ids), "pairs": len(plan.pairs), "patches": sum(map(len, plan.patches))},
            **{"positive_pairs": positive, "negative_pairs": len(plan.same) - positive},
        },
        "backbones": backbones,
        "failures": [asdict(failure) for failure in failures],
        "environment": asdict(made_in),
    }


def _print(record: dict[str, Any]) -> None:
    table = Table(header_style="bold", show_edge=False, pad_edge=False)
    for name in ("backbone", "AUC", "95 % interval", "positive pairs", "negative pairs"):
        table.add_column(name, justify="left" if name == "backbone" else "right")
    counts = record["counts"]
    for row in record["backbones"]:
        low, high = row["auc_ci95"]
        table.add_row(
            *(escape(row["name"]), f"{row['auc']:.3f}", f"{low:.3f} – {high:.3f}" if _is_told(record) else "–"),
            *(str(counts["positive_pairs"]), str(counts["negative_pairs"])),
        )
    console.print(table)
    for line in _notes(record):
        console.print(line, style="dim", highlight=False, markup=False)
    for failure in record["failures"]:
        say(f"left out {failure['id']}: {failure['error']}")


def _is_told(record: dict[str, Any]) -> bool:
    """Whether there are images enough for an interval that means something."""
    return bool(record["counts"]["images"] >= FEWEST_IMAGES)


def _notes(record: dict[str, Any]) -> list[str]:
    """What a reader must know beside the figures: data, counts, every option."""
    counts, options = record["counts"], {**record["options"], **record["protocol"]}
    compared = "each with itself" if options["pairs"] == "within" else f"{counts['pairs']} pairs of them"
    if options["mixed"] == "majority":
        del options["purity"]
    return [
        f"dataset={record['dataset']['name']}: {counts['images']} images, {compared}, {counts['patches']} patches, "
        f"{counts['positive_pairs']} pairs of one class, {counts['negative_pairs']} of different classes",
        ", ".join(f"{name}={value}" for name, value in options.items()),
    ]
