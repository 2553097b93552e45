"""``reproduce NAME --status`` and ``--dry-run``: how far each cell is, what the rest takes, what has to be fetched."""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch

from diffcut_bench.commands.outlook import Lack, Outlook, look_ahead
from diffcut_bench.commands.terminal import console, say
from diffcut_bench.commands.tune import training_configs
from diffcut_bench.config import RunConfig
from diffcut_bench.environment import choose_device, device_name, is_here, matrix_rate
from diffcut_bench.errors import UserError
from diffcut_bench.reporting import Column, Table
from diffcut_bench.reproduction import PlannedCell, Reproduction, load_reproduction
from diffcut_bench.store import in_units

TFLOPS = 790.0  # bfloat16, about what an H100 sustains
_TRIES = 5  # of the matrix product's rate on a CPU
Number = TypeVar("Number", int, float)
_PRICES = ("images", "features of", "disk", "here", "at best", "TITAN RTX")


@dataclass(frozen=True)
class Duration:
    """Seconds; with ``at_least`` they are a bound, and without any nothing is known."""

    seconds: float | None
    at_least: bool = False

    def __str__(self) -> str:
        if self.seconds is None:
            return "unknown"
        seconds, bound = self.seconds, "≥ " if self.at_least else ""
        if seconds < 90:
            return f"{bound}{seconds:.2g} s" if seconds < 10 else f"{bound}{seconds:.0f} s"
        if seconds < 5400:
            return f"{bound}{seconds / 60:.0f} min"
        return f"{bound}{seconds / 3600:.3g} h" if seconds < 3.6e6 else f"{bound}{seconds / 3600:.0f} h"


def print_status(reproduction: Reproduction, cells: Sequence[PlannedCell]) -> None:
    """How far each cell is, and what has to be fetched for those that lack something."""
    outlooks = _outlooks(reproduction, cells)
    _table(reproduction, cells, outlooks, {}).print(console)
    _say_states(cells, outlooks)
    _say_lacks(outlooks, cells)


def print_budget(reproduction: Reproduction, cells: Sequence[PlannedCell], tflops: float = TFLOPS) -> None:
    """The same, and what the rest takes: images, disk, and time here, on a GPU at best, and on the paper's own.

    Args:
        reproduction: of the table.
        cells: as planned.
        tflops: 10¹² operations a second that the GPU sustains.
    """
    outlooks = _outlooks(reproduction, cells)
    configs = [cell.config for cell in cells if cell.config is not None]
    here = _Here.of(configs[0].device if configs else "cpu")
    published = {} if reproduction.measure == "auc" else _published_speeds()
    prices: dict[int, Price] = {}
    for place, outlook in enumerate(outlooks):
        config = cells[place].config
        if outlook is not None and config is not None and not outlook.finished:
            speed = published.get((config.choices.get("backbone", ""), config.choices.get("segmenter", "")))
            prices[place] = Price.of(outlook, here.rate, tflops * 1e12, speed)
    _table(reproduction, cells, outlooks, prices).print(console)
    _say_states(cells, outlooks)
    if prices:
        output_dir = Path(configs[0].output_dir).absolute()
        free = shutil.disk_usage(next(place for place in (output_dir, *output_dir.parents) if place.exists())).free
        for line in _sums(list(prices.values()), free, here, tflops):
            say(line)
    _say_lacks(outlooks, cells)


@dataclass(frozen=True)
class _Here:
    """The device that was asked for.

    Attributes:
        name: of it.
        rate: operations a second of a matrix product on it (of a CPU that of one thread, times the threads); None where
            it is not on this machine.
    """

    name: str
    rate: float | None

    @classmethod
    def of(cls, name: str) -> "_Here":
        if not is_here(name):
            return cls(name, None)
        device = choose_device(name)
        if device.type != "cpu":
            return cls(device_name(device), matrix_rate(torch.float16, device))
        named, threads = device_name(device), torch.get_num_threads()
        torch.set_num_threads(1)  # beside other processes threads wait for one another, a hundred times as long
        try:
            return cls(named, threads * max(matrix_rate(torch.float32, device) for _ in range(_TRIES)))
        finally:
            torch.set_num_threads(threads)


