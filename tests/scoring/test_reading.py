"""What is read of a pair follows from who looks at it; pictures travel as they were decoded."""

import pickle

import numpy as np
import pytest
import torch
from conftest import shapes_overrides
from PIL import Image

from diffcut_bench.config import load_config
from diffcut_bench.datasets import folder
from diffcut_bench.datasets.decoding import StoredPicture
from diffcut_bench.scoring.events import Observer
from diffcut_bench.scoring.features import open_features
from diffcut_bench.scoring.passes import open_dataset, run_cell, run_cells
from diffcut_bench.scoring.reading import Wanted, example_loader, read_ahead
from diffcut_bench.store import Failure, read_rows

GRID = ("segmenter=grid", "backbone=none", "features=memory")
CUT = ("segmenter=diffcut", "backbone=colour")


@pytest.fixture
def seen(monkeypatch) -> dict[str, int]:
    """How often an image's file is opened, and how often its colours are decoded."""
    counts = {"opened": 0, "decoded": 0}
    begin, rgb = StoredPicture.__init__, StoredPicture.rgb

    def opening(self, data, where, max_pixels):
        counts["opened"] += "/images/" in where
        begin(self, data, where, max_pixels)

    def decoding(self, **options):
        counts["decoded"] += 1
        return rgb(self, **options)

    monkeypatch.setattr(StoredPicture, "__init__", opening)
    monkeypatch.setattr(StoredPicture, "rgb", decoding)
    return counts


def damage(shapes, name: str) -> None:
    """Cut a picture off behind its header."""
    path = shapes / "images" / f"{name}.png"
    path.write_bytes(path.read_bytes()[:200])


def run(shapes, tmp_path, *words, observer=None):
    words = ("if_exists=overwrite", "reference=none", *words)
    config = load_config([*shapes_overrides(shapes, tmp_path / "out"), *words])
    return run_cell(config, observer)


@pytest.mark.parametrize(
    ("words", "first", "again"),
    [
        ((*GRID, "refiner=none"), 0, 0),
        ((*GRID, "refiner=pamr"), 8, 8),
        (("segmenter=slic", "backbone=none", "features=memory", "refiner=none"), 8, 8),
        ((*CUT, "refiner=none"), 8, 0),
        ((*CUT, "refiner=pamr"), 8, 8),
        ((*CUT, "refiner=none", "features=memory"), 8, 8),
        (("segmenter=grid", "backbone=colour", "features=store", "refiner=none"), 0, 0),
    ],
)
def test_colours_are_decoded_once_where_a_stage_looks_at_them_and_nowhere_else(
    shapes, tmp_path, seen, words, first, again
):
    cells = []
    for decoded in (first, again):
        seen.update(opened=0, decoded=0)
        cells.append(run(shapes, tmp_path, *words))
        assert seen == {"opened": 8, "decoded": decoded}
    assert read_rows(cells[0].folder) == read_rows(cells[1].folder)


def test_one_cell_of_a_pass_that_looks_is_enough(shapes, tmp_path, seen):
    words = [*shapes_overrides(shapes, tmp_path / "out"), *CUT, "reference=none"]
    run_cell(load_config([*words, "refiner=none", "limit=null"]))
    seen.update(opened=0, decoded=0)
    taus = [
        load_config([*words, f"refiner={refiner}", f"segmenter.tau={tau}"])
        for refiner, tau in (("none", 0.2), ("none", 0.3), ("pamr", 0.4))
    ]
    run_cells(taus)
    assert seen == {"opened": 8, "decoded": 8}


def test_precomputed_label_maps_need_no_colours(shapes, tmp_path, seen):
    words = ("segmenter=precomputed", f"segmenter.folder={shapes / 'labels'}", "refiner=none")
    assert not run(shapes, tmp_path, *words).result.failures
    assert seen == {"opened": 8, "decoded": 0}


