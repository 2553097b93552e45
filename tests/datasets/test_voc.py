import miniatures
import numpy as np
import pytest
from conftest import SMALL
from miniatures import values

from diffcut_bench.config import instantiate, load_config
from diffcut_bench.datasets import VOID
from diffcut_bench.scoring.passes import run_cell
from diffcut_bench.scoring.reading import read_label
from diffcut_bench.store import read_rows


@pytest.mark.parametrize("void", ["background", "ignore"])
def test_background_can_be_left_out(tmp_path, void):
    miniatures.write_voc(tmp_path, values(0, 1, 15, 20, 255))
    overrides = ["dataset=voc", f"dataset.root={tmp_path}"]
    whole = instantiate("dataset", load_config(overrides).dataset).from_originals()
    objects = instantiate("dataset", load_config([*overrides, "dataset.background=false"]).dataset).from_originals()
    assert objects.class_names == whole.class_names[:20]
    assert "background" not in objects.class_names
    assert objects.background is None
    label = read_label(objects.pair(0), void)
    assert label.ravel()[:5].tolist() == [VOID, 0, 14, 19, VOID]
    assert objects.fingerprint() != whole.fingerprint()
    with pytest.raises(ValueError, match=r"has 0\.\.20, 255"):
        objects.class_map(np.array([[21]]), "a label")


def test_a_run_scores_twenty_classes_on_annotated_pixels_alone(tmp_path):
    label = np.zeros((60, 61), dtype=int)
    label[:30, :30], label[30:, 30:] = 3, 9  # a quarter each
    miniatures.write_voc(tmp_path, label, ids=("2007_000033",))
    miniatures.picture(tmp_path / "VOCdevkit" / "VOC2012" / "JPEGImages" / "2007_000033.jpg", size=(61, 60))
    overrides = ["dataset=voc", f"dataset.root={tmp_path}", f"output_dir={tmp_path / 'out'}", *SMALL]
    options = ["dataset.background=false", "segmenter=kmeans", "refiner=none", "upsampler=nearest"]
    cell = run_cell(load_config([*overrides, *options]))
    assert not cell.result.failures
    assert len(cell.result.metrics.iou_per_class) == 20
    (row,) = read_rows(cell.folder)
    assert row.segments == 2, "as many as classes are annotated, the background not among them"
    assert row.pixels == pytest.approx(32 * 32 / 2, rel=0.1)
    assert [c for c in range(20) if row.tp[c] + row.fn[c]] == [2, 8]
