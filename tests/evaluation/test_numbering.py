"""No number of a segment changes a score under ``paper`` and ``strict``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import same_partition, shapes_overrides
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.segmentation import slic

from diffcut_bench.config import load_config
from diffcut_bench.evaluation import (
    Counts,
    assign_clusters,
    count_matches,
    count_matches_together,
    match_image,
    merge_backgrounds,
    number_by_first_pixel,
)
from diffcut_bench.scoring.passes import run_cell
from diffcut_bench.segmenters import DiffCut
from diffcut_bench.store import ImageRow, read_rows

RULES = ("unmatched", "overlap", "one_to_one")
seeds = st.integers(0, 10_000)
criteria = st.sampled_from(["overlap", "iou"])


def renumbered(prediction: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
    """Other numbers for the same segments, with gaps between them."""
    ids = int(prediction.max()) + 1
    return torch.from_numpy(generator.choice(3 * ids, ids, replace=False))[prediction]


def listed(counts: Counts) -> list[list[int]]:
    return [each.tolist() for each in counts]


@settings(max_examples=150, deadline=None)
@given(seeds, st.sampled_from(RULES), criteria, st.integers(1, 6), st.integers(1, 12))
def test_no_number_changes_the_counts_of_an_image(seed, rule, criterion, classes, clusters):
    generator = np.random.default_rng(seed)
    label = torch.from_numpy(generator.integers(-1, classes, (4, 5)))  # few pixels: most assignments tie
    prediction = torch.from_numpy(generator.integers(0, clusters, (4, 5)))
    chosen = {"criterion": criterion, "surplus": "unmatched"}
    first = match_image(prediction, label, classes, rule, **chosen)
    assert listed(match_image(renumbered(prediction, generator), label, classes, rule, **chosen)) == listed(first)


def test_under_the_released_choice_numbers_do_change_them():
    label = torch.zeros(1, 4, dtype=torch.long)
    counts = [match_image(torch.tensor([ids]), label, 3).fp.tolist() for ids in ([0, 0, 1, 2], [0, 0, 3, 4])]
    assert counts == [[0, 1, 1], [0, 0, 0]]


@settings(max_examples=100, deadline=None)
@given(seeds, criteria, st.integers(1, 4), st.integers(1, 7))
def test_no_number_changes_the_counts_of_one_matching_for_all(seed, criterion, classes, clusters):
    generator = np.random.default_rng(seed)
    tables = torch.from_numpy(generator.integers(0, 3, (3, classes, max(classes, clusters))))
    gaps = torch.zeros(3, classes, int(generator.integers(0, 4)), dtype=torch.long)
    other = torch.cat([tables, gaps], dim=2)
    other = other[:, :, torch.from_numpy(generator.permutation(other.shape[2]))]
    first, second = (count_matches_together(list(each), criterion, "unmatched") for each in (tables, other))
    assert list(map(listed, first)) == list(map(listed, second))


@settings(max_examples=100, deadline=None)
@given(seeds, criteria)
def test_an_unmatched_cluster_is_nobodys_and_the_rest_is_as_released(seed, criterion):
    generator = np.random.default_rng(seed)
    table = torch.from_numpy(generator.integers(0, 50, (4, 6)) * generator.integers(0, 2, (4, 1)))
    assigned = assign_clusters(table, criterion, "unmatched")
    given_away = assign_clusters(table, criterion)
    score = table.double()
    if criterion == "iou":
        score = score / (score.sum(0) + score.sum(1, keepdim=True) - score).clamp_min(1)

    def total(columns: torch.Tensor) -> float:
        return (score[torch.arange(4), columns] * (columns >= 0)).sum().item()

    assert total(assigned) == pytest.approx(total(given_away))
    tp, fp, fn = count_matches(table, criterion, "unmatched")
    assert torch.equal(tp + fn, table.sum(dim=1))
    assert (fp[tp == 0] == 0).all()
    assert torch.equal(assigned < 0, tp == 0)


def test_a_surplus_cluster_costs_an_absent_class_nothing():
    prediction, label = torch.tensor([[0, 0, 0, 1]]), torch.zeros(1, 4, dtype=torch.long)
    assert listed(match_image(prediction, label, 2)) == [[3, 0], [0, 1], [1, 0]]
    assert listed(match_image(prediction, label, 2, surplus="unmatched")) == [[3, 0], [0, 0], [1, 0]]


def test_a_present_class_without_a_pixel_of_its_own_is_missed():
    # Class 1 lies in a cluster that class 0 takes; cluster 1 lies on void alone.
    prediction, label = torch.tensor([[0, 0, 0, 1]]), torch.tensor([[0, 0, 1, -1]])
    assert listed(match_image(prediction, label, 2, surplus="unmatched")) == [[2, 0], [1, 0], [0, 1]]


def test_the_background_rule_gives_nobodys_clusters_to_the_background():
    # Class 1 is in cluster 0 alone, which class 0 takes: cluster 1 shares no pixel with it.
    prediction, label = torch.tensor([[0, 0, 0, 1, 2]]), torch.tensor([[0, 0, 1, 2, 2]])
    for surplus, merged in (("absent_class", [0, 0, 0, 1, 3]), ("unmatched", [0, 0, 0, 3, 3])):
        found = merge_backgrounds(prediction[None], label[None], 3, 2, "unmatched", surplus=surplus)
        assert found.tolist() == [[merged]]


def test_background_may_be_the_only_class():
    prediction, label = torch.tensor([[0, 1]]), torch.tensor([[0, 0]])
    for surplus in ("absent_class", "unmatched"):
        assert match_image(prediction, label, 1, "unmatched", surplus=surplus).tp.tolist() == [2]


@settings(max_examples=50, deadline=None)
@given(seeds)
def test_numbers_by_first_pixel_are_in_order_and_of_the_same_segments(seed):
    generator = np.random.default_rng(seed)
    labels = torch.from_numpy(generator.integers(0, 9, (2, 4, 5)))
    numbered = number_by_first_pixel(labels)
    for before, after in zip(labels, numbered, strict=True):
        assert same_partition(before, after)
        seen = after.flatten().tolist()
        assert list(dict.fromkeys(seen)) == list(range(len(set(seen))))
        assert torch.equal(number_by_first_pixel(renumbered(before, generator)[None])[0], after)


def rows_of(overrides: list[str], folder: Path, maps: dict[str, np.ndarray], out: Path) -> list[ImageRow]:
    """Rows of the segmentations with PAMR, whose median and ties look at numbers."""
    folder.mkdir()
    for name, ids in maps.items():
        Image.fromarray(ids.astype(np.uint16)).save(folder / f"{name}.png")
    chosen = ["segmenter=precomputed", f"segmenter.folder={folder}", "refiner=pamr", f"output_dir={out}"]
    return read_rows(run_cell(load_config([*chosen, *overrides])).folder)


def superpixels(pictures: list[Path], segments: int) -> dict[str, np.ndarray]:
    return {path.stem: slic(np.asarray(Image.open(path).convert("RGB")), segments, start_label=0) for path in pictures}


def differing_rows(overrides: list[str], maps: dict[str, np.ndarray], root: Path) -> int:
    """In how many images other numbers give other rows."""
    generator = np.random.default_rng(0)
    shuffled = {name: renumbered(torch.from_numpy(ids), generator).numpy() for name, ids in maps.items()}
    rows = [rows_of(overrides, root / name, m, root / "out") for name, m in (("as", maps), ("other", shuffled))]
    assert len(rows[0]) == len(maps)
    return sum(a != b for a, b in zip(*rows, strict=True))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("protocol", ["paper", "strict"])
def test_no_number_changes_a_run(shapes, tmp_path, protocol, rule):
    own = [*shapes_overrides(shapes, tmp_path), f"protocol={protocol}", f"protocol.background_rule={rule}"]
    maps = superpixels(sorted((shapes / "images").iterdir()), 60)
    assert differing_rows(own, maps, tmp_path) == 0


def test_numbers_change_a_released_run(shapes, tmp_path):
    own = [*shapes_overrides(shapes, tmp_path), "protocol.background_rule=one_to_one"]
    assert differing_rows(own, superpixels(sorted((shapes / "images").iterdir()), 60), tmp_path) > 0


@pytest.mark.shared
@pytest.mark.parametrize(
    ("protocol", "eval_size"),
    [("paper", 128), ("strict", 256), pytest.param("strict", "original", marks=pytest.mark.slow)],
)
def test_no_number_changes_the_voc_samples(shared, tmp_path, protocol, eval_size):
    devkit = shared / "samples" / "VOCdevkit"
    names = (devkit / "VOC2012/ImageSets/Segmentation/val.txt").read_text().split()
    maps = superpixels([devkit / f"VOC2012/JPEGImages/{name}.jpg" for name in names], 60)
    own = ["dataset=voc", f"dataset.root={devkit}", "prepared=never", f"protocol={protocol}"]
    assert differing_rows([*own, f"protocol.eval_size={eval_size}"], maps, tmp_path) == 0


@dataclass(frozen=True)
class Renumbered(DiffCut):
    """DiffCut whose segments have other numbers."""

    draw: int = 0

    @classmethod
    def together(cls, segmenters: Sequence["Renumbered"], features: torch.Tensor) -> list[torch.Tensor]:
        found = []
        for one, partition in zip(segmenters, DiffCut.together(segmenters, features), strict=True):
            generator = np.random.default_rng(one.draw)
            found.append(torch.stack([renumbered(labels, generator) for labels in partition]))
        return found


def diffcut_rows(shapes: Path, tmp_path: Path, *overrides: str) -> list[list[ImageRow]]:
    """Rows of DiffCut's own segmentation as the cut numbers it, and of three renumberings."""
    own = [*shapes_overrides(shapes, tmp_path), "backbone=colour", "segmenter.tau=0.9", "refiner=pamr", *overrides]
    own += ["segmenter.alpha=20", "protocol.image_size=256"]
    other = f"segmenter._target_={__name__}.Renumbered"
    cells = [load_config([*own, *more]) for more in ([], *([other, f"+segmenter.draw={n}"] for n in range(3)))]
    return [read_rows(run_cell(config).folder) for config in cells]


