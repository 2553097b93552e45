"""What a plan of cells would take before it runs: what is done, stored or missing, images, disk, operations and time.

Nothing is written, fetched or computed; what data and weights are needed for is known without either.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from diffcut_bench.backbones import MissingWeightsError, Outline, cache_only
from diffcut_bench.config import RunConfig, build_protocol, instantiate
from diffcut_bench.datasets import Benchmark, SegmentationDataset, prepared_folder, read_manifest
from diffcut_bench.environment import choose_device
from diffcut_bench.errors import UserError
from diffcut_bench.experiment import OpenedPass, chosen_images, open_pass, pass_key
from diffcut_bench.features import outline_of
from diffcut_bench.running import CellState
from diffcut_bench.store import Result, StoreOptions, cell_key, in_units, read_result


@dataclass(frozen=True)
class Lack:
    """What has to be had before a cell can run.

    Attributes:
        kind: ``data``, ``weights`` or ``more``.
        what: name of the pairs (several data sets may read the same), of the model, or what is wrong.
        mend: what to type or do.
        size: of a download, in words; empty where nothing is known of it.
    """

    kind: str
    what: str
    mend: str
    size: str = ""


@dataclass(frozen=True)
class Outlook:
    """What a cell would take.

    Attributes:
        state: of the cell; None where it can't be opened yet.
        missing: what has to be had first.
        images: that are still to be scored; None where the split's size is not known.
        unstored: those of them whose features are to be computed, no other cell of the plan doing that before.
        feature_bytes, half_bytes: that the store takes for them here, and on an accelerator; None where not known.
        operations: of the network on them; None where nobody has counted.
        seconds: measured on earlier cells; None where none of them tells.
    """

    state: CellState | None = None
    missing: tuple[Lack, ...] = ()
    images: int | None = None
    unstored: int | None = None
    feature_bytes: int | None = None
    half_bytes: int | None = None
    operations: float | None = None
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
    passes: dict[str, OpenedPass | tuple[Lack, ...]] = {}
    counted: set[str] = set()
    found = []
    for config in configs:
        key = pass_key(config)
        if key not in passes:
            passes[key] = _open(config)
        opened = passes[key]
        state, lacks = None, opened if isinstance(opened, tuple) else ()
        if isinstance(opened, OpenedPass):
            try:
                state = opened.cell(config).state()
            except UserError as error:
                lacks = (Lack("more", error.what, error.hint),)
        left = _images(config) if state is None else state.images - state.done
        unstored, image_bytes = left, None
        if isinstance(opened, OpenedPass):
            image_bytes = opened.features.image_bytes(build_protocol(config.protocol))
        features = _features_key(config)
        if features in counted:
            unstored = 0
        elif left:
            counted.add(features)
            if isinstance(opened, OpenedPass):
                unstored = min(left, opened.features.missing(opened.images.dataset, opened.images.indices))
        sized = Outlook(state, lacks, left, unstored)
        seconds = None
        if left is not None and unstored is not None:
            seconds = speeds.estimate(config, left, unstored) if left else 0.0
        found.append(replace(_with_costs(sized, config, image_bytes), seconds=seconds))
    return found


def _with_costs(outlook: Outlook, config: RunConfig, image_bytes: int | None) -> Outlook:
    """With disk and operations of the images that are to be computed; ``image_bytes`` of an image, where the backbone
    itself could be asked."""
    images, options = outlook.unstored, instantiate("features", config.features)
    if images is None or not images:
        return replace(outlook, feature_bytes=images, half_bytes=images, operations=images)
    here, there = (_outline(config, device) for device in (choose_device(config.device).type, "cuda"))
    if image_bytes is None and here is not None:
        image_bytes = _image_bytes(options, here)
    half_bytes = image_bytes if there is None else _image_bytes(options, there)
    return replace(
        outlook,
        feature_bytes=None if image_bytes is None else images * image_bytes,
        half_bytes=None if half_bytes is None else images * half_bytes,
        operations=None if here is None or here.operations is None else images * here.operations,
    )


def _outline(config: RunConfig, device_type: str) -> Outline | None:
    return outline_of(config.backbone, build_protocol(config.protocol).image_size, device_type)


def _image_bytes(options: StoreOptions | None, outline: Outline) -> int:
    if options is None:
        return 0
    dtype: torch.dtype = getattr(torch, options.kept_as(outline.dtype).dtype)
    return outline.rows * outline.cols * outline.channels * dtype.itemsize


def _features_key(config: RunConfig) -> str:
    """Equal for cells whose features are computed once: the store's are found by the image, whatever data set it is in;
    without a store they last for a pass."""
    if config.features.get("_target_") is None:
        return pass_key(config)
    built = _dataset(config)
    names = ("limit", "limit_seed", "shard", "device", "features", "backbone")
    own: Mapping[str, Any] = {name: getattr(config, name) for name in names}
    images = built.source if isinstance(built, Benchmark) else config.dataset
    seen = {name: config.protocol.get(name) for name in ("crop", "image_size")}
    return cell_key({**own, "images": images, **seen})


def _dataset(config: RunConfig) -> Benchmark | SegmentationDataset | None:
    """The data set as far as it can be built without being opened."""
    with contextlib.suppress(UserError):
        built = instantiate("dataset", config.dataset)
        if isinstance(built, Benchmark | SegmentationDataset):
            return built
    return None


def _images(config: RunConfig) -> int | None:
    """Images of a cell that can't be opened: of the published split, or as many as were prepared."""
    built, whole = _dataset(config), None
    if isinstance(built, SegmentationDataset):
        whole = len(built)
    elif built is not None:
        manifest = read_manifest(prepared_folder(built, Path(config.data_dir)))
        whole = built.n_expected if manifest is None else manifest.pairs
    chosen = min((number for number in (whole, config.limit) if number is not None), default=None)
    return None if chosen is None else len(chosen_images(chosen, config.shard_of()))


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


