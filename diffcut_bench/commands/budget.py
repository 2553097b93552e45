"""``reproduce NAME --status`` and ``--dry-run``: how far each cell is, what the rest takes, what has to be fetched."""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from diffcut_bench.bench.ceiling import matrix_rate
from diffcut_bench.commands.outlook import Lack, Outlook, look_ahead
from diffcut_bench.commands.terminal import console, say
from diffcut_bench.commands.tune import training_configs
from diffcut_bench.config import RunConfig
from diffcut_bench.environment import choose_device, device_name
from diffcut_bench.errors import UserError
from diffcut_bench.reporting import Column, Table
from diffcut_bench.reproduction import Experiment, PlannedCell, load_experiment
from diffcut_bench.store import in_units

TFLOPS = 790.0  # bfloat16, about what an H100 sustains
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
        return bound + (f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.3g} h")


def print_status(experiment: Experiment, cells: Sequence[PlannedCell]) -> None:
    """How far each cell is, and what has to be fetched for those that lack something."""
    outlooks = _outlooks(cells)
    _table(experiment, cells, outlooks, {}).print(console)
    _say_states(cells, outlooks)
    _say_lacks(outlooks)


def print_budget(experiment: Experiment, cells: Sequence[PlannedCell], tflops: float = TFLOPS) -> None:
    """The same, and what the rest takes: images, disk, and time here, on a GPU at best, and on the paper's own.

    Args:
        experiment: of the table.
        cells: as planned.
        tflops: 10¹² operations a second that the GPU sustains.
    """
    outlooks = _outlooks(cells)
    configs = [cell.config for cell in cells if cell.config is not None]
    device = choose_device(configs[0].device if configs else "cpu")
    rate = matrix_rate(torch.float32 if device.type == "cpu" else torch.float16, device)
    published = _published_speeds()
    prices: dict[int, Price] = {}
    for place, outlook in enumerate(outlooks):
        config = cells[place].config
        if outlook is not None and config is not None and not outlook.finished and experiment.measure != "auc":
            speed = published.get((config.choices.get("backbone", ""), config.choices.get("segmenter", "")))
            prices[place] = Price.of(outlook, rate, tflops * 1e12, speed)
    _table(experiment, cells, outlooks, prices).print(console)
    _say_states(cells, outlooks)
    if prices:
        output_dir = Path(configs[0].output_dir).absolute()
        free = shutil.disk_usage(next(place for place in (output_dir, *output_dir.parents) if place.exists())).free
        for line in _sums(list(prices.values()), free, device_name(device), rate, tflops):
            say(line)
    _say_lacks(outlooks)


@dataclass(frozen=True)
class Price:
    """What is left of a cell takes; each number is None where it is not known.

    Attributes:
        images, unstored, feature_bytes, half_bytes: see `Outlook`.
        here: on this machine.
        at_best: on a GPU, the network's operations alone.
        published: at the speed that the paper gives for this backbone and segmenter.
    """

    images: int | None
    unstored: int | None
    feature_bytes: int | None
    half_bytes: int | None
    here: Duration
    at_best: Duration
    published: Duration

    @classmethod
    def of(cls, outlook: Outlook, rate: float, gpu_rate: float, speed: float | None) -> "Price":
        """From operations a second here and on the GPU, and the images a second that the paper gives."""

        def at(operations_a_second: float) -> Duration:
            seconds = None if not outlook.operations else outlook.operations / operations_a_second
            return Duration(seconds, at_least=True)

        here = at(rate) if outlook.seconds is None else Duration(outlook.seconds)
        seconds = None if speed is None or outlook.images is None else outlook.images / speed
        sizes = (outlook.images, outlook.unstored, outlook.feature_bytes, outlook.half_bytes)
        return cls(*sizes, here, at(gpu_rate), Duration(seconds))

    def texts(self) -> tuple[str, ...]:
        """As the table shows it: what other cells pay for is left empty."""
        images, unstored = ("unknown" if number is None else str(number) for number in (self.images, self.unstored))
        shared = self.unstored == 0
        disk = "" if shared else "unknown" if self.feature_bytes is None else in_units(self.feature_bytes)
        here, at_best = ("" if shared and time.seconds is None else str(time) for time in (self.here, self.at_best))
        return images, unstored, disk, here, at_best, "" if self.published.seconds is None else str(self.published)


