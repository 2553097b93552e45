"""Does a backbone keep its contract? Tried on two small images, for whoever adds one."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffcut_bench.config import RunConfig
from diffcut_bench.environment import choose_device
from diffcut_bench.errors import UserError
from diffcut_bench.scoring.features import FeatureSource, FusedFeatures, backbone_identity, build_backbone, features_of
from diffcut_bench.scoring.framing import Example, Framing
from diffcut_bench.scoring.upload import upload
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
    backbone = build_backbone(config)
    where = f"backbone={type(backbone).__name__}"
    missing = [name for name in ("name", "stride", "channels") if not hasattr(backbone, name)]
    if missing:
        raise UserError(f"the backbone has no {', '.join(missing)}", where, _CONTRACT)
    whole = features_of(backbone, replace(config, features={}), device)
    source, framing = _of_small_pictures(whole), whole.framing
    height, width = _PATCHES * framing.stride, _PATCHES // 2 * framing.stride
    pictures = torch.randint(256, (2, 3, height, width), generator=torch.Generator().manual_seed(0)).byte()
    label = torch.zeros(height, width, dtype=torch.long)

    def computed(pixels: Tensor) -> Tensor:
        examples = [Example(i, "", source.framing, (height, width), label, each) for i, each in enumerate(pixels)]
        return source.compute(upload(examples, device))

    try:
        first = computed(pictures)
        identity = backbone_identity(backbone, config.backbone)
        key = cell_key(identity)
    except UserError:
        raise
    except Exception as error:  # whatever a new backbone raises is the finding
        raise error_in_code(error, f"{where}, images {list(pictures.shape)}", _CONTRACT) from error
    constant = backbone_identity(backbone, config.backbone) == identity
    dimmed = torch.stack([pictures[0], pictures[1] // 2])
    return [
        Finding("input", f"{height}×{width} pixels, 2 images"),
        Finding("features", str(list(first.shape))),
        Finding("stride", f"{framing.stride} pixels a patch"),
        Finding("image size", str(framing.input_size or f"{framing.image_size}, the protocol's")),
        Finding("dtype", f"{first.dtype} on {first.device}"),
        _holds("finite", bool(first.isfinite().all())),
        _holds("varies", bool(first.float().std() > 0)),
        _difference("deterministic", first, computed(pictures), exact=True),
        _difference("batch of 1 = batch of 2", first[:1], computed(pictures[:1])),
        _difference("neighbour's colours", first[:1], computed(dimmed)[:1]),
        *(Finding(name, str(value)) for name, value in identity.items() if name != "_target_"),
        Finding("key", key if constant else f"NO: {key}, and another when asked again", constant),
    ]


def _of_small_pictures(source: FeatureSource) -> FeatureSource:
    """The source for whole pictures of few patches; of a fused backbone each part's are fewer in proportion."""
    scale = _PATCHES / source.framing.patches

    def small(own: Framing) -> Framing:
        input_size = own.input_size and round(own.input_size * scale)
        return replace(own, crop="none", image_size=round(own.image_size * scale), input_size=input_size)

    networks = [FeatureSource(each.backbone, small(each.framing), each.device) for each in source.networks]
    if isinstance(source, FusedFeatures):
        return FusedFeatures(source.fused, small(source.framing), networks)
    return networks[0]


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
