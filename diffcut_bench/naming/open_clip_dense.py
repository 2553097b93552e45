"""Dense features of a convolutional CLIP, read by open_clip (extra ``openvocab``), which is imported when asked for."""

from collections.abc import Sequence
from importlib import metadata
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffcut_bench.backbones.pretrained import MissingWeightsError, cache_only, find_checkpoint
from diffcut_bench.errors import UserError
from diffcut_bench.naming.encoder import TextImageEncoder
from diffcut_bench.naming.namer import Namer

_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_STRIDE = 32


def _open_clip() -> Any:
    try:
        import open_clip
    except (ImportError, RuntimeError) as error:  # RuntimeError: its torchvision is of another build than torch
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"open_clip can't be imported ({reason})",
            "namer=convnext_l",
            "pip install 'diffcut_bench[openvocab]', or namer=clip_b16, which needs no extra",
        ) from error
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
        try:
            library = _open_clip()
        except UserError as error:
            # Who looks for what is missing is told both; nothing is downloaded for a library that is not there.
            with cache_only():
                try:
                    find_checkpoint(model, [_WEIGHTS], revision=revision, option="namer.model")
                except MissingWeightsError as missing:
                    told = (error.what, error.where, error.hint)
                    raise MissingWeightsError(
                        *told,
                        model=missing.model,
                        command=missing.command,
                        elsewhere=missing.elsewhere,
                        says_more=True,
                    ) from error
            raise
        self.name, self.architecture, self.image_size = name, architecture, image_size
        self._checkpoint = find_checkpoint(model, [_WEIGHTS], revision=revision, option="namer.model")
        mean, deviation = (
            torch.tensor(three).view(1, 3, 1, 1) for three in (library.OPENAI_DATASET_MEAN, library.OPENAI_DATASET_STD)
        )
        self.register_buffer("_scale", 1 / deviation, persistent=False)
        self.register_buffer("_shift", -mean / deviation, persistent=False)

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
        weights = next(iter(self._checkpoint.files.values()))
        self.network = library.create_model(self.architecture, pretrained=str(weights))
        self._tokenize = library.get_tokenizer(self.architecture)
        self.to(self.device)

    def _extract(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channels rows cols"]:
        visual: Any = self.network.visual
        return visual.trunk.forward_features(self._pixels(images))


def open_clip_namer(
    name: str,
    model: str,
    architecture: str,
    revision: str = "main",
    image_size: int = 1024,
    input: str = "normalised",
    **settings: Any,
) -> Namer:
    """The ``namer=convnext_l`` option: a `Namer` over an `OpenClipEncoder`."""
    return Namer(OpenClipEncoder(name, model, architecture, revision, image_size, input), **settings)
