"""``reproduce NAME --status`` and ``--dry-run``: how far each cell is, what the rest takes, what has to be fetched."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import islice
from operator import add
from pathlib import Path

import torch

from diffcut_bench.config import RunConfig
from diffcut_bench.environment import choose_device, device_name, is_here, matrix_rate
from diffcut_bench.errors import UserError
from diffcut_bench.reporting import Column, Table, number_columns
from diffcut_bench.reproduction.outlook import Lack, Outlook, look_ahead
from diffcut_bench.reproduction.plan import PlannedCell
from diffcut_bench.reproduction.spec import Reproduction, load_reproduction
from diffcut_bench.reproduction.tuning import training_configs
from diffcut_bench.store import in_units

TFLOPS = 790.0  # bfloat16, about what an H100 sustains
_TRIES = 5  # of the matrix product's rate on a CPU
_PRICES = ("images", "features of", "disk", "here", "at best", "TITAN RTX")


@dataclass(frozen=True)
class _Price:
    """What is left of a cell takes, in seconds; None where nothing is known of them."""

    outlook: Outlook
    here: float | None  # on this machine
    at_best: float | None  # on a GPU, the network's operations alone
    published: float | None  # features that are computed, at the paper's speed of this backbone and segmenter

    def texts(self) -> tuple[str, ...]:
        """As the table shows it: what other cells pay for is left empty, and what costs nothing that is counted."""
        told = self.outlook
        images, unstored = ("unknown" if number is None else str(number) for number in (told.images, told.unstored))
        bound = "≥ " if told.whole and told.feature_bytes else ""
        disk = "unknown" if told.feature_bytes is None else bound + in_units(told.feature_bytes)
        here = "" if self.here == 0 else time_text(self.here, at_least=told.seconds is None)
        at_best = "" if self.at_best == 0 else time_text(self.at_best, at_least=True)
        published = "" if self.published is None else time_text(self.published)
        return images, unstored, "" if told.unstored == 0 else disk, here, at_best, published


def time_text(seconds: float | None, *, at_least: bool = False) -> str:
    """A time to be read at a glance.

    Args:
        seconds: None: nothing is known.
        at_least: they are a bound.
    """
    if seconds is None:
        return "unknown"
    if seconds < 90:
        text = f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    elif seconds < 5400:
        text = f"{seconds / 60:.0f} min"
    else:
        text = f"{seconds / 3600:.3g} h" if seconds < 3.6e6 else f"{seconds / 3600:.0f} h"
    return f"≥ {text}" if at_least else text


def plan_budget(
    reproduction: Reproduction, cells: Sequence[PlannedCell], tflops: float | None = None
) -> tuple[Table, list[str]]:
    """How far each cell is, and what the others lack and take.

    Args:
        reproduction: of the table.
        cells: as planned.
        tflops: 10¹² operations a second that a GPU sustains; None: images, disk and time are not told.

    Returns:
        A line a cell, and what is said under them: of all cells together, and what has to be fetched.
    """
    if reproduction.by_column:  # columns that differ in their measure alone are of the same cells
        cells = [*{(cell.name, cell.overrides): replace(cell, column="all") for cell in cells}.values()]
    to_run = [(cell, cell.config) for cell in cells if cell.config is not None]
    outlooks = _outlooks(reproduction, to_run)
    finished, missing = sum(each.finished for each in outlooks), sum(bool(each.missing) for each in outlooks)
    states = f"{finished} finished, {missing} lack something, {len(cells) - len(to_run)} not run"
    lines = [f"{len(to_run)} cells to run: {states}"]
    prices: list[_Price | None] = [None] * len(to_run)
    if tflops is not None and finished < len(to_run):
        first = to_run[0][1]
        device, rate = _rate_of(first.device)
        speeds = {} if reproduction.measure == "auc" else _published_speeds()
        for index, ((_, config), outlook) in enumerate(zip(to_run, outlooks, strict=True)):
            if not outlook.finished:
                speed = speeds.get((config.choices.get("backbone", ""), config.choices.get("segmenter", "")))
                here = _quotient(outlook.operations, rate) if outlook.seconds is None else outlook.seconds
                at_best = _quotient(outlook.operations, tflops * 1e12)
                prices[index] = _Price(outlook, here, at_best, _quotient(outlook.unstored or None, speed))
        output_dir = Path(first.output_dir).absolute()
        there = next(folder for folder in (output_dir, *output_dir.parents) if folder.exists())
        lines += _sums([price for price in prices if price], shutil.disk_usage(there).free, device, rate, tflops)
    lines += [*_not_run(cells), *_to_fetch(outlooks, to_run)]
    return _table(reproduction, [cell for cell, _ in to_run], outlooks, prices), lines


def _quotient(amount: float | None, rate: float | None) -> float | None:
    return None if amount is None or rate is None else amount / rate


def _outlooks(reproduction: Reproduction, to_run: Sequence[tuple[PlannedCell, RunConfig]]) -> list[Outlook]:
    """Of each cell. One that is tuned first is as far as its search, and takes what both take; one of several settings
    takes what all of them take."""
    configs: list[list[RunConfig] | UserError] = []
    for cell, _ in to_run:
        try:
            search = training_configs(cell.overrides, cell.row.tune) if cell.row.tune is not None else []
            configs.append([*search, *cell.configs])
        except UserError as error:
            configs.append(error)
    every = [config for each in configs if not isinstance(each, UserError) for config in each]
    ahead = iter(look_ahead(every, coherence=reproduction.measure == "auc"))
    found = []
    for (cell, _), each in zip(to_run, configs, strict=True):
        if isinstance(each, UserError):
            found.append(Outlook(missing=(Lack.of(each),)))
            continue
        if cell.settings:
            found.append(reduce(add, islice(ahead, len(each))))
            continue
        *searched, last = islice(ahead, len(each))
        # The cell after a search may have another setting than the planned one.
        found.append(reduce(add, [*searched, replace(last, state=searched[-1].state)]) if searched else last)
    return found


def _rate_of(wanted: str) -> tuple[str, float | None]:
    """Name of a device, and operations a second of a matrix product on it; None where it is not on this machine.

    A CPU's rate is that of one thread, times the threads: beside other processes threads wait for one another, a
    hundred times as long.
    """
    if not is_here(wanted):
        return wanted, None
    device = choose_device(wanted)
    if device.type != "cpu":
        return device_name(device), matrix_rate(torch.float16, device)
    named, threads = device_name(device), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return named, threads * max(matrix_rate(torch.float32, device) for _ in range(_TRIES))
    finally:
        torch.set_num_threads(threads)


def _published_speeds() -> dict[tuple[str, str], float]:
    """Images a second of the paper's table 11, by backbone and segmenter."""
    speeds = {}
    for row in load_reproduction("table11").rows:
        chosen = dict(word.split("=", 1) for word in row.overrides if "=" in word)
        speeds[chosen["backbone"], chosen["segmenter"]] = row.published["images_per_s"]
    return speeds


