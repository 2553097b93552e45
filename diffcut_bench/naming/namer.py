"""Names for the segments of any segmenter: means over a dense map of image features, compared with words."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from inspect import signature
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from diffcut_bench.errors import UserError
from diffcut_bench.naming.encoder import TextImageEncoder
from diffcut_bench.naming.prompts import TEMPLATES, class_words
from diffcut_bench.naming.text_files import read_class_list, read_templates

POOLING = ("pixels", "nearest_exact")
_AT_ONCE = 256  # texts: a list with synonyms has thousands, which would fill the memory of a device


@dataclass(frozen=True)
class Names:
    """What segments are called.

    Attributes:
        labels: class of each pixel.
        classes: class of each segment; what stands at the number of a segment that has no pixel means nothing.
        scores: its probability among the classes, in [0, 1].
    """

    labels: Int[Tensor, "batch height width"]
    classes: Int[Tensor, "batch segments"]
    scores: Float[Tensor, "batch segments"]


@dataclass(frozen=True, eq=False)
class ClassNamer:
    """Gives the segments of images names out of a list of classes.

    Attributes:
        encoder: of images and texts, on its device.
        words: synonyms of each class.
        temperature: that cosines are divided by before the softmax.
        templates: phrases with ``{}`` where a word goes.
        pooling: see `pool_segments`.
        files: SHA-256 of the files that words and templates were read from.
    """

    encoder: TextImageEncoder
    words: Sequence[Sequence[str]]
    temperature: float
    templates: Sequence[str] = TEMPLATES
    pooling: str = "pixels"
    files: Mapping[str, str] = field(default_factory=dict)

    def identity(self) -> dict[str, Any]:
        """Everything that names depend on; not the temperature, which no order of classes depends on."""
        return {
            **self.encoder.fingerprint(),
            "words": [list(own) for own in self.words],
            "templates": list(self.templates),
            "pooling": self.pooling,
            **self.files,
        }

    @cached_property
    def _embeddings(self) -> Tensor:
        return word_embeddings(self.encoder.text, [word for own in self.words for word in own], self.templates)

    @torch.no_grad()
    def __call__(
        self, images: Float[Tensor, "batch 3 rows cols"], segments: Int[Tensor, "batch height width"]
    ) -> Names:
        """Name each segment.

        Args:
            images: colours in [0, 1], at any resolution.
            segments: ids from 0 of the same images, at any resolution.
        """
        pooled = pool_segments(self.encoder(self.encoder.resized(images)), segments, self.pooling)
        features = normalize(self.encoder.project(pooled.flatten(0, 1)).float(), dim=1)
        cosines = best_synonyms(features @ self._embeddings.T, [len(own) for own in self.words])
        classes = cosines.argmax(dim=1)
        scores = (cosines / self.temperature).softmax(dim=1).gather(1, classes[:, None])[:, 0]
        classes, scores = (values.unflatten(0, pooled.shape[:2]) for values in (classes, scores))
        labels = classes.gather(1, segments.flatten(1)).view_as(segments)
        return Names(labels, classes, scores)


def word_embeddings(
    encode: Callable[[Sequence[str]], Float[Tensor, "texts channels"]],
    words: Sequence[str],
    templates: Sequence[str] = TEMPLATES,
) -> Float[Tensor, "words channels"]:
    """Unit embedding of each word: the mean over templates of unit text embeddings, of unit length again.

    Args:
        encode: text encoder.
        words: of all classes.
        templates: phrases with ``{}`` where the word goes.
    """
    texts = [template.format(word) for word in words for template in templates]
    found = torch.cat([encode(texts[start : start + _AT_ONCE]) for start in range(0, len(texts), _AT_ONCE)])
    unit = normalize(found.float(), dim=1).unflatten(0, (len(words), len(templates)))
    return normalize(unit.mean(dim=1), dim=1)


def pool_segments(
    dense: Float[Tensor, "batch channels rows cols"],
    segments: Int[Tensor, "batch height width"],
    pooling: str = "pixels",
) -> Float[Tensor, "batch segments channels"]:
    """Mean of a dense map over each segment.

    Args:
        dense: features of patches.
        segments: ids from 0.
        pooling: ``pixels``: over the segment's pixels, a pixel taking the patch that it lies in; ``nearest_exact``:
            over the patches at whose centre the segment is, as in the released evaluation, where a segment between
            the centres has none.

    Returns:
        Zero for an id without a pixel or patch.
    """
    rows, cols = dense.shape[2:]
    count = int(segments.max()) + 1
    if pooling == "nearest_exact":
        segments = interpolate(segments[:, None].float(), (rows, cols), mode="nearest-exact")[:, 0].long()
    batch, height, width = segments.shape
    row = torch.arange(height, device=segments.device) * rows // height
    col = torch.arange(width, device=segments.device) * cols // width
    patch = row[:, None] * cols + col
    image = torch.arange(batch, device=segments.device)[:, None, None]
    cells = ((image * count + segments) * rows * cols + patch).flatten()
    # Whole numbers, so that the order in which pixels are counted is no matter.
    pixels = cells.new_zeros(batch * count * rows * cols).scatter_add_(0, cells, torch.ones_like(cells))
    weights = pixels.view(batch, count, rows * cols).float()
    return weights @ dense.float().flatten(2).transpose(1, 2) / weights.sum(dim=2, keepdim=True).clamp_min(1)


def best_synonyms(
    similarities: Float[Tensor, "segments words"], synonyms: Sequence[int]
) -> Float[Tensor, "segments classes"]:
    """Greatest similarity among the synonyms of each class; ``synonyms`` says how many words each has, in order."""
    words = similarities.T.contiguous()  # so that whole rows are compared
    of_word = torch.arange(len(synonyms)).repeat_interleave(torch.tensor(synonyms))
    best = words.new_full((len(synonyms), len(similarities)), -torch.inf)
    index = of_word.to(words.device, non_blocking=True)[:, None].expand_as(words)
    return best.scatter_reduce_(0, index, words, "amax").T.contiguous()


class Namer:
    """What a config says about naming, before the classes are known.

    Args:
        encoder: of images and texts.
        temperature: that cosines are divided by before the softmax; scores depend on it, names do not.
        words: synonyms ``a|b`` by class name, in place of the class's own name.
        background_words: in place of the list in `prompts`, or of what ``classes_file`` has.
        classes_file: class list (`read_class_list`) in place of ``words`` and of the synonyms in `prompts`.
        templates_file: phrases (`read_templates`) in place of those in `prompts`.
        pooling: see `pool_segments`.

    Raises:
        ValueError: the temperature is not positive, or there is no such pooling.
        UserError: a file can't be read or is not of its form, or both ``words`` and ``classes_file`` are given.
    """

    def __init__(
        self,
        encoder: TextImageEncoder,
        temperature: float = 0.01,
        words: Mapping[str, str] | None = None,
        background_words: Sequence[str] | None = None,
        classes_file: str | None = None,
        templates_file: str | None = None,
        pooling: str = "pixels",
    ) -> None:
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, not {temperature}")
        if pooling not in POOLING:
            raise ValueError(f"pooling must be {' | '.join(POOLING)}, not {pooling}")
        if words and classes_file is not None:
            raise UserError("two sources of class names", "namer.words, namer.classes_file", "leave one of them out")
        self.encoder, self.temperature, self.pooling = encoder, temperature, pooling
        self._words, self._background_words = words, background_words
        self._class_list = None if classes_file is None else read_class_list(classes_file)
        self._templates: Sequence[str] = TEMPLATES
        self._files: dict[str, str] = {}
        if self._class_list is not None:
            self._files["classes_sha256"] = self._class_list.sha256
        if templates_file is not None:
            self._templates, self._files["templates_sha256"] = read_templates(templates_file)

    @classmethod
    def over(cls, encoder: Callable[..., TextImageEncoder], **options: Any) -> "Namer":
        """The namer over an encoder that is built of all options that are not the namer's own."""
        own = {name: options.pop(name) for name in signature(cls).parameters if name in options}
        return cls(encoder(**options), **own)

    def for_classes(self, class_names: Sequence[str], background: int | None, device: torch.device) -> ClassNamer:
        """The namer of these classes.

        Args:
            class_names: a name may hold synonyms: ``cat|kitten``.
            background: index of the class that the background's words stand for, if there is one.
            device: to compute on.

        Raises:
            UserError: a class is left without a word, or words are given for a class that there is not.
        """
        words = self._class_words(class_names, background)
        templates = self._templates
        return ClassNamer(self.encoder.to(device), words, self.temperature, templates, self.pooling, self._files)

    def _class_words(self, class_names: Sequence[str], background: int | None) -> tuple[tuple[str, ...], ...]:
        if self._class_list is not None:
            words = self._class_list.words(class_names, background)
            if background is None or self._background_words is None:
                return words
            if not self._background_words:
                raise UserError("the background has no word", "namer.background_words=[]", "give it a word, or null")
            return (*words[:background], tuple(self._background_words), *words[background + 1 :])
        try:
            return class_words(class_names, background, self._words, self._background_words)
        except ValueError as error:
            raise UserError(str(error), "namer.words, namer.background_words", "give every class a word") from error