def test_pictures_are_decoded_for_whoever_draws_them(shapes, tmp_path, seen):
    class Drawing(Observer):
        draws = True

        def draw(self, outcome, dataset, path):
            assert outcome.example.eval_image.shape == (3, 32, 32)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

        def finished(self, cell, dataset, outcomes):
            assert all(outcome.example.pixels is not None for outcome in outcomes(2))

    run(shapes, tmp_path, *GRID, "refiner=none", "visualise=3", observer=Drawing())
    assert seen == {"opened": 8 + 2, "decoded": 3 + 2}


def test_damage_behind_the_header_matters_where_colours_are_looked_at(shapes, tmp_path):
    whole = run(shapes, tmp_path, *GRID, "refiner=none")
    damage(shapes, "picture3")
    unseen = run(shapes, tmp_path, *GRID, "refiner=none")
    assert not unseen.result.failures
    assert read_rows(unseen.folder) == read_rows(whole.folder)
    for words in ((*GRID, "refiner=pamr"), (*CUT, "refiner=none")):
        (failure,) = run(shapes, tmp_path, *words).result.failures
        assert (failure.id, failure.index) == ("picture3", 3)
        assert "picture3.png: can't be decoded" in failure.error


def test_a_picture_that_is_none_or_of_another_size_is_a_failure_although_nobody_looks(shapes, tmp_path):
    (shapes / "images" / "picture1.png").write_text("no picture")
    Image.new("RGB", (9, 7)).save(shapes / "images" / "picture2.png")
    failures = run(shapes, tmp_path, *GRID, "refiner=none").result.failures
    assert [failure.id for failure in failures] == ["picture1", "picture2"]
    assert "can't be decoded (no picture format that is known)" in failures[0].error
    assert "label is 170×140 but its image is 9×7" in failures[1].error


def test_pixels_travel_cropped_as_bytes(shapes, tmp_path):
    config = load_config([*shapes_overrides(shapes, tmp_path / "out"), *CUT, "features=memory"])
    dataset, source = open_dataset(config), open_features(config, torch.device("cpu"))
    wanted = [Wanted(0), Wanted(1, features=True), Wanted(2, pixels=True)]
    ((unseen, *others),) = example_loader(dataset, wanted, source, batch_size=3)
    assert unseen.pixels is None and unseen.grid == others[0].grid
    for index, example in enumerate(others, start=1):
        side = min(example.frame) - 1
        assert example.pixels.dtype == torch.uint8
        assert example.pixels.shape == (3, side, side)
        assert len(pickle.dumps(example)) < 3 * side**2 + 8 * example.label.numel() + 4096
        whole = np.asarray(dataset.read(index)[0])
        top, left = (round((extent - side) / 2) for extent in example.frame)
        assert np.array_equal(example.pixels.permute(1, 2, 0), whole[top : top + side, left : left + side])


def test_another_process_reads_the_same(shapes, tmp_path):
    data = folder(str(shapes), num_classes=3)
    damage(shapes, "picture3")
    config = load_config([*shapes_overrides(shapes, tmp_path / "out"), *CUT, "features=memory"])
    source = open_features(config, torch.device("cpu"))
    wanted = [Wanted(index, pixels=index > 1) for index in range(5)]
    here, there = (
        [item for batch in example_loader(data, wanted, source, batch_size=2, num_workers=workers) for item in batch]
        for workers in (0, 1)
    )
    assert isinstance(here[3], Failure) and here[3] == there[3]
    for one, other in zip(here, there, strict=True):
        if not isinstance(one, Failure):
            assert torch.equal(one.label, other.label)
            assert (one.pixels is None) == (other.pixels is None) == (one.index <= 1)
            if one.pixels is not None:
                assert torch.equal(one.pixels, other.pixels)
                assert torch.equal(one.eval_image, other.eval_image)


def test_the_thread_that_reads_starts_no_threads_of_its_own():
    """With more threads than processors OpenMP lets all of them sleep after each operation, those that compute too."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:

        def batches():
            for _ in range(3):
                torch.rand(1 << 20).mul(2)  # large enough for several threads
                yield torch.get_num_threads()

        for reader in read_ahead(batches()):
            assert reader == 1
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
