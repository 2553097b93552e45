import sys

import numpy as np
import pytest
import torch
from conftest import shapes_overrides
from torch.nn.functional import embedding_bag, interpolate

from diffcut_bench.config import instantiate, load_config
from diffcut_bench.refinement import BilateralUpsampler, assign_concepts, assign_concepts_by_colour
from diffcut_bench.store import read_result


def textbook(
    features: torch.Tensor,
    partition: torch.Tensor,
    image: torch.Tensor,
    sigma_space: float,
    sigma_colour: float,
    radius: int,
    *,
    cosine: bool,
) -> np.ndarray:
    """Pixel by pixel on one image, features themselves upsampled: features [c, r, c], image [3, h, w]."""
    (_, rows, cols), (_, height, width) = features.shape, image.shape
    unit = (features / features.norm(dim=0)).double().numpy()
    colours = image.double().numpy()
    means = colours.reshape(3, rows, height // rows, cols, width // cols).mean(axis=(2, 4))
    concepts = []
    for segment in range(int(partition.max()) + 1):
        inside = (partition == segment).numpy()
        mean = unit[:, inside].mean(axis=1) if inside.any() else np.full(len(unit), np.nan)
        concepts.append(mean / np.linalg.norm(mean) if cosine else mean)
    labels = np.zeros((height, width), int)
    for y in range(height):
        for x in range(width):
            v, u = (y + 0.5) * rows / height - 0.5, (x + 0.5) * cols / width - 0.5
            feature, total = np.zeros(len(unit)), 0.0
            for i in range(rows):
                for j in range(cols):
                    if max(abs(i - round(v)), abs(j - round(u))) <= radius:
                        far = ((i - v) ** 2 + (j - u) ** 2) / (2 * sigma_space**2)
                        unlike = ((colours[:, y, x] - means[:, i, j]) ** 2).sum() / (2 * sigma_colour**2)
                        feature += np.exp(-far - unlike) * unit[:, i, j]
                        total += np.exp(-far - unlike)
            labels[y, x] = np.nanargmax([concept @ feature / total for concept in concepts])
    return labels


def scene(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two images; the second lacks segment 1, the first has all five."""
    generator = torch.Generator().manual_seed(seed)
    partition = torch.randint(0, 5, (2, 6, 5), generator=generator)
    partition[0, 0] = torch.arange(5)
    partition[1][partition[1] == 1] = 4
    features = torch.rand(2, 12, 6, 5, generator=generator)
    return features, partition, 0.4 * torch.rand(2, 3, 18, 20, generator=generator)


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
@pytest.mark.parametrize("settings", [(1.0, 0.2, 2), (0.5, 0.1, 1), (3.0, 0.05, 9), (1.0, 1.0, 0)])
def test_equals_the_textbook_version(settings, similarity):
    features, partition, image = scene()
    ours = assign_concepts_by_colour(features, partition, image, similarity, *settings)
    for i in range(2):
        expected = textbook(features[i], partition[i], image[i], *settings, cosine=similarity == "cosine")
        assert (ours[i].numpy() == expected).mean() > 0.99, "but ties to the last digit"
    assert not (ours[1] == 1).any(), "a segment that the image has not"


def test_moves_a_border_to_the_edge_in_the_picture():
    image = torch.zeros(1, 3, 32, 32)
    image[..., 13:] = 1.0  # within the second of four columns of patches
    partition = torch.zeros(1, 4, 4, dtype=torch.long)
    partition[..., 2:] = 1
    features = torch.zeros(1, 2, 4, 4)
    features[:, 0], features[:, 1] = partition == 0, partition == 1
    edge = (image[:, 0] > 0.5).long()
    assert torch.equal(
        assign_concepts(features, partition, (32, 32)), interpolate(partition[None].float(), (32, 32))[0]
    )
    assert torch.equal(assign_concepts_by_colour(features, partition, image, sigma_colour=0.3), edge)


def test_a_picture_of_one_colour_keeps_the_patches_and_one_patch_is_one_segment():
    features, partition, image = scene()
    plain = assign_concepts_by_colour(features, partition, torch.full_like(image, 0.5), radius=0)
    own = assign_concepts(features, partition, (6, 5))
    assert torch.equal(plain, own.repeat_interleave(3, 1).repeat_interleave(4, 2))
    one = assign_concepts_by_colour(torch.zeros(1, 3, 1, 1), torch.zeros(1, 1, 1, dtype=torch.long), image[:1])
    assert not one.any()


def test_colours_far_from_all_patches_leave_no_pixel_undecided():
    features, partition, image = scene()
    image[:, :, ::2] = 1.0  # a thousand sigmas from the mean of any patch
    found = assign_concepts_by_colour(features, partition, image, sigma_colour=1e-3)
    assert all(
        set(one.unique().tolist()) <= set(own.unique().tolist()) for one, own in zip(found, partition, strict=True)
    )


def test_a_batch_equals_its_images_and_strips_leave_no_trace(monkeypatch):
    features, partition, image = scene()
    both = assign_concepts_by_colour(features, partition, image)
    for i in range(2):
        one = slice(i, i + 1)
        assert torch.equal(assign_concepts_by_colour(features[one], partition[one], image[one])[0], both[i])
    monkeypatch.setattr(sys.modules["diffcut_bench.refinement.bilateral"], "_CHUNK_VALUES", 7 * 20 * 75)
    assert torch.equal(assign_concepts_by_colour(features, partition, image), both)


def test_a_mirrored_picture_gives_the_mirrored_map():
    features, partition, image = scene()
    mirrored = assign_concepts_by_colour(features.flip(-1), partition.flip(-1), image.flip(-1))
    assert (mirrored.flip(-1) == assign_concepts_by_colour(features, partition, image)).float().mean() > 0.99


def test_memory_is_a_strip_whatever_the_number_of_segments(monkeypatch):
    sizes = []

    def noting(patches, table, *, mode, per_sample_weights):
        found = embedding_bag(patches, table, mode=mode, per_sample_weights=per_sample_weights)
        sizes.extend(each.numel() for each in (patches, per_sample_weights, found))
        return found

    module = sys.modules["diffcut_bench.refinement.bilateral"]
    monkeypatch.setattr(module, "_CHUNK_VALUES", 1 << 14)
    monkeypatch.setattr(module, "embedding_bag", noting)
    partition = torch.arange(64).view(1, 8, 8)
    assign_concepts_by_colour(torch.rand(1, 4, 8, 8), partition, torch.rand(1, 3, 64, 64))
    assert max(sizes) <= 1 << 14 and sum(sizes) > 64 * 64 * 64


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"sigma_space": 0.0}, "sigma_space"),
        ({"sigma_colour": -1.0}, "sigma_colour"),
        ({"sigma_colour": float("nan")}, "sigma_colour"),
        ({"radius": -1}, "radius"),
    ],
)
def test_an_option_out_of_range_is_named(options, named):
    with pytest.raises(ValueError, match=named):
        BilateralUpsampler(**options)


def test_a_segment_without_patches_wins_no_pixel():
    """Neither of the others is like the patch that points away from both."""
    features = torch.tensor([[1.0, 0], [1, 0], [1, 0], [-1, 0], [1, 1], [1, 1]]).T.view(1, 2, 2, 3)
    partition = torch.tensor([[[0, 0, 0], [0, 2, 2]]])
    labels = assign_concepts_by_colour(features, partition, torch.rand(1, 3, 8, 12), radius=0)
    assert labels.unique().tolist() == [0, 2]


def test_the_yaml_has_the_defaults():
    assert instantiate("upsampler", load_config(["upsampler=bilateral"]).upsampler) == BilateralUpsampler()


def test_the_option_does_what_the_function_does():
    features, partition, image = scene()
    ours = BilateralUpsampler("cosine", 0.7, 0.3, 1)(features, partition, (18, 20), image)
    assert torch.equal(ours, assign_concepts_by_colour(features, partition, image, "cosine", 0.7, 0.3, 1))


def test_a_run_shows_it_the_picture_and_finer_partitions_are_refused(cli, shapes, tmp_path):
    base = [*shapes_overrides(shapes, tmp_path / "out"), "upsampler=bilateral", "refiner=none", "limit=2"]
    done = cli("run", *base, "backbone=colour", "protocol=strict")
    assert done.code == 0, done.err
    (cell,) = (tmp_path / "out").glob("results/*")
    result = read_result(cell)
    assert result.config["upsampler"]["similarity"] == "cosine" and not result.failures
    refused = cli("run", *base, "segmenter=diffseg", "backbone=efficientnet_lite0")
    assert refused.code == 2 and "use upsampler=nearest" in refused.err


@pytest.mark.parametrize("far", [1e-300, 1e300])
@pytest.mark.parametrize("name", ["sigma_space", "sigma_colour"])
def test_sigmas_without_end_are_those_of_a_limit(name, far):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, 4, 5, 6, generator=generator)
    partition = torch.randint(4, (1, 5, 6), generator=generator)
    image = torch.rand(1, 3, 20, 25, generator=generator)
    near = 1e-6 if far < 1 else 1e6
    found = assign_concepts_by_colour(features, partition, image, **{name: far})
    assert torch.equal(found, assign_concepts_by_colour(features, partition, image, **{name: near}))
    assert len(found.unique()) > 1


def test_no_patch_lies_beyond_the_map():
    generator = torch.Generator().manual_seed(0)
    given = torch.randn(1, 4, 3, 4, generator=generator), torch.randint(3, (1, 3, 4), generator=generator)
    image = torch.rand(1, 3, 12, 12, generator=generator)
    found = assign_concepts_by_colour(*given, image, radius=10**9)
    assert torch.equal(found, assign_concepts_by_colour(*given, image, radius=3))


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf")])
def test_a_sigma_out_of_range_is_named(value):
    for name in ("sigma_space", "sigma_colour"):
        with pytest.raises(ValueError, match=name):
            BilateralUpsampler(**{name: value})
