"""``backbone=fused`` in runs: each part's features are those of a run with it alone, computed once and found again."""

import json

import numpy as np
import pytest
import torch
from conftest import SMALL, shapes_overrides
from PIL import Image
from torch.nn.functional import normalize

from diffcut_bench.backbones import Colour, EfficientNetLite0
from diffcut_bench.config import expand_sweep, load_config
from diffcut_bench.config.trust import trusted
from diffcut_bench.errors import UserError
from diffcut_bench.reproduction.outlook import look_ahead
from diffcut_bench.scoring.features import backbone_identity, networks_of, open_features
from diffcut_bench.scoring.passes import open_dataset
from diffcut_bench.scoring.reading import Wanted, example_loader
from diffcut_bench.segmentation import PictureSegmenter
from diffcut_bench.settings import compare_settings
from diffcut_bench.store import read_result, read_rows

CPU = torch.device("cpu")
FUSED = ("backbone=fused", "backbone.of=[efficientnet_lite0,colour]")
# On 16×16 and 4×4 patches of a square.
OTHER_GRIDS = ("backbone=efficientnet_lite0_blocks+colour", "backbone.parts.efficientnet_lite0_blocks.image_size=64")


@pytest.fixture
def computed(monkeypatch):
    """Names of the networks that are run, once for each image."""
    seen = []
    for kind in (EfficientNetLite0, Colour):

        def counting(self, images, forward=kind.forward):
            seen.extend([self.name] * len(images))
            return forward(self, images)

        monkeypatch.setattr(kind, "forward", counting)
    return seen


def run(cli, *words):
    done = cli("run", *words)
    assert done.code == 0, done.err
    return done


def examples_of(source, words, limit=2):
    dataset = open_dataset(load_config(words)).select(limit)
    wanted = [Wanted(index, features=True) for index in range(limit)]
    return [batch[0] for batch in example_loader(dataset, wanted, source, batch_size=1)]


@pytest.mark.parametrize("protocol", ["released", pytest.param("strict", marks=pytest.mark.slow)])
@pytest.mark.parametrize("words", [FUSED, OTHER_GRIDS])
def test_features_are_those_of_each_backbone_alone_side_by_side(shapes, tmp_path, words, protocol):
    base = [*shapes_overrides(shapes, tmp_path), "features=memory", f"protocol={protocol}", "protocol.image_size=128"]
    config = load_config([*base, *words, "backbone.weights=[1,3]"])
    source = open_features(config, CPU)
    for example in examples_of(source, base):
        rows, cols = example.grid
        expected = []
        for weight, alone in zip((1, 3), networks_of(config), strict=True):
            own = open_features(alone, CPU)
            (there,) = (each for each in examples_of(own, base) if each.id == example.id)
            map_ = normalize(own.of([there]), dim=1)
            if map_.shape[2:] != (rows, cols):
                map_ = torch.nn.functional.interpolate(map_, (rows, cols), mode="bilinear", align_corners=False)
                map_ = normalize(map_, dim=1)
            expected.append(weight * map_)
        assert torch.equal(source.of([example]), torch.cat(expected, dim=1))
        assert max(rows, cols) == {FUSED: 4, OTHER_GRIDS: 8}[words]


def test_parts_that_were_stored_are_not_computed_again(cli, tmp_path, computed):
    base = ["limit=2", f"output_dir={tmp_path}", *SMALL, "reference=none"]
    run(cli, *base, "backbone=efficientnet_lite0")
    run(cli, *base, "backbone=colour")
    assert len(computed) == 4
    computed.clear()
    done = run(cli, *base, *FUSED)
    assert computed == [] and done.out.count("features: all 2 images in") == 2
    done = run(cli, "-m", *base, "backbone=efficientnet_lite0+colour", "backbone.weights=[1,1],[1,2]")
    assert computed == []
    found = [read_result(path) for path in tmp_path.glob("results/*efficientnet_lite0+colour*")]
    assert len({result.key for result in found}) == 2, "[1,1] is the cell that had no weights"
    compared = compare_settings(found)
    assert compared.names == ("backbone.weights",)
    assert {texts["backbone.weights"] for texts in compared.texts} == {"[1, 1]", "[1, 2]"}


