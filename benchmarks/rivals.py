"""Other packages on the same graph. They are optional, and each is asked for what it does as well as we do.

* `ncut-pytorch` gives the first k eigenvectors of a graph by a randomised SVD. Up to 8192 nodes it takes the affinities
  that it is given; beyond, it samples (Nyström), which is another job and not compared.
* scikit-learn's `spectral_embedding` gives the same by ARPACK, of the graph without its diagonal; its
  `SpectralClustering` parts a graph into a *given* number of clusters by k-means on that many eigenvectors. The
  recursive cut finds the number itself: so times side by side, and how alike the partitions are, but not the same job.
"""

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.clustering import adjusted_rand_score

from benchmarks.timing import timed
from diffcut_bench.ncut import affinity, fiedler_vector, recursive_ncut

# Beyond this ncut-pytorch samples the graph.
_WHOLE_GRAPH = 8192
# Eigenvectors that ncut-pytorch is asked for: as many as are needed, and its default, which finds them better.
_COUNTS = (2, 100)
PACKAGES = {"sklearn": "scikit-learn", "ncut_pytorch": "ncut-pytorch"}


@dataclass(frozen=True)
class Rival:
    """One job done by us and by another package, on one graph.

    Attributes:
        rival: name and version.
        job: ``second eigenvector`` or ``partition``.
        same_job: whether both do the same; a partition of a given number of clusters is not the recursive cut.
        patches: a side.
        alpha: of the affinity.
        ours_s, rival_s: seconds a graph, the least of the repeats; affinities are given for eigenvectors, and are part
            of the time of a partition.
        ratio: ``rival_s / ours_s``.
        ours_exact, rival_exact: |cosine| of the eigenvector to that of a dense solver in float64; None for partitions.
        clusters: of the partition.
        ari: adjusted Rand index of the two partitions.
    """

    rival: str
    job: str
    same_job: bool
    patches: int
    alpha: float
    ours_s: float
    rival_s: float
    ratio: float
    ours_exact: float | None = None
    rival_exact: float | None = None
    clusters: int | None = None
    ari: float | None = None


def missing_rivals() -> list[str]:
    """Packages of the extra ``rivals`` that are not installed."""
    return [name for module, name in PACKAGES.items() if find_spec(module) is None]


def compare_rivals(
    features: Tensor, patches: int, alpha: float, tau: float, *, partitions: bool = True, repeats: int = 3
) -> list[Rival]:
    """The rivals that are installed, on the graph of one image.

    Args:
        features: [nodes, channels].
        patches: a side, for the record.
        alpha, tau: of our cut.
        partitions: compare partitions too, which takes scikit-learn long.
        repeats: of each, in turns.
    """
    weights = affinity(features[None], alpha)[0]
    rows = []
    eigenvectors: dict[str, Callable[[], Tensor]] = {}
    if find_spec("ncut_pytorch") is not None and len(features) <= _WHOLE_GRAPH:
        for count in _COUNTS:
            name = f"ncut-pytorch {version('ncut-pytorch')}, k={count}"
            eigenvectors[name] = partial(_second_of_ncut_pytorch, features, weights, count)
    if find_spec("sklearn") is not None:
        eigenvectors[f"scikit-learn {version('scikit-learn')}"] = lambda: _second_of_scikit_learn(weights)
    if eigenvectors:
        exact = fiedler_vector(weights.double(), weights.double().sum(dim=1), "eigh")
    for name, solve in eigenvectors.items():
        solve()  # what it imports and compiles is not counted
        ours, rival = timed([lambda: fiedler_vector(weights, weights.sum(dim=1)), solve], repeats, features.device)
        rows.append(
            Rival(
                rival=name,
                job="second eigenvector",
                same_job=True,
                patches=patches,
                alpha=alpha,
                ours_s=ours.least,
                rival_s=rival.least,
                ratio=rival.least / ours.least,
                ours_exact=_cosine(ours.result, exact),
                rival_exact=_cosine(rival.result, exact),
            )
        )
    if partitions and find_spec("sklearn") is not None:
        rows.append(_spectral_clustering(features, patches, alpha, tau))
    return rows


def _spectral_clustering(features: Tensor, patches: int, alpha: float, tau: float) -> Rival:
    (ours,) = timed([lambda: recursive_ncut(features[None], tau, alpha)[0]], 2, features.device)
    clusters = max(int(ours.result.max()) + 1, 2)
    module = importlib.import_module("sklearn.cluster")

    def theirs() -> Tensor:
        clustering = module.SpectralClustering(clusters, affinity="precomputed", n_init=1, random_state=0)
        return torch.from_numpy(clustering.fit_predict(affinity(features[None], alpha)[0].cpu().numpy())).long()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the graph may not be connected
        (rival,) = timed([theirs], 1, features.device)
    return Rival(
        rival=f"scikit-learn {version('scikit-learn')}",
        job="partition",
        same_job=False,
        patches=patches,
        alpha=alpha,
        ours_s=ours.least,
        rival_s=rival.least,
        ratio=rival.least / ours.least,
        clusters=clusters,
        ari=adjusted_rand_score(ours.result, rival.result.to(ours.result)).item(),
    )


def _second_of_ncut_pytorch(features: Tensor, weights: Tensor, count: int) -> Tensor:
    def given(first: Tensor, second: Tensor | None = None, sigma: float = 1.0) -> Tensor:
        return weights

    module: Any = importlib.import_module("ncut_pytorch")
    vectors, _ = module.ncut_fn(features, n_eig=count, affinity_fn=given, sigma=1.0, repulsion_sigma=1.0)
    second: Tensor = vectors[:, 1].to(weights.device)
    return weights.sum(dim=1).rsqrt() * second  # eigenvector of D^-1/2 W D^-1/2 to the indicator


def _second_of_scikit_learn(weights: Tensor) -> Tensor:
    module = importlib.import_module("sklearn.manifold")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        embedding = module.spectral_embedding(
            weights.cpu().numpy(), n_components=1, eigen_solver="arpack", random_state=0, drop_first=True
        )
    return torch.from_numpy(embedding[:, 0]).to(weights)


def _cosine(first: Tensor, second: Tensor) -> float:
    return torch.nn.functional.cosine_similarity(first.double(), second.double(), dim=0).abs().item()
