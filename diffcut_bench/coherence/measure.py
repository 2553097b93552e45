"""The measurement: every backbone on the same patches of the same images, its record and its figures."""

import json
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffcut_bench.coherence.figures import Curve, Picture, draw_heatmaps, draw_roc
from diffcut_bench.coherence.heatmaps import Mark, choose_mark, mark_between, similarity_map
from diffcut_bench.coherence.roc import auc, auc_interval, pair_scores, roc_points
from diffcut_bench.coherence.sampling import (
    PatchGrid,
    Plan,
    SamplingOptions,
    draw_pairs,
    grid_features,
    grid_shape,
    label_patches,
    make_plan,
)
from diffcut_bench.config import RunConfig, build_protocol
from diffcut_bench.datasets import SegmentationDataset
from diffcut_bench.environment import choose_device, environment
from diffcut_bench.errors import UserError, did_you_mean
from diffcut_bench.evaluation import FEWEST_IMAGES
from diffcut_bench.extras import require
from diffcut_bench.reporting import Column, Table, encode_figure, number_columns
from diffcut_bench.scoring.cell import check_failures
from diffcut_bench.scoring.events import Observer
from diffcut_bench.scoring.features import FeatureSource, open_features
from diffcut_bench.scoring.framing import Example, Framing, prepare_example, seen_choices
from diffcut_bench.scoring.passes import data_fingerprint, open_dataset
from diffcut_bench.scoring.reading import Wanted, example_loader, read_ahead, read_label
from diffcut_bench.scoring.upload import upload
from diffcut_bench.store import DatasetRecord, Failure, cell_key, write_atomically


@dataclass(frozen=True)
class Measurement:
    """What was measured, and the files that it was written to.

    Attributes:
        record: what coherence.json holds.
        files: coherence.json, then the figures.
    """

    record: dict[str, Any]
    files: tuple[Path, ...]

    def table(self) -> Table:
        """A row a backbone; data, counts and every option as notes."""
        names = ("AUC", "95 % interval", "positive pairs", "negative pairs")
        counts = [str(self.record["counts"][name]) for name in ("positive_pairs", "negative_pairs")]
        rows = []
        for row in self.record["backbones"]:
            interval = "{:.3f} – {:.3f}".format(*row["auc_ci95"]) if _has_interval(self.record) else "–"
            rows.append((row["name"], f"{row['auc']:.3f}", interval, *counts))
        columns = (Column("backbone"), *number_columns(*names))
        return Table("coherence", "Semantic coherence", columns, tuple(rows), tuple(_notes(self.record)))


@dataclass(frozen=True)
class _Measured:
    """Of a backbone; similarity maps in the marked patch's image and in the other, if a patch is marked."""

    curve: Curve
    fingerprint: dict[str, str]
    maps: tuple[NDArray[np.float32], NDArray[np.float32]] | None


