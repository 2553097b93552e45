"""A stage that gives nonsense gets one clear line that names it, never a score."""

import sys
from pathlib import Path

import pytest
import torch
from conftest import shapes_overrides

from diffcut_bench.scoring.checks import check_label_map

STAGES = """
import torch
from diffcut_bench.backbones import Backbone

def cut(features):
    return torch.zeros(len(features), *features.shape[2:], dtype=torch.long)

def rank4(features):
    return cut(features)[None]

def fractions(features):
    return cut(features).float()

def truths(features):
    return cut(features) > 0

def below_zero(features):
    return cut(features) - 1

def enormous(features):
    return cut(features) + 2**40

def too_few(features):
    return cut(features)[:1, :1]

def nothing(features):
    return None

def blurred(features, partition, size):
    return torch.rand(len(features), *size)

def small(images, labels):
    return labels[:, ::2]

class Net(Backbone):
    name, stride, channels = "net", 32, 3
    def __init__(self, more=0, rows=0, dtype=torch.float32):
        super().__init__()
        self.more, self.rows, self.type = more, rows, dtype
    def forward(self, images):
        made = torch.nn.functional.avg_pool2d(images, 32)
        return torch.nn.functional.pad(made, (0, 0, 0, self.rows, 0, self.more)).to(self.type)
    def fingerprint(self):
        return {"more": str(self.more), "rows": str(self.rows)}
"""


@pytest.fixture
def stages(tmp_path, monkeypatch):
    (tmp_path / "nonsense_stages.py").write_text(STAGES)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "nonsense_stages", None)
    monkeypatch.delitem(sys.modules, "nonsense_stages")
    options = {
        "segmenter/own.yaml": "_target_: hydra.utils.get_method\npath: nonsense_stages.cut\n",
        "upsampler/own.yaml": "_target_: hydra.utils.get_method\npath: nonsense_stages.blurred\n",
        "refiner/own.yaml": "_target_: hydra.utils.get_method\npath: nonsense_stages.small\n",
        "backbone/own.yaml": "_target_: nonsense_stages.Net\nmore: 0\nrows: 0\n",
    }
    for name, text in options.items():
        path = tmp_path / "options" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return f"hydra.searchpath=[file://{tmp_path / 'options'}]"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["segmenter=own", "segmenter.path=nonsense_stages.rank4"], "the segmenter gave int64 [1, 1, 4, 4], not whole"),
        (["segmenter=own", "segmenter.path=nonsense_stages.fractions"], "the segmenter gave float32 [1, 4, 4]"),
        (["segmenter=own", "segmenter.path=nonsense_stages.truths"], "the segmenter gave bool [1, 4, 4]"),
        (["segmenter=own", "segmenter.path=nonsense_stages.below_zero"], "the segmenter gave segment ids -1..-1"),
        (["segmenter=own", "segmenter.path=nonsense_stages.enormous"], "the segmenter gave segment ids 1099511627776"),
        (["segmenter=own", "segmenter.path=nonsense_stages.too_few"], "the segmenter gave int64 [1, 1, 4]"),
        (["segmenter=own", "segmenter.path=nonsense_stages.nothing"], "the segmenter gave NoneType, not a tensor"),
        (["upsampler=own"], "the upsampler gave float32"),
        (["refiner=own"], "the refiner gave int64"),
        (["backbone=own", "backbone.more=1"], "the backbone gave torch.float32 [1, 4, 4, 4], and announced"),
        (["backbone=own", "backbone.rows=1"], "the backbone gave torch.float32 [1, 3, 5, 4], and announced"),
    ],
)
def test_a_stage_that_gives_nonsense_is_named(cli, shapes, stages, tmp_path, overrides, said):
    base = [*shapes_overrides(shapes, tmp_path / "out"), "backbone=colour", stages, "protocol.crop=center"]
    done = cli("run", *base, *overrides)
    assert done.code == 2
    assert said in done.err
    assert "Traceback" not in done.err
    assert not list(Path(tmp_path).glob("out/results/*"))


def test_a_stored_shard_of_another_shape_is_computed_again(cli, shapes, tmp_path):
    from diffcut_bench.store import FeatureStore, StoreOptions, list_sets

    base = [*shapes_overrides(shapes, tmp_path / "out"), "backbone=colour", "protocol.crop=center"]
    assert cli("run", *base).code == 0
    (stored,) = list_sets(tmp_path / "out" / "features")
    identity = {name: value for name, value in stored.identity.items() if name != "dtype"}
    good = FeatureStore(StoreOptions(str(tmp_path / "out" / "features"), "float32"), "colour", identity)
    images = sorted(good.images())
    for path in stored.folder.glob("*.safetensors"):
        path.unlink()
    bad = FeatureStore(StoreOptions(str(tmp_path / "out" / "features"), "float32"), "colour", identity)
    assert bad.folder == stored.folder
    for image in images:
        bad.put(image, torch.zeros(5, 2, 2))
    bad.flush()
    first = next((tmp_path / "out").glob("results/*/per_image.parquet")).read_bytes()
    again = cli("run", *base, "if_exists=overwrite")
    assert again.code == 0, again.err
    assert next((tmp_path / "out").glob("results/*/per_image.parquet")).read_bytes() == first


def test_a_code_change_of_a_users_stage_is_another_cell(cli, shapes, stages, tmp_path):
    base = [*shapes_overrides(shapes, tmp_path / "out"), "backbone=own", "segmenter=own", stages]
    assert cli("run", *base).code == 0
    assert "skipped" in cli("run", *base).out
    path = tmp_path / "nonsense_stages.py"
    path.write_text(STAGES.replace("dtype=torch.long)", "dtype=torch.long).fill_(0)"))
    sys.modules.pop("nonsense_stages")
    changed = cli("run", *base)
    assert changed.code == 0, changed.err
    assert "skipped" not in changed.out
    assert len(list(tmp_path.glob("out/results/*"))) == 2
    assert len(list(tmp_path.glob("out/features/*"))) == 2, "features of the changed backbone as well"


@pytest.mark.parametrize("ids", [torch.zeros(2, 2), torch.zeros(2, 2).bool(), torch.full((2, 2), 70_000), [[0]]])
def test_label_maps(ids):
    with pytest.raises(ValueError, match="the refiner gave"):
        check_label_map("refiner", ids, (2, 2))


def test_a_large_map_may_have_as_many_segments_as_pixels():
    ids = torch.arange(300 * 300).view(300, 300)
    assert check_label_map("segmenter", ids, (300, 300)) is ids
