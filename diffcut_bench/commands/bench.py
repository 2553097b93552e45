"""``diffcut-bench bench``: speed as ratios within one run."""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch.utils.data import DataLoader

from diffcut_bench.bench import as_record, compare_lookup, compare_tau_path, compare_with_textbook, compare_workers
from diffcut_bench.commands.terminal import console
from diffcut_bench.config import (
    build_protocol,
    instantiate,
    load_config,
)
from diffcut_bench.datasets import (
    Example,
)
from diffcut_bench.errors import UserError
from diffcut_bench.experiment import (
    choose_device,
    device_name,
    open_dataset,
)
from diffcut_bench.pipeline import example_loader
from diffcut_bench.segmenters import DiffCut
from diffcut_bench.store import write_atomically


def bench(options: argparse.Namespace) -> int:
    """Measure on images of a data set, print the ratios and write bench.json."""
    if options.images < 1:
        raise UserError(f"--images must be at least 1, not {options.images}", "diffcut-bench bench", "--images 3")
    config = load_config(options.overrides)
    if config.protocol["crop"] != "center":
        raise UserError("bench compares images of one size", "protocol.crop", "protocol.crop=center")
    segmenter = instantiate("segmenter", config.segmenter)
    if not isinstance(segmenter, DiffCut):
        raise UserError("bench measures the recursive cut", "segmenter", "segmenter=diffcut")
    device = choose_device(config.device)
    dataset = open_dataset(config).select(options.images)
    backbone = instantiate("backbone", config.backbone).to(device)
    protocol = build_protocol(config.protocol)

    def load(workers: int, rounds: int = 1) -> DataLoader[Any]:
        indices = list(range(len(dataset))) * rounds
        return example_loader(dataset, indices, protocol, backbone.stride, batch_size=1, num_workers=workers)

    examples = [item for batch in load(0) for item in batch if isinstance(item, Example)]
    with torch.inference_mode():
        maps = torch.cat([backbone(example.image[None].to(device)) for example in examples])
    features = maps.flatten(2).transpose(1, 2)
    taus = [round(0.05 * step, 2) for step in range(1, 19)] + [0.93, 0.95]
    comparisons = [
        compare_with_textbook(features.cpu(), segmenter.tau, segmenter.alpha, segmenter.solver),
        compare_tau_path(features, taus, segmenter.alpha, segmenter.solver),
        compare_workers(lambda workers: load(workers, rounds=max(48 // len(dataset), 1))),
        compare_lookup([dataset.raw_label(index) for index in range(len(dataset))], dataset.lookup),
    ]
    table = Table(header_style="bold", show_edge=False, pad_edge=False)
    for name in ("compared with", "images", "segments", "s/image", "theirs", "ratio", "equal"):
        table.add_column(name, justify="left" if name == "compared with" else "right")
    for row in comparisons:
        table.add_row(
            *(row.what, str(row.images), "" if row.segments is None else f"{row.segments:.1f}"),
            *(f"{row.ours_s:.4f}", f"{row.other_s:.4f}", f"{row.ratio:.2f}"),
            "" if row.agreement is None else f"{100 * row.agreement:.0f} %",
        )
    console.print(table)
    record = as_record(comparisons)
    console.print(f"{device_name(device)}, features of {config.choices['backbone']}", style="dim", highlight=False)
    path = Path(config.output_dir) / "bench" / "bench.json"
    write_atomically(path, json.dumps(record, indent=1) + "\n")
    console.print(f"record   {path}", highlight=False, markup=False, soft_wrap=True)
    return 0
