"""Trained heads from checkpoints: what they compute, how they are read, and that nothing of a file is run."""

import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from conftest import DATA, shapes_overrides
from omegaconf import OmegaConf
from planted import random_features
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import interpolate, normalize

from diffcut_bench.config import instantiate, load_config
from diffcut_bench.errors import UserError
from diffcut_bench.segmenters import ClusterProbe
from diffcut_bench.store import read_result

CHANNELS, CODE, CLUSTERS = 6, 4, 5


class Projection(nn.Module):
    """The head as modules, in the layout of STEGO's network."""

    def __init__(self, channels=CHANNELS, code=CODE, activation=nn.ReLU):
        super().__init__()
        self.cluster1 = nn.Sequential(nn.Conv2d(channels, code, 1))
        self.cluster2 = nn.Sequential(nn.Conv2d(channels, channels, 1), activation(), nn.Conv2d(channels, code, 1))

    def forward(self, features):
        return self.cluster1(features) + self.cluster2(features)


def head(seed=0, channels=CHANNELS, activation=nn.ReLU):
    """A random projection, and centroids of various lengths."""
    torch.manual_seed(seed)
    projection = Projection(channels, activation=activation).requires_grad_(False)
    centroids = torch.randn(CLUSTERS, CODE) * torch.rand(CLUSTERS, 1).add(0.1)
    return projection, centroids


def state_of(projection, centroids):
    """As STEGO's LightningModule names them, with what lies beside them."""
    named = {f"net.{name}": tensor for name, tensor in projection.state_dict().items()}
    beside = {"net.model.cls_token": torch.zeros(1, 1, 8), "train_cluster_probe.clusters": centroids.flip(0)}
    return OrderedDict({**beside, **named, "cluster_probe.clusters": centroids})


def written(path, *, nested=True, **kinds):
    state = state_of(*head(**kinds))
    torch.save({"epoch": 3, "state_dict": state, "optimizer_states": [{"state": {}}]} if nested else state, path)
    return str(path)


def expected(projection, centroids, features, size):
    """Clusters pixel by pixel: the code of the patches is enlarged, then compared by cosine."""
    codes = interpolate(projection(features), size=size, mode="bilinear", align_corners=False)
    unit = normalize(centroids, dim=1)
    found = np.zeros((len(features), *size), dtype=np.int64)
    for image, row, col in np.ndindex(found.shape):
        code = codes[image, :, row, col]
        cosines = [float(code @ centroid) / float(code.norm()) for centroid in unit]
        found[image, row, col] = int(np.argmax(cosines))
    return torch.from_numpy(found)


@pytest.mark.parametrize("nested", [True, False])
def test_pixels_go_to_the_centroid_of_greatest_cosine(tmp_path, nested):
    features = random_features(3, seed=1, rows=5, cols=7)
    method = ClusterProbe(written(tmp_path / "stego.ckpt", nested=nested))
    found = method(features, [(20, 31)] * 3)
    assert torch.equal(found, expected(*head(), features, (20, 31)))
    assert len(found.unique()) == CLUSTERS


@pytest.mark.parametrize("projection", ["linear", "none"])
def test_heads_without_the_two_layers_and_without_any(tmp_path, projection):
    modules, centroids = head()
    features = random_features(2, seed=2)
    first = modules.cluster1
    if projection == "none":
        centroids, first = torch.randn(CLUSTERS, CHANNELS), nn.Identity()
    torch.save(state_of(modules, centroids), tmp_path / "head.pth")
    found = ClusterProbe(str(tmp_path / "head.pth"), projection=projection)(features, [(18, 22)] * 2)
    assert torch.equal(found, expected(first, centroids, features, (18, 22)))