def test_a_part_that_is_lacking_is_computed_and_kept_for_it_alone(cli, tmp_path, computed):
    base = ["limit=2", f"output_dir={tmp_path}", *SMALL, "reference=none"]
    run(cli, *base, "backbone=colour")
    computed.clear()
    run(cli, *base, *FUSED, "num_workers=0", "batch_size=1")
    assert computed == ["efficientnet_lite0"] * 2
    computed.clear()
    run(cli, *base, "backbone=efficientnet_lite0")
    assert computed == []
    assert len(list(tmp_path.glob("features/*"))) == 2, "of the parts alone"


def test_pictures_are_decoded_where_a_part_lacks_features(shapes, tmp_path):
    base = [*shapes_overrides(shapes, tmp_path), *FUSED]
    source = open_features(load_config(base), CPU)
    assert [example.pixels is None for example in examples_of(source, base)] == [False, False]
    of_colour = source.networks[1]
    of_colour.of(examples_of(of_colour, base))
    for example in examples_of(source, base):
        assert example.pixels is not None
        assert [each is None for each in example.features] == [True, False]
    source.of(examples_of(source, base))
    assert all(example.pixels is None for example in examples_of(source, base))


@pytest.mark.slow
@pytest.mark.parametrize("words", [FUSED, OTHER_GRIDS])
def test_counts_do_not_depend_on_batch_or_store(cli, shapes, tmp_path, words):
    def rows(name, *own):
        base = [*shapes_overrides(shapes, tmp_path / name), "limit=3", "reference=none", "protocol.crop=none"]
        run(cli, *base, *words, *own)
        (cell,) = (tmp_path / name).glob("results/*")
        assert not read_result(cell).failures
        return read_rows(cell)

    expected = rows("whole", "batch_size=4")
    assert max(row.segments for row in expected) > 1
    assert rows("single", "batch_size=1", "features=memory") == expected


@pytest.mark.slow
def test_the_key_is_of_names_weights_and_all_that_the_parts_depend_on(cli, tmp_path):
    base = ["limit=1", f"output_dir={tmp_path}", *SMALL, "reference=none", "refiner=none"]
    different = [
        ["backbone.weights=[1,2]"],
        ["backbone.parts.colour.stride=16"],
        ["backbone.of=[colour,efficientnet_lite0]", "backbone.weights=[1,2]"],
        ["features.dtype=float16"],
    ]
    for words in different:
        run(cli, *base, *FUSED, *words)
    found = [read_result(path) for path in tmp_path.glob("results/*")]
    assert len({result.key for result in found}) == len(different)
    known = found[0].identity["backbone"]
    assert known["efficientnet_lite0.weights_sha256"] and known["colour.model"] == "colour"
    assert {result.config["choices"]["backbone"] for result in found} == {
        "efficientnet_lite0+colour",
        "colour+efficientnet_lite0",
    }
    texts = compare_settings(found).texts
    assert {each.get("backbone.parts.colour.stride") for each in texts} == {"16", "32"}
    listed = cli("list", "--json", f"output_dir={tmp_path}")
    assert "colour+efficientnet_lite0" in listed.out
    assert cli("export", tmp_path / "exported", f"output_dir={tmp_path}").code == 0
    assert "colour+efficientnet_lite0" in (tmp_path / "exported" / "cells.csv").read_text()


def test_what_a_run_wrote_can_be_opened_again(cli, tmp_path):
    run(cli, "limit=2", f"output_dir={tmp_path}", *SMALL, *FUSED, "backbone.parts.colour.stride=16", "reference=none")
    (cell,) = tmp_path.glob("results/*")
    stored = json.loads((cell / "result.json").read_text())["config"]
    config = trusted(stored, [f"output_dir={tmp_path}"])
    assert config.backbone["parts"]["colour"]["stride"] == 16
    assert config.choices["backbone"] == "efficientnet_lite0+colour"
    assert trusted(stored, ["backbone.parts.colour.stride=8"]).backbone["parts"]["colour"]["stride"] == 8
    stored["backbone"]["parts"]["colour"]["_target_"] = "os.system"
    with pytest.raises(UserError, match="no option's own"):
        trusted(stored)


