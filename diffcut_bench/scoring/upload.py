"""The one way of examples from the host to the device: a copy of each kind for a batch, which nobody waits for."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from diffcut_bench.scoring.framing import Example


def upload(examples: Sequence[Example], device: torch.device) -> list[Example]:
    """The examples with labels, pixels and features on a device; on the CPU as they are.

    Pixels go as they were decoded, a byte a colour, and become colours in [0, 1] and sizes there (`Framing`).
    """
    if device.type == "cpu":
        return list(examples)
    names = ("label", "annotations", "pixels")
    copies: list[Any] = [_copied([getattr(example, name) for example in examples], device) for name in names]
    networks = max((len(example.features) for example in examples), default=0)
    padded = [(*example.features, *[None] * (networks - len(example.features))) for example in examples]
    of_networks = [_copied(maps, device) for maps in zip(*padded, strict=True)]
    return [
        replace(
            example,
            **{name: each[number] for name, each in zip(names, copies, strict=True)},
            features=tuple(each[number] for each in of_networks),
        )
        for number, example in enumerate(examples)
    ]


def _copied(tensors: Sequence[Tensor | None], device: torch.device) -> list[Tensor | None]:
    """Tensors of one type and any shapes on an accelerator: views of what was copied at once. None stays None.

    It copies from page-locked memory while the host goes on; Apple's shares its memory with the host.
    """
    there = [tensor for tensor in tensors if tensor is not None]
    if not there:
        return list(tensors)
    sizes = [tensor.numel() for tensor in there]
    packed = torch.empty(sum(sizes), dtype=there[0].dtype, pin_memory=device.type != "mps")
    torch.cat([tensor.flatten() for tensor in there], out=packed)
    parts = packed.to(device, non_blocking=True).split(sizes)
    copies = iter([part.view(tensor.shape) for part, tensor in zip(parts, there, strict=True)])
    return [None if tensor is None else next(copies) for tensor in tensors]
