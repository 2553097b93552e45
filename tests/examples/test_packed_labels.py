"""examples/pack_labels.py: what it packs is read back by the library that it is for."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"
FAST = ("backbone=colour", "protocol.image_size=128", "refiner=none")


def example(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def labels(cli, tmp_path):
    """The folder of labels of three photographs, one in a folder, one with a dot in its name."""
    for name, pixels in {"a.png": "coffee", "sub/a.jpg": "chelsea", "b.c.png": "rocket"}.items():
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(getattr(skimage.data, pixels)()[::6, ::6]).save(tmp_path / "photos" / name)
    assert cli("segment", tmp_path / "photos", "-r", "-o", tmp_path / "labels", *FAST).code == 0
    return tmp_path / "labels"


def entries(labels):
    images = json.loads((labels / "segments.json").read_text())["images"]
    return {each["labels"].removesuffix("_labels.png"): each for each in images}


def test_webdataset_reads_the_shards(labels, tmp_path):
    webdataset = pytest.importorskip("webdataset", reason="reads the shards; pip install webdataset")
    example("pack_labels").main([str(labels), str(tmp_path / "shards"), "--pictures-a-shard", "2"])
    shards = sorted(map(str, (tmp_path / "shards").glob("*.tar")))
    assert len(shards) == 2
    found = {}
    for sample in webdataset.WebDataset(shards, shardshuffle=False, empty_check=False):
        found[sample["__key__"]] = sample
    assert set(found) == {"a", "sub/a", "b_c"}
    for name, entry in entries(labels).items():
        sample = found[name.replace(".", "_")]
        assert sample["labels.png"] == (labels / entry["labels"]).read_bytes()
        assert json.loads(sample["json"]) == entry["segments"]
        picture = tmp_path / "photos" / entry["file_name"]
        assert sample[picture.suffix.removeprefix(".")] == picture.read_bytes()


def test_datasets_loads_the_folder(labels, tmp_path):
    datasets = pytest.importorskip("datasets")
    example("pack_labels").main([str(labels), str(tmp_path / "packed"), "--to", "datasets", "--pictures-a-shard", "2"])
    assert len(list((tmp_path / "packed").glob("*.arrow"))) == 2
    known = entries(labels)
    for row in datasets.load_from_disk(str(tmp_path / "packed")):
        entry = known.pop(row["name"])
        assert np.array_equal(np.asarray(row["labels"]), np.asarray(Image.open(labels / entry["labels"])))
        assert row["image"].size == (entry["width"], entry["height"])
        assert json.loads(row["segments"]) == entry["segments"]
    assert not known
