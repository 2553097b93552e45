"""What a plan of cells would take before it runs: what is done, stored or missing, disk and time. Writes nothing."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from diffcut_bench.backbones import cache_only
from diffcut_bench.config import RunConfig, build_protocol, instantiate
from diffcut_bench.datasets import Benchmark, prepared_folder, read_manifest
from diffcut_bench.environment import choose_device
from diffcut_bench.errors import UserError
from diffcut_bench.experiment import OpenedPass, open_pass, pass_key
from diffcut_bench.running import CellState
from diffcut_bench.store import Result, read_result


@dataclass(frozen=True)
class Outlook:
    """What a cell would take.

    Attributes:
        state: of the cell; None where it can't be opened yet.
        missing: what has to be had first: data, weights.
        unstored: images whose features have to be computed.
        feature_bytes: that the store would take for them.
        seconds: measured on earlier cells; None where none of them tells.
    """

    state: CellState | None = None
    missing: tuple[str, ...] = ()
    unstored: int = 0
    feature_bytes: int = 0
    seconds: float | None = None

    @property
    def finished(self) -> bool:
        return self.state is not None and self.state.result is not None


@dataclass(frozen=True)
class Speeds:
    """Seconds an image that stages took in earlier cells, by device, image size and option.

    Attributes:
        stages: of the backbone, segmenter and refiner.
        rest: reading and scoring, by device and image size.
    """

    stages: dict[tuple[str, ...], float]
    rest: dict[tuple[str, ...], float]

    def estimate(self, config: RunConfig, images: int, unstored: int) -> float | None:
        """Seconds that a cell would take; None where an option of it was in no earlier cell."""
        where = (choose_device(config.device).type, str(config.protocol.get("image_size")))
        total = images * self.rest.get(where, 0.0)
        for group, times in (("backbone", unstored), ("segmenter", images), ("refiner", images)):
            option = config.choices.get(group, "")
            if times and option != "none":
                seconds = self.stages.get((*where, group, option))
                if seconds is None:
                    return None
                total += times * seconds
        return total


def look_ahead(configs: Sequence[RunConfig]) -> list[Outlook]:
    """What each cell would take. Features that several cells share are counted with the first of them."""
    speeds = measured_speeds(configs)
    passes: dict[str, OpenedPass | tuple[str, ...]] = {}
    counted: set[str] = set()
    found = []
    for config in configs:
        key = pass_key(config)
        if key not in passes:
            passes[key] = _open(config)
        opened = passes[key]
        if isinstance(opened, tuple):
            found.append(Outlook(missing=opened))
            continue
        try:
            state = opened.cell(config).state()
        except UserError as error:
            found.append(Outlook(missing=(error.what,)))
            continue
        left = state.images - state.done
        unstored = 0
        if left and key not in counted:
            counted.add(key)
            unstored = opened.features.missing(opened.images.dataset, opened.images.indices)
        size = unstored * opened.features.image_bytes(build_protocol(config.protocol))
        seconds = speeds.estimate(config, left, unstored) if left else 0.0
        found.append(Outlook(state, (), unstored, size, seconds))
    return found


def measured_speeds(configs: Sequence[RunConfig]) -> Speeds:
    """From the finished cells below the configs' output folders.

    A cell that read its features from the store says nothing of their cost: the slowest cell of an option counts.
    """
    stages: dict[tuple[str, ...], float] = {}
    rest: dict[tuple[str, ...], float] = {}
    for folder in dict.fromkeys(Path(config.output_dir) for config in configs):
        for result in _results(folder):
            images = max(result.dataset.n_images - len(result.failures), 1)
            times, choices = result.timings, result.config.get("choices", {})
            where = (result.identity.get("device_type", "cpu"), str(result.protocol.get("image_size")))
            own = {"backbone": times.features_s, "segmenter": times.segment_s, "refiner": times.refine_s}
            for group, seconds in own.items():
                kind = (*where, group, choices.get(group, ""))
                stages[kind] = max(stages.get(kind, 0.0), seconds / images)
            rest[where] = max(rest.get(where, 0.0), (times.wall_s - sum(own.values())) / images)
    return Speeds(stages, rest)


def _results(output_dir: Path) -> Iterator[Result]:
    for path in sorted((output_dir / "results").glob("*/result.json")):
        with contextlib.suppress(UserError):
            yield read_result(path.parent)


def _open(config: RunConfig) -> OpenedPass | tuple[str, ...]:
    """The cells' shared part, or what is missing for it. Nothing is fetched or prepared."""
    missing = []
    with cache_only():
        for group in ("dataset", "backbone", "namer"):
            node = getattr(config, group)
            try:
                built = instantiate(group, node) if node else None
                if isinstance(built, Benchmark):
                    missing += _unprepared(built, config)
            except UserError as error:
                model = None if group == "dataset" or "install" in error.hint else node.get("model")
                missing.append(f"weights of {model}" if model else f"{error.what} ({error.where})")
        if missing:
            return tuple(dict.fromkeys(missing))
        try:
            # What is read from originals for this look is not prepared by it.
            return open_pass(replace(config, prepared=config.prepared if _is_prepared(config) else "never"))
        except UserError as error:
            return (error.what,)


def _is_prepared(config: RunConfig) -> bool:
    built = instantiate("dataset", config.dataset)
    if not isinstance(built, Benchmark) or config.prepared not in ("auto", "never"):
        return True
    return read_manifest(prepared_folder(built, Path(config.data_dir))) is not None


def _unprepared(benchmark: Benchmark, config: RunConfig) -> list[str]:
    if _is_prepared(config) or benchmark.root is not None:
        return []
    return [f"{benchmark.name} is not prepared: diffcut-bench data prepare {benchmark.name} dataset.root=DIR"]
