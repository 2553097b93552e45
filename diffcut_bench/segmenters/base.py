"""One interface for all segmenters: what a method is given and what it gives. Any function or object can be one."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffcut_bench.errors import UserError, did_you_mean
from diffcut_bench.ncut import NCutTree

Covers = Literal["image", "crop"]
Gives = Literal["partition", "finer_partition", "label_map"]
GIVES: tuple[Gives, ...] = ("partition", "finer_partition", "label_map")

# What a method may ask for by the names of its parameters: for the whole batch, or for one image at a time.
_OF_IMAGE = {
    "image": "images",
    "class_count": "class_counts",
    "image_id": "image_ids",
    "rescale": "rescale",
    "scored_size": "scored_sizes",
    "label": "labels",
    "grid_size": "grid_sizes",
}
_KNOWN = ("features", "images", "class_counts", "image_ids", "labels", "grid_sizes", "scored_sizes", *_OF_IMAGE)


class Rescale(Protocol):
    """Brings segment ids of one image, of any resolution, to the scored size by the way that labels go.

    ``covers`` says what they show: the whole picture (``image``) or the part that the protocol scores (``crop``).
    """

    def __call__(self, ids: Int[Tensor, "rows cols"], *, covers: Covers = "image") -> Int[Tensor, "height width"]: ...


@dataclass(frozen=True)
class Inputs:
    """What segmenters may ask for, of a batch of images of one size; what none of them needs may be None.

    Attributes:
        features: of the backbone, float32.
        images: colours in [0, 1] at the scored size.
        class_counts: classes annotated in each image.
        image_ids: names in the data set.
        rescale: of each image, for segment ids of another resolution.
        scored_sizes: height and width of each image's label map.
        labels: annotated class of each pixel of the scored size, −1 for void: for oracles only.
        grid_sizes: rows and columns of the backbone's patches of each image.
    """

    features: Float[Tensor, "batch channels rows cols"] | None = None
    images: Float[Tensor, "batch 3 height width"] | None = None
    class_counts: Sequence[int] | None = None
    image_ids: Sequence[str] | None = None
    rescale: Sequence[Rescale] | None = None
    scored_sizes: Sequence[tuple[int, int]] | None = None
    labels: Int[Tensor, "batch height width"] | None = None
    grid_sizes: Sequence[tuple[int, int]] | None = None


@runtime_checkable
class HasTree(Protocol):
    """A method whose segments at every tau come from one tree of patches: what the explorer and the formats of trees
    read, and `Segmentation.at`.

    Attributes:
        tau: of its own segments, 0 to 1.
        tau_meaning: what tau is, in a sentence without a full stop.
        slider_end: tau that trees are made to where no greater one is asked for.
    """

    tau_meaning: ClassVar[str]
    slider_end: ClassVar[float]

    @property
    def tau(self) -> float: ...

    def tree(self, features: Float[Tensor, "batch channels rows cols"], max_tau: float) -> NCutTree:
        """The tree of each feature map. Its labels at a tau are what the method gives at that tau."""
        ...

    def tree_settings(self) -> Mapping[str, Any]:
        """What the tree depends on besides the features."""
        ...

    def tree_fault(self, nested: bool) -> UserError | None:
        """Why there is no tree at these settings; with ``nested``, or why segments at a smaller tau are no unions of
        those at a larger one. None: there is nothing wrong."""
        ...


@dataclass(frozen=True)
class Segmenter:
    """A method as the pipeline uses it; made by `as_segmenter`, which describes how a method says all of this.

    Attributes:
        method: the function or object.
        parameters: names that it is called with.
        gives: ``partition``: a segment for each patch; ``finer_partition``: the same on a finer grid of its own, to
            which no concepts of patches can be assigned; ``label_map``: a segment for each pixel of the scored size.
        consistent_ids: a segment id means the same in all images, so that one matching for the data set makes sense.
        attention_channels: last channels of the features that it takes for attention; None: it does not care.
        immaterial: options that can't change what it gives; the key of a cell leaves them out.
    """

    method: Callable[..., Any]
    parameters: tuple[str, ...]
    gives: Gives
    consistent_ids: bool = False
    attention_channels: int | None = None
    immaterial: tuple[str, ...] = ()

    @property
    def needs(self) -> frozenset[str]:
        """Attributes of `Inputs` that it takes."""
        return frozenset(_OF_IMAGE.get(name, name) for name in self.parameters)

    @property
    def one_by_one(self) -> bool:
        """It is called for one image at a time, and not for a batch."""
        return any(name in _OF_IMAGE for name in self.parameters)

    def __call__(self, inputs: Inputs) -> Any:
        """What the method gives, unchecked: for the batch, or a list with an entry for each image."""
        (given,) = segment_together([self], inputs)
        return given

    def identity(self, settings: Mapping[str, Any], image_ids: Sequence[str]) -> dict[str, Any]:
        """What the key of a cell holds of it: its settings, and what it says itself that its segments depend on."""
        own = self.method.depends_on(image_ids) if hasattr(self.method, "depends_on") else {}
        return own | {name: value for name, value in settings.items() if name not in self.immaterial}


def as_segmenter(method: Callable[..., Any], gives: Gives | None = None) -> Segmenter:
    """Any function or object that can be called, as a segmenter.

    What it needs is read from the names of its parameters: ``features`` [batch, channels, rows, cols], ``images``
    [batch, 3, height, width], ``class_counts``, ``image_ids``, ``grid_sizes`` (rows and columns of patches),
    ``scored_sizes`` (height and width), ``labels`` [batch, height, width] (the annotation, for oracles only). One that
    names ``image`` [3, height, width], ``class_count``, ``image_id``, ``grid_size``, ``label``, ``scored_size`` or
    ``rescale`` (see `Rescale`) is called for one image at a time, and ``features`` are then [channels, rows, cols].
    What no stage asks for is not computed: a picture that nobody looks at is not even decoded. Other parameters need a
    default. It gives whole numbers from 0 on, as a tensor or a NumPy array: a segment for each patch [batch, rows,
    cols] if it takes features, else for each pixel [batch, height, width]; without the first axis for one image.

    Attributes of the function or object say what differs from that: ``needs`` (the parameters that are filled),
    ``gives``, ``consistent_ids``, ``attention_channels`` and ``immaterial`` (see `Segmenter`), and the methods
    ``together(methods, **inputs)``, which gives for several settings of one class, in a list, what each of them alone
    would give, and ``depends_on(image_ids)``, a mapping of what its segments depend on besides its settings.

    Args:
        method: to be called.
        gives: goes before the attribute.

    Raises:
        UserError: it can't be called, or not with what there is.

    >>> def bright(image):
    ...     return (image.mean(dim=0) > 0.5).long()
    >>> segmenter = as_segmenter(bright)
    >>> sorted(segmenter.needs), segmenter.gives
    (['images'], 'label_map')
    """
    if isinstance(method, Segmenter):
        return method
    own: Any = method
    while isinstance(own, partial):
        own = own.func
    name = getattr(own, "__qualname__", type(own).__qualname__)
    if inspect.isclass(own):
        raise UserError(f"{name} is a class, not a segmenter", "segmenter", f"give an object of it: {name}(…)")
    parameters = tuple(getattr(own, "needs", None) or _fillable(method, name))
    _check_needs(parameters, name)
    gives = gives or getattr(own, "gives", "partition" if "features" in parameters else "label_map")
    if gives not in GIVES:
        raise UserError(f"{name} gives {gives!r}", "segmenter", did_you_mean(str(gives), GIVES))
    if gives != "label_map" and "features" not in parameters:
        raise UserError(f"{name} gives a {gives} and takes no features", "segmenter", "let it give a label_map")
    return Segmenter(
        method,
        parameters,
        gives,
        getattr(own, "consistent_ids", False),
        getattr(own, "attention_channels", None),
        ("max_memory_gib", *getattr(own, "immaterial", ())),
    )


def _fillable(method: object, name: str) -> list[str]:
    """Parameters of a method that the pipeline can fill.

    Raises:
        UserError: it can't be called, or others have no default.
    """
    try:
        # A torch module hides the parameters of its `forward` behind its own call.
        signature = inspect.signature(getattr(method, "forward", method))  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        hint = "use a Python function, or an object with __call__"
        raise UserError(f"{name} can't be called: {error}", "segmenter", hint) from error
    named = [one for one in signature.parameters.values() if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    for one in named:
        if one.name not in _KNOWN and one.default is one.empty:
            hint = f"rename it, or give it a default; {did_you_mean(one.name, _KNOWN)}"
            raise UserError(f"nothing fills the parameter {one.name} of {name}", "segmenter", hint)
    return [one.name for one in named if one.name in _KNOWN]


def _check_needs(parameters: Sequence[str], name: str) -> None:
    """Raise a UserError for parameters that can't be filled together."""
    unknown = [each for each in parameters if each not in _KNOWN]
    if unknown or not parameters:
        what = f"{name} needs {unknown[0]}" if unknown else f"{name} takes nothing of an image"
        raise UserError(what, "segmenter", f"it may take {', '.join(_KNOWN)}")
    of_batch = [each for each in parameters if each not in ("features", *_OF_IMAGE)]
    of_image = [each for each in parameters if each in _OF_IMAGE]
    if of_batch and of_image:
        what = f"{name} takes {of_batch[0]} of a batch and {of_image[0]} of one image"
        raise UserError(what, "segmenter", "use names of one kind, such as images and image_ids")


