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
from diffcut_bench.coherence import SamplingOptions, draw_pairs
from diffcut_bench.config import RunConfig, build_protocol, instantiate
from diffcut_bench.datasets import Benchmark, SegmentationDataset, prepared_folder, read_manifest
from diffcut_bench.environment import device_type, is_here
from diffcut_bench.errors import UserError
from diffcut_bench.paths import portable
from diffcut_bench.scoring.cell import CellState
from diffcut_bench.scoring.features import FeatureSource, outline_of
from diffcut_bench.scoring.framing import framing_choices, seen_choices
from diffcut_bench.scoring.passes import OpenedPass, chosen_images, open_pass, pass_key
from diffcut_bench.segmenters import as_segmenter
from diffcut_bench.store import Result, StoreOptions, cell_key, in_units, read_result

_UNTIMED = {"seed", "revision", "suggests", "gated"}  # settings of a backbone that take no time
_OBLONG = 2  # longer side over the shorter one of what a whole picture is counted as


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
        whole: pictures are seen whole, in shapes of their own: bytes and operations are those of pictures twice as long
            as high, which is a bound, since those of the benchmarks are no more oblong in the mean.
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
    whole: bool = False

    @property
    def finished(self) -> bool:
        return self.state is not None and self.state.result is not None


def look_ahead(configs: Sequence[RunConfig], *, coherence: bool = False) -> list[Outlook]:
    """What each cell would take. Features that several cells share are counted with the first of them.

    Args:
        configs: of the cells.
        coherence: features are what is wanted, of the images that `coherence` draws; nothing is segmented or scored.
    """
    speeds = measured_speeds(configs)
    passes: dict[str, OpenedPass | tuple[Lack, ...]] = {}
    datasets: dict[str, Benchmark | SegmentationDataset | None] = {}
    counted: set[str] = set()
    found = []
    for config in configs:
        key = pass_key(config)
        if key not in passes:
            passes[key], datasets[key] = _open(config), _dataset(config)
        opened, dataset = passes[key], datasets[key]
        state, lacks = None, opened if isinstance(opened, tuple) else ()
        if isinstance(opened, OpenedPass) and not coherence:
            try:
                state = opened.cell(config).state()
            except UserError as error:
                lacks = (Lack("more", error.what, error.hint),)
        left = _images(config, dataset) if state is None else state.images - state.done
        if coherence and left is not None:
            left = _drawn(left, config.seed)
        unstored = left if coherence or _needs_features(config) else 0
        features = _features_key(config, dataset)
        if features in counted:
            unstored = 0
        elif unstored:
            counted.add(features)
            if isinstance(opened, OpenedPass):
                unstored = min(unstored, opened.features.missing(opened.images.dataset, opened.images.indices))
        sized = Outlook(state, lacks, left, unstored, whole=config.protocol.get("crop") == "none")
        seconds = None
        if left is not None and unstored is not None and not coherence and is_here(config.device):
            seconds = _estimate(speeds, config, left, unstored) if left else 0.0
        source = opened.features if isinstance(opened, OpenedPass) else None
        found.append(replace(_with_costs(sized, config, source), seconds=seconds))
    return found


def _needs_features(config: RunConfig) -> bool:
    """Whether the segmenter looks at features; one that can't be built looks at nothing."""
    try:
        return "features" in as_segmenter(instantiate("segmenter", config.segmenter)).needs
    except UserError:
        return False


def _drawn(images: int, seed: int) -> int:
    """How many of so many images are in a pair that `coherence` draws."""
    if images < 2:
        return images
    pairs = draw_pairs([f"{place:09}" for place in range(images)], SamplingOptions(seed=seed))
    return len({image for pair in pairs for image in pair})


def _with_costs(outlook: Outlook, config: RunConfig, source: FeatureSource | None) -> Outlook:
    """With disk and operations of the images that are to be computed; ``source`` where the backbone could be opened."""
    images, options = outlook.unstored, instantiate("features", config.features)
    if images is None or not images:
        return replace(outlook, feature_bytes=images, half_bytes=images, operations=images)
    aspect = _OBLONG if outlook.whole else 1
    here, there = (_outline(config, device, aspect) for device in (device_type(config.device), "cuda"))
    if source is not None:
        image_bytes: int | None = source.image_bytes(aspect)
    else:
        image_bytes = None if here is None else _image_bytes(options, here)
    half_bytes = image_bytes if there is None else _image_bytes(options, there)
    return replace(
        outlook,
        feature_bytes=None if image_bytes is None else images * image_bytes,
        half_bytes=None if half_bytes is None else images * half_bytes,
        operations=None if here is None or here.operations is None else images * here.operations,
    )


def _outline(config: RunConfig, device_type: str, aspect: int = 1) -> Outline | None:
    return outline_of(config.backbone, build_protocol(config.protocol).image_size, device_type, aspect)


def _image_bytes(options: StoreOptions | None, outline: Outline) -> int:
    if options is None:
        return 0
    dtype: torch.dtype = getattr(torch, options.kept_as(outline.dtype).dtype)
    return outline.rows * outline.cols * outline.channels * dtype.itemsize


