"""The settings of a cut: one checked value, handed on whole. Knows tensors only."""

from dataclasses import dataclass
from typing import Literal, get_args

from diffcut_bench.ncut.arguments import check_choice, check_count, check_number, check_positive

Solver = Literal["lanczos", "block", "eigh"]
ZeroAffinity = Literal["drop", "keep"]
LabelCodes = Literal["exact", "float32"]


@dataclass(frozen=True, kw_only=True)
class NCutSettings:
    """How graphs are cut. Tau and alpha, which are varied while these stay, are given beside them.

    Args:
        solver: of the eigenvectors. ``lanczos``: one vector a graph, iterated by Lanczos' method; on an accelerator
            ``block`` takes its place. ``block``: sixteen vectors a graph, which the host never has to wait for.
            ``eigh``: the whole spectrum, always dense.
        zero_affinity: ``drop``: below the root a patch with an affinity of exactly 0 takes no part in further cuts
            (the released computation); ``keep``: every patch stays in its sub-graph.
        label_codes: ``exact``: patches share a segment if they lie on the same side of every cut; ``float32``: the
            released code's rounding sums of bits, which merge segments from about 24 cuts on.
        splitting_points: thresholds tried for each cut.
        max_memory_gib: working memory. Images are taken together as far as it allows; one takes two N×N matrices, by
            ``block`` three.

    Raises:
        ValueError: an argument is out of range; the message names it.
    """

    solver: Solver = "lanczos"
    zero_affinity: ZeroAffinity = "drop"
    label_codes: LabelCodes = "exact"
    splitting_points: int = 100
    max_memory_gib: float = 4

    def __post_init__(self) -> None:
        check_choice("solver", self.solver, get_args(Solver))
        check_choice("zero_affinity", self.zero_affinity, get_args(ZeroAffinity))
        check_choice("label_codes", self.label_codes, get_args(LabelCodes))
        check_count("splitting_points", self.splitting_points, 1)
        check_positive("max_memory_gib", self.max_memory_gib)


def check_tau_and_alpha(tau: object, alpha: object) -> None:
    """Raise a ValueError that names whichever is out of range."""
    check_number("tau", tau, 0, 1)
    check_positive("alpha", alpha)
