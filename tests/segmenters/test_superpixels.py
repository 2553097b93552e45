import pytest
import torch
from conftest import same_partition, shapes_overrides
from skimage.data import astronaut
from skimage.segmentation import felzenszwalb, slic

from diffcut_bench.config import load_config
from diffcut_bench.scoring.passes import run_cell
from diffcut_bench.segmenters import Felzenszwalb, Slic

PIXELS = astronaut()[::4, ::5][:, :100]
PHOTO = torch.from_numpy(PIXELS).permute(2, 0, 1).float() / 255


def contiguous(ids: torch.Tensor) -> bool:
    return torch.equal(ids.unique(), torch.arange(int(ids.max()) + 1))


def test_slic_is_scikit_images():
    ids = Slic(segments=20, compactness=5, sigma=0.5)(PHOTO)
    assert ids.shape == PHOTO.shape[1:] and ids.dtype == torch.long and contiguous(ids)
    expected = slic(PIXELS / 255, n_segments=20, compactness=5, sigma=0.5, start_label=1, channel_axis=-1)
    assert same_partition(ids, expected)
    assert 1 < int(ids.max()) + 1 <= 20
    assert int(Slic(segments=60)(PHOTO).max()) > int(ids.max())


def test_felzenszwalb_is_scikit_images():
    ids = Felzenszwalb(scale=80, sigma=0.5, min_size=30)(PHOTO)
    assert ids.shape == PHOTO.shape[1:] and ids.dtype == torch.long and contiguous(ids)
    expected = felzenszwalb(PIXELS / 255, scale=80, sigma=0.5, min_size=30, channel_axis=-1)
    assert same_partition(ids, expected)
    assert int(ids.flatten().bincount().min()) >= 30
    assert Felzenszwalb(scale=8)(PHOTO).max() > Felzenszwalb(scale=800)(PHOTO).max()


def test_two_colours_are_two_segments():
    image = torch.zeros(3, 40, 60)
    image[:, :, 30:] = torch.tensor([0.9, 0.2, 0.1])[:, None, None]
    assert same_partition(Felzenszwalb(sigma=0)(image), image[0] > 0)
    # A border of one colour may not run through a superpixel, however few they are.
    ids = Slic(segments=8, compactness=0.1, sigma=0)(image)
    assert not set(ids[:, :30].unique().tolist()) & set(ids[:, 30:].unique().tolist())


@pytest.mark.parametrize("name", ["slic", "felzenszwalb"])
def test_a_run_computes_no_features_and_scores_the_pictures(shapes, tmp_path, name):
    base = [o for o in shapes_overrides(shapes, tmp_path / "out") if not o.startswith("backbone")]
    cell = run_cell(load_config([*base, f"segmenter={name}", "refiner=none"]))
    assert cell.result.config["choices"]["backbone"] == "none"
    assert cell.result.timings.features_s == 0
    assert cell.result.segments_per_image.max > 1
    assert not cell.result.failures


def test_check_their_arguments_at_once():
    for kind, wrong in (
        (Slic, {"segments": 0}),
        (Slic, {"compactness": 0}),
        (Slic, {"sigma": -1}),
        (Felzenszwalb, {"scale": 0}),
        (Felzenszwalb, {"min_size": 1.5}),
        (Felzenszwalb, {"sigma": -1}),
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            kind(**wrong)
