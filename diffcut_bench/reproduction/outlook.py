"""What a plan of cells would take before it runs: what is done, stored or missing, images, disk, operations and time.

Nothing is written, fetched or computed; what data and weights are needed for is known without either.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diffcut_bench.backbones import MissingWeightsError, Outline, cache_only
from diffcut_bench.coherence import SamplingOptions, draw_pairs
from diffcut_bench.config import RunConfig, instantiate
from diffcut_bench.datasets import Benchmark, SegmentationDataset, prepared_folder, read_manifest
from diffcut_bench.environment import device_type, is_here
from diffcut_bench.errors import UserError
from diffcut_bench.extensions import command
from diffcut_bench.paths import portable
from diffcut_bench.reporting import scored_images
from diffcut_bench.scoring.cell import CellState, OpenedPass
from diffcut_bench.scoring.features import networks_of, outline_of
from diffcut_bench.scoring.framing import framing_choices, seen_choices
from diffcut_bench.scoring.passes import chosen_images, open_pass, pass_key, without_preparing
from diffcut_bench.segmenters import as_segmenter
from diffcut_bench.store import cell_key, read_result

_UNTIMED = {"seed", "revision", "suggests", "gated", "weights"}  # settings of a backbone that take no time
_OBLONG = 2  # longer side over the shorter one of what a whole picture is counted as
_SUMMED = ("images", "unstored", "feature_bytes", "half_bytes", "operations", "seconds")


@dataclass(frozen=True)
class Lack:
    """What has to be had before a cell can run.

    Attributes:
        kind: ``data``, ``weights`` or ``more``.
        what: name of the pairs (several data sets may read the same), of the model, or what is wrong.
        mend: what to type or do.
        option: that needs it, such as ``voc``.
        size: bytes of a download, of weights the least that they can be; None where nothing is known of it.
        terms: licence of the data; of weights the page that states it.
    """

    kind: str
    what: str
    mend: str
    option: str = ""
    size: int | None = None
    terms: str = ""

    @classmethod
    def of(cls, error: UserError) -> "Lack":
        """What is wrong, where it is neither data nor weights."""
        return cls("more", f"{error.what} ({error.where})", error.hint)


@dataclass(frozen=True)
class Outlook:
    """What a cell would take; of several their sum.

    Attributes:
        state: of the cell; None where it can't be opened yet. Of several that of the first that is not finished.
        missing: what has to be had first.
        whole: pictures are seen whole, in shapes of their own: bytes and operations are those of pictures twice as long
            as high, which is a bound, since those of the benchmarks are no more oblong in the mean.
        images: that are still to be scored; None where the split's size is not known.
        unstored: those of them whose features are to be computed, no other cell of the plan doing that before.
        feature_bytes, half_bytes: that the store takes for them here, and on an accelerator; None where not known.
        operations: of the network on them; None where nobody has counted.
        seconds: measured on earlier cells; None where none of them tells.
    """

    state: CellState | None = None
    missing: tuple[Lack, ...] = ()
    whole: bool = False
    images: int | None = None
    unstored: int | None = None
    feature_bytes: int | None = None
    half_bytes: int | None = None
    operations: float | None = None
    seconds: float | None = None

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.state is not None and self.state.result is not None

    def __add__(self, other: "Outlook") -> "Outlook":
        """What both take; a sum is None where one of its parts is not known."""
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in _SUMMED}
        return Outlook(
            other.state if self.finished else self.state,
            tuple(dict.fromkeys((*self.missing, *other.missing))),
            self.whole or other.whole,
            **{name: _known_sum(pair) for name, pair in pairs.items()},
        )


@dataclass(frozen=True)
class _Look:
    """What the cells of a pass share, as far as it is here."""

    dataset: Benchmark | SegmentationDataset | None  # as far as it can be built without being opened
    opened: OpenedPass | None  # None where something is missing, or the device is not here
    missing: tuple[Lack, ...]


def _look_at(config: RunConfig) -> _Look:
    """Build what can be built; nothing is fetched or prepared."""
    dataset: Benchmark | SegmentationDataset | None = None
    opened = None
    missing: list[Lack] = []
    with cache_only():
        backbones = [("backbone", each) for each in networks_of(config)]
        for group, own in [("dataset", config), *backbones, ("namer", config)]:
            try:
                built = instantiate(group, getattr(own, group))
                if group == "dataset":
                    dataset = built
                if isinstance(built, Benchmark):
                    missing += _unprepared(built, config)
            except MissingWeightsError as error:
                outline = outline_of(own, "cpu") if group == "backbone" else None
                missing += _without_weights(error, own.choices.get(group, ""), outline)
            except UserError as error:
                missing.append(Lack.of(error))
        if not missing and is_here(config.device):
            try:
                opened = open_pass(without_preparing(config))
            except UserError as error:
                missing.append(Lack.of(error))
    return _Look(dataset, opened, tuple(dict.fromkeys(missing)))


def look_ahead(configs: Sequence[RunConfig], *, coherence: bool = False) -> list[Outlook]:
    """What each cell would take. Features that several cells share are counted with the first of them.

    Args:
        configs: of the cells.
        coherence: features are what is wanted, of the images that `coherence` draws; nothing is segmented or scored.
    """
    speeds = _measured_speeds(configs)
    looks: dict[str, _Look] = {}
    counted: set[str] = set()
    found = []
    for config in configs:
        key = pass_key(config)
        if key not in looks:
            looks[key] = _look_at(config)
        look = looks[key]
        state, missing = None, look.missing
        if look.opened is not None and not coherence:
            try:
                state = look.opened.cell(config).state()
            except UserError as error:
                missing = (Lack.of(error),)
        images = _images(config, look.dataset) if state is None else state.images - state.done
        if coherence and images is not None:
            images = _drawn(images, config.seed)
        networks, needed = networks_of(config), images if coherence or _needs_features(config) else 0
        shared = config.features.get("_target_") is not None  # else features last for a pass
        lacking = []
        for number, network in enumerate(networks):
            features = _features_key(network, look.dataset) if shared else f"{key}, network {number}"
            lacking.append(0 if features in counted else _unstored(look, number, needed))
            counted |= {features} if needed else set()
        unstored = None if None in lacking else max(each for each in lacking if each is not None)
        seconds = None
        if images is not None and unstored is not None and not coherence and is_here(config.device):
            seconds = _estimate(speeds, config, images, unstored) if images else 0.0
        whole = config.protocol.get("crop") == "none"
        aspect = _OBLONG if whole else 1
        pairs = enumerate(zip(networks, lacking, strict=True))
        costs = [_costs(network, look, number, lacks, aspect) for number, (network, lacks) in pairs]
        feature_bytes, half_bytes, operations = (_known_sum(each) for each in zip(*costs, strict=True))
        amounts = (unstored, feature_bytes, half_bytes, operations)
        found.append(Outlook(state, missing, whole, images, *amounts, seconds))
    return found


def _known_sum(amounts: Sequence[Any]) -> Any:
    """None where one of them is not known."""
    return None if None in amounts else sum(amounts)


def _unstored(look: _Look, number: int, images: int | None) -> int | None:
    """How many of so many images the network of this number has to see; the store has the others."""
    if not images or look.opened is None:
        return images
    return min(images, look.opened.features.networks[number].missing(look.opened.dataset, look.opened.indices))


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
    pairs = draw_pairs([f"{index:09}" for index in range(images)], SamplingOptions(seed=seed))
    return len({image for pair in pairs for image in pair})


def _costs(
    config: RunConfig, look: _Look, number: int, images: int | None, aspect: int
) -> tuple[int | None, int | None, float | None]:
    """Bytes of a network's features of so many images here and on an accelerator, and its operations on them."""
    if not images:
        return images, images, images
    here, there = (outline_of(config, device, aspect) for device in (device_type(config.device), "cuda"))
    # A backbone of somebody else's may tell nothing before it is opened.
    opened = None if look.opened is None else look.opened.features.networks[number].image_bytes(aspect)
    here_bytes = _image_bytes(config, here) if opened is None else opened
    there_bytes = here_bytes if there is None else _image_bytes(config, there)
    operations = None if here is None or here.operations is None else images * here.operations
    return here_bytes and images * here_bytes, there_bytes and images * there_bytes, operations


