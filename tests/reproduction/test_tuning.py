import json

import pytest
from conftest import shapes_overrides, write_shapes

from diffcut_bench.config import load_config
from diffcut_bench.errors import UserError
from diffcut_bench.reproduction import Tuning, tune_setting
from diffcut_bench.scoring.passes import run_cell


def test_the_setting_of_the_greatest_training_score_is_reported_on_the_data_set(cli, shapes, tmp_path):
    training = write_shapes(tmp_path / "training", 6)
    base = shapes_overrides(shapes, tmp_path / "out")
    arguments = ["--grid", "0.1,0.5,0.9", "--images", "4", "--draw", "3", "--train", f"dataset.root={training}"]
    done = cli("tune", *arguments, *base)
    assert done.code == 0, done.err
    (path,) = (tmp_path / "out" / "tuned").glob("*.json")
    record = json.loads(path.read_text())
    scores = {entry["value"]: entry["miou"] for entry in record["training"]}
    for tau, score in scores.items():
        alone = [o.replace(str(shapes), str(training)) for o in base]
        cell = run_cell(load_config([*alone, f"segmenter.tau={tau}", "limit=4", "limit_seed=3"]))
        assert cell.skipped, "the search had scored it"
        assert cell.result.metrics.miou == score
        assert cell.result.limited
    assert record["chosen"] == max(scores, key=lambda tau: scores[tau])
    assert f"segmenter.tau={record['chosen']:g}" in done.out
    final = run_cell(load_config([*base, f"segmenter.tau={record['chosen']}"]))
    assert final.skipped
    assert record["validation"] == {"key": final.result.key, "miou": final.result.metrics.miou}


def test_the_setting_is_chosen_by_the_score_that_leads(shapes, tmp_path):
    base = [*shapes_overrides(shapes, tmp_path / "out"), "score=voi"]
    tuned = tune_setting(base, Tuning(8, [0.1, 0.5, 0.9], train=[]))
    bits = [cell.result.scores["voi"].value for cell in tuned.training]
    assert len({*bits}) == 3 and tuned.chosen == tuned.tuning.grid[bits.index(min(bits))], "less is better"
    record = json.loads(tuned.write().read_text())
    assert [entry["voi"] for entry in record["training"]] == bits and "miou" not in record["validation"]


def test_training_images_are_drawn_at_random_and_the_same_again(shapes, tmp_path):
    from diffcut_bench.scoring.passes import open_dataset

    dataset = open_dataset(load_config(shapes_overrides(shapes, tmp_path)))
    draws = [dataset.select(4, seed).ids for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert draws[0] == sorted(draws[0])
    assert dataset.select(4).ids == [f"picture{i}" for i in range(4)]
    assert len(dataset.select(99, 1)) == 8


@pytest.mark.parametrize(
    ("dataset", "split"),
    [("voc", "train"), ("coco_stuff27", "train2017"), ("cityscapes27", "train"), ("ade20k", "training")],
)
def test_benchmarks_know_their_training_split(dataset, split, tmp_path):
    """It is asked for, and as it is not here, the error is about it."""
    with pytest.raises(UserError) as refused:
        tune_setting([f"dataset={dataset}", f"output_dir={tmp_path}"], Tuning(5, [0.5]))
    assert split in str(refused.value)


def test_mistakes(cli, shapes, tmp_path):
    base = shapes_overrides(shapes, tmp_path)
    for arguments, message in (
        ([], "no training split is known"),
        (["--grid", "a,b"], "are no numbers"),
        (["--images", "0"], "nothing to choose from"),
        (["--setting", "segmenter.tua", "--train", f"dataset.root={shapes}"], "unknown key"),
    ):
        done = cli("tune", *arguments, *base)
        assert done.code == 2
        assert message in done.err
        assert len(done.err.strip().splitlines()) == 3
