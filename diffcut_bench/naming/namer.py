"""Names for the segments of any segmenter: means over a dense map of image features, compared with words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from diffcut_bench.errors import UserError
from diffcut_bench.naming.encoder import TextImageEncoder
from diffcut_bench.naming.prompts import TEMPLATES, class_words
from diffcut_bench.naming.text import word_embeddings


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


class ClassNamer:
    """Gives the segments of images names out of a list of classes.

    Args:
        encoder: of images and texts, on its device.
        words: synonyms of each class.
        temperature: that cosines are divided by before the softmax.
    """

    def __init__(self, encoder: TextImageEncoder, words: Sequence[Sequence[str]], temperature: float) -> None:
        self.encoder, self.words, self.temperature = encoder, words, temperature

    def identity(self) -> dict[str, Any]:
        """Everything that names depend on; not the temperature, which no order of classes depends on."""
        return {
            **self.encoder.fingerprint(),
            "words": [list(own) for own in self.words],
            "templates": list(TEMPLATES),
        }

    @cached_property
    def _embeddings(self) -> Tensor:
        return word_embeddings(self.encoder.text, [word for own in self.words for word in own])

    @torch.no_grad()
    def __call__(
        self, images: Float[Tensor, "batch 3 rows cols"], segments: Int[Tensor, "batch height width"]
    ) -> Names:
        """Name each segment.

        Args:
            images: colours in [0, 1], at any resolution.
            segments: ids from 0 of the same images, at any resolution.
        """
        pooled = pool_segments(self.encoder(self.encoder.resized(images)), segments)
        features = normalize(self.encoder.project(pooled.flatten(0, 1)).float(), dim=1)
        cosines = best_synonyms(features @ self._embeddings.T, [len(own) for own in self.words])
        classes = cosines.argmax(dim=1)
        scores = (cosines / self.temperature).softmax(dim=1).gather(1, classes[:, None])[:, 0]
        classes, scores = (values.unflatten(0, pooled.shape[:2]) for values in (classes, scores))
        labels = classes.gather(1, segments.flatten(1)).view_as(segments)
        return Names(labels, classes, scores)


def pool_segments(
    dense: Float[Tensor, "batch channels rows cols"], segments: Int[Tensor, "batch height width"]
) -> Float[Tensor, "batch segments channels"]:
    """Mean of a dense map over the pixels of each segment, a pixel taking the patch that it lies in.

    Args:
        dense: features of patches.
        segments: ids from 0.

    Returns:
        Zero for an id without a pixel.
    """
    rows, cols = dense.shape[2:]
    batch, height, width = segments.shape
    row = torch.arange(height, device=segments.device) * rows // height
    col = torch.arange(width, device=segments.device) * cols // width
    patch = row[:, None] * cols + col
    count = int(segments.max()) + 1
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
    return torch.stack([own.amax(dim=1) for own in similarities.split(list(synonyms), dim=1)], dim=1)


class Namer:
    """What a config says about naming, before the classes are known.

    Args:
        encoder: of images and texts.
        temperature: that cosines are divided by before the softmax; scores depend on it, names do not.
        words: synonyms ``a|b`` by class name, in place of the class's own name.
        background_words: in place of the list in `prompts`.

    Raises:
        ValueError: the temperature is not positive.
    """

    def __init__(
        self,
        encoder: TextImageEncoder,
        temperature: float = 0.01,
        words: Mapping[str, str] | None = None,
        background_words: Sequence[str] | None = None,
    ) -> None:
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, not {temperature}")
        self.encoder, self.temperature = encoder, temperature
        self._words, self._background_words = words, background_words

    def for_classes(self, class_names: Sequence[str], background: int | None, device: torch.device) -> ClassNamer:
        """The namer of these classes.

        Args:
            class_names: a name may hold synonyms: ``cat|kitten``.
            background: place of the class that the background's words stand for, if there is one.
            device: to compute on.

        Raises:
            UserError: a class is left without a word, or words are given for a class that there is not.
        """
        try:
            words = class_words(class_names, background, self._words, self._background_words)
        except ValueError as error:
            raise UserError(str(error), "namer.words, namer.background_words", "give every class a word") from error
        return ClassNamer(self.encoder.to(device), words, self.temperature)