def _open(config: RunConfig) -> OpenedPass | tuple[Lack, ...]:
    """The cells' shared part, or what is missing for it. Nothing is fetched or prepared."""
    missing: list[Lack] = []
    with cache_only():
        for group in ("dataset", "backbone", "namer"):
            node = getattr(config, group)
            try:
                built = instantiate(group, node) if node else None
                if isinstance(built, Benchmark):
                    missing += _unprepared(built, config)
            except MissingWeightsError as error:
                asked = f"ask for access at https://huggingface.co/{error.model}, `hf auth login`, then "
                size = _least_size(config) if group == "backbone" else ""
                missing.append(Lack("weights", error.model, (asked if error.gated else "") + error.command, size))
            except UserError as error:
                missing.append(Lack("more", f"{error.what} ({error.where})", error.hint))
        if missing:
            return tuple(dict.fromkeys(missing))
        try:
            # What is read from originals for this look is not prepared by it.
            return open_pass(replace(config, prepared=config.prepared if _is_prepared(config) else "never"))
        except UserError as error:
            return (Lack("more", error.what, error.hint),)


def _least_size(config: RunConfig) -> str:
    outline = _outline(config, "cpu")
    if outline is None or outline.parameters is None:
        return ""
    return f"at least {in_units(2 * outline.parameters)}"  # two bytes a weight, and there are other parts


def _is_prepared(config: RunConfig) -> bool:
    built = instantiate("dataset", config.dataset)
    if not isinstance(built, Benchmark) or config.prepared not in ("auto", "never"):
        return True
    return read_manifest(prepared_folder(built, Path(config.data_dir))) is not None


def _unprepared(benchmark: Benchmark, config: RunConfig) -> list[Lack]:
    if _is_prepared(config) or benchmark.root is not None:
        return []
    card, prepare = benchmark.card, f"diffcut-bench data prepare {benchmark.name}"
    if benchmark.n_expected is None:  # `--download` fetches published splits alone, and sizes are theirs
        names = [name for name in ("split", "ids") if name in config.dataset]
        own = " ".join(f"dataset.{name}={config.dataset[name]}" for name in names)
        return [Lack("data", benchmark.source, f"{prepare} {own} dataset.root=DIR, as {card.homepage} gives it")]
    if card.by_hand is not None:
        mend = f"{card.by_hand}; then {prepare} dataset.root=DIR"
    else:
        mend = f"{prepare} --download dataset.root=DIR"
    size = in_units(card.download_bytes) if card.download_bytes is not None else ""
    return [Lack("data", benchmark.source, mend, size)]
