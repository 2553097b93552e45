"""``diffcut-bench bench``: speed of each stage and of the whole, as ratios within one run."""

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from diffcut_bench.bench import (
    Comparison,
    compare_lookup,
    compare_tau_path,
    compare_with_textbook,
    compare_workers,
)
from diffcut_bench.bench.plot import draw_costs
from diffcut_bench.bench.rivals import Rival, compare_rivals, missing_rivals
from diffcut_bench.bench.segmenter import Textbook, textbook_within
from diffcut_bench.bench.stages import Effort, Material, Stage, measure_stages, resized, tiled
from diffcut_bench.commands import bench_encoder
from diffcut_bench.commands.bench_encoder import whole_numbers, words_of
from diffcut_bench.commands.bench_segmenters import compare_segmenters
from diffcut_bench.commands.bench_tables import (
    print_comparisons,
    print_rivals,
    print_segmenters,
    print_stages,
    print_whole,
)
from diffcut_bench.commands.terminal import console, progress, say
from diffcut_bench.config import RunConfig, build_protocol, instantiate, load_config
from diffcut_bench.datasets import SegmentationDataset
from diffcut_bench.environment import choose_device, device_name, installed_packages, processor
from diffcut_bench.errors import UserError
from diffcut_bench.evaluation import Protocol
from diffcut_bench.ncut.tree import LabelCodes
from diffcut_bench.reporting import encode_figure
from diffcut_bench.scoring.features import FeatureSource
from diffcut_bench.scoring.framing import Example, Framing
from diffcut_bench.scoring.passes import open_dataset, run_cell
from diffcut_bench.scoring.reading import example_loader
from diffcut_bench.segmenters import DiffCut
from diffcut_bench.store import write_atomically