def measure_coherence(
    configs: Sequence[RunConfig],
    sampling: SamplingOptions,
    images: tuple[str, str] | None = None,
    patch: tuple[int, int] | None = None,
    observer: Observer | None = None,
) -> Measurement:
    """Measure every backbone on the same patches, write coherence.json and the figures.

    Args:
        configs: that differ in their backbone.
        sampling: which patches and pairs.
        images: ids of the two images of the heat maps; None: chosen, as by `choose_mark`.
        patch: row and column of the marked patch in the first of them; None: chosen.
        observer: is told what happens.

    Raises:
        UserError: there are no pairs to compare, an image or patch of the heat maps is not there, or data or weights
            are missing, or matplotlib is not installed.
    """
    require("report", "the figures of coherence", "matplotlib")
    observer = observer or Observer()
    config = configs[0]
    device = choose_device(config.device)
    whole = open_dataset(config)
    if whole.annotators:
        raise UserError("coherence is of classes", f"dataset={whole.name} has none", "choose another data set")
    dataset = whole.select(config.limit, config.limit_seed)
    source = _Images(config, dataset, observer)
    for image in images or ():
        if image not in source.index:
            hint = did_you_mean(image, source.index)
            raise UserError(f"no image {image!r} for the heat maps", "--mark-images A,B", hint)

    pairs = draw_pairs(list(source.index), sampling)
    needed = sorted({image for pair in pairs for image in pair} | set(images or ()))
    grids, failures = source.read_grids(needed, sampling.grid)
    plan = make_plan(grids, pairs, dataset.background, sampling)
    described = DatasetRecord(dataset.name, data_fingerprint(dataset), len(dataset), whole.n_expected)
    for failure in failures:
        if failure.id in (images or ()):
            raise UserError(failure.error, f"--mark-images: {failure.id}", "mend the file, or name another image")
    if images is None:
        mark = choose_mark({image: grids[image] for image in plan.ids}, dataset.background, sampling)
    else:
        mark = mark_between(*images, grids, dataset.background, sampling, patch)

    measured = [_measure(each, source, grids, plan, mark, device) for each in configs]
    what = None if mark is None else "void" if mark.label < 0 else dataset.class_names[mark.label]
    kept = config.features.get("dtype", "auto")
    identity = {
        "options": asdict(sampling),
        "protocol": seen_choices(config.protocol),
        "dataset": asdict(described),
        "mark": {**asdict(mark), "class": what} if mark else None,
        "device_type": device.type,
        "features_dtype": "the backbone's" if kept == "auto" else kept,
    }
    noise = "|".join(dict.fromkeys(each.fingerprint.get("noise_generator", "none") for each in measured))
    record = {
        **_record(identity, plan, measured),
        "failures": [asdict(failure) for failure in failures],
        "environment": asdict(environment(device, config.seed, noise)),
    }
    curves = [each.curve if _has_interval(record) else replace(each.curve, interval=None) for each in measured]
    roc = draw_roc(curves, f"Semantic coherence on {dataset.name}", _notes(record))
    files: dict[str, str | bytes] = {
        "coherence.json": json.dumps(record, indent=1) + "\n",
        "roc.png": encode_figure(roc, "png"),
        "roc.svg": encode_figure(roc, "svg"),
    }
    if mark is not None and what is not None:
        maps = [(each.curve.name, *each.maps) for each in measured if each.maps]
        first, second = source.pictures([mark.first, mark.second], grids, mark)
        heatmaps = draw_heatmaps(maps, first, second, (mark.row, mark.col), what)
        files["heatmaps.png"] = encode_figure(heatmaps, "png")
    title = "-".join([dataset.name, *(each.curve.name for each in measured)])
    folder = Path(config.output_dir) / "coherence" / f"{title}-{record['key'][:12]}"
    for name, content in files.items():
        write_atomically(folder / name, content)
    return Measurement(record, tuple(folder / name for name in files))


class _Images:
    """Images of a data set by id: their labels, which are the same for all backbones, and features of a backbone.

    Attributes:
        index: in the data set, of each id.
    """

    def __init__(self, config: RunConfig, dataset: SegmentationDataset, observer: Observer) -> None:
        self.index = {image: index for index, image in enumerate(dataset.ids)}
        self.dataset, self.observer, self._config = dataset, observer, config

    def read_grids(self, ids: Sequence[str], longer: int) -> tuple[dict[str, PatchGrid], list[Failure]]:
        """Patch labels by image id, and the images that can't be read."""
        grids, failures = {}, []
        with self.observer.progress("labels", "images") as report:
            report(0, len(ids))
            for done, item in enumerate(self._labelled(ids), start=1):
                if isinstance(item, Failure):
                    failures.append(item)
                else:
                    label = item.label.numpy()
                    shape = grid_shape(label.shape[0], label.shape[1], longer)
                    grids[item.id] = label_patches(label, self.dataset.num_classes, shape)
                report(done, len(ids))
        check_failures(failures, self._config.max_failures)
        return grids, failures

    def pictures(self, ids: Sequence[str], grids: dict[str, PatchGrid], mark: Mark) -> list[Picture]:
        """Images of the heat maps, the patches of the marked class outlined."""
        return [
            Picture(item.id, item.eval_image.permute(1, 2, 0).numpy(), grids[item.id].labels == mark.label)
            for item in self._labelled(ids)
            if isinstance(item, Example)
        ]

    def on_grid(
        self,
        source: FeatureSource,
        ids: Sequence[str],
        config: RunConfig,
        grids: dict[str, PatchGrid],
        seconds: defaultdict[str, float],
    ) -> Iterator[Tensor]:
        """Features [channels, rows, cols] of each image's patches; what stages take is added to ``seconds``."""
        size, workers = config.batch_size, config.num_workers
        wanted = [Wanted(index, features=True) for index in self.indices(ids)]
        loader = example_loader(self.dataset, wanted, source, batch_size=size, num_workers=workers)
        start = time.perf_counter()
        for batch in read_ahead(loader):
            seconds["read_s"] += time.perf_counter() - start
            for item in batch:
                if isinstance(item, Failure):
                    raise UserError(item.error, item.id, "the file was readable before; run again")
                start = time.perf_counter()
                rows, cols = grids[item.id].labels.shape
                features = grid_features(source.of(upload([item], source.device))[0], (rows, cols))
                seconds["features_s"] += time.perf_counter() - start
                yield features
            start = time.perf_counter()

    def indices(self, ids: Sequence[str]) -> list[int]:
        return [self.index[image] for image in ids]

    def _labelled(self, ids: Sequence[str]) -> Iterator[Example | Failure]:
        """Images with labels as finely resolved as the network's input, so that a patch has many pixels; void is void.

        No backbone has a say here, so the patches are the same for all.
        """
        protocol = build_protocol(self._config.protocol)
        framing = Framing(protocol.crop, protocol.image_size, eval_size=protocol.image_size, void="ignore")
        for image, index in zip(ids, self.indices(ids), strict=True):
            try:
                pair = self.dataset.pair(index)
                picture, label = pair.image.rgb(), read_label(pair, framing.void)
            except (ValueError, OSError) as error:
                yield Failure(image, str(error))
                continue
            yield prepare_example(index, image, picture, label, framing)


