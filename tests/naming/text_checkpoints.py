"""Tiny CLIP and SigLIP checkpoints with a tokenizer, and an encoder whose words and pixels are planted."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor

from diffcut_bench.naming import Namer, TextImageEncoder

PATCH = 4
# fmt: off
VOCABULARY = [
    "<pad>", "<start>", "<end>", "<unk>", "a", "the", "photo", "of", "one", "many", "small", "large", "close", "part",
    "far", "away", "bright", "dark", "blurred", "there", "is", "in", "scene", "picture", "that", "shows", ".",
    "cat", "kitten", "sofa", "disc", "square", "background",
]
# fmt: on
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
VISION = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 16, "patch_size": PATCH}
TEXT = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}
TEXT |= {"vocab_size": len(VOCABULARY), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
TEXT |= {"max_position_embeddings": 16}


def write_checkpoint(folder: Path, kind: str) -> Any:
    """A random ``clip`` or ``siglip`` in the hub's layout, with a tokenizer of whole words; returns the network."""
    torch.manual_seed(0)
    vision = {**VISION, "intermediate_size": 24}
    if kind == "clip":
        config = transformers.CLIPConfig(text_config=TEXT, vision_config=vision, projection_dim=10)
        network: Any = transformers.CLIPModel(config)
    else:
        config = transformers.SiglipConfig(text_config={**TEXT, "projection_size": 16}, vision_config=vision)
        network = transformers.SiglipModel(config)
    with torch.no_grad():
        for parameter in network.parameters():  # initial norms and biases would hide a mistake
            parameter += 0.2 * torch.randn_like(parameter)
    network.save_pretrained(folder)
    preprocessing = {"do_normalize": True, "image_mean": MEAN, "image_std": STD, "rescale_factor": 1 / 255}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(VOCABULARY)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        "<start> $A <end>", special_tokens=[("<start>", 1), ("<end>", 2)]
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<start>", eos_token="<end>", unk_token="<unk>"
    )
    fast.save_pretrained(folder)
    return network.eval()


def pixels(images: Tensor) -> Tensor:
    """As the checkpoint's preprocessor_config.json says."""
    return (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


COLOURS = {"red": (1, 0, 0), "crimson": (0.9, 0.1, 0.1), "green": (0, 1, 0), "blue": (0, 0, 1), "grey": (1, 1, 1)}


class Colours(TextImageEncoder):
    """Patches are mean colours, words are colours: what is red is called ``red``, whatever the phrase around it."""

    name, stride, channels, image_size = "colours", 4, 3, 64

    def _read(self) -> None:
        pass

    def _extract(self, images: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(images, self.stride)

    def text(self, texts: Sequence[str]) -> Tensor:
        found = [next(COLOURS[word] for word in text.replace(".", "").split() if word in COLOURS) for text in texts]
        return torch.tensor(found, dtype=torch.float32)

    def fingerprint(self) -> dict[str, str]:
        return {"encoder": self.name}


def colour_namer(**settings: Any) -> Namer:
    """A namer by colour; the target of a yaml that a test writes."""
    return Namer(Colours(), **settings)


class Spoken(Colours):
    """Words that are no colours are there too, and are dark. Keeps what it was asked for."""

    def text(self, texts: Sequence[str]) -> Tensor:
        self.heard = list(texts)
        spoken = [[word for word in text.replace(".", "").split() if word in COLOURS] for text in texts]
        return torch.tensor([COLOURS[words[0]] if words else (0.1, 0.1, 0.1) for words in spoken])
