"""The typed form of result.json. Field names are fixed; later versions may add fields, and old files still load."""

import json
import math
import re
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

SCHEMA_VERSION = 2
_reader = cache(TypeAdapter)  # of a type


@dataclass(frozen=True)
class DatasetRecord:
    name: str
    fingerprint: str  # SHA-256 of the ids, files and label meaning that were scored
    n_images: Annotated[int, Field(ge=0)]  # images scored, failures included
    n_expected: int | None  # images in the published split; None where nothing was published
    n_available: int | None = None  # images at hand, before limit and shard; None in older files
    void_share: float | None = None  # share of the pixels that no score looks at; None in older files
    unannotated: list[str] | None = None  # classes that no scored image holds a pixel of; None in older files


@dataclass(frozen=True)
class Score:
    """A metric's score in the unit of files: fractions as fractions."""

    value: float | None  # None: not defined
    ci95: tuple[float, float] | None = None  # percentile bootstrap over images
    per_class: dict[str, float | None] = field(default_factory=dict)  # empty for a metric without scores of classes
    per_class_ci95: dict[str, tuple[float, float] | None] = field(default_factory=dict)  # empty in the oldest files
    n: int | None = None  # images that the score is over; None in older files


@dataclass(frozen=True)
class Bracket:
    """Where a score lies between what needs no picture and the best that could be; see docs/protocol.md."""

    floor: Score  # of a grid with as many segments as the method gave in each image
    ceiling: Score  # of the annotation itself, cut to the method's patches
    lift: Score  # (score − floor) / (ceiling − floor); its value is None where the ceiling is no better than the floor


@dataclass(frozen=True)
class Reference(Bracket):
    """The bracket of the score that leads, and those of all others that are better high or better low."""

    score: str  # the metric's name
    others: dict[str, Bracket] = field(default_factory=dict)  # by the metric's name

    def of(self, metric: str) -> Bracket | None:
        """The bracket of a metric's score, if there is one."""
        return self if metric == self.score else self.others.get(metric)


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Scores under the names that schema version 1 gave them; they say the same as `Result.scores`."""

    miou: float | None  # fraction, mean over classes; None where labels have no classes (matching=regions)
    pixel_accuracy: float | None  # fraction
    miou_ci95: tuple[float, float] | None
    pixel_accuracy_ci95: tuple[float, float] | None = None  # absent in older files
    iou_per_class: dict[str, float | None]  # None: never annotated nor predicted
    iou_per_class_ci95: dict[str, tuple[float, float] | None] = field(default_factory=dict)  # empty in older files
    # Of named segments only (docs/open_vocabulary.md): mean over images of the mean IoU over an image's classes.
    mean_image_jaccard: float | None = None
    mean_image_jaccard_ci95: tuple[float, float] | None = None

    @staticmethod
    def of(scores: Mapping[str, Score]) -> "Metrics":
        """Of scores, as far as they hold these."""
        parts = {old: getattr(scores.get(name, Score(None)), part) for old, (name, part) in _OF_METRICS.items()}
        return Metrics(**parts)

    def scores(self) -> dict[str, Score]:
        """The same by the metrics' names."""
        parts: dict[str, dict[str, Any]] = {}
        for old, (name, part) in _OF_METRICS.items():
            parts.setdefault(name, {})[part] = getattr(self, old)
        return {name: Score(**own) for name, own in parts.items() if own["value"] is not None}


_OF_METRICS = {  # what each field of Metrics is of which score
    "miou": ("miou", "value"),
    "miou_ci95": ("miou", "ci95"),
    "iou_per_class": ("miou", "per_class"),
    "iou_per_class_ci95": ("miou", "per_class_ci95"),
    "pixel_accuracy": ("pixel_accuracy", "value"),
    "pixel_accuracy_ci95": ("pixel_accuracy", "ci95"),
    "mean_image_jaccard": ("jaccard", "value"),
    "mean_image_jaccard_ci95": ("jaccard", "ci95"),
}


@dataclass(frozen=True)
class SegmentsPerImage:
    mean: float
    min: int
    max: int