@dataclass(frozen=True)
class Price:
    """What is left of a cell takes; each number is None where it is not known.

    Attributes:
        images, unstored, feature_bytes, half_bytes, whole: see `Outlook`.
        here: on this machine.
        at_best: on a GPU, the network's operations alone.
        published: of the images whose features are computed, at the speed that the paper gives for this backbone and
            segmenter.
    """

    images: int | None
    unstored: int | None
    feature_bytes: int | None
    half_bytes: int | None
    whole: bool
    here: Duration
    at_best: Duration
    published: Duration

    @classmethod
    def of(cls, outlook: Outlook, rate: float | None, gpu_rate: float, speed: float | None) -> "Price":
        """From operations a second here and on the GPU, and the images a second that the paper gives."""

        def at(operations_a_second: float | None) -> Duration:
            if outlook.operations is None or operations_a_second is None:
                return Duration(None)
            return Duration(outlook.operations / operations_a_second, at_least=True)

        here = at(rate) if outlook.seconds is None else Duration(outlook.seconds)
        seconds = outlook.unstored / speed if speed is not None and outlook.unstored else None
        sizes = (outlook.images, outlook.unstored, outlook.feature_bytes, outlook.half_bytes)
        return cls(*sizes, outlook.whole, here, at(gpu_rate), Duration(seconds))

    def texts(self) -> tuple[str, ...]:
        """As the table shows it: what other cells pay for is left empty, and what costs nothing that is counted."""
        images, unstored = ("unknown" if number is None else str(number) for number in (self.images, self.unstored))
        bound = "≥ " if self.whole and self.feature_bytes else ""
        disk = "unknown" if self.feature_bytes is None else bound + in_units(self.feature_bytes)
        here, at_best = ("" if time.seconds == 0 else str(time) for time in (self.here, self.at_best))
        published = "" if self.published.seconds is None else str(self.published)
        return images, unstored, "" if self.unstored == 0 else disk, here, at_best, published


def _sums(prices: Sequence[Price], free: int, device: _Here, tflops: float) -> list[str]:
    """What all cells take together, and what the columns mean."""
    images, unstored = _number(each.images for each in prices), _number(each.unstored for each in prices)
    here, half = _bytes(each.feature_bytes for each in prices), _bytes(each.half_bytes for each in prices)
    few = sum(each.feature_bytes or 0 for each in prices) > free
    whole = any(each.whole for each in prices)
    told = [each.published for each in prices if each.published.seconds is not None]
    lines = [
        f"images     {images} to score, features of {unstored} to compute",
        f"disk       {'≥ ' if whole else ''}{here} of features ({half} if an accelerator computes them); "
        f"{in_units(free)} are free" + (": features.folder=DIR, features=memory, or a column at a time" if few else ""),
        f"here       {_total(each.here for each in prices)} on {device.name}"
        if device.rate is not None
        else f"here       unknown, and what is finished or stored: device={device.name} is not on this machine",
        f"at best    {_total(each.at_best for each in prices)} on a GPU that sustains {tflops:g} TFLOP/s",
    ]
    if told:
        lines.append(
            f"TITAN RTX  {_total(told)} for features and what follows at the images a second of the paper's table 11: "
            f"{len(told)} of {len(prices)} cells; those that share features are not in it"
        )
    lines.append(
        "≥          a bound, no forecast: backbones' operations alone, without reading, segmenting, naming, scoring"
    )
    if whole:
        lines.append("           of whole images (crop=none): of half a square, a picture twice as long as high")
    if device.rate is not None:
        rate = f"{device.rate / 1e12:.2g} TFLOP/s, a matrix product's just now"
        lines.append(f"           here at {rate}; without ≥: as cells with the same settings took before")
    return lines


def _table(
    reproduction: Reproduction,
    cells: Sequence[PlannedCell],
    outlooks: Sequence[Outlook | None],
    prices: dict[int, Price],
) -> Table:
    columns = [Column("cell"), Column("column"), Column("state")]
    shown = _PRICES if any(price.published.seconds is not None for price in prices.values()) else _PRICES[:-1]
    columns += [Column(name, numeric=True) for name in shown if prices]
    rows = []
    for place, (cell, outlook) in enumerate(zip(cells, outlooks, strict=True)):
        if outlook is None:
            continue
        point = " ".join(f"{key.rpartition('.')[2]}={value:g}" for key, value in (cell.point or {}).items())
        state = "measured by each run" if reproduction.measure == "auc" and not outlook.missing else _state(outlook)
        row = [f"{cell.name} {point}".strip(), cell.column, state]
        if prices:
            row += (prices[place].texts() if place in prices else ("",) * len(_PRICES))[: len(shown)]
        rows.append(tuple(row))
    for name, why in dict.fromkeys((cell.name, cell.not_run) for cell in cells if cell.config is None):
        rows.append((name, "all", f"not run: {why}", *[""] * (len(columns) - 3)))
    return Table(reproduction.name, reproduction.title, tuple(columns), tuple(rows))


def _state(outlook: Outlook) -> str:
    if outlook.missing:
        named = dict.fromkeys("see below" if lack.kind == "more" else lack.kind for lack in outlook.missing)
        return f"lacks {', '.join(named)}"
    if outlook.state is None:
        return "unknown, device not here"
    if outlook.finished:
        return "finished"
    return f"{outlook.state.done} of {outlook.state.images} images" if outlook.state.done else "not started"


def _say_states(cells: Sequence[PlannedCell], outlooks: Sequence[Outlook | None]) -> None:
    known = [outlook for outlook in outlooks if outlook is not None]
    finished, missing = sum(each.finished for each in known), sum(bool(each.missing) for each in known)
    say(f"{len(known)} cells to run: {finished} finished, {missing} lack something, {len(cells) - len(known)} not run")


