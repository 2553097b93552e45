"""``diffcut-bench check``: a backbone on two small images, for whoever adds one."""

import argparse
from dataclasses import dataclass

import torch
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from diffcut_bench.commands.terminal import console
from diffcut_bench.config import build_protocol, instantiate, load_config
from diffcut_bench.environment import choose_device
from diffcut_bench.errors import UserError
from diffcut_bench.scoring.features import FeatureSource
from diffcut_bench.scoring.framing import Framing
from diffcut_bench.scoring.identity import backbone_identity
from diffcut_bench.store import cell_key

_PATCHES = 8  # a side of the test images
# Sums of different batches may be taken in different orders; what exceeds this many epsilons of the largest value
# is no rounding.
_ROUNDING = 256
_CONTRACT = "docs/adding_a_backbone.md says what a backbone has"


@dataclass(frozen=True)
class _Finding:
    what: str
    value: str
    fine: bool = True


def check(options: argparse.Namespace) -> int:
    """Report shape, type, determinism, batch invariance and key; 1 where a backbone breaks its contract."""
    config = load_config(options.overrides)
    device = choose_device(config.device)
    backbone = instantiate("backbone", config.backbone).to(device)
    missing = [name for name in ("name", "stride", "channels") if not hasattr(backbone, name)]
    if missing:
        raise UserError(f"the backbone has no {', '.join(missing)}", f"backbone={type(backbone).__name__}", _CONTRACT)
    source = FeatureSource(backbone, Framing.of(build_protocol(config.protocol), backbone), device)
    side = _PATCHES * backbone.stride
    images = torch.rand(2, 3, side, side // 2, generator=torch.Generator().manual_seed(0))
    try:
        first = source.compute(images)
        identity = backbone_identity(backbone, config.backbone)
        key = cell_key(identity)
    except UserError:
        raise
    except Exception as error:  # whatever a new backbone raises is the finding
        where = f"backbone={type(backbone).__name__}, images {list(images.shape)}"
        raise UserError(f"{type(error).__name__}: {error}", where, _CONTRACT) from error
    again = backbone_identity(backbone, config.backbone)
    findings = [
        _Finding("input", f"{side}×{side // 2} pixels, 2 images"),
        _shape(first, (2, backbone.channels, _PATCHES, _PATCHES // 2)),
        _Finding("stride", f"{backbone.stride} pixels a patch"),
        _Finding("image size", str(backbone.image_size or f"{config.protocol['image_size']}, the protocol's")),
        _Finding("dtype", f"{first.dtype} on {first.device}"),
        _Finding("finite", "yes" if first.isfinite().all() else "NO", bool(first.isfinite().all())),
        _Finding("varies", "yes" if first.float().std() > 0 else "NO", bool(first.float().std() > 0)),
        _difference("deterministic", first, source.compute(images), exact=True),
        _difference("batch of 1 = batch of 2", first[:1], source.compute(images[:1]), exact=False),
        _difference(
            "neighbour's colours",
            first[:1],
            source.compute(images * torch.tensor([1.0, 0.5])[:, None, None, None])[:1],
            exact=False,
        ),
    ]
    findings += [_Finding(name, str(value)) for name, value in identity.items() if name != "_target_"]
    constant = again == identity
    findings.append(_Finding("key", key if constant else f"NO: {key}, and another when asked again", constant))
    table = Table(show_header=False, show_edge=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for finding in findings:
        table.add_row(finding.what, escape(finding.value))
    console.print(table)
    broken = [finding.what for finding in findings if not finding.fine]
    console.print(f"breaks its contract: {', '.join(broken)}" if broken else "keeps its contract")
    return 1 if broken else 0


def _shape(features: Tensor, expected: tuple[int, ...]) -> _Finding:
    found = tuple(features.shape)
    wrong = "" if found == expected else f", NOT {list(expected)} as stride and channels say"
    if found != expected and len(found) != 4:
        raise UserError(f"features have the shape {list(found)}", "the backbone", "give [batch, channels, rows, cols]")
    return _Finding("features", f"{list(found)}{wrong}", found == expected)


def _difference(what: str, first: Tensor, second: Tensor, exact: bool) -> _Finding:
    """Whether two results agree: bit for bit, or to the rounding of their type."""
    if first.shape != second.shape:
        return _Finding(what, f"NO: {list(first.shape)} against {list(second.shape)}", False)
    greatest = (first.float() - second.float()).abs().max().item()
    allowed = 0.0 if exact else _ROUNDING * torch.finfo(first.dtype).eps * first.float().abs().max().item()
    if greatest == 0:
        return _Finding(what, "yes, bit for bit")
    fine = greatest <= allowed
    return _Finding(what, f"{'to rounding' if fine else 'NO'}: greatest difference {greatest:.2g}", fine)