def _image_bytes(config: RunConfig, outline: Outline | None) -> int | None:
    """Bytes that the store of a config takes for the features of one image."""
    if outline is None:
        return None
    options = instantiate("features", config.features)
    if options is None:
        return 0
    dtype: torch.dtype = getattr(torch, options.kept_as(outline.dtype).dtype)
    return outline.rows * outline.cols * outline.channels * dtype.itemsize


def _features_key(config: RunConfig, dataset: Benchmark | SegmentationDataset | None) -> str:
    """Equal for cells whose features are stored once: they are found by the image, whatever data set it is in."""
    names = ("limit", "limit_seed", "shard", "device", "features", "backbone")
    images = dataset.source if isinstance(dataset, Benchmark) else config.dataset
    own = {name: getattr(config, name) for name in names}
    return cell_key({**own, "images": images, **seen_choices(config.protocol)})


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


def _measured_speeds(configs: Sequence[RunConfig]) -> dict[str, float]:
    """Seconds an image that stages took in the finished cells below the configs' output folders, by `_timed_by`.

    A cell that read its features from the store says nothing of their cost: the slowest cell of a stage counts.
    """
    speeds: dict[str, float] = {}
    folders = dict.fromkeys(Path(config.output_dir) / "results" for config in configs)
    for path in (path for folder in folders for path in sorted(folder.glob("*/result.json"))):
        with contextlib.suppress(UserError):
            result = read_result(path.parent)
            images = max(scored_images(result), 1)
            times, keys = result.timings, _timed_by(result.config, result.identity.get("device_type", "cpu"))
            own = {"features": times.features_s, "segment": times.segment_s, "refine": times.refine_s}
            for stage, seconds in {**own, "rest": times.wall_s - sum(own.values())}.items():
                speeds[keys[stage]] = max(speeds.get(keys[stage], 0.0), seconds / images)
    return speeds


