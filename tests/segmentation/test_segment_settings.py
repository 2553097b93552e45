import numpy as np
import pytest
import skimage.data
from PIL import Image

import diffcut_bench
from diffcut_bench.config import load_config
from diffcut_bench.segmentation import PictureSegmenter, picture_config


def test_the_defaults_of_segment_are_those_of_its_settings():
    config = picture_config([])
    assert config.choices["backbone"] == "efficientnet_lite0_blocks"
    assert (config.segmenter["tau"], config.segmenter["alpha"]) == (0.45, 5)
    assert (config.protocol["name"], config.smallest_segment) == ("strict", 0.002)


def test_scoring_keeps_its_defaults():
    config = load_config([])
    assert config.choices["backbone"] == "efficientnet_lite0"
    assert (config.segmenter["tau"], config.segmenter["alpha"], config.smallest_segment) == (0.5, 5, 0)


@pytest.mark.parametrize(
    ("overrides", "backbone"),
    [
        (["backbone=efficientnet_lite0"], "efficientnet_lite0"),
        (["backbone=colour", "backbone.stride=16"], "colour"),
        (["backbone.stride=16"], "efficientnet_lite0_blocks"),
        (["segmenter=tokencut"], "dino_s16_keys"),
        (["segmenter=slic"], "none"),
    ],
)
def test_what_the_user_chooses_goes_before_the_defaults(overrides, backbone):
    config = picture_config([*overrides, "smallest_segment=0"])
    assert (config.choices["backbone"], config.smallest_segment) == (backbone, 0)
    assert config.backbone.get("stride", 16) == 16


def test_command_and_python_segment_alike(tmp_path, cli):
    picture = skimage.data.coffee()[::2, ::2]
    Image.fromarray(picture).save(tmp_path / "cup.png")
    done = cli("segment", tmp_path / "cup.png", f"output_dir={tmp_path}")
    assert done.code == 0, done.err
    written = np.asarray(Image.open(tmp_path / "segments" / "cup_labels.png"))
    assert f"{written.max() + 1} segments" in done.out
    for result in (diffcut_bench.segment(picture), PictureSegmenter()(picture)):
        assert np.array_equal(result.labels, written)
        assert 1 < result.num_segments < 10
