"""Dense features of a convolutional CLIP, read by open_clip (extra ``openvocab``), which is imported when asked for."""

from collections.abc import Sequence
from importlib import metadata
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffcut_bench.backbones.base import PixelTransform
from diffcut_bench.backbones.pretrained import Checkpoint, MissingWeightsError, blaming, cache_only, find_checkpoint
from diffcut_bench.errors import UserError
from diffcut_bench.naming.encoder import TextImageEncoder
from diffcut_bench.naming.namer import Namer

_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_STRIDE = 32


def _open_clip() -> Any:
    hint = "pip install 'diffcut_bench[openvocab]', or namer=clip_b16, which needs no extra"
    with blaming("open_clip can't be imported", "namer=convnext_l", hint):  # also where torchvision is of another build
        import open_clip
    return open_clip


class OpenClipEncoder(TextImageEncoder):
    """A ConvNeXt CLIP: segments are pooled over the trunk's last map and pass the head as a whole image would.

    Args:
        name: option name.
        model: hub id, or a folder with the weights.
        architecture: open_clip's name of the network.
        revision: branch, tag or commit of the hub.
        image_size: pixels of the longer side of what the network sees.
        input: see `TextImageEncoder`.

    Raises:
        UserError: open_clip can't be imported, or the weights are missing.
    """

    network: nn.Module
    stride = _STRIDE

    def __init__(
        self,
        name: str,
        model: str,
        architecture: str,
        revision: str = "main",
        image_size: int = 1024,
        input: str = "normalised",
    ) -> None:
        super().__init__(input)
        self.name, self.architecture, self.image_size = name, architecture, image_size
        try:
            library = _open_clip()
        except UserError as no_library:
            # Who lists what is missing is told both; nothing is downloaded for a library that is not there.
            try:
                with cache_only():
                    _find(model, revision)
            except MissingWeightsError as no_weights:
                no_weights.say_first(no_library)
                raise
            raise
        self._checkpoint = _find(model, revision)
        mean, deviation = (
            torch.tensor(three).view(1, 3, 1, 1) for three in (library.OPENAI_DATASET_MEAN, library.OPENAI_DATASET_STD)
        )
        self._normalise = PixelTransform(1 / deviation, -mean / deviation)

    def fingerprint(self) -> dict[str, str]:
        return {
            "encoder": self.name,
            "architecture": self.architecture,
            **self._checkpoint.identity(),
            "image_size": str(self.image_size),
            "input": self.input,
            "open_clip": metadata.version("open_clip_torch"),
        }

    @torch.no_grad()
    def text(self, texts: Sequence[str]) -> Float[Tensor, "texts dimensions"]:
        self.read()
        network: Any = self.network
        return network.encode_text(self._tokenize(list(texts)).to(self.device))

    @torch.no_grad()
    def project(self, pooled: Float[Tensor, "segments channels"]) -> Float[Tensor, "segments dimensions"]:
        visual: Any = self.network.visual
        # A segment's mean is a map of one patch, so that the trunk's own pooling leaves it as it is.
        return visual.head(visual.trunk.forward_head(pooled[:, :, None, None]))

    def _read(self) -> None:
        library = _open_clip()
        self.network = library.create_model(self.architecture, pretrained=str(self._checkpoint.weights()))
        self._tokenize = library.get_tokenizer(self.architecture)
        self.to(self.device)

    def _extract(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channels rows cols"]:
        visual: Any = self.network.visual
        return visual.trunk.forward_features(self._pixels(images))


def _find(model: str, revision: str) -> Checkpoint:
    return find_checkpoint(model, [_WEIGHTS], revision=revision, option="namer.model")


def open_clip_namer(**options: Any) -> Namer:
    """The ``namer=convnext_l`` option: a `Namer` over an `OpenClipEncoder`."""
    return Namer.over(OpenClipEncoder, **options)