def _estimate(speeds: Mapping[str, float], config: RunConfig, images: int, unstored: int) -> float | None:
    """Seconds that a cell would take; None where no earlier cell had a stage of it with these settings."""
    keys = _timed_by(portable(config.to_dict(), config.output_dir), device_type(config.device))
    times = {key: unstored if stage == "features" else images for stage, key in keys.items()}
    if any(number and key not in speeds for key, number in times.items()):
        return None
    return sum(number * speeds.get(key, 0.0) for key, number in times.items())


def _timed_by(config: Mapping[str, Any], device_type: str) -> dict[str, str]:
    """Equal keys for stages that take as long: their settings, those of the stages before them, whose output they get,
    and the sizes that are seen and scored."""
    protocol = config.get("protocol", {})
    seen = {"device": device_type, **seen_choices(protocol)}
    backbone = {name: value for name, value in config.get("backbone", {}).items() if name not in _UNTIMED}
    rest = {**seen, **framing_choices(protocol)}
    segment = {**rest, "backbone": backbone, **{n: config.get(n, {}) for n in ("segmenter", "upsampler", "namer")}}
    refine = {**segment, "refiner": config.get("refiner", {})}
    parts = {"features": {**seen, "backbone": backbone}, "segment": segment, "refine": refine, "rest": rest}
    return {stage: cell_key({"stage": stage, **settings}) for stage, settings in parts.items()}


def _without_weights(error: MissingWeightsError, option: str, outline: Outline | None) -> list[Lack]:
    asked = f"ask for access at https://huggingface.co/{error.model}, `hf auth login`, then " if error.gated else ""
    parameters = None if outline is None else outline.parameters
    # Two bytes a weight, and there are other parts.
    size = None if parameters is None else 2 * parameters
    page = f"see https://huggingface.co/{error.model}"
    found = [Lack("weights", error.model, asked + error.command, option, size, page)]
    found += [Lack.of(error)] if error.says_more else []
    elsewhere = f"{error.model}, of which another revision is here"
    return found + ([Lack("more", elsewhere, error.elsewhere)] if error.elsewhere else [])


def _unprepared(benchmark: Benchmark, config: RunConfig) -> list[Lack]:
    """The data of a benchmark, where neither a prepared form nor originals are here."""
    prepared = read_manifest(prepared_folder(benchmark, Path(config.data_dir))) is not None
    if prepared or config.prepared not in ("auto", "never"):
        return []
    if benchmark.root is not None:
        wrong = Lack("more", f"there is no folder {benchmark.root}", "check dataset.root")
        return [] if Path(benchmark.root).is_dir() else [wrong]
    card, option = benchmark.card, config.choices["dataset"]
    prepare = f"data prepare {benchmark.name}"
    if benchmark.n_expected is None:  # `--download` fetches published splits alone, and sizes are theirs
        names = [name for name in ("split", "ids") if name in config.dataset]
        own = " ".join(f"dataset.{name}={config.dataset[name]}" for name in names)
        mend = f"{command(f'{prepare} {own} dataset.root=DIR')}, as {card.homepage} gives it"
        return [Lack("data", benchmark.source, mend, option, terms=card.licence)]
    if card.by_hand is None:
        mend = command(f"{prepare} --download dataset.root=DIR")
    else:
        mend = f"{card.by_hand}; then {command(f'{prepare} dataset.root=DIR')}"
    return [Lack("data", benchmark.source, mend, option, card.download_bytes, card.licence)]
