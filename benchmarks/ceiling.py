"""What bounds the speed of an encoder: its operations, counted, and the rate of matrix products, measured."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import least_times

_PRODUCTS = 10
_aten = torch.ops.aten
# Place of the first factor among the arguments of each matrix product.
_FACTORS = {
    **dict.fromkeys((_aten.mm.default, _aten.bmm.default, _aten.mv.default), 0),
    **dict.fromkeys((_aten.addmm.default, _aten.baddbmm.default, _aten.addmv.default), 1),
    **dict.fromkeys((_aten.addmm_.default, _aten.baddbmm_.default, _aten.addmv_.default), 1),
}


def count_flops(networks: Mapping[str, Any], image_size: int) -> dict[str, int]:
    """Floating-point operations of one square image, two for a multiply-add, in each network of an SDXL-type model.

    Args:
        networks: ``unet``, ``vae`` and ``tiny_vae`` on the meta device, decoders taken away.
        image_size: pixels a side.

    Returns:
        Operations of convolutions and matrix products, by network.
    """
    image = torch.empty(1, 3, image_size, image_size, device="meta")
    vae = networks["vae"]
    return {
        "unet": _flops_of_unet(networks["unet"], image_size // 8),
        "vae": _flops(lambda images: vae.quant_conv(vae.encoder(images)), image),
        "tiny_vae": _flops(networks["tiny_vae"].encoder, image),
    }


def count_parameters(networks: Mapping[str, Any]) -> dict[str, int]:
    """Parameters of each network."""
    return {name: sum(each.numel() for each in network.parameters()) for name, network in networks.items()}


def read_rate(size: int, device: torch.device) -> float:
    """Bytes a second at which a float32 matrix is read to multiply one vector from the left: the best of ten.

    Args:
        size: rows and columns of the matrix. A small one stays in the caches, and is read faster than memory is.
        device: that multiplies.
    """
    matrix, vector = torch.rand(1, size, size, device=device), torch.rand(1, 1, size, device=device)
    (least,) = least_times([lambda: vector @ matrix], _PRODUCTS, device)
    return 4 * size**2 / least


class VectorProducts(TorchDispatchMode):
    """Counts, while it is entered, the bytes that products of one vector with a matrix must read.

    Attributes:
        read: bytes of the matrices.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.read = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _FACTORS:
            first, second = args[_FACTORS[func]], args[_FACTORS[func] + 1]
            if second.ndim == 1 or second.shape[-1] == 1:
                self.read += first.numel() * first.element_size()
            elif first.shape[-2] == 1:
                self.read += second.numel() * second.element_size()
        return func(*args, **(kwargs or {}))


def _flops_of_unet(unet: Any, side: int) -> int:
    config = unet.config
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    with torch.device("meta"):
        conditions = {"text_embeds": torch.empty(1, pooled), "time_ids": torch.empty(1, 6)}
        prompt = torch.empty(1, 77, config.cross_attention_dim)
        latents = torch.empty(1, config.in_channels, side, side)
        return _flops(unet, latents, torch.empty(()), prompt, added_cond_kwargs=conditions)


def _flops(network: Callable[..., Any], *inputs: Any, **options: Any) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*inputs, **options)
    return counter.get_total_flops()
