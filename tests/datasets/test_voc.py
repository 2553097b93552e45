from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffcut_bench.datasets import voc
from diffcut_bench.errors import UserError

RAW = np.array([[0, 1, 20, 255], [15, 15, 0, 255]], dtype=np.uint8)


@pytest.fixture
def devkit(tmp_path: Path) -> Path:
    top = tmp_path / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (top / name).mkdir(parents=True)
    for image_id in ("2007_000033", "2007_000042", "2007_000061"):
        Image.new("RGB", (4, 2), (200, 10, 10)).save(top / "JPEGImages" / f"{image_id}.jpg")
        label = Image.fromarray(RAW).convert("P")
        label.putdata(RAW.ravel().tolist())
        label.putpalette(list(range(256)) * 3)
        label.save(top / "SegmentationClass" / f"{image_id}.png")
    (top / "ImageSets" / "Segmentation" / "val.txt").write_text("2007_000061\n2007_000033\n")
    return tmp_path


@pytest.mark.parametrize("place", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_reads_what_the_list_names_in_its_order(devkit, place):
    data = voc(str(devkit / place))
    assert data.records["id"][:] == ["2007_000061", "2007_000033"]
    assert data.n_expected == 1449


def test_label_encoding(devkit):
    data = voc(str(devkit))
    assert data.read(0)[1].tolist() == [[20, 0, 19, -1], [14, 14, 20, -1]]
    assert data.class_names[14] == "person"
    assert data.class_names[data.background] == "background"


def test_missing_label_is_named(devkit):
    (devkit / "VOCdevkit/VOC2012/SegmentationClass/2007_000033.png").unlink()
    with pytest.raises(UserError) as caught:
        voc(str(devkit))
    assert caught.value.where.endswith("SegmentationClass/2007_000033.png")


def test_says_what_it_looked_for(tmp_path):
    with pytest.raises(UserError) as caught:
        voc(str(tmp_path))
    assert "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt" in caught.value.where


@pytest.mark.shared
def test_real_samples(shared):
    data = voc(str(shared / "samples" / "VOCdevkit"))
    assert len(data) == 15
    for index in range(15):
        image, label = data.read(index)
        assert image.size == label.shape[::-1]
        assert label.min() >= -1
        assert label.max() <= 20
