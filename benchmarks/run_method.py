"""The stages and the whole of the method: what ``make bench`` measures, as ratios within one run."""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.cut import Comparison, compare_tau_path, textbook_within
from benchmarks.material import Material, tiled
from benchmarks.plot import draw_costs
from benchmarks.reading import compare_lookup, compare_workers
from benchmarks.report import machine, print_table, write_record
from benchmarks.rivals import Rival, compare_rivals, missing_rivals
from benchmarks.segmenters import compare_segmenters
from benchmarks.stages import Stage, measure_stages
from diffcut_bench.commands.terminal import progress, say
from diffcut_bench.config import RunConfig, build_protocol, instantiate, load_config
from diffcut_bench.datasets import SegmentationDataset
from diffcut_bench.environment import choose_device
from diffcut_bench.errors import UserError
from diffcut_bench.evaluation import Protocol
from diffcut_bench.ncut.settings import LabelCodes
from diffcut_bench.reporting import encode_figure
from diffcut_bench.scoring.features import FeatureSource, open_features
from diffcut_bench.scoring.framing import Example
from diffcut_bench.scoring.passes import open_dataset, run_cell
from diffcut_bench.scoring.reading import Wanted, example_loader
from diffcut_bench.scoring.upload import upload
from diffcut_bench.segmenters import DiffCut
from diffcut_bench.store import write_atomically

_TAUS = [round(0.05 * step, 2) for step in range(1, 19)] + [0.93, 0.95]
# Where not everything is asked for, larger grids are measured at the first alpha alone, and on fewer images.
_QUICK_PATCHES = 32
_TEXTBOOK_S = 10.0
_ALPHAS = (5.0, 10.0)
_TAU_PATH_IMAGES = 8


@dataclass(frozen=True)
class Subject:
    """What is measured: examples of the data set, and features."""

    config: RunConfig
    dataset: SegmentationDataset
    protocol: Protocol
    segmenter: DiffCut
    device: torch.device
    source: FeatureSource
    material: Material


def run(options: argparse.Namespace) -> None:
    """Measure on images of a data set, print tables and write bench.json and cost.png."""
    options.alphas = options.alphas or list(_ALPHAS)
    subject = open_subject(options)
    folder = Path(subject.config.output_dir) / "bench"
    record: dict[str, Any] = {
        "schema_version": 3,
        "machine": machine(subject.device),
        "features": options.features or subject.config.choices["backbone"],
    }

    def keep(name: str, content: object) -> None:
        """Written anew after each table, so that a run that is cut short loses little."""
        record[name] = content
        write_record(folder / "bench.json", record)

    comparisons = [asdict(row) for row in _comparisons(subject, options)]
    print_table(comparisons, "what images:d segments:.1f ours_s:.4f other_s:.4f ratio:.2f agreement:.0%")
    keep("comparisons", comparisons)

    whole = _end_to_end(subject, options)
    shares = [{f"{name}_share": share for name, share in row["shares"].items()} for row in whole]
    fields = " ".join(f"{name}:.0%" for name in shares[0])
    print_table([a | b for a, b in zip(whole, shares, strict=True)], f"features images:d images_per_s:.2f {fields}")
    keep("end_to_end", whole)

    stages = _stages(subject, options)
    print_table(
        [asdict(row) for row in stages],
        "stage patches:d alpha:g segments:.1f images:d images_per_s:.4g ratio:.3g plain_images:d equal:.0% "
        "ari_to_dense:.4f floor_share:.2% floor peak_bytes:,d",
        "ratio: to the plain version, which ran on plain images; ari to dense: of the cut, to the dense solver",
    )
    keep("stages", [asdict(row) for row in stages])
    figure = draw_costs(stages, record["machine"]["device"])
    write_atomically(folder / "cost.png", encode_figure(figure, "png"))

    rivals, absent = [asdict(row) for row in _rivals(subject, options)], missing_rivals()
    if absent:
        missing = f"not installed, so not compared: {', '.join(absent)} (pip install 'diffcut_bench[rivals]')"
        say(missing, style="dim")
    print_table(
        rivals,
        "rival job clusters:d patches:d alpha:g ours_s:.4f rival_s:.4f ratio:.2f ours_exact:.5f rival_exact:.5f "
        "ari:.3f",
        "exact: |cosine| to the exact vector; a given number of clusters is not the same job; ari: to ours",
    )
    keep("rivals", {"compared": rivals, "missing": absent})

    speeds, unbuilt = compare_segmenters(
        subject.config, options.overrides, subject.segmenter, subject.material, min(options.patches)
    )
    print_table(
        [asdict(row) for row in sorted(speeds, key=lambda row: -(row.images_per_s or 0))],
        "segmenter images:d rows:d cols:d images_per_s:.4g ratio:.3g segments:.1f error",
        f"features are given, each segmenter has its own settings; ratio: to {speeds[0].segmenter}",
        *(f"{name} could not be built: {reason}" for name, reason in unbuilt.items()),
    )
    keep("segmenters", {"measured": [asdict(row) for row in speeds], "missing": unbuilt})
    say(f"{record['machine']['device']}, features of {record['features']}", style="dim")
    say(f"record   {folder / 'bench.json'}")
    say(f"figure   {folder / 'cost.png'}")