@dataclass(frozen=True)
class Failure:
    id: str
    error: str
    index: int | None = None  # in the data set; None in older files


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
class Linking:
    """What clusterings of the segments of all images gave, where a linker made them; scores are of all of them."""

    clusters: int
    seeds: int  # clusterings
    segments: int  # that were clustered, of all images
    miou: list[float]  # fraction, of each clustering
    mean: float  # of these
    deviation: float | None  # their standard deviation; None of a single one


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
    scores: dict[str, Score]  # by the metric's name; derived from metrics in files of schema version 1
    segments_per_image: SegmentsPerImage
    failures: list[Failure]
    timings: Timings
    environment: Environment
    protocol: dict[str, Any] = field(default_factory=dict)  # the choices in force, by name
    identity: dict[str, Any] = field(default_factory=dict)  # what the key is the digest of; empty in older files
    linking: Linking | None = None  # of cells with a linker
    reference: Reference | None = None  # what the scores are worth; None in older files and where nobody asked for it
    schema_version: int = SCHEMA_VERSION

    @property
    def metrics(self) -> Metrics:
        """The scores that schema version 1 has, under its names."""
        return Metrics.of(self.scores)

    @property
    def shard(self) -> tuple[int, int] | None:
        """``i`` and ``n`` of a cell of ``shard=i/n``; None of a whole one."""
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", str(self.config.get("shard")))
        return (int(match[1]), int(match[2])) if match else None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the classes scored, in the data set's order; none where no score is of classes."""
        scores = (self.scores.get("miou", Score(None)), *self.scores.values())
        return next((tuple(score.per_class) for score in scores if score.per_class), ())

    def to_json(self) -> str:
        """Indented, keys in order of declaration, so that two equal results are equal byte for byte."""
        values: dict[str, Any] = {"schema_version": self.schema_version}
        for name, value in asdict(self).items():
            values |= {"metrics": asdict(self.metrics), name: value} if name == "scores" else {name: value}
        if self.schema_version == 1:
            del values["scores"]
        later = [
            (values, "identity"),
            (values, "linking"),
            (values, "reference"),
            *((failure, "index") for failure in values["failures"]),
        ]
        later += [(score, "n") for score in values.get("scores", {}).values()]
        brackets = [values["reference"], *values["reference"]["others"].values()] if values["reference"] else []
        of_brackets = [bracket[part] for bracket in brackets for part in ("floor", "ceiling", "lift")]
        later += [(score, part) for score in of_brackets for part in ("n", "per_class", "per_class_ci95")]
        later += [(values["dataset"], name) for name in ("n_available", "void_share", "unannotated")]
        later += [
            (values["metrics"], f"{name}_ci95") for name in ("pixel_accuracy", "iou_per_class", "mean_image_jaccard")
        ]
        for holder, name in [*later, (values["metrics"], "mean_image_jaccard")]:
            if not holder[name] and holder[name] not in (0, []):  # of an older file, which is written back as it was
                del holder[name]
        return json.dumps(values, indent=1, allow_nan=False) + "\n"

    @staticmethod
    def from_json(text: str) -> "Result":
        """Read a result of this or an older schema; unknown fields are passed over, absent ones get their default.

        Raises:
            NewerSchemaError: a newer version wrote it.
            ValueError: it is no result; the message names the first field that is not as it should be.
        """
        try:
            raw = json.loads(text, parse_float=_finite, parse_int=_whole, parse_constant=_finite)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        raw = typed(dict[str, Any], raw, "result")
        version = typed(int, raw.get("schema_version"), "schema_version")
        if version < 1:
            raise ValueError(f"schema_version: 1 or more is due, not {version}")
        if version > SCHEMA_VERSION:
            raise NewerSchemaError(f"result.json has schema_version {version}; this program reads {SCHEMA_VERSION}")
        metrics: Metrics = typed(Metrics, raw.get("metrics"), "metrics")
        read: Result = typed(Result, {"scores": {}, **raw})
        # What metrics say holds, in files of all versions.
        told = {name: replace(score, n=read.scores.get(name, score).n) for name, score in metrics.scores().items()}
        result = replace(read, scores={**read.scores, **told})
        result.scores.setdefault("segments", Score(result.segments_per_image.mean))
        typed(dict[str, str], result.config.get("choices", {}), "config.choices")
        return result


class NewerSchemaError(ValueError):
    """A result that a newer version wrote."""


def typed(hint: Any, value: Any, where: str = "") -> Any:
    """Plain JSON as what a type says: dataclasses, lists, tuples, dictionaries and unions of these, checked strictly.

    Fields that a dataclass does not know are passed over. What text holds that is no Unicode becomes ``?``: of texts
    that may hold such, as names of files may, keep the value that was checked.

    Args:
        hint: the type.
        value: of `json.loads`.
        where: it stands, for the message.

    Raises:
        ValueError: the value is of another type; the message says where.
    """
    try:
        # By way of JSON, in which a strict reader takes an object for a dataclass and a list for a tuple.
        return _reader(hint).validate_json(json.dumps(value, ensure_ascii=False).encode(errors="replace"), strict=True)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(map(str, [where, *first["loc"]])).strip(".")
        found = textwrap.shorten(repr(first["input"]), 40, placeholder="…")
        raise ValueError(f"{path}: {first['msg']} (found {found})") from error


def _finite(text: str) -> float:
    """A number of a result, which holds no NaN and no infinity."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"a finite number is due, not {textwrap.shorten(text, 40, placeholder='…')}")
    return number


def _whole(text: str) -> int:
    _finite(text)
    return int(text)
