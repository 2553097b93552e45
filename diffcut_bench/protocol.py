"""The evaluation protocol: every choice that a published figure depends on, by name. No torch."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

AbsentClasses = Literal["nan", "zero"]
BackgroundRule = Literal["unmatched", "overlap", "one_to_one"]
Criterion = Literal["overlap", "iou"]
"""What the matching of clusters to classes maximises."""
Surplus = Literal["absent_class", "unmatched"]
"""What a cluster is that was matched with a class without sharing a pixel with it."""
OF_NAMES = ("name_pooling", "name_input")
"""Choices that say nothing of a cell whose segments are not named."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Named set of choices; each is checked, recorded in result.json and printed under every table.

    Attributes:
        name: of the set, for tables.
        crop: ``center``: centre crop of side min(H, W) − 1; ``none``: the whole image in its own aspect ratio.
        image_size: side of the network's input in pixels; of the longer side where nothing is cropped.
        eval_size: side (longer side) of the label map that is scored, or ``original``: the annotation's own.
        similarity: concept assignment by ``dot`` product (released) or ``cosine`` (text).
        background_rule: see `diffcut_bench.evaluation.merge_backgrounds`.
        void: pixels without annotation are scored as ``background`` (where the data set has one) or left out.
        matching: clusters are matched to classes in each image, or once for the ``dataset``; or they are classes
            already (``named``, which a namer implies); or labels are segments of annotators (``regions``), of which
            there are no classes: nothing is matched, and each image is measured against each annotator.
        criterion: what the matching maximises.
        surplus: a cluster matched with a class that it shares no pixel with is that class's false positives
            (``absent_class``, released) or nobody's (``unmatched``; segments are then numbered by their first pixel
            before each stage, so that the numbers they come with change nothing).
        absent_classes: a class never annotated or predicted is left out of the mean (``nan``) or counts as ``zero``.
        ade20k_labels: raw 0..149 as the classes (the released off-by-one) or 1..150 (``correct``); ADE20K alone
            looks at it.
        label_codes: segment codes of the recursive cut, ``exact`` or the released code's ``float32`` sums.
        zero_affinity: patches with an affinity of exactly zero leave the recursion (``drop``, released) or stay.
        name_pooling: what a named segment's features are the mean over: its ``pixels``, or the patches at whose centre
            it is (``nearest_exact``, released).
        name_input: colours that the namer's encoder sees, ``normalised`` as it was trained or in [0, 1] (``unit``,
            which the released evaluation feeds its convolutional CLIP; other encoders do not follow).

    Raises:
        ValueError: one message with every field that is out of range.
    """

    name: str
    crop: Literal["center", "none"]
    image_size: int
    eval_size: int | Literal["original"]
    similarity: Literal["dot", "cosine"]
    background_rule: BackgroundRule
    void: Literal["background", "ignore"]
    matching: Literal["per_image", "dataset", "named", "regions"]
    criterion: Criterion
    surplus: Surplus = "absent_class"  # what was computed before it was a choice
    absent_classes: AbsentClasses
    ade20k_labels: Literal["released", "correct"]
    label_codes: Literal["exact", "float32"]
    zero_affinity: Literal["drop", "keep"]
    name_pooling: Literal["pixels", "nearest_exact"] = "pixels"
    name_input: Literal["normalised", "unit"] = "normalised"

    @property
    def assignment(self) -> dict[str, Any]:
        """Choices of the matching: keywords of `diffcut_bench.evaluation.assign_clusters` and of all that call it."""
        return {"criterion": self.criterion, "surplus": self.surplus}

    def __post_init__(self) -> None:
        problems = []
        hints = get_type_hints(Protocol)
        for field in fields(self):
            value = getattr(self, field.name)
            if get_origin(hints[field.name]) is Literal and value not in get_args(hints[field.name]):
                problems.append(f"{field.name} must be {' | '.join(get_args(hints[field.name]))}, not {value!r}")
        if not isinstance(self.image_size, int) or self.image_size < 32:
            problems.append(f"image_size must be a whole number of at least 32 pixels, not {self.image_size!r}")
        if self.eval_size != "original" and (not isinstance(self.eval_size, int) or self.eval_size < 1):
            problems.append(f"eval_size must be a positive whole number or original, not {self.eval_size!r}")
        if problems:
            raise ValueError("; ".join(problems))


def choices_in_force(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """The choices of a protocol that anything of a result depends on, those of names where its segments are named.

    Args:
        recorded: ``protocol`` of a result; empty in the oldest, of which nothing can be said. A choice that has come
            since stands at what was computed then.
    """
    if not recorded:
        return {}
    later = {field.name: field.default for field in fields(Protocol) if field.default is not MISSING}
    choices = {**recorded, **{name: value for name, value in later.items() if name not in recorded}}
    named = recorded.get("matching") == "named"
    return {name: value for name, value in choices.items() if named or name not in OF_NAMES}