_TAUS = [round(0.05 * step, 2) for step in range(1, 19)] + [0.93, 0.95]
# Where not everything is asked for, larger grids are measured at the first alpha alone, and on fewer images.
_QUICK_PATCHES = 32
_TEXTBOOK_S = 10.0
_TAU_PATH_IMAGES = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the stages; ``device``, ``dataset`` and ``segmenter.tau`` are overrides."""
    parser.add_argument("--images", type=int, default=3, help="images of the data set to measure on (default 3)")
    parser.add_argument("--patches", default="32,64,128", help="patches a side (default 32,64,128)")
    parser.add_argument("--alphas", default="5,10", help="exponents: few segments to hundreds (default 5,10)")
    parser.add_argument(
        "--features", metavar="FILE.npz", help="an array `features` [images, nodes, channels] instead of the backbone's"
    )
    parser.add_argument("--full", action="store_true", help="all sizes at all alphas, no limit on the plain versions")
    bench_encoder.add_arguments(parser)


@dataclass(frozen=True)
class _Subject:
    """What is measured: examples of the data set, and features."""

    config: RunConfig
    dataset: SegmentationDataset
    protocol: Protocol
    segmenter: DiffCut
    device: torch.device
    source: FeatureSource
    material: Material


def bench(options: argparse.Namespace) -> int:
    """Measure on images of a data set, print tables and write bench.json and cost.png; or `bench_encoder`."""
    if options.encoder is not None:
        return bench_encoder.bench_encoder(options)
    if options.images < 1:
        raise UserError(f"--images must be at least 1, not {options.images}", "diffcut-bench bench", "--images 3")
    patches = sorted(whole_numbers("--patches", options.patches, "number of patches"))
    if min(patches) < 2:
        raise UserError("one patch can't be cut", "--patches", "such as --patches 32,64")
    batches = whole_numbers("--batches", options.batches or str(options.images), "batch size")
    alphas = [_exponent(word) for word in words_of("--alphas", options.alphas)]
    subject = _subject(options)
    place = Path(subject.config.output_dir) / "bench"

    missing = missing_rivals()
    record: dict[str, Any] = {
        "schema_version": 2,
        "machine": {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            **{"processor": processor(), "device": device_name(subject.device), "threads": torch.get_num_threads()},
            **{"torch": torch.__version__, "packages": installed_packages()},
        },
        "features": options.features or subject.config.choices["backbone"],
    }

    def keep(name: str, content: object) -> None:
        """Written anew after each table, so that a run that is cut short loses little."""
        record[name] = content
        write_atomically(place / "bench.json", json.dumps(record, indent=1) + "\n")

    books = _textbooks(subject, options, alphas)
    comparisons = _comparisons(subject, options, alphas, books)
    print_comparisons(comparisons)
    keep("comparisons", [asdict(row) for row in comparisons])
    whole = _end_to_end(subject, options)
    print_whole(whole)
    keep("end_to_end", whole)
    stages = _stages(subject, options, patches, batches, alphas, books)
    print_stages(stages)
    keep("stages", [asdict(row) for row in stages])
    figure = draw_costs(stages, device_name(subject.device))
    write_atomically(place / "cost.png", encode_figure(figure, "png"))
    rivals = _rivals(subject, options, patches, alphas)
    print_rivals(rivals, missing)
    keep("rivals", {"compared": [asdict(row) for row in rivals], "missing": missing})
    speeds, unbuilt = compare_segmenters(
        subject.config, options.overrides, subject.segmenter, subject.material, patches[0]
    )
    print_segmenters(speeds, unbuilt)
    keep("segmenters", {"measured": [asdict(row) for row in speeds], "missing": unbuilt})
    console.print(f"{record['machine']['device']}, features of {record['features']}", style="dim", highlight=False)
    say(f"record   {place / 'bench.json'}")
    say(f"figure   {place / 'cost.png'}")
    return 0


def _exponent(word: str) -> float:
    try:
        alpha = float(word)
    except ValueError:
        alpha = 0.0
    if not 0 < alpha < float("inf"):
        raise UserError(f"{word!r} is no exponent", "--alphas", "such as --alphas 5,8,10")
    return alpha


def _subject(options: argparse.Namespace) -> _Subject:
    config = load_config(options.overrides)
    if config.protocol["crop"] != "center":
        raise UserError("bench compares images of one size", "protocol.crop", "protocol.crop=center")
    segmenter = instantiate("segmenter", config.segmenter)
    if not isinstance(segmenter, DiffCut):
        raise UserError("bench measures the recursive cut", "segmenter", "segmenter=diffcut")
    device = choose_device(config.device)
    dataset = open_dataset(config).select(options.images)
    protocol = build_protocol(config.protocol)
    backbone = instantiate("backbone", config.backbone).to(device)
    source = FeatureSource(backbone, Framing.of(protocol, backbone), device)
    loader = example_loader(dataset, list(range(len(dataset))), source, batch_size=1)
    examples = [item for batch in loader for item in batch if isinstance(item, Example)]
    if options.features is None:
        features = torch.cat([source.of([example]) for example in examples])
    else:
        features = _read_features(Path(options.features))[: options.images].to(device)
    material = Material(
        features=features,
        photos=torch.stack([example.eval_image for example in examples]).to(device),
        labels=torch.stack([example.label for example in examples]).to(device),
        num_classes=dataset.num_classes,
        background=dataset.background,
        rule=protocol.background_rule,
    )
    return _Subject(config, dataset, protocol, segmenter, device, source, material)


def _read_features(path: Path) -> Tensor:
    """Feature maps [images, channels, rows, cols] of a file of square grids."""
    try:
        with np.load(path) as file:
            nodes = torch.from_numpy(file["features"]).float()
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"can't read features ({error})", str(path), "a .npz file with an array `features`") from error
    side = round(nodes.shape[1] ** 0.5) if nodes.ndim == 3 else 0
    if not nodes.numel() or side**2 != nodes.shape[1]:
        raise UserError(f"features are {list(nodes.shape)}", str(path), "[images, nodes of a square grid, channels]")
    return nodes.transpose(1, 2).unflatten(2, (side, side))


def _textbooks(subject: _Subject, options: argparse.Namespace, alphas: Sequence[float]) -> dict[float, Textbook]:
    """The textbook version at every alpha: much the longest part, so that it is run once for all tables."""
    books = {}
    with progress("textbook", "alphas") as report:
        for place, alpha in enumerate(alphas):
            report(place, len(alphas))
            limit = None if options.full else _TEXTBOOK_S
            books[alpha] = textbook_within(_nodes(subject.material.features), subject.segmenter.tau, alpha, limit)
    return books


def _nodes(features: Tensor) -> Tensor:
    """Feature maps as patches [images, nodes, channels]."""
    return features.flatten(2).transpose(1, 2).contiguous()


def _comparisons(
    subject: _Subject, options: argparse.Namespace, alphas: Sequence[float], books: Mapping[float, Textbook]
) -> list[Comparison]:
    segmenter, dataset = subject.segmenter, subject.dataset
    nodes = _nodes(subject.material.features)

    def load(workers: int) -> DataLoader[Any]:
        indices = list(range(len(dataset))) * max(48 // len(dataset), 1)
        return example_loader(dataset, indices, subject.source, batch_size=1, num_workers=workers)

    tau, solver = segmenter.tau, segmenter.solver
    batch = tiled(nodes, min(options.images, _TAU_PATH_IMAGES))
    works: list[Callable[[], Comparison]] = [
        *(
            partial(compare_with_textbook, nodes, tau, alpha, solver, textbook=books[alpha], images=options.images)
            for alpha in alphas
        ),
        *(
            partial(compare_tau_path, batch, _TAUS, segmenter.alpha, solver, label_codes=codes)
            for codes in get_args(LabelCodes)
        ),
        lambda: compare_workers(load),
        lambda: compare_lookup([dataset.raw_label(index) for index in range(len(dataset))], dataset.lookup),
    ]
    rows: list[Comparison] = []
    with progress("comparisons", "done") as report:
        for work in works:
            report(len(rows), len(works))
            rows.append(work())
    return rows


def _stages(
    subject: _Subject,
    options: argparse.Namespace,
    patches: Sequence[int],
    batches: Sequence[int],
    alphas: Sequence[float],
    books: Mapping[float, Textbook],
) -> list[Stage]:
    own = subject.material.features.shape[-1]  # of the features as they are
    effort = Effort(plain_up_to=None, largest_plain=64) if options.full else Effort(plain_up_to=_TEXTBOOK_S)
    sizes = [
        (side, batch, alpha)
        for side in patches
        for alpha in (alphas if options.full or side <= _QUICK_PATCHES else alphas[:1])
        for batch in sorted({max(batch * _QUICK_PATCHES**2 // max(side, _QUICK_PATCHES) ** 2, 1) for batch in batches})
    ]
    rows: list[Stage] = []
    with progress("stages", "sizes") as report:
        for place, (side, batch, alpha) in enumerate(sizes):
            report(place, len(sizes))
            book = books[alpha] if side == own else None
            rows += measure_stages(subject.material, side, batch, alpha, subject.segmenter.tau, effort, book)
    return rows


def _rivals(
    subject: _Subject, options: argparse.Namespace, patches: Sequence[int], alphas: Sequence[float]
) -> list[Rival]:
    rows: list[Rival] = []
    for side in patches if options.full else patches[:2]:
        nodes = _nodes(resized(subject.material.features[:1], side))[0]
        for alpha in alphas:
            partitions = options.full or side == patches[0]
            rows += compare_rivals(nodes, side, alpha, subject.segmenter.tau, partitions=partitions)
    return rows


def _end_to_end(subject: _Subject, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The whole program, journal and result file included: with an empty feature store, then with a full one."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        overrides = [
            *options.overrides,
            *(f"output_dir={folder}", f"data_dir={subject.config.data_dir}", f"limit={len(subject.dataset)}"),
            *("if_exists=overwrite", "visualise=0", "features=store"),
        ]
        for features in ("computed", "stored"):
            timings = asdict(run_cell(load_config(overrides)).result.timings)
            wall_s, images_per_s = timings.pop("wall_s"), timings.pop("images_per_s")
            shares = {name.removesuffix("_s"): seconds / wall_s for name, seconds in timings.items()}
            rows.append(
                {
                    **{"features": features, "images": len(subject.dataset), "images_per_s": images_per_s},
                    "shares": {**shares, "harness": 1 - sum(shares.values())},
                }
            )
    return rows