def test_a_preset_may_fuse_and_set_parts(tmp_path):
    (tmp_path / "experiment").mkdir()
    lines = ["# @package _global_", "defaults: [override /backbone: fused]", "backbone:", "  of: [colour, ssd1b]"]
    lines += ["  parts: {colour: {stride: 8}, ssd1b: {timestep: 100}}"]
    (tmp_path / "experiment" / "mine.yaml").write_text("\n".join(lines))
    words = [f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine"]
    parts = load_config(words).backbone["parts"]
    assert (parts["colour"]["stride"], parts["ssd1b"]["timestep"], parts["ssd1b"]["block"]) == (8, 100, "E32")
    assert load_config([*words, "backbone.parts.colour.stride=4"]).backbone["parts"]["colour"]["stride"] == 4


def test_parts_may_be_options_of_the_users_own(tmp_path):
    (tmp_path / "backbone").mkdir()
    (tmp_path / "backbone" / "my-own.yaml").write_text("_target_: diffcut_bench.backbones.Colour\nstride: 8\n")
    words = [f"hydra.searchpath=[{tmp_path}]", "backbone=fused", "backbone.of=[my-own,colour]"]
    source = open_features(load_config([*words, "features=memory"]), CPU)
    assert [network.backbone.stride for network in source.networks] == [8, 32]
    assert source.framing.stride == 8
    with pytest.raises(UserError, match="no backbone is named my-own"):
        load_config(words[1:])


def test_glob_leaves_out_what_wants_names():
    assert "backbone=fused" not in {word for (word,) in expand_sweep(["backbone=glob(*)"])}


def test_another_model_of_a_part_has_no_pinned_revision():
    words = ["backbone=ssd1b+colour", "backbone.parts.ssd1b.model=OWNER/MODEL"]
    assert load_config(words).backbone["parts"]["ssd1b"]["revision"] == "main"
    assert load_config(words[:1]).backbone["parts"]["ssd1b"]["revision"] != "main"


@pytest.mark.parametrize(
    ("words", "what", "hint"),
    [
        (["backbone=fused"], "without parts", "backbone.of=["),
        (["backbone=fused", "backbone.of=colour"], "must be a list of names", "backbone.of=["),
        (["backbone=fused", "backbone.of=[colour,colour]"], "named twice", "weight"),
        (["backbone=colour+efficientnet_lite"], "no backbone is named efficientnet_lite", "did you mean"),
        (["backbone=colour+none"], "none can't be a part", "name backbones"),
        (["backbone=colour+fused"], "fused can't be a part", "name backbones"),
        (["backbone=colour+ssd1b_attention"], "sets more than a backbone", "name backbones"),
        (["backbone=colour+ssd1b", "backbone.parts.ssd1b.timestp=1"], "unknown key", "backbone.parts.ssd1b.timestep"),
        (["backbone=colour+ssd1b", "backbone.parts.vega.timestep=1"], "unknown key", "backbone.parts.ssd1b.timestep"),
        (["backbone=colour+ssd1b", "backbone.wieghts=[1,2]"], "unknown key", "backbone.weights"),
        (["linker=kmeans", "linker.backbone=colour+colou"], "no backbone is named colou", "did you mean colour"),
    ],
)
def test_mistakes_are_told(words, what, hint):
    with pytest.raises(UserError) as told:
        load_config(words)
    assert what in told.value.what and hint in told.value.hint


def test_weights_that_several_parts_lack_are_told_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError) as told:
        open_features(load_config(["backbone=ssd1b+colour+dinov3_b16"]), CPU)
    assert "segmind/SSD-1B" in told.value.what and "facebook/dinov3-vitb16" in told.value.what
    assert "backbone.parts.ssd1b.model=DIR" in told.value.hint and str(told.value).count("\n") == 2
    assert told.value.hint.count("`hf download") == 2 and "gated: ask" in told.value.hint