def _sums(prices: Sequence[_Price], free: int, device: str, rate: float | None, tflops: float) -> Iterator[str]:
    """What all cells take together, and what the columns mean."""
    told = [price.outlook for price in prices]
    images, unstored = _known(each.images for each in told), _known(each.unstored for each in told)
    here = _known((each.feature_bytes for each in told), in_units)
    half = _known((each.half_bytes for each in told), in_units)
    whole = any(each.whole for each in told)
    few = sum(each.feature_bytes or 0 for each in told) > free
    yield f"images     {images} to score, features of {unstored} to compute"
    yield (
        f"disk       {'≥ ' if whole else ''}{here} of features ({half} if an accelerator computes them); "
        f"{in_units(free)} are free{': features.folder=DIR, features=memory, or a column at a time' if few else ''}"
    )
    if rate is None:
        yield f"here       unknown, and what is finished or stored: device={device} is not on this machine"
    else:
        bound = any(each.seconds is None for each in told)
        yield f"here       {_total([price.here for price in prices], at_least=bound)} on {device}"
    at_best = _total([price.at_best for price in prices], at_least=True)
    yield f"at best    {at_best} on a GPU that sustains {tflops:g} TFLOP/s"
    published = [price.published for price in prices if price.published is not None]
    if published:
        yield (
            f"TITAN RTX  {time_text(sum(published))} for features and what follows at the images a second of the "
            f"paper's table 11: {len(published)} of {len(prices)} cells; those that share features are not in it"
        )
    yield "≥          a bound, no forecast: backbones' operations alone, without reading, segmenting, naming, scoring"
    if whole:
        yield "           of whole images (crop=none): of half a square, a picture twice as long as high"
    if rate is not None:
        measured = f"{rate / 1e12:.2g} TFLOP/s, a matrix product's just now"
        yield f"           here at {measured}; without ≥: as cells with the same settings took before"


def _total(times: Sequence[float | None], *, at_least: bool) -> str:
    """Of all together; at least so much where one of them is not known."""
    known = [seconds for seconds in times if seconds is not None]
    return time_text(sum(known) if known else None, at_least=at_least or len(known) < len(times))


