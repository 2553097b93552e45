"""Where features come from: the store if it has them, else the backbone. Nothing else runs a backbone."""

import math
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from diffcut_bench.backbones import Backbone, Fused, MissingWeightsError, Outline, cache_only
from diffcut_bench.config import RunConfig, build_protocol, instantiate
from diffcut_bench.datasets import SegmentationDataset
from diffcut_bench.errors import UserError
from diffcut_bench.interruption import held_back
from diffcut_bench.scoring.fingerprints import code_fingerprint
from diffcut_bench.scoring.framing import Example, Framing
from diffcut_bench.store import FeatureStore, StoreOptions, in_units

# Raise when a change of ours changes features, so that stored ones are not taken for new ones.
FEATURES_VERSION = 1


@dataclass(frozen=True)
class StoredFeatures:
    """What the store has of a backbone's features; without the network, so that processes that read can have a copy.

    Attributes:
        store: None: it has none.
        channels: of a feature map; None: as many as it has patches.
        framing: of pictures, for this backbone.
    """

    store: FeatureStore | None
    channels: int | None
    framing: Framing

    def shape(self, rows: int, cols: int) -> tuple[int, int, int]:
        """Channels, rows and columns of a feature map."""
        return rows * cols if self.channels is None else self.channels, rows, cols

    def of(self, digest: str, frame: tuple[int, int]) -> Tensor | None:
        """Features of the image with this digest and size, if the store has any of the shape that the backbone
        announces."""
        return None if self.store is None else self.store.get(digest, self.shape(*self.framing.grid(*frame)))


