import numpy as np
import pytest
from conftest import SMALL
from PIL import Image


def write(root, values, ids=(0, 1, 2)):
    """Pictures whose labels are a square of each value, side by side; the first value is half of the picture."""
    for part in ("images", "labels"):
        (root / part).mkdir(parents=True, exist_ok=True)
    for i in ids:
        label = np.full((60, 80), values[0], dtype=np.uint8)
        for number, value in enumerate(values[1:]):
            label[:, 40 + number * 40 // len(values[1:]) :] = value
        Image.fromarray(label).save(root / "labels" / f"{i}.png")
        Image.fromarray(np.stack([label, 255 - label, label // 2], axis=2)).save(root / "images" / f"{i}.png")
    return root


def run(cli, root, out, *overrides):
    base = ["dataset=folder", f"dataset.root={root}", f"output_dir={out}", *SMALL, "backbone=colour", "protocol=paper"]
    return cli("run", *base, *overrides)


def test_masks_of_0_and_255_are_not_scored_as_one_class(cli, tmp_path):
    root = write(tmp_path / "data", (0, 255))
    done = run(cli, root, tmp_path / "out", "dataset.num_classes=2")
    assert done.code == 2
    assert "50.0 % of the pixels are void" in done.err
    assert "never annotated: class 1" in done.err
    assert "accept_labels=true" in done.err
    assert not (tmp_path / "out" / "results").exists()
    confirmed = run(cli, root, tmp_path / "out", "dataset.num_classes=2", "accept_labels=true")
    assert confirmed.code == 0, confirmed.err
    notes = (
        "void: 46.9 % of the pixels of folder",
        "never annotated in these 3 images of folder: 1 of 2 classes (class 1)",
    )
    assert [note for note in notes if note not in confirmed.out] == [], confirmed.out
    assert cli("report", tmp_path / "out").code == 0
    page = (tmp_path / "out" / "reports" / "index.html").read_text()
    assert all(note in page for note in notes)


def test_a_class_that_void_seems_to_stand_for(cli, tmp_path):
    root = write(tmp_path / "data", (0, 1, 255))
    assert run(cli, root, tmp_path / "out", "dataset.num_classes=3").code == 2
    assert run(cli, root, tmp_path / "out", "dataset.num_classes=2").code == 0


def test_nearly_everything_void(cli, tmp_path):
    root = write(tmp_path / "data", (255, 255))
    label = np.full((60, 80), 255, dtype=np.uint8)
    label[0, :2] = (0, 1)
    Image.fromarray(label).save(root / "labels" / "0.png")
    done = run(cli, root, tmp_path / "out", "dataset.num_classes=2")
    assert done.code == 2
    assert "100.0 % of the pixels are void" in done.err


@pytest.mark.parametrize("values", [(0, 1), (0, 0)])
def test_classes_that_do_not_occur_are_no_mistake_where_nothing_is_void(cli, tmp_path, values):
    root = write(tmp_path / "data", values)
    assert run(cli, root, tmp_path / "out", "dataset.num_classes=4").code == 0


def test_a_single_class(cli, tmp_path):
    """torchmetrics squeezes a score of one class, numpy a table of one row, and so on."""
    root = write(tmp_path / "data", (0, 255))
    done = run(cli, root, tmp_path / "out", "dataset.num_classes=1")
    assert done.code == 0, done.err
    one = run(cli, root, tmp_path / "out", "dataset.num_classes=1", "limit=1", "dataset.background=0", "segmenter=grid")
    assert one.code == 0, one.err
    for command in (["report"], ["verify"], ["compare", "one", "two"]):
        cells = sorted(str(path) for path in tmp_path.glob("out/results/*"))
        words = cells if command[0] == "compare" else [f"output_dir={tmp_path / 'out'}"]
        done = cli(command[0], *words)
        assert "Traceback" not in done.err
        assert done.code == 0 or command[0] == "compare", done.err
