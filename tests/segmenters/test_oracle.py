"""The annotation at patch resolution: against a plain loop, and through the whole pipeline."""

import pytest
import torch
from conftest import shapes_overrides

from diffcut_bench.config import load_config
from diffcut_bench.scoring.passes import run_cell
from diffcut_bench.segmenters import Oracle
from diffcut_bench.segmenters.oracle import patch_classes
from diffcut_bench.store import read_rows


def plainly(label: torch.Tensor, rows: int, cols: int) -> torch.Tensor:
    """Pixel by pixel: votes of each patch, then the winner of each pixel's patch."""
    height, width = label.shape
    votes: dict[tuple[int, int], dict[int, int]] = {}
    for y in range(height):
        for x in range(width):
            patch = votes.setdefault((y * rows // height, x * cols // width), {})
            if (value := int(label[y, x])) >= 0:
                patch[value] = patch.get(value, 0) + 1
    best = {where: min(patch, key=lambda each: (-patch[each], each), default=0) for where, patch in votes.items()}
    pixels = [[best[y * rows // height, x * cols // width] for x in range(width)] for y in range(height)]
    return torch.tensor(pixels)


def test_each_patch_has_the_class_of_most_of_its_annotated_pixels():
    generator = torch.Generator().manual_seed(0)
    for size, grid in (((12, 16), (3, 4)), ((11, 7), (4, 5)), ((9, 13), (20, 2)), ((6, 6), (1, 1)), ((5, 8), (8, 9))):
        labels = torch.randint(-1, 4, (6, *size), generator=generator)
        labels[0, : size[0] // 2] = -1  # patches without an annotated pixel
        found = patch_classes(labels, grid)
        assert torch.equal(found, torch.stack([plainly(label, *grid) for label in labels])), (size, grid)


def test_ties_and_empty_patches():
    assert patch_classes(torch.tensor([[[2, 1], [1, 2]]]), (1, 1)).unique().tolist() == [1]
    assert patch_classes(torch.full((2, 3, 3), -1), (1, 3)).unique().tolist() == [0]
    label = torch.tensor([[[-1, 3, 0]]])
    assert patch_classes(label, (8, 8)).tolist() == [[[0, 3, 0]]], "as many patches as pixels"


def test_patches_are_the_backbones_unless_said():
    labels = torch.arange(16).view(1, 4, 4)
    assert Oracle()(labels, [(2, 2)]).unique().tolist() == [0, 2, 8, 10]
    assert Oracle(1, 4)(labels, [(2, 2)]).unique().tolist() == [0, 1, 2, 3]
    for wrong in ({"rows": 0}, {"cols": 1.5}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Oracle(**wrong)


def test_the_annotation_itself_is_perfect_and_its_patches_are_not(shapes, tmp_path):
    words = [*shapes_overrides(shapes, tmp_path / "out"), "segmenter=oracle"]
    for protocol in ("released", "paper", "strict"):
        own = [*words, f"protocol={protocol}", "protocol.image_size=128"]
        assert run_cell(load_config(own)).result.metrics.miou == 1, protocol
        coarse = run_cell(load_config([*own, "segmenter.rows=4", "segmenter.cols=4"]))
        assert 0.2 < coarse.result.metrics.miou < 0.95
        assert max(row.segments for row in read_rows(coarse.folder)) <= 3


def test_patches_are_those_of_the_backbone_that_is_named(shapes, tmp_path):
    words = [*shapes_overrides(shapes, tmp_path / "out"), "segmenter=oracle"]
    own = run_cell(load_config([*words, "backbone=efficientnet_lite0"])).result
    four = run_cell(load_config([*words, "segmenter.rows=4", "segmenter.cols=4"])).result  # of 128 pixels, stride 32
    assert own.metrics == four.metrics and own.key != four.key
    assert own.timings.features_s == 0, "the network did not run"


def test_one_matching_for_the_data_set_knows_its_classes(shapes, tmp_path):
    words = [*shapes_overrides(shapes, tmp_path / "out"), "segmenter=oracle", "protocol.matching=dataset"]
    assert run_cell(load_config([*words, "protocol.background_rule=one_to_one"])).result.metrics.miou == 1


def test_pictures_without_annotation_are_refused(cli, shapes, tmp_path):
    done = cli("segment", shapes / "images" / "picture0.png", "segmenter=oracle", f"output_dir={tmp_path}")
    assert done.code == 2
    assert "told the annotation" in done.err and "choose another segmenter" in done.err