def _say_lacks(outlooks: Sequence[Outlook | None], cells: Sequence[PlannedCell]) -> None:
    """Each thing once, with the command that fetches it, and released files, which are fetched by hand."""
    lacks: dict[tuple[str, str], Lack] = {}
    for lack in (lack for outlook in outlooks if outlook is not None for lack in outlook.missing):
        known = lacks.setdefault((lack.kind, lack.what), lack)
        if set(lack.mend.split()) > set(known.mend.split()):  # of a model a namer wants more files than a backbone does
            lacks[lack.kind, lack.what] = replace(lack, size=lack.size or known.size)
    files = _released_files(cells)
    if lacks or files:
        say("to fetch, where there is network, and sizes as far as they are known here:")
    for kind in ("data", "weights", "more"):
        for lack in (lack for lack in lacks.values() if lack.kind == kind):
            say(f"  {lack.what} ({lack.size or 'size unknown'})" if kind != "more" else f"  {lack.what}")
            say(f"      {lack.mend}")
    for (row, what, option), columns in files.items():
        say(f"  {what} of the released code for {row}: {', '.join(columns)} (without them a verdict is limited)")
        say(f'      {option}=FILE, by hand: docs/open_vocabulary.md, "Table 4 as released"')


def _released_files(cells: Sequence[PlannedCell]) -> dict[tuple[str, str, str], list[str]]:
    """Columns by row, content and option of the files that rows were published with and that are not given."""
    wanted: dict[tuple[str, str, str], dict[str, None]] = {}
    for cell in cells:
        for file in () if cell.config is None else cell.row.files:
            group, _, name = file.option.partition(".")
            settings = getattr(cell.config, group)
            if name in settings and settings[name] is None:
                wanted.setdefault((cell.row.name, file.what, file.option), {})[cell.column] = None
    return {file: list(columns) for file, columns in wanted.items()}


def _outlooks(reproduction: Reproduction, cells: Sequence[PlannedCell]) -> list[Outlook | None]:
    """Of each cell that is run. One that is tuned first is as far as its search, and takes what both take."""
    groups: list[list[RunConfig]] = []
    errors: dict[int, Outlook] = {}
    for place, cell in enumerate(cells):
        configs = [] if cell.config is None else [cell.config]
        if cell.config is not None and cell.row.tune is not None:
            tuning = cell.row.tune
            try:
                configs = training_configs(cell.overrides, tuning.setting, tuning.grid, tuning.images) + configs
            except UserError as error:
                errors[place], configs = Outlook(missing=(Lack("more", error.what, error.hint),)), []
        groups.append(configs)
    every = [config for configs in groups for config in configs]
    found = iter(look_ahead(every, coherence=reproduction.measure == "auc"))
    together = [[next(found) for _ in configs] for configs in groups]
    return [errors.get(place, _joined(each) if each else None) for place, each in enumerate(together)]


def _joined(outlooks: Sequence[Outlook]) -> Outlook:
    """Of the cells of a search and the one that it is for, which comes last."""
    if len(outlooks) == 1:
        return outlooks[0]
    search = outlooks[:-1]
    return Outlook(
        state=next((each.state for each in search if not each.finished), search[-1].state),
        missing=tuple(dict.fromkeys(lack for each in outlooks for lack in each.missing)),
        images=_sum(each.images for each in outlooks),
        unstored=_sum(each.unstored for each in outlooks),
        feature_bytes=_sum(each.feature_bytes for each in outlooks),
        half_bytes=_sum(each.half_bytes for each in outlooks),
        operations=_sum(each.operations for each in outlooks),
        seconds=_sum(each.seconds for each in outlooks),
        whole=any(each.whole for each in outlooks),
    )


def _published_speeds() -> dict[tuple[str, str], float]:
    """Images a second of the paper's table 11, by backbone and segmenter."""
    speeds = {}
    for row in load_reproduction("table11").rows:
        chosen = dict(word.split("=", 1) for word in row.overrides if "=" in word)
        speeds[chosen["backbone"], chosen["segmenter"]] = row.published["images_per_s"]
    return speeds


def _sum(numbers: Iterable[Number | None]) -> Number | None:
    """None where one is not known."""
    total: Number | None = None
    for number in numbers:
        if number is None:
            return None
        total = number if total is None else total + number
    return total


def _number(numbers: Iterable[int | None]) -> str:
    known = list(numbers)
    more = " and more" if None in known else ""
    return f"{sum(number or 0 for number in known)}{more}"


def _bytes(sizes: Iterable[int | None]) -> str:
    known = list(sizes)
    more = " and more" if None in known else ""
    return f"{in_units(sum(size or 0 for size in known))}{more}"


def _total(times: Iterable[Duration]) -> Duration:
    """Of all cells; at least so much where one of them is not known."""
    known = list(times)
    seconds = [time.seconds for time in known if time.seconds is not None]
    bound = any(time.at_least for time in known) or len(seconds) < len(known)
    return Duration(sum(seconds), bound) if seconds else Duration(None)
