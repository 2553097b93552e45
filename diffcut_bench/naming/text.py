"""From words to unit vectors beside which features of images are laid."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from diffcut_bench.backbones.pretrained import blaming, quiet_transformers
from diffcut_bench.naming.prompts import TEMPLATES

# SigLIP was trained on texts filled up to their full length, CLIP ends each with a token that it looks for.
_FILLED_UP = ("siglip",)
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


class TextTower:
    """The text half of a CLIP or SigLIP of `transformers`, with its tokenizer.

    Args:
        network: `CLIPModel` or `SiglipModel`.
        folder: that holds the tokenizer's files.

    Raises:
        UserError: the tokenizer can't be read.
    """

    def __init__(self, network: Any, folder: Path) -> None:
        from transformers import AutoTokenizer

        self._network = network
        with blaming("the tokenizer can't be read", folder, "fetch its files again"), quiet_transformers():
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "texts channels"]:
        """Embeddings as the network projects them; their length carries no meaning."""
        config = self._network.config
        tokens = self._tokenizer(
            list(texts),
            padding="max_length" if config.model_type in _FILLED_UP else True,
            max_length=config.text_config.max_position_embeddings,
            truncation=True,
            return_tensors="pt",
        )
        wanted = {name: tokens[name].to(self._network.device) for name in ("input_ids", "attention_mask")}
        if config.model_type in _FILLED_UP:
            del wanted["attention_mask"]  # it was trained to read the filling
        found = self._network.get_text_features(**wanted)
        embeddings: Tensor = found if isinstance(found, Tensor) else found.pooler_output
        return embeddings