def _features_key(config: RunConfig, dataset: Benchmark | SegmentationDataset | None) -> str:
    """Equal for cells whose features are computed once: the store's are found by the image, whatever data set it is in;
    without a store they last for a pass."""
    if config.features.get("_target_") is None:
        return pass_key(config)
    names = ("limit", "limit_seed", "shard", "device", "features", "backbone")
    own: Mapping[str, Any] = {name: getattr(config, name) for name in names}
    images = dataset.source if isinstance(dataset, Benchmark) else config.dataset
    return cell_key({**own, "images": images, **seen_choices(config.protocol)})


def _dataset(config: RunConfig) -> Benchmark | SegmentationDataset | None:
    """The data set as far as it can be built without being opened."""
    with contextlib.suppress(UserError):
        built = instantiate("dataset", config.dataset)
        if isinstance(built, Benchmark | SegmentationDataset):
            return built
    return None


def _images(config: RunConfig, dataset: Benchmark | SegmentationDataset | None) -> int | None:
    """Images of a cell that can't be opened: of the published split, or as many as were prepared."""
    whole = None
    if isinstance(dataset, SegmentationDataset):
        whole = len(dataset)
    elif dataset is not None:
        manifest = read_manifest(prepared_folder(dataset, Path(config.data_dir)))
        whole = dataset.n_expected if manifest is None else manifest.pairs
    chosen = min((number for number in (whole, config.limit) if number is not None), default=None)
    return None if chosen is None else len(chosen_images(chosen, config.shard_of()))


def measured_speeds(configs: Sequence[RunConfig]) -> dict[str, float]:
    """Seconds an image that stages took in the finished cells below the configs' output folders, by `_timed_by`.

    A cell that read its features from the store says nothing of their cost: the slowest cell of a stage counts.
    """
    speeds: dict[str, float] = {}
    for folder in dict.fromkeys(Path(config.output_dir) for config in configs):
        for result in _results(folder):
            images = max(result.dataset.n_images - len(result.failures), 1)
            times, keys = result.timings, _timed_by(result.config, result.identity.get("device_type", "cpu"))
            own = {"features": times.features_s, "segment": times.segment_s, "refine": times.refine_s}
            for stage, seconds in {**own, "rest": times.wall_s - sum(own.values())}.items():
                speeds[keys[stage]] = max(speeds.get(keys[stage], 0.0), seconds / images)
    return speeds


def _estimate(speeds: Mapping[str, float], config: RunConfig, images: int, unstored: int) -> float | None:
    """Seconds that a cell would take; None where no earlier cell had a stage of it with these settings."""
    keys = _timed_by(portable(config.to_dict(), config.output_dir), device_type(config.device))
    total = 0.0
    for stage, times in (("features", unstored), ("segment", images), ("refine", images), ("rest", images)):
        if times and keys[stage] not in speeds:
            return None
        total += times * speeds.get(keys[stage], 0.0)
    return total


def _timed_by(config: Mapping[str, Any], device_type: str) -> dict[str, str]:
    """Equal keys for stages that take as long: their settings, those of the stages before them, whose output they get,
    and the sizes that are seen and scored."""
    protocol = config.get("protocol", {})
    seen = {"device": device_type, **seen_choices(protocol)}
    scored = {**seen, **framing_choices(protocol)}
    backbone = {name: value for name, value in config.get("backbone", {}).items() if name not in _UNTIMED}
    cut = {name: config.get(name, {}) for name in ("segmenter", "upsampler", "namer")}
    parts = {
        "features": {**seen, "backbone": backbone},
        "segment": {**scored, "backbone": backbone, **cut},
        "refine": {**scored, "backbone": backbone, **cut, "refiner": config.get("refiner", {})},
        "rest": scored,
    }
    return {stage: cell_key({"stage": stage, **settings}) for stage, settings in parts.items()}


def _results(output_dir: Path) -> Iterator[Result]:
    for path in sorted((output_dir / "results").glob("*/result.json")):
        with contextlib.suppress(UserError):
            yield read_result(path.parent)


def _open(config: RunConfig) -> OpenedPass | tuple[Lack, ...]:
    """The cells' shared part, or what is missing for it: nothing at all, where all is there save the device that it
    would be opened on. Nothing is fetched or prepared."""
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
                missing += [_more(error)] if error.says_more else []
                what = f"{error.model}, of which another revision is here"
                missing += [Lack("more", what, error.elsewhere)] if error.elsewhere else []
            except UserError as error:
                missing.append(_more(error))
        if missing or not is_here(config.device):
            return tuple(dict.fromkeys(missing))
        try:
            # What is read from originals for this look is not prepared by it.
            return open_pass(replace(config, prepared=config.prepared if _is_prepared(config) else "never"))
        except UserError as error:
            return (Lack("more", error.what, error.hint),)


def _more(error: UserError) -> Lack:
    return Lack("more", f"{error.what} ({error.where})", error.hint)


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
    if _is_prepared(config):
        return []
    if benchmark.root is not None:
        wrong = Lack("more", f"there is no folder {benchmark.root}", "check dataset.root")
        return [] if Path(benchmark.root).is_dir() else [wrong]
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
