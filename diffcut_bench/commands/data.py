"""``diffcut-bench data list|prepare|verify``."""

import argparse
from pathlib import Path

from filelock import FileLock
from rich.markup import escape
from rich.table import Table

from diffcut_bench.commands.doctor import state_of
from diffcut_bench.commands.terminal import console, progress, say
from diffcut_bench.config import (
    RunConfig,
    conf_dir,
    instantiate,
    load_config,
)
from diffcut_bench.datasets import (
    Benchmark,
    prepare,
    prepared_folder,
    verify,
)
from diffcut_bench.datasets.download import fetch
from diffcut_bench.datasets.unpacking import unpack
from diffcut_bench.errors import UserError
from diffcut_bench.scoring.passes import open_dataset


def data(options: argparse.Namespace) -> int:
    """List, prepare or verify; verify ends with 1 where something is off."""
    if options.download and options.action != "prepare":
        raise UserError(
            f"--download goes with prepare, not {options.action}", "diffcut-bench data", "data prepare NAME"
        )
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
    named = [word for word in options.overrides if "=" not in word or word.startswith("dataset")]
    if named:
        raise UserError(f"data list takes no data set, but {named[0]}", "diffcut-bench data list", "data verify NAME")
    table = Table(header_style="bold", show_edge=False, pad_edge=False)
    for name in ("data set", "state", "homepage and licence"):
        table.add_column(name, overflow="fold")
    for option in sorted(path.stem for path in (conf_dir() / "dataset").glob("*.yaml")):
        state = state_of("dataset", option, [f"dataset={option}", *options.overrides])
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
    with progress(f"preparing {benchmark.name}", "pairs") as report:
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
    root = benchmark.place
    if root is None:
        raise UserError("dataset.root is not set", "where the archives are to go", "add dataset.root=DIR")
    if benchmark.n_expected is None:
        raise UserError(
            "only the published split can be fetched", f"dataset={benchmark.name}", "leave split and ids out"
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".downloading.lock"):  # two of them would write the same partial file
            _fetch_and_unpack(benchmark, root)
    except OSError as error:
        raise UserError(
            f"can't write ({error.strerror or error})", str(root), "choose another dataset.root=DIR"
        ) from error


def _fetch_and_unpack(benchmark: Benchmark, root: Path) -> None:
    try:
        benchmark.find(root)
    except UserError:  # something is missing: what was unpacked before, and lost since, is unpacked again
        for archive in benchmark.card.archives:
            (root / archive.unpack_into / f".unpacked-{archive.name}").unlink(missing_ok=True)
    for archive in benchmark.card.archives:
        with progress(archive.name, "bytes") as report:
            path = fetch(archive, root, report, say=say)
        console.print(f"unpacking {archive.name}", highlight=False)
        unpack(path, root, archive.unpack_into, archive.unpacked_size)


def _data_verify(options: argparse.Namespace) -> int:
    config = _data_config(options)
    with progress(f"preparing {config.choices['dataset']}", "pairs") as report:
        dataset = open_dataset(config, report)
    with progress(f"verifying {config.choices['dataset']}", "pairs") as report:
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
        say(problem)
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
    fingerprint = found.fingerprint or "none: a file can't be read"
    console.print(f"fingerprint  {fingerprint}", highlight=False, soft_wrap=True)
    say(f"verdict      {found.verdict}")
    return 0 if found.fine else 1
