import torch
from conftest import same_partition

from diffcut_bench.ncut import ncut_tree
from diffcut_bench.refinement import assign_concepts, assign_cut_by_cut


def noisy_map(seed: int = 0) -> torch.Tensor:
    """A feature map [1, channels, rows, cols] of a few kinds of patches, with noise."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.randn(9, 12, generator=generator)
    which = torch.randint(9, (4, 4), generator=generator).repeat_interleave(3, 0).repeat_interleave(3, 1)
    return (kinds[which] + 0.7 * torch.randn(12, 12, 12, generator=generator)).permute(2, 0, 1)[None]


def descend(features: torch.Tensor, max_tau: float, size: tuple[int, int]) -> torch.Tensor:
    (tree,) = ncut_tree(features.flatten(2).mT, max_tau=max_tau, alpha=10).images
    assert len(tree.parents) > 2
    return assign_cut_by_cut(features[0], tree.sides, tree.divided, size)


def test_segments_at_a_tau_are_unions_of_those_at_a_greater_one():
    features = noisy_map()
    coarse, fine = descend(features, 0.7, (60, 45)), descend(features, 0.9, (60, 45))
    of_fine = torch.unique(torch.stack([fine.flatten(), coarse.flatten()]), dim=1)
    assert len(fine.unique()) > len(coarse.unique()) > 3
    assert of_fine.shape[1] == len(fine.unique())  # each fine one lies in one coarse one


def test_one_cut_is_the_concept_assignment_of_two_segments():
    features = noisy_map(1)
    (tree,) = ncut_tree(features.flatten(2).mT, max_tau=0.9, alpha=10).images
    for similarity in ("dot", "cosine"):
        found = assign_cut_by_cut(features[0], tree.sides[:1], [0], (50, 70), similarity)
        expected = assign_concepts(features, tree.sides[:1].long().view(1, 12, 12), (50, 70), similarity)
        assert len(found.unique()) == 2
        assert same_partition(found, expected[0])


def test_without_cuts_there_is_one_region():
    nothing = torch.zeros(0, 144, dtype=torch.bool)
    assert (assign_cut_by_cut(noisy_map()[0], nothing, [], (7, 5)) == 0).all()
