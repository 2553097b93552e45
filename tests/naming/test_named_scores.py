import json

import pytest
import torch
from conftest import DATA
from torchmetrics.functional.classification import multiclass_jaccard_index

from diffcut_bench.evaluation import ImageTable, contingency_table, count_assigned, score_images
from diffcut_bench.reproduction import load_reproduction, plan_cells, resolve_under
from diffcut_bench.reproduction.verdict import Measured, judge, known_measures
from diffcut_bench.store import Result

RESULT = (DATA / "result_v1.json").read_text()


def named(value: float, ends: list[float]) -> Result:
    raw = json.loads(RESULT)
    raw["metrics"] |= {"mean_image_jaccard": value, "mean_image_jaccard_ci95": ends}
    return Result.from_json(json.dumps({**raw, "limited": False, "failures": []}))


def test_counts_of_named_pixels_are_the_confusions_own():
    prediction, label = torch.tensor([[2, 2, 0, 0, 1, 2]]), torch.tensor([[1, 2, 0, 1, -1, 2]])
    counts = count_assigned(contingency_table(prediction, label, 3), torch.arange(3))
    assert counts.tp.tolist() == [1, 0, 2]
    assert counts.fp.tolist() == [1, 0, 1]
    assert counts.fn.tolist() == [0, 2, 0]


def test_an_images_jaccard_is_torchmetrics_own():
    """The released evaluation takes torchmetrics' macro average of each image, and the mean of these."""
    generator = torch.Generator().manual_seed(0)
    predictions, labels = torch.randint(0, 6, (2, 4, 30, 20), generator=generator)
    labels[1].clamp_(max=2)
    predictions[2].clamp_(min=1, max=3)
    labels[3] = predictions[3] = 5
    counts = [
        count_assigned(contingency_table(p, g, 7), torch.arange(7)) for p, g in zip(predictions, labels, strict=True)
    ]
    tp, fp, fn = map(torch.stack, zip(*counts, strict=True))
    images = ImageTable(tp, fp, fn, pixels=tp.sum(dim=1), segments=tp.sum(dim=1))
    expected = [multiclass_jaccard_index(p, g, 7) for p, g in zip(predictions, labels, strict=True)]
    found = score_images(images, {"matching": "named"})["jaccard"]
    assert found.scores.item() == pytest.approx(torch.stack(expected).mean().item())


def test_the_metric_is_kept_in_the_file_and_absent_from_others():
    result = named(0.5, [0.4, 0.6])
    again = Result.from_json(result.to_json())
    assert again == result
    assert again.metrics.mean_image_jaccard_ci95 == (0.4, 0.6)
    assert "mean_image_jaccard" not in Result.from_json(RESULT).to_json()
    assert '"mean_image_jaccard": 0.0' in named(0.0, [0.0, 0.0]).to_json()


def test_table_4_is_judged_by_it():
    measure = known_measures()["jaccard"]
    measured = Measured.of(named(0.62, [0.60, 0.64]), "jaccard")
    assert (measured.value, measured.interval) == (62.0, (60.0, 64.0))
    assert judge(62.3, measured, measure).word == "reproduced"
    assert judge(63.0, measured, measure).word == "differs", "though the interval holds it"
    without = Measured.of(Result.from_json(RESULT), "jaccard")
    assert judge(63.0, without, measure).word == "limited"
    assert "segments are not named" in without.limits


def test_the_cells_of_table_4_are_the_released_ones():
    cells = {(c.row.name, c.column): c.config for c in plan_cells(load_reproduction("table4")) if c.config}
    assert {name for name, _ in cells} == {"DiffCut", "MaskCLIP"}
    ours, maskclip = cells["DiffCut", "voc"], cells["MaskCLIP", "context"]
    assert ours.choices["namer"] == "convnext_l"
    assert [ours.choices[group] for group in ("backbone", "segmenter", "refiner")] == ["ssd1b", "diffcut", "pamr"]
    assert ours.refiner["iterations"] == 15
    assert ours.refiner["dilations"] == [1, 2, 4, 8, 12, 24, 32, 64]
    sees = {c: cells["DiffCut", c].namer["image_size"] for c in ("voc", "context", "coco_object")}
    assert sees == {"voc": 1024, "context": 1024, "coco_object": 2048}
    assert cells["DiffCut", "coco_object"].protocol["image_size"] == 1024, "the backbone's own"
    background = {c: cells["DiffCut", c].namer["background_words"] for c in sees}
    assert background == {"voc": None, "context": ["background"], "coco_object": ["background"]}
    assert (ours.namer["input"], ours.namer["pooling"]) == ("unit", "nearest_exact")
    assert (maskclip.namer["input"], maskclip.namer["pooling"]) == ("normalised", "nearest_exact")
    assert ours.protocol["eval_size"] == maskclip.protocol["eval_size"] == 1024
    chosen = {name: maskclip.choices[name] for name in ("backbone", "namer", "upsampler", "refiner")}
    assert chosen == {"backbone": "clip_b16", "namer": "clip_b16", "upsampler": "nearest", "refiner": "none"}


@pytest.mark.slow
def test_under_another_protocol_table_4_has_the_sound_choices():
    cells = plan_cells(load_reproduction("table4"), under=resolve_under(["released", "paper", "strict"]))
    found = {c.under: c for c in cells if c.config and (c.row.name, c.column) == ("DiffCut", "voc")}
    chosen = {name: (cell.config.namer["input"], cell.config.namer["pooling"]) for name, cell in found.items()}
    sound = ("normalised", "pixels")
    assert chosen == {"released": ("unit", "nearest_exact"), "paper": sound, "strict": sound}
    missing = {f"{what} are our own" for what in ("names", "templates")}
    for name, cell in found.items():
        told = {each.partition(",")[0] for each in cell.deviations}
        assert told == missing | ({f"protocol={name}"} if name != "released" else set()), "and not what follows from it"