def open_subject(options: argparse.Namespace) -> Subject:
    """What `run` measures.

    Args:
        options: ``overrides``, the number of ``images``, and ``features``: a file of them, or None for the backbone's.

    Raises:
        UserError: an option is not one that is measured, or data, weights or features are missing.
    """
    config = load_config(options.overrides)
    if config.protocol["crop"] != "center":
        raise UserError("bench compares images of one size", "protocol.crop", "protocol.crop=center")
    segmenter = instantiate("segmenter", config.segmenter)
    if not isinstance(segmenter, DiffCut):
        raise UserError("bench measures the recursive cut", "segmenter", "segmenter=diffcut")
    device = choose_device(config.device)
    dataset = open_dataset(config).select(options.images)
    protocol = build_protocol(config.protocol)
    source = open_features(replace(config, features={}), device)
    wanted = [Wanted(index, features=True, pixels=True) for index in range(len(dataset))]
    loader = example_loader(dataset, wanted, source, batch_size=1)
    examples = upload([item for batch in loader for item in batch if isinstance(item, Example)], device)
    if options.features is None:
        features = torch.cat([source.of([example]) for example in examples])
    else:
        features = _read_features(Path(options.features))[: options.images].to(device)
    material = Material(
        features=features,
        photos=torch.stack([example.eval_image for example in examples]),
        labels=torch.stack([example.label for example in examples]),
        num_classes=dataset.num_classes,
        background=dataset.background,
        rule=protocol.background_rule,
    )
    return Subject(config, dataset, protocol, segmenter, device, source, material)


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


def _comparisons(subject: Subject, options: argparse.Namespace) -> list[Comparison]:
    segmenter, dataset = subject.segmenter, subject.dataset

    def load(workers: int) -> DataLoader[Any]:
        indices = list(range(len(dataset))) * max(48 // len(dataset), 1)
        wanted = [Wanted(index, pixels=True) for index in indices]
        return example_loader(dataset, wanted, subject.source, batch_size=1, num_workers=workers)

    nodes = tiled(subject.material.nodes, min(options.images, _TAU_PATH_IMAGES))
    works: list[Callable[[], Comparison]] = [
        *(
            partial(compare_tau_path, nodes, _TAUS, segmenter.alpha, segmenter.solver, codes)
            for codes in get_args(LabelCodes)
        ),
        partial(compare_workers, load),
        lambda: compare_lookup([dataset.raw_label(index) for index in range(len(dataset))], dataset.lookup),
    ]
    rows: list[Comparison] = []
    with progress("comparisons", "done") as report:
        for work in works:
            report(len(rows), len(works))
            rows.append(work())
    return rows


def _stages(subject: Subject, options: argparse.Namespace) -> list[Stage]:
    tau = subject.segmenter.tau
    largest_plain, limit = (64, None) if options.full else (_QUICK_PATCHES, _TEXTBOOK_S)
    sizes = [
        (side, alpha)
        for side in sorted(options.patches)
        for alpha in (options.alphas if options.full or side <= _QUICK_PATCHES else options.alphas[:1])
    ]
    rows: list[Stage] = []
    with progress("stages", "sizes") as report:
        for done, (side, alpha) in enumerate(sizes):
            report(done, len(sizes))
            share = min(_QUICK_PATCHES**2 / side**2, 1)  # of a batch, so that larger grids take as much memory
            batches = sorted({max(int(batch * share), 1) for batch in options.batches or [options.images]})
            material = subject.material.of_size(side, batches[-1])
            textbook = textbook_within(material.nodes, tau, alpha, limit) if side <= largest_plain else None
            for batch in batches:
                rows += measure_stages(material, batch, alpha, tau, textbook)
    return rows


def _rivals(subject: Subject, options: argparse.Namespace) -> list[Rival]:
    rows: list[Rival] = []
    patches = sorted(options.patches)
    for side in patches if options.full else patches[:2]:
        nodes = subject.material.of_size(side, 1).nodes[0]
        for alpha in options.alphas:
            partitions = options.full or side == patches[0]
            rows += compare_rivals(nodes, side, alpha, subject.segmenter.tau, partitions=partitions)
    return rows


def _end_to_end(subject: Subject, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The whole program, journal and result file included: with an empty feature store, then with a full one."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        overrides = [
            *options.overrides,
            f"output_dir={folder}",
            f"data_dir={subject.config.data_dir}",
            f"limit={len(subject.dataset)}",
            "if_exists=overwrite",
            "visualise=0",
            "features=store",
        ]
        for features in ("computed", "stored"):
            timings = asdict(run_cell(load_config(overrides)).result.timings)
            wall_s, images_per_s = timings.pop("wall_s"), timings.pop("images_per_s")
            shares = {name.removesuffix("_s"): seconds / wall_s for name, seconds in timings.items()}
            rows.append(
                {
                    "features": features,
                    "images": len(subject.dataset),
                    "images_per_s": images_per_s,
                    "shares": {**shares, "harness": 1 - sum(shares.values())},
                }
            )
    return rows
