"""gPb-owt-ucm's own output on the real BSDS500: what vouches for covering, PRI, VoI, ODS and OIS.

The figures of ten images were computed apart from this package, by scipy.ndimage.label and tables in double precision;
those of all images are the first computation that stands beside the data.
"""

from dataclasses import replace

import pytest

from diffcut_bench.reproduction import load_reproduction, measure_cells, plan_cells
from diffcut_bench.scoring.events import Observer

TEN = {
    "covering_ods": 0.6559810012324201,
    "covering_ois": 0.7117311152545287,
    "pri_ods": 0.8416619618690723,
    "pri_ois": 0.8686200281446729,
    "voi_ods": 1.4029297530226523,
    "voi_ois": 1.1981010416245852,
}
OF_ALL = (0.588, 0.637, 0.827, 0.851, 1.692, 1.522)
ALL = dict(zip(TEN, OF_ALL, strict=True))


def measured(shared, output, *overrides):
    """ODS and OIS over 14 thresholds, and the words of their verdicts."""
    table = load_reproduction("bsds500")
    (row,) = (row for row in table.rows if row.name == "gPb-owt-ucm")
    fewer = replace(row, sweep=["segmenter.threshold=range(0.04,0.57,0.04)"])
    table = replace(table, rows=[fewer], columns={column: [] for column in TEN})
    root = shared / "data" / "bsds500" / "BSDS500"
    words = [f"dataset.root={root}", f"segmenter.folder={root / 'ucm2' / 'test'}", "prepared=never"]
    outcomes = measure_cells(table, plan_cells(table, [*words, f"output_dir={output}", *overrides]), Observer())
    return {each.cell.column: each.ours for each in outcomes}


@pytest.mark.slow
def test_ten_images_are_those_of_a_plain_computation(shared, tmp_path):
    found = measured(shared, tmp_path, "limit=10")
    assert {column: ours.value for column, ours in found.items()} == pytest.approx(TEN, abs=1e-12)
    assert found["covering_ods"].at == "threshold 0.2"
    assert all(ours.interval[0] < ours.value < ours.interval[1] for ours in found.values())


@pytest.mark.slow
def test_all_images_are_those_of_the_first_computation(shared, tmp_path):
    found = measured(shared, tmp_path)
    assert {column: ours.value for column, ours in found.items()} == pytest.approx(ALL, abs=5e-4)
    assert not any(ours.limits for ours in found.values())
