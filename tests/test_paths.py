"""Paths as typed, and paths as others may read them."""

import json
import shlex

import pytest
from conftest import shapes_overrides

from diffcut_bench import paths
from diffcut_bench.config import RunConfig, conf_dir, instantiate, load_config
from diffcut_bench.errors import UserError
from diffcut_bench.paths import expanded, is_path_option, portable, portable_path, portable_text, reopened
from diffcut_bench.store import read_result

ALL = [
    "output_dir",
    "data_dir",
    "prepared",
    "dataset.root",
    "dataset.ids",
    "features.folder",
    "segmenter.folder",
    "segmenter.checkpoint",
    "tracker.folder",
    "backbone.model",
    "backbone.vae",
    "namer.model",
]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder with the user's name in it, and one variable."""
    folder = tmp_path / "home" / "alice"
    folder.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("LOGNAME", "alice")
    monkeypatch.setenv("SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.delenv("NOPE", raising=False)
    return folder


def options_with(key):
    """Overrides under which a key is there."""
    return {
        "dataset.root": ["dataset=voc"],
        "dataset.ids": ["dataset=coco_object"],
        "segmenter.folder": ["segmenter=precomputed"],
        "segmenter.checkpoint": ["segmenter=cluster_probe"],
        "tracker.folder": ["tracker=wandb"],
        "backbone.model": ["backbone=ssd1b"],
        "backbone.vae": ["backbone=ssd1b"],
        "namer.model": ["namer=clip_b16"],
    }.get(key, [])


def value_of(config, key):
    group, _, name = key.rpartition(".")
    return getattr(config, group)[name] if group else getattr(config, name)


@pytest.mark.parametrize("key", ALL)
def test_every_path_of_a_config_is_expanded(key, home, tmp_path):
    own = options_with(key)
    assert value_of(load_config([*own, f"{key}=~/a b"]), key) == f"{home}/a b"
    assert value_of(load_config([*own, f"{key}=$SCRATCH/x"]), key) == f"{tmp_path}/scratch/x"
    with pytest.raises(UserError, match=r"\$NOPE is not set") as caught:
        load_config([*own, f"{key}=$NOPE/x"])
    assert key in caught.value.where
    assert load_config([*own, f"{key}=./plain"])
    with pytest.raises(UserError, match="no user nobody-of-this-name"):
        load_config([*own, f"{key}=~nobody-of-this-name/x"])


@pytest.mark.slow
def test_every_option_that_holds_a_path_is_known_as_one():
    words = ("root", "folder", "dir", "path", "file", "model", "vae", "checkpoint")
    for yaml in conf_dir().glob("*/*.yaml"):
        group = yaml.parent.name
        if group in ("experiment", "hydra", "reproduction") or yaml.stem == "fused":  # which wants names of others
            continue
        for name, value in getattr(load_config([f"{group}={yaml.stem}"]), group).items():
            if isinstance(value, str | None) and name.rpartition("_")[2] in words:
                assert is_path_option(f"{group}.{name}"), f"{yaml}: {name}"


def test_folders_below_an_expanded_one_follow(home):
    config = load_config(["output_dir=~/o"])
    assert (config.output_dir, config.data_dir) == (f"{home}/o", f"{home}/o/data")
    assert config.features["folder"] == f"{home}/o/features"


@pytest.mark.parametrize("key", ["output_dir", "data_dir", "prepared", "features.folder", "dataset.root"])
def test_an_empty_path_is_refused(key):
    with pytest.raises(UserError, match="an empty path"):
        load_config([*options_with(key), f"{key}="])


@pytest.mark.parametrize("text", ["2012", "2024.10", "1e3", "1_000", "true", "nan"])
def test_a_path_that_looks_like_a_number_stays_as_typed(text):
    assert load_config(["dataset=voc", f"dataset.root={text}"]).dataset["root"] == text
    assert load_config([f"output_dir={text}"]).output_dir == text


def test_no_path_is_null_and_a_list_is_none():
    assert load_config(["dataset=voc", "dataset.root=null"]).dataset["root"] is None
    with pytest.raises(UserError, match=r"dataset.root must be a path, not \['a'\]"):
        load_config(["dataset=voc", "dataset.root=[a]"])


def test_names_and_addresses_are_no_paths(home):
    config = load_config(["backbone=ssd1b", "namer=clip_b16", "prepared=s3://bucket/~x", "dataset=coco_object"])
    assert config.backbone["model"] == "segmind/SSD-1B"
    assert config.namer["model"] == "openai/clip-vit-base-patch16"
    assert config.prepared == "s3://bucket/~x"
    assert config.dataset["ids"] == "curated"
    assert load_config([f"prepared=file://{home}/p"]).prepared == f"{home}/p"


def test_braces_are_hydras_and_that_is_said(home):
    with pytest.raises(UserError, match="SCRATCH") as caught:
        load_config(["dataset=voc", "dataset.root=${SCRATCH}/voc"])
    assert "$SCRATCH" in caught.value.hint


def test_an_empty_variable_is_none_and_a_real_dollar_is_kept(home, monkeypatch, tmp_path):
    monkeypatch.setenv("EMPTY", "")
    with pytest.raises(UserError, match="EMPTY is not set"):
        expanded("$EMPTY/voc", "dataset.root")
    (tmp_path / "US$NOPE").mkdir()
    assert expanded(f"{tmp_path}/US$NOPE", "dataset.root") == f"{tmp_path}/US$NOPE"
    assert expanded("price$1", "dataset.root") == "price$1"


def test_options_of_the_users_own_go_by_their_names(tmp_path, home):
    (tmp_path / "segmenter").mkdir()
    (tmp_path / "segmenter" / "mine.yaml").write_text(
        "_target_: builtins.dict\nweights_path: ~/w.pt\nnote: ~/n\nyear_dir: 7\n"
    )
    config = load_config([f"hydra.searchpath=[{tmp_path}]", "segmenter=mine"])
    assert instantiate("segmenter", config.segmenter) == {
        "weights_path": f"{home}/w.pt",
        "note": "~/n",
        "year_dir": "7",
    }


def test_the_folder_of_own_options_is_a_path_too(home):
    (home / "conf" / "segmenter").mkdir(parents=True)
    (home / "conf" / "segmenter" / "mine.yaml").write_text("_target_: diffcut_bench.segmenters.DiffCut\ntau: 0.25\n")
    for written in ("[~/conf]", "~/conf", "$HOME/conf", f"[file://{home}/conf]"):
        assert load_config([f"hydra.searchpath={written}", "segmenter=mine"]).segmenter["tau"] == 0.25
    with pytest.raises(UserError, match="no such folder") as caught:
        load_config(["hydra.searchpath=[~/nope]", "segmenter=mine"])
    assert str(home / "nope") in caught.value.where


def test_words_of_commands_are_expanded(cli, home, shapes):
    cli("run", *shapes_overrides(shapes, home / "out"), "limit=2", "shard=1/2")
    cli("run", *shapes_overrides(shapes, home / "out"), "limit=2", "shard=2/2")
    assert cli("report", "~/out").code == 0
    assert (home / "out" / "reports" / "index.html").is_file()
    merged = cli("merge", "--from", "~/out", f"output_dir={home / 'whole'}")
    assert merged.code == 0, merged.err
    (cell,) = (home / "whole" / "results").iterdir()
    assert cli("show", f"$HOME/whole/results/{cell.name}").code == 0
    assert cli("compare", f"~/whole/results/{cell.name}", f"~/whole/results/{cell.name}").code == 0
    for words in (
        ["report", "$NOPE/x"],
        ["show", "$NOPE/x"],
        ["merge", "--from", "$NOPE/x"],
        ["segment", "$NOPE/x.jpg"],
    ):
        done = cli(*words, f"output_dir={home}")
        assert done.code == 2
        assert "$NOPE is not set" in done.err


def test_portable_paths_and_their_way_back(home, tmp_path):
    out = str(tmp_path / "work" / "out")
    written = {
        out: "{output_dir}",
        f"{out}/features": "{output_dir}/features",
        f"{home}/voc": "~/voc",
        str(home): "~",
        f"{tmp_path}/work/voc": "{output_dir}/../voc",
        f"{tmp_path}/scratch/alice/voc": "{output_dir}/../../scratch/USER/voc",
        f"{tmp_path}/scratch/alice-2/voc": "{output_dir}/../../scratch/alice-2/voc",
    }
    for path, text in written.items():
        assert portable_path(path, out) == text
        assert reopened({"dataset": {"root": text}}, out)["dataset"]["root"] == path
    elsewhere = str(tmp_path / "moved" / "out")
    assert reopened({"output_dir": "{output_dir}"}, elsewhere)["output_dir"] == elsewhere
    (tmp_path / "work" / "USER").mkdir(parents=True)
    assert reopened({"root": "{output_dir}/../USER"}, out)["root"] == f"{tmp_path}/work/USER"


def test_a_portable_config_says_nothing_of_the_machine_and_reopens(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights" / "ssd").mkdir(parents=True)
    config = load_config(
        [
            "dataset=voc",
            "dataset.root=~/voc",
            "backbone=ssd1b",
            "backbone.model=weights/ssd",
            "output_dir=out",
            "segmenter=precomputed",
            "segmenter.folder=$SCRATCH/alice/p",
            "namer=clip_b16",
            "+namer.words={root: '~'}",
            "prepared=s3://key:secret@bucket/p?token=abc&part=1",
            "+segmenter.weights=/data/alice/w.pt",
            "features=store",
        ]
    )
    stored = portable(config.to_dict(), config.output_dir)
    text = json.dumps(stored)
    assert "alice" not in text
    assert str(tmp_path) not in text
    assert "secret" not in text
    assert "abc" not in text
    assert stored["namer"]["words"] == {"root": "~"}, "a class of that name is no path"
    assert stored["choices"] == config.to_dict()["choices"]
    assert (stored["output_dir"], stored["data_dir"]) == ("{output_dir}", "{output_dir}/data")
    assert portable(stored, config.output_dir) == stored
    (tmp_path / "scratch" / "alice" / "p").mkdir(parents=True)
    back = RunConfig(**reopened(stored, tmp_path / "out"))
    assert back.dataset["root"] == f"{home}/voc"
    assert back.backbone["model"] == f"{tmp_path}/weights/ssd"
    assert back.segmenter["folder"] == f"{tmp_path}/scratch/alice/p"
    assert back.features["folder"] == f"{tmp_path}/out/features"
    assert back.prepared.startswith("s3://bucket/p?")


def test_names_that_are_folders_here_too_are_still_names(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("auto", "curated"):
        (tmp_path / name).mkdir()
    config = load_config(["dataset=coco_object"])
    stored = portable(config.to_dict(), config.output_dir)
    assert (stored["prepared"], stored["dataset"]["ids"]) == ("auto", "curated")


def test_a_checkpoint_of_the_users_own_option_may_be_a_name(tmp_path):
    config = {"backbone": {"checkpoint": "timm/vit_base_patch14_reg4_dinov2.lvd142m"}}
    assert portable(config, tmp_path) == config
    (tmp_path / "head.ckpt").touch()
    stored = portable({"segmenter": {"checkpoint": str(tmp_path / "head.ckpt")}}, tmp_path)
    assert stored == {"segmenter": {"checkpoint": "{output_dir}/head.ckpt"}}


def test_old_configs_are_read_as_they_are(tmp_path):
    old = {"output_dir": "outputs", "dataset": {"root": "/data/voc"}, "backbone": {"model": "segmind/SSD-1B"}}
    assert reopened(old, tmp_path) == old


def test_messages_name_options_in_place_of_folders(home, tmp_path):
    config = {"output_dir": str(tmp_path / "out"), "dataset": {"root": f"{home}/voc"}, "features": {"folder": None}}
    said = portable_text(f"{home}/voc/images/a.jpg: can't be decoded", config, config["output_dir"])
    assert said == "{dataset.root}/images/a.jpg: can't be decoded"
    said = portable_text(f"see {home}/b, {tmp_path}/out/c, /x{home}/voc/d, /data/alice/e", config, config["output_dir"])
    assert said == f"see ~/b, {{output_dir}}/c, /x{home}/voc/d, /data/USER/e".replace("home/alice", "home/USER")
    assert portable_text("nothing to hide", config, config["output_dir"]) == "nothing to hide"


def test_a_machine_that_knows_no_user(home, monkeypatch):
    def nobody():
        raise KeyError("uid not found")

    monkeypatch.setattr(paths.getpass, "getuser", nobody)
    assert portable_path("/data/alice/x", "/data/out") == "{output_dir}/../alice/x"


def test_results_say_nothing_of_the_machine_and_are_drawn_again(cli, home, shapes, tmp_path):
    broken = shapes / "images" / "picture1.png"
    broken.write_bytes(b"no picture")
    out = home / "out"
    done = cli("run", *shapes_overrides(shapes, out), "limit=3")
    assert done.code == 0, done.err
    (cell,) = (out / "results").iterdir()
    for name in ("result.json", "config.yaml"):
        text = (cell / name).read_text()
        assert str(tmp_path) not in text
        assert "alice" not in text
    result = read_result(cell)
    assert "{dataset.root}/images/picture1.png" in result.failures[0].error
    assert result.config["dataset"]["root"] == "{output_dir}/../../../shapes"
    shown = cli("report", out)
    assert shown.code == 0
    assert len(list((cell / "pictures").glob("*.png"))) == 2, "drawn again from the stored config"


def test_a_result_that_was_moved_with_its_data_is_drawn_again(cli, tmp_path, shapes):
    (tmp_path / "here").mkdir()
    shapes.rename(tmp_path / "here" / "shapes")
    cli("run", *shapes_overrides(tmp_path / "here" / "shapes", tmp_path / "here" / "out"), "limit=2", "limit_seed=1")
    (tmp_path / "here").rename(tmp_path / "there")
    assert cli("report", tmp_path / "there" / "out").code == 0
    assert list((tmp_path / "there" / "out" / "results").glob("*/pictures/*.png"))
    assert not (tmp_path / "here").exists()


def test_missing_shards_are_asked_for_where_their_data_are(cli, home, shapes):
    cli("run", *shapes_overrides(shapes, home / "out"), "limit=3", "shard=1/3")
    cli("run", *shapes_overrides(shapes, home / "out"), "limit=3", "shard=3/3")
    done = cli("merge", "output_dir=~/out")
    assert done.code == 2
    command = shlex.split(next(line for line in done.err.splitlines() if "diffcut-bench run" in line))
    assert command[-1] == "shard=2/3"
    assert cli(*command[1:]).code == 0
    assert cli("merge", "output_dir=~/out").code == 0
