"""The typed form of result.json. Field names are fixed; later versions may add fields, and old files still load."""

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

SCHEMA_VERSION = 1
T = TypeVar("T")


@dataclass(frozen=True)
class DatasetRecord:
    name: str
    fingerprint: str  # SHA-256 of the ids, files and label meaning that were scored
    n_images: int  # images scored, failures included
    n_expected: int | None  # images in the published split; None where nothing was published
    n_available: int | None = None  # images at hand, before limit and shard; None in older files


@dataclass(frozen=True)
class Metrics:
    miou: float  # fraction, mean over classes
    pixel_accuracy: float  # fraction
    miou_ci95: tuple[float, float]  # percentile bootstrap over images
    pixel_accuracy_ci95: tuple[float, float]
    iou_per_class: dict[str, float | None]  # None: never annotated nor predicted
    iou_per_class_ci95: dict[str, tuple[float, float] | None] = field(default_factory=dict)  # empty in older files
    # Of named segments only (docs/open_vocabulary.md): mean over images of the mean IoU over an image's classes.
    mean_image_jaccard: float | None = None
    mean_image_jaccard_ci95: tuple[float, float] | None = None


@dataclass(frozen=True)
class SegmentsPerImage:
    mean: float
    min: int
    max: int


@dataclass(frozen=True)
class Failure:
    id: str
    error: str
    index: int | None = None  # place in the data set; None in older files


@dataclass(frozen=True)
class Timings:
    read_s: float = 0.0  # waiting for decoded, resized images
    features_s: float = 0.0  # backbone
    segment_s: float = 0.0  # segmenter and upsampler; namer
    refine_s: float = 0.0  # refiner
    evaluate_s: float = 0.0  # background rule, matching, counts
    wall_s: float = 0.0  # all of it, over every start of this cell
    images_per_s: float = 0.0

    def plus(self, other: "Timings") -> "Timings":
        """Sums, stage by stage; images_per_s is set at the end of a cell."""
        return Timings(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})


@dataclass(frozen=True)
class Environment:
    packages: dict[str, str]
    device: str
    git: dict[str, Any]  # commit (None outside a checkout) and dirty
    seed: int
    noise_generator: str  # device of the generator of diffusion noise


@dataclass(frozen=True)
class Result:
    key: str  # SHA-256 of the canonical JSON of everything that can change the numbers
    config: dict[str, Any]  # resolved
    limited: bool  # scored on fewer images than the data set has
    dataset: DatasetRecord
    metrics: Metrics
    segments_per_image: SegmentsPerImage
    failures: list[Failure]
    timings: Timings
    environment: Environment
    protocol: dict[str, Any] = field(default_factory=dict)  # the choices in force, by name
    identity: dict[str, Any] = field(default_factory=dict)  # what the key is the digest of; empty in older files
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> str:
        """Indented, keys in order of declaration, so that two equal results are equal byte for byte."""
        values = asdict(self)
        later = [(values, "identity"), (values["dataset"], "n_available"), (values["metrics"], "iou_per_class_ci95")]
        later += [(values["metrics"], name) for name in ("mean_image_jaccard", "mean_image_jaccard_ci95")]
        for holder, name in [*later, *((failure, "index") for failure in values["failures"])]:
            if not holder[name] and holder[name] != 0:  # of an older file, which is written back as it was
                del holder[name]
        return json.dumps({"schema_version": values.pop("schema_version"), **values}, indent=1, allow_nan=False) + "\n"

    @staticmethod
    def from_json(text: str) -> "Result":
        """Read a result of this or an older schema; unknown fields are passed over, absent ones get their default."""
        raw = json.loads(text)
        version = raw.get("schema_version")
        if not isinstance(version, int) or version > SCHEMA_VERSION:
            raise ValueError(f"result.json has schema_version {version!r}; this program reads up to {SCHEMA_VERSION}")
        metrics = raw["metrics"]
        metrics.setdefault("pixel_accuracy_ci95", [float("nan")] * 2)
        by_class = metrics.get("iou_per_class_ci95", {})
        by_image = metrics.get("mean_image_jaccard_ci95")
        nested = {
            "dataset": _known(DatasetRecord, raw["dataset"]),
            "metrics": _known(
                Metrics,
                {
                    **metrics,
                    "miou_ci95": tuple(metrics["miou_ci95"]),
                    "pixel_accuracy_ci95": tuple(metrics["pixel_accuracy_ci95"]),
                    "iou_per_class_ci95": {name: ends and tuple(ends) for name, ends in by_class.items()},
                    "mean_image_jaccard_ci95": by_image and tuple(by_image),
                },
            ),
            "segments_per_image": _known(SegmentsPerImage, raw["segments_per_image"]),
            "failures": [_known(Failure, failure) for failure in raw["failures"]],
            "timings": _known(Timings, raw["timings"]),
            "environment": _known(Environment, raw["environment"]),
        }
        return _known(Result, {**raw, **nested})


def _known(kind: type[T], values: dict[str, Any]) -> T:
    names = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in values.items() if name in names})