def sharing_groups(segmenters: Iterable[Segmenter]) -> list[list[int]]:
    """Indices of the segmenters, those together that can share work: settings of one class that has ``together``."""
    groups: dict[object, list[int]] = {}
    for index, segmenter in enumerate(segmenters):
        kind = type(segmenter.method)
        shares = hasattr(kind, "together") and not segmenter.one_by_one
        groups.setdefault((kind, segmenter.parameters) if shares else index, []).append(index)
    return list(groups.values())


def segment_together(segmenters: Sequence[Segmenter], inputs: Inputs) -> list[Any]:
    """What each of the segmenters, one of `sharing_groups`, gives for the inputs: see `Segmenter.__call__`."""
    first, *others = segmenters
    given = {name: getattr(inputs, _OF_IMAGE.get(name, name)) for name in first.parameters}
    # A method may work in place: what follows it looks at features and images too.
    given = {name: value.clone() if isinstance(value, Tensor) else value for name, value in given.items()}
    if others:
        kind: Any = type(first.method)
        return list(kind.together([segmenter.method for segmenter in segmenters], **given))
    if first.one_by_one:
        images = zip(*given.values(), strict=True)
        return [[_as_tensor(first.method(**dict(zip(given, image, strict=True)))) for image in images]]
    return [_as_tensor(first.method(**given))]


def _as_tensor(ids: object) -> object:
    """NumPy arrays as tensors, anything else as it is."""
    if isinstance(ids, np.ndarray):
        return torch.from_numpy(ids.astype(np.int64) if ids.dtype.kind in "iu" else ids)
    return ids
