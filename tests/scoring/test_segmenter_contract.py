"""``check segmenter=…``: every option keeps the contract, and segmenters that break it are told how."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from diffcut_bench.config import known_options, load_config
from diffcut_bench.errors import UserError
from diffcut_bench.scoring.segmenter_contract import IMAGE_IDS, check_segmenter, planted_inputs, planted_regions


@pytest.fixture
def made_elsewhere(tmp_path):
    """The planted regions as another program might have written them: PNGs, contour maps of every strength 1, and
    centroids."""
    regions, features = planted_regions(), planted_inputs(0, torch.device("cpu")).features.movedim(1, 3)
    centroids = torch.stack([features[regions == region].mean(dim=0) for region in range(4)])
    torch.save({"cluster_probe.clusters": centroids}, tmp_path / "head.pth")
    for image_id, regions in zip(IMAGE_IDS, planted_regions().numpy(), strict=True):
        pixels = regions.repeat(16, 0).repeat(16, 1)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{image_id}.png")
        contours = np.zeros((2 * pixels.shape[0] + 1, 2 * pixels.shape[1] + 1))
        contours[1:-1:2, 2:-1:2] = pixels[:, :-1] != pixels[:, 1:]
        contours[2:-1:2, 1:-1:2] = pixels[:-1] != pixels[1:]
        contours[2:-1:2, 2:-1:2] = 1
        savemat(tmp_path / f"{image_id}.mat", {"ucm2": contours})
    return tmp_path


@pytest.mark.parametrize("option", known_options("segmenter"))
def test_every_option_keeps_the_contract(option, made_elsewhere):
    own = [f"segmenter.folder={made_elsewhere}"] if option in ("precomputed", "ucm") else []
    if option == "cluster_probe":
        own = [f"segmenter.checkpoint={made_elsewhere / 'head.pth'}", "segmenter.projection=none"]
    findings = {each.what: each for each in check_segmenter(load_config([f"segmenter={option}", *own]))}
    assert not [each for each in findings.values() if not each.fine]
    assert findings["key"].value and "order of the batch" in findings
    if option in ("agglomerative", "autosc", "falcon", "kmeans", "kway_ncut", "oracle", "precomputed"):
        assert findings["planted regions"].value == "4 for 4 and 3 for 3; 100% and 100% of the area agree"


@pytest.mark.parametrize(
    ("option", "lacks"), [("precomputed", "folder"), ("ucm", "folder"), ("cluster_probe", "checkpoint")]
)
def test_what_an_option_lacks_is_said(option, lacks, cli):
    done = cli("check", f"segmenter={option}")
    assert done.code == 2
    assert f"segmenter.{lacks} is not set" in done.err


class ByTheBatch:
    """Above the mean of the whole batch."""

    def __call__(self, features):
        grey = features.mean(dim=1)
        return (grey > grey.mean()).long()


class Drawn:
    def __call__(self, features):
        return torch.randint(0, 3, (len(features), *features.shape[2:]))


class Reusing(Drawn):
    """The same, in memory that every call writes anew."""

    segments = torch.zeros(2, *planted_regions().shape[1:], dtype=torch.long)

    def __call__(self, features):
        self.segments[: len(features)] = super().__call__(features)
        return self.segments[: len(features)]


class Counting:
    """Says that a number means the same in all images, and counts on from image to image."""

    consistent_ids = True

    def __call__(self, labels):
        return labels + 5 * torch.arange(len(labels))[:, None, None]


class Dividing:
    """Can't do without a contrast."""

    def __call__(self, image):
        grey = image.mean(dim=0)
        if grey.max() == grey.min():
            raise ZeroDivisionError("no contrast")
        return ((grey - grey.min()) / (grey.max() - grey.min()) > 0.5).long()


class Renumbering:
    """The same regions in other numbers where another image is beside them: allowed."""

    def __call__(self, labels):
        return labels + len(labels)


class Wide:
    def __call__(self, features):
        return torch.zeros(len(features), 3, 3, dtype=torch.long)


class Soft:
    def __call__(self, features):
        return features.softmax(dim=1)[:, 0]


def checked(kind):
    return load_config(["segmenter=one_segment", f"segmenter._target_={__name__}.{kind.__name__}"])


@pytest.mark.parametrize(
    ("kind", "broken"),
    [
        (ByTheBatch, {"batch of 1 = batch of 2", "another neighbour"}),
        (Drawn, {"deterministic", "batch of 1 = batch of 2", "another neighbour", "order of the batch"}),
        (Reusing, {"deterministic", "batch of 1 = batch of 2", "another neighbour", "order of the batch"}),
        (Counting, {"consistent ids"}),
        (Dividing, {"a plain picture"}),
        (Renumbering, set()),
    ],
)
def test_a_broken_contract_is_told(kind, broken):
    findings = {each.what: each for each in check_segmenter(checked(kind))}
    assert {what for what, each in findings.items() if not each.fine} == broken
    if kind is Renumbering:
        assert findings["batch of 1 = batch of 2"].value == "yes, with other numbers"
    if kind is Dividing:
        assert "ZeroDivisionError: no contrast" in findings["a plain picture"].value


@pytest.mark.parametrize(("kind", "said"), [(Wide, r"\[2, 3, 3\]"), (Soft, "float32")])
def test_what_are_no_segments_is_an_error(kind, said):
    with pytest.raises(UserError, match=said):
        check_segmenter(checked(kind))


def test_the_command_prints_it(cli):
    fine = cli("check", "segmenter=kmeans")
    assert fine.code == 0
    assert "4 for 4 and 3 for 3" in fine.out and "keeps its contract" in fine.out
    assert "stride" not in fine.out, "the backbone was not asked for"
    broken = cli("check", "segmenter=one_segment", f"segmenter._target_={__name__}.{ByTheBatch.__name__}")
    assert broken.code == 1
    assert "breaks its contract: batch of 1 = batch of 2, another neighbour" in broken.out
    both = cli("check", "segmenter=grid", "backbone=colour")
    assert both.code == 0 and both.out.count("keeps its contract") == 2


def test_attention_is_on_what_is_not_ground():
    features = planted_inputs(3, torch.device("cpu")).features
    attention, regions = features[:, -3:].mean(dim=1), planted_regions()
    assert attention[regions > 0].min() > attention[regions == 0].max()