def test_planted_regions_are_found(tmp_path):
    """Directions of features that the projection tells apart only by what its ReLU leaves."""
    regions = torch.arange(16).view(4, 4) // 4 % 2 * 2 + torch.arange(16).view(4, 4) % 4 // 2
    planted = torch.eye(4)[regions].movedim(2, 0)[None]
    state = {
        "net.cluster1.0.weight": torch.zeros(4, 4, 1, 1),
        "net.cluster2.0.weight": 3 * torch.eye(4)[[2, 0, 3, 1]],
        "net.cluster2.0.bias": torch.full((4,), -1.0),
        "net.cluster2.2.weight": torch.eye(4)[..., None, None],
        "cluster_probe.clusters": 0.1 * torch.eye(4),
    }
    torch.save(state, tmp_path / "head.pth")
    order = torch.tensor([1, 3, 0, 2])  # the row that holds each region's direction
    assert torch.equal(ClusterProbe(str(tmp_path / "head.pth"))(planted, [(4, 4)])[0], order[regions])


def layouts():
    """A head as each kind of checkpoint keeps it, by layout."""
    relu, silu = head(), head(activation=nn.SiLU)
    own = relu[0].state_dict()
    stego = {"state_dict": state_of(*relu)}
    yield "stego", relu, stego
    yield "eagle", relu, stego
    yield "hp", relu, {"net_model_state_dict": own, "cluster_model_state_dict": {"clusters": relu[1]}, "best": 1.5}
    named = {f"projection.{name}": tensor for name, tensor in silu[0].state_dict().items()}
    yield "smooseg", silu, {"state_dict": {**named, "prediction.global_clusters": silu[1]}}
    cause = {name.replace("cluster1.0", "f1").replace("cluster2", "f2"): tensor for name, tensor in own.items()}
    yield "cause", relu, {**{f"head_ema.{name}": tensor for name, tensor in cause.items()}, "cluster_probe": relu[1]}


@pytest.mark.parametrize(("layout", "parts", "content"), list(layouts()), ids=[layout for layout, *_ in layouts()])
def test_public_checkpoints_are_read_by_their_names(tmp_path, layout, parts, content):
    torch.save(content, tmp_path / "checkpoint.pth")
    features = random_features(1, seed=3)
    found = ClusterProbe(str(tmp_path / "checkpoint.pth"), layout)(features, [(9, 11)])
    assert torch.equal(found, expected(*parts, features, (9, 11)))


def test_any_other_names_are_options(tmp_path):
    names = {"linear": "a", "hidden": "b.c", "output": "d", "clusters": "centres.weight"}
    (modules, centroids), parts = head(), {}
    for name, own in zip(("a", "b.c", "d"), ("cluster1.0", "cluster2.0", "cluster2.2"), strict=True):
        layer = modules.get_submodule(own)
        parts |= {f"{name}.weight": layer.weight[:, :, 0, 0].clone(), f"{name}.bias": layer.bias}
    save_file({**parts, "centres.weight": centroids}, tmp_path / "head.safetensors")
    base = ["segmenter=cluster_probe", f"segmenter.checkpoint={tmp_path / 'head.safetensors'}"]
    config = load_config([*base, *(f"segmenter.keys.{name}={key}" for name, key in names.items())])
    features = random_features(1, seed=4)
    method = instantiate("segmenter", config.segmenter)
    plain = ClusterProbe(written(tmp_path / "stego.ckpt"))
    assert torch.equal(method(features, [(9, 11)]), plain(features, [(9, 11)]))
    for wrong, message in (
        ({"centroids": "a"}, "keys has no 'centroids'"),
        ({"clusters": ["a"]}, r"keys\.clusters must be a name, not \['a'\]"),
        ({"linear": 1.5}, r"keys\.linear must be a name, not 1\.5"),
        (None, "keys must name parts"),
    ):
        with pytest.raises(ValueError, match=message):
            ClusterProbe(base[1].partition("=")[2], keys=wrong)


def test_names_may_be_numbers(tmp_path):
    """As those of `torch.nn.Sequential` are, which the command line reads as such."""
    modules, centroids = head()
    torch.save({"0.weight": modules.cluster1[0].weight, "1": centroids}, tmp_path / "head.pth")
    overrides = ["segmenter=cluster_probe", f"segmenter.checkpoint={tmp_path / 'head.pth'}", "segmenter.keys.linear=0"]
    config = load_config([*overrides, "segmenter.keys.clusters=1", "segmenter.projection=linear"])
    assert instantiate("segmenter", config.segmenter).channels == CHANNELS


