"""From words to unit vectors beside which features of images are laid."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from diffcut_bench.naming.prompts import TEMPLATES

_AT_ONCE = 256  # texts: a list with synonyms has thousands, which would fill the memory of a device


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
