"""The command line: ``diffcut-bench COMMAND``. Knows everything; nothing knows it."""

import argparse
import itertools
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from torch.utils.data import DataLoader

from diffcut_bench import __version__
from diffcut_bench.bench import as_record, compare_lookup, compare_tau_path, compare_with_textbook, compare_workers
from diffcut_bench.config import (
    GROUPS,
    RunConfig,
    build_protocol,
    check_config,
    conf_dir,
    instantiate,
    load_config,
    quote_if_needed,
)
from diffcut_bench.datasets import (
    Benchmark,
    Example,
    SegmentationDataset,
    prepare,
    prepared_folder,
    read_manifest,
    verify,
)
from diffcut_bench.datasets.download import fetch, unpack
from diffcut_bench.errors import UserError, did_you_mean
from diffcut_bench.experiment import (
    FinishedCell,
    choose_device,
    device_name,
    installed_packages,
    open_dataset,
    run_cell,
)
from diffcut_bench.heap import keep_freed_memory
from diffcut_bench.pipeline import example_loader
from diffcut_bench.reporting import draw_outcome, print_results
from diffcut_bench.segmentation import PictureSegmenter
from diffcut_bench.store import Result, write_atomically

console = Console()
errors = Console(stderr=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 after a user's mistake, 130 when interrupted."""
    keep_freed_memory()
    try:
        return _dispatch(list(sys.argv[1:] if arguments is None else arguments))
    except UserError as error:
        errors.print(escape(str(error)), highlight=False, soft_wrap=True)
        return 2
    except torch.OutOfMemoryError:
        oom = UserError("not enough device memory", "this command", "use a smaller batch_size, or device=cpu")
        errors.print(escape(str(oom)), highlight=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        errors.print("interrupted; what is done is kept, and the same command goes on from here")
        return 130


def _dispatch(arguments: list[str]) -> int:
    commands = {"run": _run, "segment": _segment, "data": _data, "doctor": _doctor, "bench": _bench}
    parser = argparse.ArgumentParser(
        prog="diffcut-bench",
        description="Unsupervised segmentation benchmarks around DiffCut.",
        epilog="Overrides are Hydra's: key=value, such as dataset=voc segmenter.tau=0.4; see conf/.",
    )
    parser.add_argument("--version", action="version", version=f"diffcut-bench {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    run = subparsers.add_parser("run", help="score one cell, or a sweep with -m")
    run.add_argument("-m", "--multirun", action="store_true", help="sweep: every combination of comma lists and ranges")
    run.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    segment = subparsers.add_parser("segment", help="segment your own pictures")
    segment.add_argument("overrides", nargs="+", metavar="IMAGE|KEY=VALUE")
    data = subparsers.add_parser("data", help="list, prepare or verify data sets")
    data.add_argument("action", choices=("list", "prepare", "verify"))
    data.add_argument("--download", action="store_true", help="fetch the originals first, into dataset.root")
    data.add_argument("overrides", nargs="*", metavar="NAME|KEY=VALUE")
    doctor = subparsers.add_parser("doctor", help="what is installed, and what is missing")
    doctor.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    bench = subparsers.add_parser("bench", help="speed against the textbook version, as ratios in one run")
    bench.add_argument("--images", type=int, default=3, help="photographs of the sample data set (default 3)")
    bench.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    if arguments and not arguments[0].startswith("-") and arguments[0] not in commands:
        raise UserError(f"unknown command {arguments[0]!r}", "diffcut-bench", did_you_mean(arguments[0], commands))
    # Flags may stand between overrides, where argparse's sub-parsers would stop taking positionals.
    flags = [word for word in arguments if word.startswith("-")]
    values = [word for word in arguments[1:] if not word.startswith("-")]
    if arguments[:1] in (["run"], ["data"]):
        arguments = [arguments[0], *flags, *values]
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", category=UserWarning, module="torchmetrics|hydra")
    return commands[options.command](options)


def _run(options: argparse.Namespace) -> int:
    if options.multirun:
        return _sweep(options.overrides)
    config = load_config(options.overrides)
    cell = _run_with_progress(config)
    _say_cell(cell)
    print_results(console, [(cell.folder, cell.result)])
    _say_failures([cell.result])
    return 0


def _run_with_progress(config: RunConfig) -> FinishedCell:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=False) as progress:
        task = progress.add_task(
            f"{config.choices.get('dataset')} · {config.choices.get('backbone')} · {config.choices.get('segmenter')}",
            total=None,
            speed="",
        )
        first: list[int] = []

        def report(done: int, total: int) -> None:
            first.append(done)
            elapsed = progress.tasks[0].elapsed or 0.0
            speed = f"{(done - first[0]) / elapsed:.2f} images/s" if elapsed and done > first[0] else ""
            progress.update(task, total=total, completed=done, speed=speed)

        cell = run_cell(config, draw_outcome, report)
        if cell.skipped:
            images = cell.result.dataset.n_images
            progress.update(task, total=images, completed=images, speed="finished before")
        return cell


def _say_cell(cell: FinishedCell) -> None:
    if cell.skipped:
        console.print("skipped: this cell is finished already (if_exists=overwrite computes it again)")
    console.print(f"result   {cell.folder / 'result.json'}", soft_wrap=True, highlight=False, markup=False)
    pictures = sorted((cell.folder / "pictures").glob("*.png"))
    for path in pictures:
        console.print(f"picture  {path}", soft_wrap=True, highlight=False, markup=False)


def _say_failures(results: Sequence[Result]) -> None:
    failures = {(failure.id, failure.error) for result in results for failure in result.failures}
    if failures:
        errors.print(f"{len(failures)} failed and counted nowhere:", style="yellow")
        for name, error in sorted(failures):
            errors.print(f"  {name}: {error}", highlight=False, markup=False, soft_wrap=True)


def _sweep(overrides: list[str]) -> int:
    """Every combination through Hydra's own launcher; all of them are checked before the first runs."""
    cells = expand_sweep(overrides)
    configs = [load_config(cell) for cell in cells]
    for config in configs:
        build_protocol(config.protocol)
    folder = Path(configs[0].output_dir) / "sweeps" / datetime.now().strftime("%Y-%m-%d_%H-%M-%S_%f")
    console.print(f"sweep of {len(cells)} cells", highlight=False)
    quoted = [quote_if_needed(override) for override in overrides]
    task = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(_sweep_cell)
    before = sys.argv
    sys.argv = ["diffcut-bench", "--multirun", f"hydra.sweep.dir='{folder}'", *quoted]
    try:
        task()
    finally:
        sys.argv = before
    records = [json.loads(path.read_text()) for path in sorted((folder / "cells").glob("*.json"))]
    finished = [Path(record["folder"]) for record in records if "folder" in record]
    results = [(path, Result.from_json((path / "result.json").read_text())) for path in finished]
    if results:
        print_results(console, results)
        _say_failures([result for _, result in results])
    for record in records:
        if "error" in record:
            errors.print(f"cell {' '.join(record['overrides'])}\n{record['error']}", markup=False, soft_wrap=True)
    return 2 if len(finished) < len(cells) else 0


def _sweep_cell(composed: DictConfig) -> None:
    """One cell of a sweep, in whatever process the launcher chose; its end is noted in the sweep's folder."""
    job = HydraConfig.get()
    overrides = [o for o in job.overrides.task if not o.startswith("hydra.")]
    config = check_config(composed, {group: job.runtime.choices[group] for group in GROUPS})
    console.print(f"cell {job.job.num + 1}: {' '.join(overrides)}", highlight=False, markup=False)
    record: dict[str, object] = {"overrides": overrides}
    try:
        cell = _run_with_progress(config)
        record["folder"] = str(cell.folder.absolute())
        if cell.skipped:
            console.print("skipped: this cell is finished already")
    except UserError as error:
        record["error"] = str(error)
    except Exception as error:  # the other cells of the sweep go on; the error is listed at the end
        record["error"] = f"{type(error).__name__}: {error}"
    path = Path(job.sweep.dir) / "cells" / f"{job.job.num:05d}.json"
    write_atomically(path, json.dumps(record, indent=1) + "\n")


def expand_sweep(overrides: Sequence[str]) -> list[list[str]]:
    """Overrides of every cell: the product of comma lists, ``choice()`` and ``range()``, in Hydra's order.

    Raises:
        UserError: an override can't be read.
    """
    alternatives = []
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(quote_if_needed(text))
        except HydraException as error:
            raise UserError(f"{text!r} is no override", text, "write overrides as key=value or key=a,b") from error
        if override.is_sweep_override():
            key = override.get_key_element()
            alternatives.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            alternatives.append([text])
    return [list(cell) for cell in itertools.product(*alternatives)]


def _segment(options: argparse.Namespace) -> int:
    def is_override(word: str) -> bool:
        return not Path(word).exists() and re.match(r"[+~]*[\w./@]+=", word) is not None

    overrides = [word for word in options.overrides if is_override(word)]
    images = [Path(word) for word in options.overrides if not is_override(word)]
    if not images:
        raise UserError("no picture named", "diffcut-bench segment", "diffcut-bench segment photo.jpg [key=value …]")
    config = load_config(["protocol=strict", *overrides])
    folder = Path(config.output_dir) / "segments"
    segmenter = PictureSegmenter(config)
    described, failed = [], []
    names: set[str] = set()
    for image in images:
        try:
            result = segmenter(image)
        except UserError as error:
            if len(images) == 1:
                raise
            failed.append(error)
            continue
        name = next(
            n
            for n in itertools.chain([image.stem], (f"{image.stem}-{i}" for i in itertools.count(2)))
            if n not in names
        )
        names.add(name)
        labels_path, overlay_path = folder / f"{name}_labels.png", folder / f"{name}_overlay.png"
        result.save(labels_path, overlay_path)
        height, width = result.labels.shape
        described.append(
            {
                **{"image": str(image), "width": width, "height": height},
                **{"labels": labels_path.name, "overlay": overlay_path.name},
                "segments": result.describe(),
            }
        )
        console.print(f"{image}: {result.num_segments} segments, {overlay_path}", highlight=False, soft_wrap=True)
    if described:
        record = {"schema_version": 1, "config": config.to_dict(), "images": described}
        write_atomically(folder / "segments.json", json.dumps(record, indent=1) + "\n")
        console.print(f"segments {folder / 'segments.json'}", highlight=False, soft_wrap=True)
    for failure in failed:
        errors.print(escape(str(failure)), highlight=False, soft_wrap=True)
    return 2 if failed else 0


def _doctor(options: argparse.Namespace) -> int:
    config = load_config(options.overrides)
    table = Table(show_header=False, show_edge=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("python", f"{sys.version.split()[0]} ({sys.executable})")
    for package, installed in installed_packages().items():
        table.add_row(package, installed)
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    devices = [torch.device("cpu"), *([accelerator] if accelerator else [])]
    table.add_row("devices", ", ".join(device_name(device) for device in devices))
    output_dir = Path(config.output_dir)
    finished = len(list((output_dir / "results").glob("*/result.json")))
    interrupted = len(list((output_dir / "unfinished").glob("*/journal.jsonl")))
    table.add_row("output_dir", f"{output_dir.absolute()}: {finished} finished cells, {interrupted} interrupted")
    table.add_row("HF cache", os.environ.get("HF_HOME", str(Path("~/.cache/huggingface").expanduser())))
    missing = 0
    for group in ("backbone", "dataset"):
        for option in sorted(path.stem for path in (conf_dir() / group).glob("*.yaml")):
            state = _state_of(group, option, options.overrides)
            missing += state.startswith("missing")
            table.add_row(f"{group}={option}", escape(state))
    console.print(table)
    console.print(f"{missing} of the options above need something" if missing else "everything is there")
    return 0


def _state_of(group: str, option: str, overrides: list[str]) -> str:
    chosen = f"{group}={option}" in overrides
    own = (
        [o for o in overrides if o.startswith((f"{group}.", "data_dir=", "output_dir=", "prepared="))] if chosen else []
    )
    own += [o for o in overrides if o.startswith(("data_dir=", "output_dir=")) and o not in own]
    try:
        config = load_config([f"{group}={option}", *own])
        built = instantiate(group, getattr(config, group))
        if isinstance(built, Benchmark):
            return _benchmark_state(built, Path(config.data_dir))
    except UserError as error:
        return f"missing: {error.what}; {error.hint}"
    if isinstance(built, SegmentationDataset):
        return f"there, {len(built)} images"
    return "there, " + ", ".join(f"{name} {value[:12]}" for name, value in built.fingerprint().items())


def _benchmark_state(benchmark: Benchmark, data_dir: Path) -> str:
    manifest = read_manifest(prepared_folder(benchmark, data_dir))
    expected = f" of {benchmark.n_expected}" if benchmark.n_expected else ""
    if manifest is not None:
        return f"prepared, {manifest.pairs}{expected} pairs"
    if benchmark.root is not None:
        return f"originals there, {len(benchmark.from_originals())}{expected} pairs, not prepared"
    return f"missing: not prepared; diffcut-bench data prepare {benchmark.name} dataset.root=DIR"


def _data(options: argparse.Namespace) -> int:
    actions = {"list": _data_list, "prepare": _data_prepare, "verify": _data_verify}
    return actions[options.action](options)


def _data_config(options: argparse.Namespace) -> RunConfig:
    """The config of ``data ACTION NAME key=value …``; ``dataset=NAME`` is as good as ``NAME``."""
    names = [word for word in options.overrides if "=" not in word]
    overrides = [word for word in options.overrides if "=" in word]
    chosen = [*names, *(word.partition("=")[2] for word in overrides if word.startswith("dataset="))]
    if len(chosen) != 1:
        known = ", ".join(sorted(path.stem for path in (conf_dir() / "dataset").glob("*.yaml")))
        raise UserError(
            "name one data set",
            f"diffcut-bench data {options.action}",
            f"diffcut-bench data {options.action} NAME, of {known}",
        )
    return load_config([*(f"dataset={name}" for name in names), *overrides])


def _data_list(options: argparse.Namespace) -> int:
    table = Table(header_style="bold", show_edge=False, pad_edge=False)
    for name in ("data set", "state", "homepage and licence"):
        table.add_column(name, overflow="fold")
    for option in sorted(path.stem for path in (conf_dir() / "dataset").glob("*.yaml")):
        state = _state_of("dataset", option, [f"dataset={option}", *options.overrides])
        if option == "folder" and state.startswith("missing"):
            state = "yours: dataset.root=DIR dataset.num_classes=N"
        built = None if option == "folder" else instantiate("dataset", load_config([f"dataset={option}"]).dataset)
        card = f"{built.card.homepage}\n{built.card.licence}" if isinstance(built, Benchmark) else ""
        table.add_row(option, escape(state), escape(card))
    console.print(table)
    return 0


def _data_prepare(options: argparse.Namespace) -> int:
    config = _data_config(options)
    benchmark = instantiate("dataset", config.dataset)
    if not isinstance(benchmark, Benchmark):
        raise UserError(
            f"dataset={config.choices['dataset']} needs no preparation", "data prepare", "use it with diffcut-bench run"
        )
    if options.download:
        _download(benchmark)
    with _progress(f"preparing {benchmark.name}", "pairs") as report:
        dataset = prepare(benchmark, Path(config.data_dir), config.num_proc, report)
    expected = f" of {benchmark.n_expected} expected" if benchmark.n_expected else ""
    console.print(
        f"prepared {len(dataset)}{expected} pairs in {prepared_folder(benchmark, Path(config.data_dir))}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"next: diffcut-bench data verify {benchmark.name}", highlight=False, soft_wrap=True)
    return 0


def _download(benchmark: Benchmark) -> None:
    card = benchmark.card
    console.print(f"{benchmark.name}: {card.homepage}\nlicence: {card.licence}\ncite: {card.citation}", highlight=False)
    if card.by_hand is not None or not card.archives:
        raise UserError(
            f"{benchmark.name} can't be fetched without a login", card.homepage, card.by_hand or "see there"
        )
    if benchmark.root is None:
        raise UserError("dataset.root is not set", "where the archives are to go", "add dataset.root=DIR")
    root = Path(benchmark.root).expanduser()
    for archive in card.archives:
        with _progress(archive.name, "bytes") as report:
            path = fetch(archive, root, report)
        console.print(f"unpacking {archive.name}", highlight=False)
        unpack(path, root / archive.unpack_into)


def _data_verify(options: argparse.Namespace) -> int:
    config = _data_config(options)
    with _progress(f"preparing {config.choices['dataset']}", "pairs") as report:
        dataset = open_dataset(config, report)
    with _progress(f"verifying {config.choices['dataset']}", "pairs") as report:
        found = verify(dataset, report)
    table = Table(header_style="bold", show_edge=False, pad_edge=False)
    table.add_column("class")
    table.add_column("pixels", justify="right")
    table.add_column("share", justify="right")
    total = max(sum(found.pixels.values()), 1)
    for name, count in found.pixels.items():
        table.add_row(escape(name), f"{count}", f"{100 * count / total:.2f} %")
    console.print(table)
    for problem in found.problems[:20]:
        console.print(problem, markup=False, highlight=False, soft_wrap=True)
    if len(found.problems) > 20:
        console.print(f"… and {len(found.problems) - 20} more", highlight=False)
    expected = f" of {found.expected}" if found.expected else ""
    console.print(f"pairs        {found.pairs}{expected}", highlight=False)
    aligned = "too few of them to tell" if found.aligned is None else f"{100 * found.aligned:.0f} %"
    console.print(
        f"own edges    {aligned} (labels that follow their own image's edges better than another's)",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"fingerprint  {found.fingerprint}", highlight=False, soft_wrap=True)
    console.print(f"verdict      {found.verdict}", markup=False, highlight=False, soft_wrap=True)
    return 0 if found.fine else 1


@contextmanager
def _progress(what: str, unit: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar that shows itself with the first report."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} " + unit),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        task = progress.add_task(what, total=1, visible=False)

        def report(done: int, total: int | None) -> None:
            progress.update(task, completed=done, total=total or max(done, 1), visible=True)

        yield report


def _bench(options: argparse.Namespace) -> int:
    config = load_config(options.overrides)
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
    tau, alpha = config.segmenter["tau"], config.segmenter["alpha"]
    taus = [round(0.05 * step, 2) for step in range(1, 19)] + [0.93, 0.95]
    comparisons = [
        compare_with_textbook(features.cpu(), tau, alpha),
        compare_tau_path(features, taus, alpha),
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
    console.print(f"record   {path}", highlight=False, soft_wrap=True)
    return 0
