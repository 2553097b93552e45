"""Hydra's flags on our command line: they show what is composed, or say what to type instead."""

import pytest
import yaml


def test_cfg_prints_the_config_and_runs_nothing(cli, tmp_path):
    words = ["--cfg", "job", f"output_dir={tmp_path / 'out'}", "segmenter.tau=0.4", "+experiment=first_look"]
    shown = cli("run", *words)
    assert shown.code == 0, shown.err
    config = yaml.safe_load(shown.out)
    assert (config["segmenter"]["tau"], config["limit"], "hydra" in config) == (0.4, 20, False)
    assert config["segmenter"]["zero_affinity"] == "${protocol.zero_affinity}"
    part = cli("run", *words, "--resolve", "-p", "segmenter")
    assert yaml.safe_load(part.out)["zero_affinity"] == "drop"
    assert set(yaml.safe_load(cli("run", "-c", "all").out)) > {"hydra", "segmenter"}
    assert set(yaml.safe_load(cli("run", "-c", "hydra").out)) == {"hydra"}
    assert cli("run", "-c", "job", "-p", "limit").out == "null\n"
    assert "BasicSweeper" in cli("run", "-c", "hydra", "-p", "hydra.sweeper", "hydra/sweeper=basic").out
    assert not (tmp_path / "out").exists()


def test_info_says_how_the_config_is_composed(cli):
    told = cli("run", "--info", "defaults-tree", "segmenter=kmeans").out
    assert "segmenter: kmeans" in told
    assert "Config search path" in cli("run", "--info").out


def test_options_of_ones_own_are_found_by_a_flag(cli, tmp_path):
    (tmp_path / "a" / "experiment").mkdir(parents=True)
    (tmp_path / "a" / "experiment" / "mine.yaml").write_text("# @package _global_\nlimit: 7\n")
    (tmp_path / "b, c").mkdir()
    flags = ["--config-dir", tmp_path / "b, c", "-cd", tmp_path / "a"]
    for word in ("experiment=mine", "+experiment=mine"):
        shown = cli("run", *flags, word, "--cfg", "job", "-p", "limit")
        assert shown.out.split() == ["7"], shown.err
    both = cli("run", *flags, "hydra.searchpath=[/x]")
    assert (both.code, "use one of the two" in both.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "instead"),
    [
        (["run", "-cn", "mine"], "experiment=NAME"),
        (["run", "--config-path", "x"], "--config-dir x"),
        (["run", "--config-dir", "/nope"], "no such folder"),
        (["run", "--shell-completion", "install=bash"], "diffcut-bench completion bash"),
        (["run", "--experimental-rerun", "x"], "same command again"),
        (["run", "-m", "--cfg", "job"], "leave -m out"),
        (["run", "--resolve"], "add --cfg job"),
        (["run", "--cfg", "job", "segmenter.tua=1"], "did you mean segmenter.tau"),
        (["run", "--info", "wrong"], "defaults-tree"),
        (["check", "--cfg", "job"], "diffcut-bench run --cfg job"),
        (["doctor", "--info"], "diffcut-bench run --info"),
        (["run", "hydra/sweeper=optuna"], "add -m"),
        (["run", "--cfg", "job", "-p", "segmentor"], "did you mean segmenter"),
        (["run", "--cfg", "hydra", "-p", "segmenter"], "hydra.sweeper"),
        (["run", "--version"], "diffcut-bench --version"),
        (["segment", "-m", "photo.jpg"], "diffcut-bench run -m"),
        (["--cfg", "job"], "diffcut-bench run --cfg job"),
        (["--hydra-help"], "diffcut-bench run --hydra-help"),
        (["-m", "segmenter.tau=0.3,0.5"], "diffcut-bench run -m"),
        (["segmenter.tau=0.3"], "diffcut-bench run segmenter.tau=0.3"),
    ],
)
def test_what_does_not_work_says_what_does(cli, words, instead):
    done = cli(*words)
    assert (done.code, len(done.err.strip().splitlines())) == (2, 3), done.err
    assert instead in done.err


def test_the_help_names_every_flag(cli):
    told = cli("run", "--hydra-help").out
    names = ("--cfg", "--info", "--config-dir", "--config-name", "completion", "glob(", "experiment=", "searchpath")
    assert [name for name in (*names, "optuna", "interval(", "++", "~") if name not in told] == []
    assert max(map(len, told.splitlines())) <= 80


@pytest.mark.parametrize("kind", ["all", "config", "defaults", "defaults-tree", "plugins", "searchpath"])
def test_every_kind_of_info_is_told(cli, kind):
    told = cli("run", "--info", kind)
    assert (told.code, told.err) == (0, "")
    assert len(told.out.splitlines()) > 3


def test_keys_are_added_changed_and_removed_as_in_hydra(cli):
    words = ("++limit=3", "++segmenter.fresh=1", "+segmenter.new=2", "~segmenter.alpha")
    shown = yaml.safe_load(cli("run", "--cfg", "job", *words).out)
    assert (shown["limit"], shown["segmenter"]["fresh"], shown["segmenter"]["new"]) == (3, 1, 2)
    assert "alpha" not in shown["segmenter"]
