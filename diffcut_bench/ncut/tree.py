"""The cuts of a recursion, and the segments that they make at any tau. Knows tensors only.

One recursion at the largest tau answers every smaller one: a bipartition does not depend on tau, and a cut made at
tau is made at every larger tau. So each cut is kept with its cost.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diffcut_bench.ncut.settings import LabelCodes

_CHECK_EVERY = 16


@dataclass(frozen=True)
class ImageTree:
    """The cuts of one image in depth-first order: a cut, the sub-tree of its ``y > threshold`` side, that of the other.

    Attributes:
        costs: NCut of each cut.
        parents: index of the cut that made the sub-graph which this one divides; -1 for the root.
        sides: for each cut, the patches on its ``y > threshold`` side (False: on the other, or not in its sub-graph).
    """

    costs: Float[Tensor, " cuts"]
    parents: list[int]
    sides: Bool[Tensor, "cuts nodes"]

    @cached_property
    def reached_at(self) -> Float[Tensor, " cuts"]:
        """The recursion makes a cut at every tau above this: the greatest cost among it and the cuts that led to it."""
        return torch.tensor(_reached_at([self])[0], dtype=self.costs.dtype, device=self.costs.device)

    @cached_property
    def divided(self) -> list[int]:
        """Region that each cut divides: c + 1 for the first side of cut c, less what later cuts take of it; 0 for the
        rest of the image."""
        # The first side of a cut lies on one side of its parent, whole. Of a root, whose parent is -1, nothing is said.
        on_first_side = (self.sides & self.sides[self.parents]).any(dim=1).tolist() if self.parents else []
        divided: list[int] = []
        for parent, first in zip(self.parents, on_first_side, strict=True):
            divided.append(0 if parent < 0 else parent + 1 if first else divided[parent])
        return divided


def _reached_at(trees: list[ImageTree]) -> list[list[float]]:
    """`ImageTree.reached_at` of all trees, by one transfer to the host."""
    costs = iter(torch.cat([tree.costs for tree in trees]).tolist())
    reached: list[list[float]] = []
    for tree in trees:
        one: list[float] = []
        for parent in tree.parents:
            cost = next(costs)
            one.append(cost if parent < 0 else max(cost, one[parent]))
        reached.append(one)
    return reached


@dataclass(frozen=True)
class _Regions:
    """What the labels of a batch of trees need, for any tau: the regions that the cuts make, not the patches.

    Region c + 1 of an image is the first side of its cut c, region 0 all of it. A patch with equal bit strings over
    the cuts made lies in the same last region: so one number a patch and one table of regions answer every tau.

    Attributes:
        region: last region that holds the patch when every cut is made.
        within: for each region the last earlier one that holds it; 0 for region 0.
        reached_at: of the region's cut; −inf for region 0, inf where an image has fewer cuts than another.
        reached_on_host: of each image's cuts, for what the host has to know of them.
        bits: for the patches of each region, the cuts whose first side they are on.
    """

    region: Int[Tensor, "batch nodes"]
    within: Int[Tensor, "batch regions"]
    reached_at: Float[Tensor, "batch regions"]
    reached_on_host: list[list[float]]
    bits: Bool[Tensor, "batch cuts regions"]

    @classmethod
    def of(cls, trees: list[ImageTree]) -> "_Regions":
        pad = torch.nn.utils.rnn.pad_sequence
        sides = pad([tree.sides for tree in trees], batch_first=True)  # batch × cuts × patches
        on_host = _reached_at(trees)
        reached = pad([torch.tensor(one) for one in on_host], batch_first=True, padding_value=torch.inf)
        (batch, cuts, n), device = sides.shape, sides.device
        region = _last_region(sides)
        # First sides are nested or disjoint, so an earlier one that holds a patch of a later one holds all of it.
        patch = sides.to(torch.uint8).argmax(dim=2)  # one of each first side
        holds = sides.gather(2, patch[:, None].expand(-1, cuts, -1)).triu(1)  # batch × earlier cuts × cuts
        # All patches of a last region have the same bits. A region that is nobody's last one takes those of patch 0.
        member = torch.zeros(batch, cuts + 1, dtype=torch.int64, device=device)
        member.scatter_(1, region, torch.arange(n, device=device).expand(batch, -1))
        return cls(
            region,
            torch.nn.functional.pad(_last_region(holds), (1, 0)),
            torch.nn.functional.pad(reached, (1, 0), value=-torch.inf).to(trees[0].costs, non_blocking=True),
            on_host,
            sides.gather(2, member[:, None].expand(-1, cuts, -1)),
        )

    def labels(self, tau: float, label_codes: LabelCodes) -> Int[Tensor, "batch nodes"]:
        """Segment of each patch at ``tau``, contiguous from 0 within each image."""
        made = self.reached_at < tau
        made[:, 0] = True
        if label_codes == "float32":
            cuts = made[:, 1:]
            first = cuts.to(torch.uint8).argsort(dim=1, descending=True, stable=True)  # made ones first, in their order
            limit = torch.tensor(tau, dtype=self.reached_at.dtype).item()  # as the cuts on the device are compared with
            first = first[:, : max(sum(reached < limit for reached in image) for image in self.reached_on_host)]
            bits = self.bits.gather(1, first[:, :, None].expand(-1, -1, self.bits.shape[2]))
            # Each region's sum becomes its rank among the sums; equal ones share a rank.
            codes = _float32_codes(bits, cuts.sum(dim=1))
            ascending, order = codes.sort(dim=1)
            step = torch.nn.functional.pad((ascending.diff(dim=1) > 0).long().cumsum(dim=1), (1, 0))
            codes = torch.empty_like(step).scatter_(1, order, step)
        else:
            # From a region whose cut is not made, climb to the one that holds it, until the cut of that is made.
            codes = torch.where(made, torch.arange(made.shape[1], device=made.device), self.within)
            for _ in range(made.shape[1].bit_length()):  # each round doubles the number of regions climbed
                codes = codes.gather(1, codes)
        return contiguous(codes.gather(1, self.region), self.within.shape[1])


def contiguous(labels: Int[Tensor, "batch *shape"], ids: int | None = None) -> Int[Tensor, "batch *shape"]:
    """The same partition of each image, numbered from 0 without gaps, in the order of the old numbers.

    Args:
        labels: ids from 0.
        ids: all labels are below it. None: it is read from them, for which the device is waited for.
    """
    flat = labels.flatten(1)
    ids = int(flat.max()) + 1 if ids is None else ids
    used = torch.zeros(len(flat), ids, dtype=torch.int64, device=flat.device).scatter_(1, flat, 1)
    return (used.cumsum(dim=1) - 1).gather(1, flat).view_as(labels)


def _last_region(sides: Bool[Tensor, "batch cuts items"]) -> Int[Tensor, "batch items"]:
    """Region of the last cut that has the item on its first side; 0: no cut has."""
    cuts = sides.shape[1]
    # The products are the largest tensor that a tree makes, so numbers of few bytes.
    number = torch.arange(1, cuts + 1, dtype=torch.int16 if cuts < 1 << 15 else torch.int32, device=sides.device)
    products = sides * number[:, None]
    # Not padded: torch 2.6 pads no tensor without items, and without cuts there are none.
    return torch.cat([products.new_zeros(len(sides), 1, sides.shape[2]), products], dim=1).amax(dim=1).long()


def _float32_codes(
    sides: Bool[Tensor, "batch cuts nodes"], counts: Int[Tensor, " batch"]
) -> Float[Tensor, "batch nodes"]:
    """The released code's segment codes: sums of bits in float32, which round from about 24 cuts on.

    Only the first ``counts`` cuts of an image take part.
    """
    code = torch.zeros(len(sides), sides.shape[2], dtype=torch.float32, device=sides.device)
    takes_part = torch.arange(sides.shape[1] + 1, device=sides.device)[:, None, None] < counts[:, None]
    bits = (sides & takes_part[:-1].transpose(0, 1)).to(torch.float32)
    step = takes_part[0].to(
        torch.float32
    )  # 0 for the others: a bit of 0 is not enough, an infinite step times 0 is NaN
    for cut, bit in enumerate(bits.unbind(dim=1)):
        code = torch.addcmul(code, step, bit)
        step = torch.where(takes_part[cut + 1], code.amax(dim=1, keepdim=True) + 1, 0.0)
        # Overflowed sums stay NaN: there is no need to add up the hundreds of cuts that may follow. An accelerator
        # adds them sooner than it is asked.
        asked = cut % _CHECK_EVERY == _CHECK_EVERY - 1 and code.device.type == "cpu"
        if asked and bool((code.isnan().all(dim=1) | ~takes_part[cut, :, 0]).all()):
            break
    return code.nan_to_num(nan=-1.0, posinf=torch.inf)  # every NaN is one segment there


@dataclass(frozen=True)
class NCutTree:
    """The recursion of a batch of images at ``max_tau``; `labels` reads any smaller tau from it.

    Attributes:
        images: one `ImageTree` an image.
        max_tau: the threshold that the recursion ran at.
        label_codes: how bit strings over the cuts become segments.
    """

    images: list[ImageTree]
    max_tau: float
    label_codes: LabelCodes = "exact"

    def labels(self, tau: float, label_codes: LabelCodes | None = None) -> Int[Tensor, "batch nodes"]:
        """Segments at ``tau``: equal to ``recursive_ncut(…, tau=tau)``.

        Args:
            tau: NCut threshold, 0 <= tau <= ``max_tau``.
            label_codes: other than the tree's own.

        Returns:
            Segment ids, contiguous from 0 within each image; their numbering carries no meaning.

        Raises:
            ValueError: ``tau`` is above ``max_tau``, where the tree has no answer.
        """
        if not 0 <= tau <= self.max_tau:
            raise ValueError(f"this tree answers 0 <= tau <= {self.max_tau}, not {tau}")
        return self._regions.labels(tau, label_codes or self.label_codes)

    @cached_property
    def _regions(self) -> _Regions:
        return _Regions.of(self.images)
