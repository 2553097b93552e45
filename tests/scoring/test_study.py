"""Studies: Optuna, as Hydra's sweeper, chooses the next cell by the scores of those before it."""

import json
import re

import pytest
import yaml
from conftest import SMALL

from diffcut_bench.config import load_config
from diffcut_bench.scoring import study
from diffcut_bench.scoring.study import plan_study

SMALLEST = ("backbone=colour", "limit=2", *SMALL)


@pytest.fixture
def optuna():
    """The plugin, where it is installed; its own sampler's numbers are drawn anew in each study without a seed."""
    return pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="pip install 'diffcut_bench[sweepers]'")


@pytest.mark.slow
def test_a_study_finds_the_best_of_its_trials(cli, tmp_path, optuna):
    out = tmp_path / "a b"
    words = [
        *("-m", "hydra/sweeper=optuna", "segmenter.tau=interval(0.3,0.8)", "segmenter.alpha=choice(5,10,15)"),
        *("hydra.sweeper.n_trials=8", "hydra.sweeper.sampler.seed=1", f"output_dir={out}", *SMALLEST, "explore=true"),
    ]
    done = cli("run", *words)
    assert done.code == 0, done.err
    assert "study of 8 trials over segmenter.tau, segmenter.alpha: maximize mIoU" in done.out
    (folder,) = (out / "sweeps").iterdir()
    trials = [json.loads(path.read_text()) for path in sorted((folder / "cells").iterdir())]
    scores = []
    for number, trial in enumerate(trials):
        result = json.loads((out / "results" / trial["folder"].rpartition("/")[2] / "result.json").read_text())
        scores.append(result["metrics"]["miou"])
        assert f"segmenter.tau={result['config']['segmenter']['tau']}" in trial["overrides"]
        assert 0.3 <= result["config"]["segmenter"]["tau"] <= 0.8
        varied = f"segmenter.tau={result['config']['segmenter']['tau']} segmenter.alpha="
        assert re.search(rf"^trial {number + 1}: {re.escape(varied)}\d+: mIoU", done.out, re.MULTILINE)
    assert len(scores) == 8
    best = yaml.safe_load((folder / "optimization_results.yaml").read_text())
    assert best["best_value"] == pytest.approx(max(scores))
    told = " ".join(f"{key}={value}" for key, value in best["best_params"].items())
    assert f"best     {told}: mIoU {100 * max(scores):.1f}" in done.out
    again = cli("run", *words)
    assert again.out.count(", finished before\n") == 16, "a seeded study finds its cells: a heading and a trial of each"


def test_less_is_sought_where_less_is_better(cli, tmp_path, optuna):
    done = cli(
        *("run", "-m", "hydra/sweeper=optuna", "segmenter=choice(grid,one_segment)", "score=voi"),
        *("hydra.sweeper.n_trials=2", "hydra/sweeper/sampler=grid", f"output_dir={tmp_path}", *SMALLEST),
    )
    assert done.code == 0, done.err
    assert "over segmenter: minimize VoI" in done.out
    (best,) = [line for line in done.out.splitlines() if line.startswith("best ")]
    values = [float(line.split()[-1]) for line in done.out.splitlines() if line.startswith("trial ")]
    assert float(best.split()[-1]) == min(values)


def test_a_trial_that_fails_is_named(cli, tmp_path, optuna):
    done = cli(
        *("run", "-m", "hydra/sweeper=optuna", "segmenter.tau=choice(0.5,7)", "hydra/sweeper/sampler=grid"),
        *("hydra.sweeper.n_trials=2", "hydra.sweeper.max_failure_rate=0.5", f"output_dir={tmp_path}", *SMALLEST),
    )
    assert done.code == 2
    assert "best     segmenter.tau=0.5" in done.out
    assert "segmenter.tau=7" in done.err


def test_options_of_ones_own_and_globs_are_chosen_from(cli, tmp_path, optuna):
    (tmp_path / "segmenter").mkdir()
    for clusters in (2, 3):
        text = f"_target_: diffcut_bench.segmenters.KMeans\nclusters: {clusters}\n"
        (tmp_path / "segmenter" / f"own{clusters}.yaml").write_text(text)
    done = cli(
        *("run", "--config-dir", tmp_path, "-m", "hydra/sweeper=optuna", "segmenter=glob(own*)"),
        *("hydra.sweeper.n_trials=2", "hydra/sweeper/sampler=grid", f"output_dir={tmp_path / 'out'}", *SMALLEST),
    )
    assert done.code == 0, done.err
    assert "segmenter=own2" in done.out
    assert "segmenter=own3" in done.out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["hydra.sweeper.n_trial=8", "segmenter.tau=interval(0.3,0.8)"], "no such setting"),
        (["hydra/sweeper/sampler=best", "segmenter.tau=interval(0.3,0.8)"], "hydra/sweeper/sampler/best"),
        (["segmenter.tua=interval(0.3,0.8)"], "did you mean segmenter.tau"),
        (["segmenter.tau=0.5"], "a study over nothing"),
        (["segmenter.tau=interval(0.3,0.8)", "score=segments"], "such as score=miou"),
    ],
)
def test_mistakes_are_found_before_the_first_trial(cli, tmp_path, optuna, words, told):
    done = cli("run", "-m", "hydra/sweeper=optuna", *words, f"output_dir={tmp_path / 'out'}")
    assert (done.code, len(done.err.strip().splitlines())) == (2, 3), done.err
    assert told in done.err
    assert not (tmp_path / "out").exists()


def test_a_sweeper_that_is_not_there_says_what_to_install(cli, monkeypatch):
    monkeypatch.setattr(study, "_PLUGIN", "hydra_plugins.of_nobody")
    done = cli("run", "-m", "hydra/sweeper=optuna", "segmenter.tau=interval(0.3,0.8)")
    assert (done.code, "pip install 'diffcut_bench[sweepers]'" in done.err) == (2, True)
    other = cli("run", "-m", "hydra/sweeper=ax", "segmenter.tau=interval(0.3,0.8)")
    assert (other.code, "hydra/sweeper=optuna, or leave it out" in other.err) == (2, True)


def test_hydras_own_sweeper_is_a_sweep(cli, tmp_path):
    done = cli("run", "-m", "hydra/sweeper=basic", "segmenter.tau=0.4,0.5", f"output_dir={tmp_path}", *SMALLEST)
    assert done.code == 0, done.err
    assert "sweep of 2 cells in 1 pass" in done.out


def test_a_config_is_composed_within_a_job_of_hydra(tmp_path, optuna):
    """The trial's own config, and the outer one is still there afterwards."""
    planned = plan_study(["hydra/sweeper=optuna", "segmenter.tau=interval(0.3,0.8)", f"output_dir={tmp_path}"])
    assert planned.config.segmenter["tau"] == 0.3
    assert load_config([]).segmenter["tau"] == 0.5