@pytest.mark.parametrize("protocol", ["paper", "strict"])
def test_no_number_changes_the_score_of_the_recursive_cut(shapes, tmp_path, protocol):
    first, *others = diffcut_rows(shapes, tmp_path, f"protocol={protocol}")
    assert all(row.segments > 3 for row in first), "more than classes, so that some are surplus"
    assert all(rows == first for rows in others)


def test_numbers_change_the_released_score_of_the_recursive_cut(shapes, tmp_path):
    first, *others = diffcut_rows(shapes, tmp_path, "protocol.background_rule=one_to_one")
    assert any(rows != first for rows in others)


def test_the_released_matching_sees_gaps_between_the_numbers_of_a_file(shapes, tmp_path):
    quarters = {path.stem: np.indices(Image.open(path).size[::-1])[1] // 40 for path in (shapes / "images").iterdir()}
    chosen = ["dataset.num_classes=9", "protocol.background_rule=one_to_one", "refiner=none"]
    own = [*shapes_overrides(shapes, tmp_path), *chosen]

    def false_positives(folder: str, maps: dict[str, np.ndarray], *overrides: str) -> int:
        rows = rows_of([*own, *overrides], tmp_path / folder, maps, tmp_path / "out")
        return sum(sum(row.fp) for row in rows)

    apart = {name: 12 * ids for name, ids in quarters.items()}
    assert false_positives("apart", apart) < false_positives("close", quarters)
    colours = {name: 5000 * ids for name, ids in quarters.items()}  # beyond what is kept: by rank
    assert false_positives("colours", colours) == false_positives("close again", quarters)
