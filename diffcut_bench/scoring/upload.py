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
    there = list(examples)
    if device.type == "cpu":
        return there
    for name in ("label", "annotations", "pixels", "features"):
        numbers = [number for number, example in enumerate(there) if getattr(example, name) is not None]
        if numbers:
            copies = _copied([getattr(there[number], name) for number in numbers], device)
            for number, copy in zip(numbers, copies, strict=True):
                changed: dict[str, Any] = {name: copy}
                there[number] = replace(there[number], **changed)
    return there


def _copied(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Tensors of one type and any shapes on an accelerator: views of what was copied at once.

    It copies from page-locked memory while the host goes on; Apple's shares its memory with the host.
    """
    sizes = [tensor.numel() for tensor in tensors]
    packed = torch.empty(sum(sizes), dtype=tensors[0].dtype, pin_memory=device.type != "mps")
    torch.cat([tensor.flatten() for tensor in tensors], out=packed)
    parts = packed.to(device, non_blocking=True).split(sizes)
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
