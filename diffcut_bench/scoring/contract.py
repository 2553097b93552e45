"""Does a backbone keep its contract? Tried on two small images, for whoever adds one."""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffcut_bench.config import RunConfig, build_protocol, instantiate
from diffcut_bench.environment import choose_device
from diffcut_bench.errors import UserError
from diffcut_bench.scoring.features import FeatureSource, backbone_identity
from diffcut_bench.scoring.framing import Framing
from diffcut_bench.store import cell_key
from diffcut_bench.traces import error_in_code

_PATCHES = 8  # a side of the test images
# Sums of different batches may be taken in different orders; what exceeds this many epsilons of the largest value
# is no rounding.
_ROUNDING = 256
_CONTRACT = "docs/adding_a_backbone.md says what a backbone has"


@dataclass(frozen=True)
class Finding:
    """What was looked at, what was found, and whether it is as it must be."""

    what: str
    value: str
    fine: bool = True


def check_backbone(config: RunConfig) -> list[Finding]:
    """Shape, type, determinism, independence of the batch, and key of a config's backbone.

    Raises:
        UserError: it can't be built or run, or lacks what every backbone has.
    """
    device = choose_device(config.device)
    backbone = instantiate("backbone", config.backbone).to(device)
    where = f"backbone={type(backbone).__name__}"
    missing = [name for name in ("name", "stride", "channels") if not hasattr(backbone, name)]
    if missing:
        raise UserError(f"the backbone has no {', '.join(missing)}", where, _CONTRACT)
    source = FeatureSource(backbone, Framing.of(build_protocol(config.protocol), backbone), device)
    rows, cols = _PATCHES, _PATCHES // 2
    height, width = rows * backbone.stride, cols * backbone.stride
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    try:
        first = source.compute(images)
        identity = backbone_identity(backbone, config.backbone)
        key = cell_key(identity)
    except UserError:
        raise
    except Exception as error:  # whatever a new backbone raises is the finding
        raise error_in_code(error, f"{where}, images {list(images.shape)}", _CONTRACT) from error
    constant = backbone_identity(backbone, config.backbone) == identity
    dimmed = images * torch.tensor([1.0, 0.5])[:, None, None, None]
    return [
        Finding("input", f"{height}×{width} pixels, 2 images"),
        Finding("features", str(list(first.shape))),
        Finding("stride", f"{backbone.stride} pixels a patch"),
        Finding("image size", str(backbone.image_size or f"{config.protocol['image_size']}, the protocol's")),
        Finding("dtype", f"{first.dtype} on {first.device}"),
        _holds("finite", bool(first.isfinite().all())),
        _holds("varies", bool(first.float().std() > 0)),
        _difference("deterministic", first, source.compute(images), exact=True),
        _difference("batch of 1 = batch of 2", first[:1], source.compute(images[:1])),
        _difference("neighbour's colours", first[:1], source.compute(dimmed)[:1]),
        *(Finding(name, str(value)) for name, value in identity.items() if name != "_target_"),
        Finding("key", key if constant else f"NO: {key}, and another when asked again", constant),
    ]


def _holds(what: str, fine: bool) -> Finding:
    return Finding(what, "yes" if fine else "NO", fine)


def _difference(what: str, first: Tensor, second: Tensor, exact: bool = False) -> Finding:
    """Whether two results agree: bit for bit, or to the rounding of their type."""
    greatest = (first.float() - second.float()).abs().max().item()
    allowed = 0.0 if exact else _ROUNDING * torch.finfo(first.dtype).eps * first.float().abs().max().item()
    if greatest == 0:
        return Finding(what, "yes, bit for bit")
    fine = greatest <= allowed
    return Finding(what, f"{'to rounding' if fine else 'NO'}: greatest difference {greatest:.2g}", fine)
