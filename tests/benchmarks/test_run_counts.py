"""`make bench ARGS="--counts"`: every stage has its row, and the rows say what the accelerator was asked for."""

import json

import numpy as np
import pytest
import torch
from conftest import SMALL, blobs, program

from benchmarks.__main__ import _COUNTED, main
from benchmarks.counts import STAGES, Counted, count_stages
from benchmarks.launches import CROSSING_S, KERNEL_S, Counts
from benchmarks.material import Material
from benchmarks.run_counts import line_table, stage_table


@pytest.fixture
def bench(capsys):
    """Run `python -m benchmarks` in this process."""
    return program(main, capsys)


def material(background=0):
    generator = torch.Generator().manual_seed(0)
    nodes = torch.cat([blobs(4, 9, seed=seed)[0] for seed in range(2)])
    photos, labels = (
        torch.rand(2, 3, 24, 24, generator=generator),
        torch.randint(0, 4, (2, 24, 24), generator=generator),
    )
    return Material(nodes.mT.unflatten(2, (6, 6)), photos, labels, 4, background, "unmatched")


def test_every_stage_is_counted_and_gives_the_cpus_partition():
    rows = list(count_stages(material(), 3, 6.0, 0.7))
    assert tuple(row.stage for row in rows) == STAGES
    assert all(row.images == 3 and row.alpha == 6.0 and row.segments > 1 for row in rows)
    for row in rows:
        assert row.kernels > 0 and row.bytes > 0
        assert row.modelled_s >= KERNEL_S * row.kernels + CROSSING_S * row.crossings
        assert row.blocking_uploads <= min(row.uploads, row.crossings)
        assert all(place.partition(":")[0].endswith(".py") for place in row.places["kernels"]), row
    by_stage = {row.stage: row for row in rows}
    assert by_stage["cut"].equal == 1.0
    assert by_stage["cut"].kernels > by_stage["affinity"].kernels
    assert by_stage["affinity"].flops >= 2 * 3 * 36 * 36 * 16
    assert {place.partition("/")[0] for place in by_stage["pamr"].places["kernels"]} == {"refinement"}


def test_without_a_background_there_is_no_rule():
    rows = count_stages(material(background=None), 1, 6.0, 0.7, ["background", "matching"])
    assert [row.stage for row in rows] == ["matching"]


def test_batches_stand_beside_each_other():
    counts = Counts()
    counts.kernel("ncut/fiedler.py:7", 5, 3_000_000, 0)
    counts.upload("ncut/levels.py:9", torch.zeros(2), blocking=True)
    rows = [Counted.of("cut", images, counts, 5.0, 3.0, equal=1.0) for images in (1, 8)]
    table = stage_table([*rows, Counted.of("run", 8, counts)])
    assert table.title == "Batches of 1 / 8"
    head = [column.name for column in table.columns]
    cut = dict(zip(head, table.rows[1], strict=True))
    assert (cut["stage"], cut["alpha"], cut["kernels"], cut["waits"]) == ("cut", "5", "6 / 6", "1 / 1")
    assert (cut["uploads (waited for)"], cut["MB an image"]) == ("1 (1) / 1 (1)", "3 / 0.375")
    assert cut["equal to the CPU"] == "100% / 100%"
    assert table.rows[0][:3] == ("run", "", "6")
    assert line_table(rows[:1]).rows == (
        ("cut", "ncut/fiedler.py:7 5, ncut/levels.py:9 1", "ncut/levels.py:9 1", "ncut/levels.py:9 1"),
    )


def test_the_command_prints_markdown_and_writes_the_record(bench, tmp_path):
    features = tmp_path / "some.npz"
    np.savez(features, features=torch.cat([blobs(4, 16, seed=seed)[0] for seed in range(2)]).numpy())
    flags = ("--counts", "--images", 2, "--batches", "2,1", "--alphas", "5,6", "--features", features)
    flags += ("--stages", "pamr,cut,run")
    done = bench(*flags, *SMALL, f"output_dir={tmp_path}", "segmenter.tau=0.7")
    assert done.code == 0, done.err
    assert "### Batches of 1 / 2" in done.out and "| cut " in done.out and "| pamr " in done.out
    record = json.loads((tmp_path / "bench" / "counts.json").read_text())
    assert record["model"]["kernel_s"] == KERNEL_S
    assert (record["tau"], record["different_images"], record["features"]) == (0.7, 2, str(features))
    cuts = [row for row in record["rows"] if row["stage"] == "cut"]
    assert [(row["images"], row["alpha"]) for row in cuts] == [(1, 5.0), (1, 6.0), (2, 5.0), (2, 6.0)]
    assert {row["equal"] for row in cuts} == {1.0}
    assert {row["stage"].partition(",")[0] for row in record["rows"]} == {"cut", "pamr", "run"}
    computed, stored = (row for row in record["rows"] if row["stage"].startswith("run"))
    assert computed["stage"].endswith("computed") and stored["stage"].endswith("stored")
    assert computed["images"] == stored["images"] == 2
    assert computed["flops"] > stored["flops"] > 0
    assert not torch.accelerator.is_available()


def test_counts_and_speed_of_the_encoder_are_two_things(bench, tmp_path):
    done = bench("--counts", "--encoder", "tiny", f"output_dir={tmp_path}")
    assert done.code == 2
    assert "leave one out" in done.err


def test_every_stage_can_be_asked_for(bench, tmp_path):
    done = bench("--counts", "--stages", "cuts", f"output_dir={tmp_path}")
    assert done.code == 2
    assert "did you mean cut" in done.err
    assert set(_COUNTED) == {*STAGES, "run"}