class FeatureSource:
    """Features of a backbone on one device, with or without a store.

    Args:
        backbone: on the device.
        framing: of pictures, for this backbone.
        device: where features are wanted.
        store: of this backbone and preparation; None computes every time.

    Attributes:
        stored: what the store has.
        recomputed: images that the store had promised; their shards were damaged or cleared.
    """

    def __init__(
        self, backbone: Backbone, framing: Framing, device: torch.device, store: FeatureStore | None = None
    ) -> None:
        self.backbone, self.framing, self.device, self.store = backbone, framing, device, store
        self.stored = StoredFeatures(store, None if backbone.channels_are_patches else backbone.channels, framing)
        self.recomputed = 0
        self._promised = frozenset(store.images()) if store is not None else frozenset()

    @property
    def networks(self) -> tuple["FeatureSource", ...]:
        """Sources of one network each: this one, unless backbones are fused."""
        return (self,)

    @property
    def kept_as(self) -> str | None:
        """Precision of the store, of each where there are several; None where nothing is stored."""
        kept = [str(each.store.dtype) for each in self.networks if each.store is not None]
        return " + ".join(kept) or None

    def grids(self, frame: tuple[int, int]) -> tuple[tuple[int, int], ...]:
        """Rows and columns of each network's feature map of a picture of this height and width; pictures go in one
        batch where they are equal."""
        return tuple(each.framing.grid(*frame) for each in self.networks)

    def of(self, examples: Sequence[Example]) -> Tensor:
        """Features [batch, channels, rows, cols] of examples of one size, float32 on the device.

        An example that the reader found in the store brings its features along; the others are computed together, and
        stored. What is segmented is what the store gives back, so that the first run equals the second.

        Args:
            examples: on the device, see `upload`.

        Raises:
            ValueError: features that can't be stored, see `FeatureStore.put`.
        """
        # The reader's look into the store is some time ago: a run of the same image may have filled it since.
        brought = [example.features[0] if example.features else None for example in examples]
        found = [
            self.stored.of(example.digest, example.frame) if features is None else features
            for example, features in zip(examples, brought, strict=True)
        ]
        missing = [example for example, features in zip(examples, found, strict=True) if features is None]
        if missing:
            computed = iter(self._kept(missing, self.compute(missing)))
            found = [next(computed) if features is None else features for features in found]
        stacked = [features.to(self.device, non_blocking=True) for features in found if features is not None]
        return torch.stack(stacked).float()

    def _kept(self, examples: Sequence[Example], features: Tensor) -> Tensor:
        """Features in the precision of the store, which has them from now on."""
        if self.store is None:
            return features
        for example, each in zip(examples, features.cpu(), strict=True):
            self.recomputed += example.digest in self._promised
            self.store.put(example.digest, each)
        return features.to(self.store.dtype)

    @torch.inference_mode()
    def compute(self, examples: Sequence[Example]) -> Tensor:
        """Features [batch, channels, rows, cols] of examples of one size, which are on the device, from the backbone.

        Raises:
            ValueError: the backbone gives something else than features of the announced channels and stride.
        """
        images = torch.stack([self.framing.seen.network_input(example.seen_pixels) for example in examples])
        features = self.backbone(images.to(self.device, non_blocking=True))
        announced = [len(images), *self.stored.shape(*(side // self.framing.stride for side in images.shape[2:]))]
        if not isinstance(features, Tensor) or not features.is_floating_point() or list(features.shape) != announced:
            given = f"{features.dtype} {list(features.shape)}" if isinstance(features, Tensor) else type(features)
            raise ValueError(f"the backbone gave {given}, and announced floating-point features {announced}")
        dtype = self.backbone.feature_dtype
        if dtype != torch.float32 and features.dtype != dtype:  # float32 holds whatever it is given
            raise ValueError(f"the backbone gave {features.dtype}, and announced {dtype} (feature_dtype)")
        return features

    def missing(self, dataset: SegmentationDataset, indices: Sequence[int]) -> int:
        """How many of these images the store lacks; images that can't be read count."""
        if not self._promised:
            return len(indices)
        found = 0
        for index in indices:
            with suppress(ValueError):
                found += dataset.image_digest(index) in self._promised
        return len(indices) - found

    def image_bytes(self, aspect: int = 1) -> int:
        """Bytes that the store needs for an image whose longer side is ``aspect`` times the shorter one (a square is
        the largest that there can be)."""
        if self.store is None:
            return 0
        patches = self.framing.patches
        return math.prod(self.stored.shape(max(patches // aspect, 1), patches)) * self.store.dtype.itemsize

    def announce(self, dataset: SegmentationDataset, indices: Sequence[int]) -> list[str]:
        """Lines on what the store is about to take for these images; before anything is computed.

        Raises:
            UserError: the disk has no room, or the store's folder can't be written.
        """
        if self.store is None:
            return []
        lines = [f"features: damaged shard {name} set aside" for name in self.store.damaged]
        missing, all_images = self.missing(dataset, indices), f"{len(indices)} images"
        if missing:
            needed = self.store.check_space(missing, self.image_bytes())
            dtypes = (self.backbone.feature_dtype, self.store.dtype)
            computed, kept = (str(dtype).removeprefix("torch.") for dtype in dtypes)
            how = f"{kept}, as computed" if kept == computed else f"computed in {computed}, kept in {kept}"
            where = f"up to {in_units(needed)} in {self.store.folder}, {how}"
            return [*lines, f"features: {missing} of {all_images} to compute, {where}"]
        return [*lines, f"features: all {all_images} in {self.store.folder}"] if indices else lines

    def close(self) -> list[str]:
        """Write what the store still holds in memory; lines on damage that was met since `announce`."""
        if self.store is None:
            return []
        self.store.flush()
        if not self.recomputed:
            return []
        return [f"features: {self.recomputed} of the store were damaged or cleared meanwhile, and computed again"]

    @contextmanager
    def in_use(
        self, dataset: SegmentationDataset, indices: Sequence[int], say: Callable[[str], None]
    ) -> Iterator[None]:
        """`announce` before, `close` after; whatever ends the block, features that were computed are written.

        Args:
            dataset: that features are wanted of.
            indices: of its images.
            say: is given the lines.

        Raises:
            UserError: the disk has no room, or the store's folder can't be written.
        """
        try:
            for line in self.announce(dataset, indices):
                say(line)
            yield
        finally:
            with held_back():
                lines = self.close()
            for line in lines:
                say(line)


class FusedFeatures(FeatureSource):
    """Features of several backbones as one map: each from a source of its own, at its own size and from its own store,
    so that they are those of a run with that backbone alone; joined on the device.

    Args:
        backbone: says how they are joined.
        framing: of pictures, for the part whose grid they are joined on; see `Fused.finest`.
        networks: source of each part, in order.
    """

    def __init__(self, backbone: Fused, framing: Framing, networks: Sequence[FeatureSource]) -> None:
        super().__init__(backbone, framing, networks[0].device)
        self.fused, self._networks = backbone, tuple(networks)
        self._promised = frozenset.intersection(*(each._promised for each in networks))

    @property
    def networks(self) -> tuple[FeatureSource, ...]:
        return self._networks

    def of(self, examples: Sequence[Example]) -> Tensor:
        maps = []
        for number, network in enumerate(self.networks):
            own = [replace(example, features=example.features[number : number + 1]) for example in examples]
            maps.append(network.of(own))
        return self._joined(examples, maps)

    @torch.inference_mode()
    def compute(self, examples: Sequence[Example]) -> Tensor:
        return self._joined(examples, [network.compute(examples) for network in self.networks])

    def _joined(self, examples: Sequence[Example], maps: Sequence[Tensor]) -> Tensor:
        return self.fused.join(maps, self.framing.grid(*examples[0].frame))

    def image_bytes(self, aspect: int = 1) -> int:
        return sum(network.image_bytes(aspect) for network in self.networks)

    def announce(self, dataset: SegmentationDataset, indices: Sequence[int]) -> list[str]:
        return [line for network in self.networks for line in network.announce(dataset, indices)]

    def close(self) -> list[str]:
        return [line for network in self.networks for line in network.close()]


def open_features(config: RunConfig, device: torch.device) -> FeatureSource:
    """The backbone of a config on its device, behind the feature store of the config; of a fused one each part behind a
    store of its own.

    Raises:
        UserError: weights are missing, an option is out of range, or the store's folder holds something else.
    """
    return features_of(build_backbone(config), config, device)


def build_backbone(config: RunConfig) -> Backbone:
    """The backbone of a config.

    Raises:
        UserError: weights are missing, of a fused one those of each part are told; or an option is out of range.
    """
    try:
        backbone: Backbone = instantiate("backbone", config.backbone)
    except MissingWeightsError as error:
        lacks = [lack for network in networks_of(config) if (lack := _missing_weights(network))]
        also = {lack.model: lack for lack in lacks if lack.model != error.model}
        if also:
            what = "; ".join([error.what, *(lack.what for lack in also.values())])
            asked = {model: f" (gated: ask at https://huggingface.co/{model})" for model in also if also[model].gated}
            fetched = [f"`{lack.command}`{asked.get(model, '')}" for model, lack in also.items()]
            error.say_first(UserError(what, error.where, f"{error.hint}; and {', '.join(fetched)}"))
        raise
    return backbone


def _missing_weights(config: RunConfig) -> MissingWeightsError | None:
    try:
        with cache_only():
            instantiate("backbone", config.backbone)
    except MissingWeightsError as error:
        return error
    except UserError:
        pass  # told once the weights are there
    return None


def features_of(backbone: Backbone, config: RunConfig, device: torch.device) -> FeatureSource:
    """`open_features` of the backbone that a config builds."""
    backbone, protocol = backbone.to(device), build_protocol(config.protocol)
    options: StoreOptions | None = instantiate("features", config.features)

    def source(network: Backbone, settings: dict[str, Any]) -> FeatureSource:
        framing = Framing.of(protocol, network)
        store = None if options is None else _open_store(options, network, settings, framing, device)
        return FeatureSource(network, framing, device, store)

    if not isinstance(backbone, Fused):
        return source(backbone, config.backbone)
    networks = [source(part, config.backbone["parts"][name]) for name, part in backbone.parts.items()]
    return FusedFeatures(backbone, Framing.of(protocol, backbone.finest(protocol.image_size)), networks)


def _open_store(
    options: StoreOptions, backbone: Backbone, settings: dict[str, Any], framing: Framing, device: torch.device
) -> FeatureStore:
    identity = {
        "features_version": FEATURES_VERSION,
        "backbone": backbone_identity(backbone, settings),
        **asdict(framing.seen),
        "device_type": device.type,
        "packages": {name: version(name).partition("+")[0] for name in ("torch", "pillow")},
        "images": "each under the SHA-256 of its file",
    }
    return FeatureStore(options.kept_as(backbone.feature_dtype), backbone.name, identity)


def open_linked(config: RunConfig, device: torch.device) -> FeatureSource | None:
    """The features that a config's linker compares; None where they are the cell's own, or there is no linker.

    Raises:
        UserError: as `open_features` does.
    """
    backbone = config.linker.get("backbone")
    return None if backbone is None else open_features(replace(config, backbone=backbone), device)


def networks_of(config: RunConfig) -> list[RunConfig]:
    """The config; where it fuses backbones, once with each of them alone."""
    parts = config.backbone.get("parts") if "of" in config.backbone else None
    if not isinstance(parts, dict):
        return [config]
    alone = {name: config.choices | {"backbone": name} for name in parts}
    return [replace(config, backbone=parts[name], choices=choices) for name, choices in alone.items()]


def outline_of(config: RunConfig, device_type: str, aspect: int = 1) -> Outline | None:
    """What a backbone's features are and take, from its settings alone; None where it can't tell.

    Args:
        config: of the backbone and the protocol.
        device_type: that will compute.
        aspect: longer side of the pictures over the shorter one.
    """
    try:
        kind: Any = pkgutil.resolve_name(str(config.backbone.get("_target_")))
        image_size = build_protocol(config.protocol).image_size
        outline: Outline | None = kind.outline(config.backbone, image_size, device_type, aspect)
    except Exception:  # of a backbone of others, or of settings out of range, which the run itself will name
        return None
    return outline


def backbone_identity(backbone: Backbone, settings: dict[str, Any]) -> dict[str, Any]:
    """What the backbone says that its features depend on, and every setting that it says nothing about."""
    fingerprint = backbone.fingerprint()
    # Of every backbone: defaults for other options, and the size, which is a field of its own, as resolved.
    known = {*fingerprint, *backbone.immaterial, "suggests", "image_size"}
    parts = list(backbone.parts.values()) if isinstance(backbone, Fused) else []
    code = code_fingerprint([backbone, *parts], [settings])
    own = {name: value for name, value in settings.items() if name not in known}
    if isinstance(backbone, Fused):
        for name, part in backbone.parts.items():
            inner = backbone_identity(part, settings["parts"][name])
            own |= {f"{name}.{key}": value for key, value in inner.items() if key != "code"}
    return own | fingerprint | ({"code": code} if code else {})
