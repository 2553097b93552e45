"""`python -m benchmarks --metrics`: every metric that looks at images has its row, and the shares are of one run."""

import json
from collections.abc import Callable

import pytest
from conftest import SMALL, Finished, program

from benchmarks.__main__ import main
from diffcut_bench.evaluation import known_metrics


@pytest.fixture
def bench(capsys: pytest.CaptureFixture[str]) -> Callable[..., Finished]:
    """Run `python -m benchmarks` in this process."""
    return program(main, capsys)


def test_every_metric_that_looks_at_images_has_a_row(bench, tmp_path):
    done = bench("--metrics", "--images", 2, *SMALL, f"output_dir={tmp_path}")
    assert done.code == 0, done.err
    rows = json.loads((tmp_path / "bench" / "metrics.json").read_text())["rows"]
    looking = [name for name, metric in known_metrics().items() if metric.measure is not None]
    assert [row["what"] for row in rows] == ["boundaries", *looking, "all"]
    assert all(row["what"] in done.out for row in rows)
    for of in ("ms_an_image", "share_computed", "share_stored"):
        *parts, whole = (row[of] for row in rows)
        assert sum(parts) == pytest.approx(whole) and min(parts) > 0
    assert rows[-1]["share_computed"] < 1
