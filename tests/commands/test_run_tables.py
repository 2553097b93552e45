"""What ``run`` tells of its cells: the score that leads, and what it is worth."""

import re

import pytest
from conftest import shapes_overrides


@pytest.mark.slow
def test_a_sweep_is_told_by_the_score_that_leads(cli, shapes, tmp_path):
    base = ["-m", *shapes_overrides(shapes, tmp_path / "out"), "segmenter.tau=0.2,0.6"]
    plain = cli("run", *base)
    assert plain.code == 0, plain.err
    assert re.search(r"^tau ┃ mIoU ┃ 95 % interval ┃ pixel accuracy ┃ segments ┃ images$", plain.out, re.MULTILINE)
    told = cli("run", *base, "score=ari", "reference=shown")
    assert told.out.count("skipped: finished before") == 2, "the cells are the same"
    heading = next(line for line in told.out.splitlines() if line.startswith("tau"))
    names = [name.strip() for name in heading.split("┃")]
    assert names[:6] == ["tau", "ARI", "95 % interval", "floor", "ceiling", "lift (95 % interval)"]
    assert names[6:8] == ["mIoU", "its 95 % interval"]
    for sweep in (tmp_path / "out" / "sweeps").iterdir():
        figures = {path.name for path in sweep.glob("*.png")}
        assert figures == {"curves.png", "granularity.png", "granularity-others.png"}
    assert len(list((tmp_path / "out" / "results").iterdir())) == 2
    refused = cli("run", *base, "score=ary")
    assert (refused.code, len(refused.err.strip().splitlines())) == (2, 3)
    assert "no metric is named 'ary'" in refused.err
