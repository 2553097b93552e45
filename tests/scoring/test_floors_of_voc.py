"""All of VOC 2012 val by its annotations alone: the published split, and the floor that docs/protocol.md states."""

import shutil

import pytest
from PIL import Image

from diffcut_bench.config import load_config
from diffcut_bench.scoring.passes import run_cells


@pytest.mark.slow
@pytest.mark.shared
def test_a_grid_on_all_of_voc(cli, shared, tmp_path):
    source, devkit = shared / "data" / "voc_val_labels" / "VOCdevkit" / "VOC2012", tmp_path / "VOCdevkit" / "VOC2012"
    if not source.is_dir():
        pytest.skip("the annotations are not there")
    for part in ("SegmentationClass", "ImageSets"):
        shutil.copytree(source / part, devkit / part)
    (devkit / "JPEGImages").mkdir()
    for mask in (source / "SegmentationClass").glob("*.png"):
        with Image.open(mask) as label:
            Image.new("RGB", label.size, (128, 128, 128)).save(devkit / "JPEGImages" / f"{mask.stem}.jpg", quality=50)

    words = ["dataset=voc", f"dataset.root={tmp_path / 'VOCdevkit'}", f"output_dir={tmp_path / 'out'}"]
    words += ["segmenter=grid", "refiner=none", "batch_size=32"]
    released, paper = run_cells([load_config([*words, f"protocol={name}"]) for name in ("released", "paper")])
    assert released.result.dataset.n_images == released.result.dataset.n_expected == 1449
    assert released.result.metrics.miou == pytest.approx(0.316507665640, abs=1e-12)
    assert paper.result.metrics.miou == pytest.approx(0.199146010448, abs=1e-12)
    for cell in (released, paper):
        assert (cell.result.reference.lift.value, cell.result.reference.ceiling.value) == (0, 1)
    verified = cli("data", "verify", *words[:3])
    assert verified.code == 0 and "fine: the published split" in verified.out
