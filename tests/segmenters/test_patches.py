import torch

from diffcut_bench.segmenters import Patches


def test_every_patch_is_a_segment_of_its_own():
    partition = Patches()(torch.rand(2, 3, 4, 5))
    assert partition.shape == (2, 4, 5)
    assert all(image.flatten().tolist() == list(range(20)) for image in partition)