def test_what_a_part_says_of_its_code_is_in_the_key(tmp_path, monkeypatch):
    (tmp_path / "own_colour.py").write_text(
        "from diffcut_bench.backbones import Colour\n"
        "class Own(Colour):\n"
        "    def __init__(self, version):\n"
        "        super().__init__()\n"
        "        self.code_version = version\n"
        "    immaterial = ('version',)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "backbone").mkdir()
    keys = []
    for version in ("one", "two"):
        (tmp_path / "backbone" / "own.yaml").write_text(f"_target_: own_colour.Own\nversion: {version}\n")
        config = load_config([f"hydra.searchpath=[{tmp_path}]", "backbone=colour+own", "features=memory"])
        keys.append(backbone_identity(open_features(config, CPU).backbone, config.backbone))
    assert keys[0] != keys[1]


def test_a_part_that_can_not_be_built_is_named():
    def told(*words):
        with pytest.raises(UserError) as error:
            open_features(load_config(["backbone=colour+dino_b16", *words]), CPU)
        return error.value

    assert "backbone.parts.colour" in told("backbone.parts.colour.stride=0").where
    assert "backbone.parts.dino_b16.model=DIR" in told("backbone.parts.dino_b16.model=/nowhere/here").hint


@pytest.mark.slow
def test_a_linker_compares_fused_features(cli, shapes, tmp_path):
    base = [*shapes_overrides(shapes, tmp_path), "limit=3", "linker=kmeans", "linker.seeds=2", "reference=none"]
    run(cli, *base, *FUSED)
    run(cli, *base, "segmenter=slic", "backbone=none", "linker.backbone=efficientnet_lite0+colour")
    found = [read_result(path) for path in tmp_path.glob("results/*")]
    (linked,) = (result for result in found if "linker.backbone" in result.config["choices"])
    assert linked.config["choices"]["linker.backbone"] == "efficientnet_lite0+colour"
    assert linked.identity["linker"]["backbone"]["colour.model"] == "colour"


def test_a_picture_is_segmented_and_named_ones_find_the_parts(tmp_path):
    pixels = np.zeros((90, 150, 3), dtype=np.uint8)
    pixels[:, 75:] = 200
    segmenter = PictureSegmenter([*FUSED, "protocol.image_size=128", "segmenter.alpha=1"])
    results = list(segmenter.map([Image.fromarray(pixels), Image.fromarray(pixels[:60])], batch_size=2))
    assert [result.labels.shape for result in results] == [(90, 150), (60, 150)]
    assert segmenter.identity()["backbone"]["colour.model"] == "colour"


@pytest.mark.slow
def test_coherence_and_check_take_it(cli, shapes, tmp_path):
    done = cli("coherence", *shapes_overrides(shapes, tmp_path), "backbone=colour,efficientnet_lite0+colour")
    assert done.code == 0, done.err
    assert "efficientnet_lite0+colour" in done.out
    done = cli("check", *OTHER_GRIDS)
    assert done.code == 0 and "keeps its contract" in done.out, done.out


@pytest.mark.slow
def test_what_it_will_take_is_what_the_parts_take(tmp_path):
    base = ["dataset=voc", f"output_dir={tmp_path}", f"data_dir={tmp_path}"]
    configs = [load_config([*base, f"backbone={name}"]) for name in ("ssd1b", "dinov3_b16", "ssd1b+dinov3_b16")]
    first, second, both = look_ahead(configs)
    assert both.unstored == both.operations == both.feature_bytes == 0, "no other cell has to compute them again"
    (alone,) = look_ahead(configs[2:])
    for name in ("operations", "feature_bytes", "half_bytes"):
        assert getattr(alone, name) == getattr(first, name) + getattr(second, name)
    assert {lack.what for lack in alone.missing if lack.kind == "weights"} >= {"segmind/SSD-1B"}
    assert len([lack for lack in alone.missing if lack.kind == "weights"]) == 2
