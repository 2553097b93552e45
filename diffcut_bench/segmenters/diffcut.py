"""DiffCut: recursive Normalized Cut of patch features."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from diffcut_bench.ncut import recursive_ncut
from diffcut_bench.ncut.fiedler import Solver
from diffcut_bench.ncut.recursive import LabelCodes, ZeroAffinity, check_arguments


@dataclass(frozen=True)
class DiffCut:
    """`diffcut_bench.ncut.recursive_ncut` on a feature map; its arguments are described there.

    Raises:
        ValueError: an argument is out of range.
    """

    tau: float = 0.5
    alpha: float = 10
    solver: Solver = "lanczos"
    zero_affinity: ZeroAffinity = "drop"
    label_codes: LabelCodes = "exact"
    splitting_points: int = 100

    def __post_init__(self) -> None:
        check_arguments(self.tau, self.alpha, self.solver, self.zero_affinity, self.label_codes, self.splitting_points)

    def __call__(self, features: Float[Tensor, "batch channels rows cols"]) -> Int[Tensor, "batch rows cols"]:
        """Partition of each feature map."""
        labels = recursive_ncut(
            features.flatten(2).transpose(1, 2),
            self.tau,
            self.alpha,
            solver=self.solver,
            zero_affinity=self.zero_affinity,
            label_codes=self.label_codes,
            splitting_points=self.splitting_points,
        )
        return labels.unflatten(1, features.shape[-2:])