def test_clusters_are_the_originals(tmp_path):
    """Of STEGO's own modules, on the photograph whose features lie here: its first 16 channels."""
    kept = np.load(DATA / "cluster_probe_coffee.npz")
    features = np.load(DATA / "recursive_ncut_coffee.npz")["features"][:, :16].astype(np.float32)
    maps = torch.from_numpy(features).T.reshape(1, 16, 32, 32)
    torch.save({name: torch.from_numpy(kept[name]) for name in kept.files}, tmp_path / "head.pth")
    found = ClusterProbe(str(tmp_path / "head.pth"))(maps, [(64, 64)])[0]
    assert torch.equal(found, torch.from_numpy(kept["clusters_at_64"]).long())
    assert len(found.unique()) == 22


def test_images_do_not_influence_each_other(tmp_path):
    features = random_features(4, seed=5)
    method = ClusterProbe(written(tmp_path / "stego.ckpt"))
    together = method(features, [(30, 30)] * 4)
    assert torch.equal(together, torch.cat([method(each[None], [(30, 30)]) for each in features]))
    assert torch.equal(method(features.flip(0), [(30, 30)] * 4), together.flip(0))


def test_a_mirrored_image_has_mirrored_clusters(tmp_path):
    features = random_features(2, seed=6)
    method = ClusterProbe(written(tmp_path / "stego.ckpt"))
    for axis in (2, 3):
        turned = method(features.flip(axis), [(40, 44)] * 2)
        assert torch.equal(turned, method(features, [(40, 44)] * 2).flip(axis - 1))


def test_degenerate_maps_and_any_precision(tmp_path):
    method = ClusterProbe(written(tmp_path / "stego.ckpt"))
    for shape in ((1, 1), (1, 6), (5, 1)):
        assert method(torch.randn(2, CHANNELS, *shape), [(7, 8)] * 2).shape == (2, 7, 8)
    assert len(method(torch.ones(1, CHANNELS, 3, 3), [(8, 8)]).unique()) == 1
    assert method(torch.zeros(1, CHANNELS, 3, 3), [(8, 8)]).shape == (1, 8, 8)
    features = random_features(1, seed=7).half()
    assert torch.equal(method(features, [(9, 11)]), method(features.double(), [(9, 11)]))
    with pytest.raises(ValueError, match="NaN"):
        method(torch.full((1, CHANNELS, 3, 3), torch.nan), [(3, 3)])


