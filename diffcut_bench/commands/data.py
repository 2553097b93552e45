"""``diffcut-bench data list|prepare|verify``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from diffcut_bench import extensions
from diffcut_bench.commands.terminal import console, progress, say
from diffcut_bench.commands.words import split_words
from diffcut_bench.config import RunConfig, instantiate, known_options, load_config
from diffcut_bench.datasets import Benchmark, prepare, prepared_folder, verify
from diffcut_bench.datasets.download import fetch_originals
from diffcut_bench.errors import UserError
from diffcut_bench.reporting import Column, Table, number_columns
from diffcut_bench.scoring.options import try_option
from diffcut_bench.scoring.passes import open_dataset

_SHOWN = 20  # problems


def data(options: argparse.Namespace) -> int:
    """List, prepare or verify; verify ends with 1 where something is off."""
    names, overrides = split_words(options.overrides)
    if options.download and options.action != "prepare":
        what = f"--download goes with prepare, not {options.action}"
        raise UserError(what, "diffcut-bench data", "data prepare NAME")
    if options.action == "list":
        return _list(names, overrides)
    config = _config(options.action, names, overrides)
    return _prepare(config, options.download) if options.action == "prepare" else _verify(config)


def _config(action: str, names: Sequence[str], overrides: Sequence[str]) -> RunConfig:
    """The config of ``data ACTION NAME key=value …``; ``dataset=NAME`` is as good as ``NAME``."""
    chosen = [*names, *(word.partition("=")[2] for word in overrides if word.startswith("dataset="))]
    if len(chosen) != 1:
        command = f"diffcut-bench data {action}"
        raise UserError("name one data set", command, f"{command} NAME, of {', '.join(known_options('dataset'))}")
    return load_config([*(f"dataset={name}" for name in names), *overrides])


def _list(names: Sequence[str], overrides: Sequence[str]) -> int:
    named = [*names, *(word for word in overrides if word.startswith("dataset"))]
    if named:
        raise UserError(f"data list takes no data set, but {named[0]}", "diffcut-bench data list", "data verify NAME")
    rows = []
    for option in known_options("dataset"):
        state, built = try_option("dataset", option, overrides)
        if option == "folder" and state.startswith("missing"):
            state = "yours: dataset.root=DIR dataset.num_classes=N"
        card = f"{built.card.homepage} · {built.card.licence}" if isinstance(built, Benchmark) else ""
        rows.append((option, state, card))
    columns = tuple(map(Column, ("data set", "state", "homepage and licence")))
    Table("data", "Data sets", columns, tuple(rows)).print(console)
    return 0


def _prepare(config: RunConfig, download: bool) -> int:
    benchmark = instantiate("dataset", config.dataset)
    if not isinstance(benchmark, Benchmark):
        what = f"dataset={config.choices['dataset']} needs no preparation"
        raise UserError(what, "data prepare", "use it with diffcut-bench run")
    if download:
        fetch_originals(benchmark, progress, say)
    data_dir = Path(config.data_dir)
    with progress(f"preparing {benchmark.name}", "pairs") as report:
        dataset = prepare(benchmark, data_dir, config.num_proc, report)
    expected = f" of {benchmark.n_expected} expected" if benchmark.n_expected else ""
    say(f"prepared {len(dataset)}{expected} pairs in {prepared_folder(benchmark, data_dir)}")
    say(f"next: {extensions.command(f'data verify {benchmark.name}')}")
    return 0


def _verify(config: RunConfig) -> int:
    name = config.choices["dataset"]
    with progress(f"preparing {name}", "pairs") as report:
        dataset = open_dataset(config, report)
    with progress(f"verifying {name}", "pairs") as report:
        found = verify(dataset, report)
    total = max(sum(found.pixels.values()), 1)
    rows = tuple((each, f"{count}", f"{100 * count / total:.2f} %") for each, count in found.pixels.items())
    columns = (Column("class"), *number_columns("pixels", "share"))
    Table("pixels", "Pixels of each class", columns, rows).print(console)
    for problem in found.problems[:_SHOWN]:
        say(problem)
    if len(found.problems) > _SHOWN:
        say(f"… and {len(found.problems) - _SHOWN} more")
    say(f"pairs        {found.pairs}" + (f" of {found.expected}" if found.expected else ""))
    aligned = "too few of them to tell" if found.aligned is None else f"{100 * found.aligned:.0f} %"
    say(f"own edges    {aligned} (labels that follow their own image's edges better than another's)")
    say("fingerprint  " + (found.fingerprint or "none: a file can't be read"))
    say(f"verdict      {found.verdict}")
    return 0 if found.fine else 1