def _known(numbers: Iterable[int | None], text: Callable[[int], str] = str) -> str:
    """The sum of those that are known, and that there are others."""
    listed = list(numbers)
    return text(sum(number or 0 for number in listed)) + (" and more" if None in listed else "")


def _table(
    reproduction: Reproduction,
    to_run: Sequence[PlannedCell],
    outlooks: Sequence[Outlook],
    prices: Sequence[_Price | None],
) -> Table:
    priced = [price for price in prices if price]
    shown = _PRICES if any(price.published is not None for price in priced) else _PRICES[:-1]
    columns = (*map(Column, ("cell", "column", "state")), *number_columns(*(shown if priced else ())))
    rows = []
    for cell, outlook, price in zip(to_run, outlooks, prices, strict=True):
        point = " ".join(f"{key.rpartition('.')[2]}={value:g}" for key, value in cell.point.items())
        state = "measured by each run" if reproduction.measure == "auc" and not outlook.missing else _state(outlook)
        texts = price.texts() if price else ("",) * len(_PRICES)
        rows.append((f"{cell.name} {point}".strip(), cell.column, state, *texts)[: len(columns)])
    return Table(reproduction.name, reproduction.title, columns, tuple(rows))


def _state(outlook: Outlook) -> str:
    if outlook.missing:
        named = {"more": "see below", "data": "data"}  # the column says which
        return f"needs {', '.join(dict.fromkeys(named.get(lack.kind, lack.option) for lack in outlook.missing))}"
    if outlook.state is None:
        return "unknown, device not here"
    if outlook.finished:
        return "finished"
    return f"{outlook.state.done} of {outlook.state.images} images" if outlook.state.done else "not started"


def _not_run(cells: Sequence[PlannedCell]) -> Iterator[str]:
    """The rows that can't be run, by the reason."""
    names: dict[str, dict[str, None]] = {}
    for cell in (cell for cell in cells if cell.config is None):
        names.setdefault(cell.not_run, {})[cell.name] = None
    for why, rows in names.items():
        yield f"not run    {why}: {', '.join(rows)}"


def _to_fetch(outlooks: Sequence[Outlook], to_run: Sequence[tuple[PlannedCell, RunConfig]]) -> Iterator[str]:
    """A shopping list: each thing once, its size, who needs it, its terms, and the command that fetches it;
    released files, which are fetched by hand."""
    lacks: dict[tuple[str, str], Lack] = {}
    needed_by: dict[tuple[str, str], dict[str, None]] = {}
    for lack in (lack for outlook in outlooks for lack in outlook.missing):
        known = lacks.setdefault((lack.kind, lack.what), lack)
        needed_by.setdefault((lack.kind, lack.what), {})[lack.option] = None
        if set(lack.mend.split()) > set(known.mend.split()):  # of a model a namer wants more files than a backbone does
            lacks[lack.kind, lack.what] = replace(lack, size=lack.size or known.size)
    files: dict[tuple[str, str, str], dict[str, None]] = {}
    for cell, config in to_run:
        for file in cell.row.files:
            group, _, name = file.option.partition(".")
            if getattr(config, group).get(name, "not asked for") is None:
                files.setdefault((cell.row.name, file.what, file.option), {})[cell.column] = None
    if lacks or files:
        yield "to fetch, where there is network, and sizes as far as they are known here:"
    for (kind, what), lack in sorted(lacks.items(), key=lambda known: ("data", "weights", "more").index(known[0][0])):
        bound = "at least " if kind == "weights" else ""
        size = "size unknown" if lack.size is None else f"{bound}{in_units(lack.size)}"
        yield f"  {what}" if kind == "more" else f"  {what} ({size}) for {', '.join(needed_by[kind, what])}"
        if lack.terms:
            yield f"      licence: {lack.terms}"
        yield f"      {lack.mend}"
    sizes = [lack.size for lack in lacks.values() if lack.kind != "more"]
    if len(sizes) > 1:
        more = any(lack.kind == "weights" or (lack.kind == "data" and lack.size is None) for lack in lacks.values())
        yield f"  together {'at least ' if more else ''}{in_units(sum(size or 0 for size in sizes))}"
    for (row, what, option), columns in files.items():
        yield f"  {what} of the released code for {row}: {', '.join(columns)} (without them a verdict is limited)"
        yield f'      {option}=FILE, by hand: docs/open_vocabulary.md, "Table 4 as released"'