def test_arguments_are_checked(tmp_path):
    path = written(tmp_path / "stego.ckpt")
    for wrong in ({"layout": "steg"}, {"projection": "two"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ClusterProbe(path, **wrong)
    with pytest.raises(UserError, match=r"segmenter\.checkpoint is not set"):
        ClusterProbe()
    with pytest.raises(UserError, match="takes features of 6 channels, and these have 7"):
        ClusterProbe(path)(torch.rand(1, 7, 3, 3), [(3, 3)])


def raised(content, path, **options):
    """What reading a file with this content says."""
    torch.save(content, path)
    with pytest.raises(UserError) as caught:
        ClusterProbe(str(path), **options)
    return caught.value


def test_what_a_checkpoint_lacks_is_said_beside_what_it_has(tmp_path):
    state = state_of(*head())
    path = tmp_path / "head.pth"
    bare = {name: tensor for name, tensor in state.items() if "cluster2" not in name}
    error = raised({"state_dict": bare}, path)
    assert error.what == "there is no net.cluster2.0.weight in this checkpoint" and str(path) in error.where
    assert "net.cluster1.0.weight" in error.hint and "segmenter.projection" in error.hint
    assert "net.cluster2.2.weight [4, 6]" in raised({**state, "cluster_probe.clusters": torch.ones(5, 3)}, path).what
    assert "1×1 convolution is due" in raised({**state, "net.cluster1.0.weight": torch.ones(4, 6, 3, 3)}, path).what
    assert "no parts of one head" in raised({**state, "net.cluster1.0.bias": torch.ones(3)}, path).what
    assert "no parts of one head" in raised({**state, "net.cluster2.0.weight": torch.ones(6, 5)}, path).what
    one_is_missing = torch.ones(5, 4).masked_fill(torch.arange(20).view(5, 4) == 7, torch.nan)
    assert "no finite numbers" in raised({**state, "cluster_probe.clusters": one_is_missing}, path).what
    assert "no finite numbers" in raised({**state, "cluster_probe.clusters": torch.ones(5, 4).long()}, path).what
    assert "it has no tensors" in raised([1, 2], path).hint
    assert "it has no tensors" in raised({"state_dict": None}, path).hint
    assert "net.cluster1.0" in raised(state, path, layout="hp").hint


@pytest.mark.parametrize(
    "clusters",
    [
        torch.zeros(1).expand(10**12, 4),  # 16 TB, in a file of four bytes
        torch.zeros(1).expand(2**62, 1),
        torch.zeros(5, 4, device="meta"),
        torch.full((5, 4), 1e300, dtype=torch.float64),
        torch.eye(5, 4).to_sparse(),
    ],
    ids=["terabytes", "overflow", "meta", "beyond float32", "sparse"],
)
def test_tensors_that_are_no_numbers(tmp_path, clusters):
    what = raised({**state_of(*head()), "cluster_probe.clusters": clusters}, tmp_path / "head.pth").what
    assert what == "cluster_probe.clusters holds no finite numbers"


def test_a_head_in_any_precision(tmp_path):
    state = state_of(*head())
    for dtype in (torch.float64, torch.float16, torch.float8_e4m3fn):
        torch.save({name: tensor.to(dtype) for name, tensor in state.items()}, tmp_path / "head.pth")
        rounded = normalize(state["cluster_probe.clusters"].to(dtype).float(), dim=1)
        assert torch.equal(ClusterProbe(str(tmp_path / "head.pth")).head.clusters, rounded)


@pytest.mark.parametrize("name", ["stego.ckpt", "head.safetensors"])
def test_a_file_that_is_none_is_the_users_mistake(tmp_path, name):
    path = tmp_path / name
    for missing in (path, tmp_path / ("long" * 100)):
        with pytest.raises(UserError, match="no such file"):
            ClusterProbe(str(missing))
    for content in (b"", b"<html>not found</html>", pickle.dumps([1])):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"no file of tensors|more than tensors"):
            ClusterProbe(str(path))


class Touching:
    """Code in a pickle, which makes a file when it is run."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("how", ["os", "subprocess", "eval", "pathlib"])
def test_no_code_of_a_file_is_run(tmp_path, how, zipped):
    import os
    import subprocess
    from pathlib import Path

    made = tmp_path / "made"
    code = {
        "os": Touching(os.mkdir, str(made)),
        "subprocess": Touching(subprocess.call, ["mkdir", str(made)]),
        "eval": Touching(eval, f"__import__('os').mkdir({str(made)!r})"),
        "pathlib": Touching(Path.mkdir, made),
    }[how]
    path = tmp_path / "bad.ckpt"
    torch.save({"state_dict": state_of(*head()), "extra": code}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match="none of its code is run") as caught:
        ClusterProbe(str(path))
    assert not made.exists()
    assert "weights_only=False" in caught.value.hint and "\n" not in caught.value.hint
    assert "it names code: " in caught.value.what
    torch.load(path, weights_only=False)
    assert made.is_dir(), "it would have been"


def test_settings_beside_the_weights_are_passed_over(tmp_path):
    """As Lightning's ``save_hyperparameters`` leaves them, with what may be NumPy's or a path."""
    settings = OmegaConf.create({"dim": CODE, "home": "${oc.env:HOME}", "names": ["a", {"b": None}]})
    beside = {"hyper_parameters": {"n_classes": 27, "cfg": settings}, "best": np.float64(0.5), "where": tmp_path}
    torch.save({"state_dict": state_of(*head()), **beside}, tmp_path / "stego.ckpt")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "stego.ckpt", weights_only=True)
    allowed = set(torch.serialization.get_safe_globals())
    features = random_features(1, seed=8)
    found = ClusterProbe(str(tmp_path / "stego.ckpt"))(features, [(9, 11)])
    assert torch.equal(found, expected(*head(), features, (9, 11)))
    assert set(torch.serialization.get_safe_globals()) == allowed, "nothing stays allowed"


def test_the_key_holds_what_the_file_holds(tmp_path):
    path = written(tmp_path / "stego.ckpt")
    first = ClusterProbe(path)
    before, features = first.depends_on(["a"]), random_features(1, seed=9)
    clusters = first(features, [(9, 11)])
    moved = tmp_path / "elsewhere.pth"
    moved.write_bytes((tmp_path / "stego.ckpt").read_bytes())
    assert ClusterProbe(str(moved)).depends_on(["b"]) == before
    written(tmp_path / "stego.ckpt", seed=1)
    second = ClusterProbe(path)
    assert second.depends_on(["a"]) != before == first.depends_on(["a"])
    assert torch.equal(first(features, [(9, 11)]), clusters), "one head for all images of a cell"
    assert not torch.equal(second(features, [(9, 11)]), clusters)


@pytest.fixture
def cell(cli, shapes, tmp_path):
    """A way to run a cell on two pictures; returns how the command ended and the results that there are."""

    def run(*overrides):
        base = [*shapes_overrides(shapes, tmp_path / "out"), "segmenter=cluster_probe", "limit=2", "reference=none"]
        done = cli("run", *base, "backbone=efficientnet_lite0", *overrides)
        return done, [read_result(path.parent) for path in (tmp_path / "out" / "results").glob("*/result.json")]

    return run


def test_a_cell_runs_from_end_to_end_under_either_matching(cell, tmp_path, monkeypatch):
    monkeypatch.setenv("HEADS", str(tmp_path))
    written(tmp_path / "stego.ckpt", channels=320)
    checkpoint = "segmenter.checkpoint=$HEADS/stego.ckpt"
    one = ("protocol.matching=dataset", "protocol.background_rule=one_to_one")
    for matching in ((), one):
        done, results = cell(checkpoint, *matching)
        assert done.code == 0, done.err
    assert {result.protocol["matching"] for result in results} == {"per_image", "dataset"}
    assert all(not result.failures and "checkpoint_sha256" in result.identity["segmenter"] for result in results)
    assert all("checkpoint" not in result.identity["segmenter"] for result in results)
    written(tmp_path / "stego.ckpt", channels=320, seed=1)
    assert len(cell(checkpoint)[1]) == 3, "another file is another cell"


def test_a_head_of_any_width_can_be_checked(cli, tmp_path):
    done = cli("check", "segmenter=cluster_probe", f"segmenter.checkpoint={written(tmp_path / 'stego.ckpt')}")
    assert done.code == 0, done.err
    assert "features [2, 6, 7, 12]" in done.out and "keeps its contract" in done.out


def test_mistakes_end_in_three_lines(cell, tmp_path):
    for overrides, what in (
        ([], "segmenter.checkpoint is not set"),
        ([f"segmenter.checkpoint={written(tmp_path / 'small.ckpt')}"], "takes features of 6 channels"),
    ):
        done, results = cell(*overrides)
        assert done.code == 2 and not results
        assert what in done.err and len(done.err.strip().splitlines()) == 3


def test_the_option_brings_its_backbone():
    config = load_config(["segmenter=cluster_probe"])
    assert (config.choices["backbone"], config.choices["refiner"]) == ("dino_b8_320", "none")
    assert config.backbone["image_size"] == 320