def _sums(prices: Sequence[Price], free: int, device: str, rate: float, tflops: float) -> list[str]:
    """What all cells take together, and what the columns mean."""
    images, unstored = _number(each.images for each in prices), _number(each.unstored for each in prices)
    here, half = _bytes(each.feature_bytes for each in prices), _bytes(each.half_bytes for each in prices)
    few = sum(each.feature_bytes or 0 for each in prices) > free
    told = [each.published for each in prices if each.published.seconds is not None]
    return [
        f"images     {images} to score, features of {unstored} to compute",
        f"disk       {here} of features ({half} if an accelerator computes them); {in_units(free)} are free"
        + (": features.folder=DIR, features=memory, or a column at a time" if few else ""),
        f"here       {_total(each.here for each in prices)} on {device}",
        f"at best    {_total(each.at_best for each in prices)} on a GPU that sustains {tflops:g} TFLOP/s",
        f"TITAN RTX  {_total(told)} at the images a second of the paper's table 11, {len(told)} of {len(prices)} cells",
        "≥          a bound, no forecast: the networks' operations alone, without reading, segmenting and scoring;",
        f"           here at {rate / 1e12:.2g} TFLOP/s, a matrix product's just now; without ≥: as cells took before",
    ]


def _table(
    experiment: Experiment,
    cells: Sequence[PlannedCell],
    outlooks: Sequence[Outlook | None],
    prices: dict[int, Price],
) -> Table:
    columns = [Column("cell"), Column("column"), Column("state")]
    columns += [Column(name, numeric=True) for name in _PRICES if prices]
    rows = []
    for place, (cell, outlook) in enumerate(zip(cells, outlooks, strict=True)):
        if outlook is None:
            continue
        point = " ".join(f"{key.rpartition('.')[2]}={value:g}" for key, value in (cell.point or {}).items())
        auc = experiment.measure == "auc" and not outlook.missing
        row = [f"{cell.name} {point}".strip(), cell.column, "measured by each run" if auc else _state(outlook)]
        if prices:
            row += prices[place].texts() if place in prices else [""] * len(_PRICES)
        rows.append(tuple(row))
    for name, why in dict.fromkeys((cell.name, cell.not_run) for cell in cells if cell.config is None):
        rows.append((name, "all", f"not run: {why}", *[""] * (len(columns) - 3)))
    return Table(experiment.name, experiment.title, tuple(columns), tuple(rows))


def _state(outlook: Outlook) -> str:
    if outlook.missing:
        named = dict.fromkeys("see below" if lack.kind == "more" else lack.kind for lack in outlook.missing)
        return f"lacks {', '.join(named)}"
    assert outlook.state is not None
    if outlook.finished:
        return "finished"
    return f"{outlook.state.done} of {outlook.state.images} images" if outlook.state.done else "not started"


def _say_states(cells: Sequence[PlannedCell], outlooks: Sequence[Outlook | None]) -> None:
    known = [outlook for outlook in outlooks if outlook is not None]
    finished, missing = sum(each.finished for each in known), sum(bool(each.missing) for each in known)
    say(f"{len(known)} cells to run: {finished} finished, {missing} lack something, {len(cells) - len(known)} not run")


def _say_lacks(outlooks: Sequence[Outlook | None]) -> None:
    """Each thing once, with the command that fetches it."""
    lacks: dict[tuple[str, str], Lack] = {}
    for lack in (lack for outlook in outlooks if outlook is not None for lack in outlook.missing):
        lacks.setdefault((lack.kind, lack.what), lack)
    if lacks:
        say("to fetch, where there is network, and sizes as far as they are known here:")
    for kind in ("data", "weights", "more"):
        for lack in (lack for lack in lacks.values() if lack.kind == kind):
            say(f"  {lack.what} ({lack.size or 'size unknown'})" if kind != "more" else f"  {lack.what}")
            say(f"      {lack.mend}")


def _outlooks(cells: Sequence[PlannedCell]) -> list[Outlook | None]:
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
    found = iter(look_ahead([config for configs in groups for config in configs]))
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
    )


def _published_speeds() -> dict[tuple[str, str], float]:
    """Images a second of the paper's table 11, by backbone and segmenter."""
    speeds = {}
    for row in load_experiment("table11").rows:
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
    return Duration(sum(seconds), bound) if seconds or not known else Duration(None)