def _measure(
    config: RunConfig,
    images: _Images,
    grids: dict[str, PatchGrid],
    plan: Plan,
    mark: Mark | None,
    device: torch.device,
) -> _Measured:
    """One backbone on the plan's pairs; of each image only the drawn patches' features are kept."""
    source = open_features(config, device)
    name = config.choices["backbone"]
    features: list[Tensor] = []
    seconds: defaultdict[str, float] = defaultdict(float)
    with (
        source.in_use(images.dataset, images.indices(plan.ids), images.observer.say),
        images.observer.progress(name, "images") as report,
    ):
        report(0, len(plan.ids))
        of_images = images.on_grid(source, plan.ids, config, grids, seconds)
        for patches, grid in zip(plan.patches, of_images, strict=True):
            features.append(grid.flatten(1).T[torch.from_numpy(patches).to(device)])
            report(len(features), len(plan.ids), seconds)
    scores = pair_scores(features, plan)
    interval = auc_interval(scores, plan, seed=config.seed)
    curve = Curve(name, roc_points(scores, plan.same), auc(scores, plan.same), interval)
    maps = None
    if mark is not None:
        first, second = images.on_grid(source, [mark.first, mark.second], config, grids, seconds)
        query = first[:, mark.row, mark.col]
        maps = similarity_map(query, first), similarity_map(query, second)
    return _Measured(curve, source.backbone.fingerprint(), maps)


def _record(identity: dict[str, Any], plan: Plan, measured: Sequence[_Measured]) -> dict[str, Any]:
    """Key and numbers; ``identity`` is all but the backbones that can change them."""
    positive = int(plan.same.sum())
    return {
        "schema_version": 1,
        "key": cell_key({**identity, "backbones": [each.fingerprint for each in measured]}),
        **identity,
        "counts": {
            "images": len(plan.ids),
            "pairs": len(plan.pairs),
            "patches": sum(map(len, plan.patches)),
            "positive_pairs": positive,
            "negative_pairs": len(plan.same) - positive,
        },
        "backbones": [
            {
                "name": each.curve.name,
                "fingerprint": each.fingerprint,
                "auc": each.curve.auc,
                "auc_ci95": each.curve.interval,
                "roc": each.curve.points.round(6).tolist(),
            }
            for each in measured
        ],
    }


def _has_interval(record: dict[str, Any]) -> bool:
    """Whether there are images enough for an interval that means something."""
    return bool(record["counts"]["images"] >= FEWEST_IMAGES)


def _notes(record: dict[str, Any]) -> list[str]:
    """What a reader must know beside the figures: data, counts, every option."""
    counts, options = record["counts"], {**record["options"], **record["protocol"]}
    compared = "each with itself" if options["pairs"] == "within" else f"{counts['pairs']} pairs of them"
    if options["mixed"] == "majority":
        del options["purity"]
    return [
        f"dataset={record['dataset']['name']}: {counts['images']} images, {compared}, {counts['patches']} patches, "
        f"{counts['positive_pairs']} pairs of one class, {counts['negative_pairs']} of different classes",
        ", ".join(f"{name}={value}" for name, value in options.items()),
    ]
