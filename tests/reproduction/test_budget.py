"""``reproduce NAME --dry-run``: what a table takes, told with and without data, weights and earlier cells."""

import re
import sys
from pathlib import Path

import pytest
import torch
from conftest import shapes_overrides, write_shapes
from huggingface_hub import constants

from diffcut_bench.coherence import SamplingOptions, draw_pairs
from diffcut_bench.config import load_config
from diffcut_bench.reproduction.budget import TFLOPS, time_text
from diffcut_bench.reproduction.outlook import look_ahead

MINE = """title: Mine
source: a test
columns: {{{columns}}}
common: [protocol=released]
measure: {measure}
rows:
{rows}
"""
SSD1B = "  - {name: ours, overrides: [backbone=ssd1b, segmenter=diffcut], published: {}}"
FEATURE_BYTES = 32 * 32 * 1280 * 4


@pytest.fixture(autouse=True)
def nothing_here(tmp_path, monkeypatch) -> None:
    """No weights on this machine, and no way to the hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *a, **k: pytest.fail("a look downloads"))


def experiment(tmp_path: Path, columns: str, rows: str, measure: str = "miou") -> list[str]:
    """Words that find a reproduction of one's own; nothing is written below its output folder."""
    (tmp_path / "options" / "reproduction").mkdir(parents=True)
    (tmp_path / "options" / "reproduction" / "mine.yaml").write_text(
        MINE.format(columns=columns, rows=rows, measure=measure)
    )
    return [f"hydra.searchpath=[file://{tmp_path / 'options'}]", f"output_dir={tmp_path / 'out'}", "device=cpu"]


def line(out: str, *words: str) -> list[str]:
    """Cells of the table's line that begins with these words."""
    for each in out.splitlines():
        cells = [cell.strip() for cell in each.split("│")]
        if tuple(cells[: len(words)]) == words:
            return cells[len(words) :]
    raise AssertionError(f"no line {words} in:\n{out}")


def test_a_machine_with_nothing_gets_a_budget(cli, tmp_path):
    columns = ", ".join(f"{name}: [dataset={name}]" for name in ("voc", "coco_object", "coco_stuff27"))
    words = experiment(tmp_path, columns, SSD1B)
    done = cli("reproduce", "mine", "--dry-run", *words)
    assert done.code == 0, done.err
    assert not (tmp_path / "out").exists() and not (tmp_path / "hub").exists()
    state, images, features, disk, here, best, titan = line(done.out, "ours", "voc")
    assert (state, images, features, disk) == ("needs data, ssd1b", "1449", "1449", "7.6 GB")
    assert here.startswith("≥ ") and best == "≥ 11 s", "6.21 TFLOP an image at 790 TFLOP/s"
    assert titan == "22 min", "1.11 images a second, table 11"
    assert line(done.out, "ours", "coco_object")[1:4] == ["2175", "2175", "11.4 GB"]
    assert line(done.out, "ours", "coco_stuff27")[1:6] == ["2175", "0", "", "", ""], "the same images, computed once"
    assert "5799 to score, features of 3624 to compute" in done.out
    assert "19 GB of features (9.5 GB if an accelerator computes them)" in done.out
    assert "54 min for features and what follows at the images a second of the paper's table 11: 2 of 3" in done.out
    fetched = [each.strip() for each in done.out.splitlines() if "dataset.root=DIR" in each or "hf download" in each]
    assert fetched[:2] == [
        f"diffcut-bench data prepare {name} --download dataset.root=DIR --config-dir {tmp_path / 'options'}"
        for name in ("voc", "coco_object")
    ], "each once, and one preparation for both of COCO's"
    assert re.fullmatch(
        r"hf download segmind/SSD-1B unet/config.json unet/diffusion_pytorch_model.fp16\S+ .*", fetched[2]
    )
    data = done.out.partition("to fetch")[2]
    assert "  voc-val (2 GB) for voc\n      licence: Images are Flickr photographs" in data
    assert "coco-val2017-curated (1.48 GB) for coco_object, coco_stuff27\n" in data
    assert (
        "segmind/SSD-1B (at least 2.6 GB) for ssd1b\n      licence: see https://huggingface.co/segmind/SSD-1B\n" in data
    )
    assert data.rstrip().endswith("together at least 6.08 GB")
    status = cli("reproduce", "mine", "--status", *words)
    assert line(status.out, "ours", "voc") == ["needs data, ssd1b"]
    assert "voc-val (2 GB)" in status.out
    assert "voc-val (2 GB)" in done.out and "segmind/SSD-1B (at least 2.6 GB)" in done.out


def test_rows_that_are_not_run_are_a_line_a_reason(cli, tmp_path):
    rows = "".join(f"  - {{name: {name}, not_run: {why}}}\n" for name, why in (("A", "trained"), ("B", "trained")))
    done = cli("reproduce", "mine", "--dry-run", *experiment(tmp_path, "voc: [dataset=voc]", rows + SSD1B))
    assert done.code == 0, done.err
    assert "not run    trained: A, B\n" in done.out
    assert "│ voc" in done.out and "\nA " not in done.out


def test_a_wrong_root_is_told_before_weights_are_fetched(cli, tmp_path):
    words = [*experiment(tmp_path, "voc: [dataset=voc]", SSD1B), f"dataset.root={tmp_path / 'nowhere'}"]
    done = cli("reproduce", "mine", "--dry-run", *words)
    assert done.code == 0, done.err
    assert line(done.out, "ours", "voc")[0] == "needs see below, ssd1b"
    assert f"there is no folder {tmp_path / 'nowhere'}" in done.out and "hf download" in done.out


def test_the_gpu_is_the_users(cli, tmp_path):
    words = experiment(tmp_path, "voc: [dataset=voc]", SSD1B)
    slow = cli("reproduce", "mine", "--dry-run", "--tflops", TFLOPS / 100, *words)
    assert line(slow.out, "ours", "voc")[5] == "≥ 19 min"
    assert "on a GPU that sustains 7.9 TFLOP/s" in slow.out


def test_what_is_fetched_by_hand_and_what_is_gated_says_so(cli, tmp_path):
    rows = "  - {name: v3, overrides: [backbone=dinov3_b16], published: {}}\n" + SSD1B.replace("ours", "vae").replace(
        "segmenter=diffcut", "backbone.vae=someone/tiny"
    )
    done = cli("reproduce", "mine", "--dry-run", *experiment(tmp_path, "city: [dataset=cityscapes27]", rows))
    assert done.code == 0, done.err
    assert "register at https://www.cityscapes-dataset.com" in done.out
    assert "then diffcut-bench data prepare cityscapes27 dataset.root=DIR" in done.out
    assert "ask for access at https://huggingface.co/facebook/dinov3-vitb16-pretrain-lvd1689m" in done.out
    assert line(done.out, "vae", "city")[1:6] == ["500", "500", "2.62 GB", "unknown", "unknown"], "nobody counted it"
    assert "here       ≥ " in done.out, "a sum without it is a bound"


@pytest.mark.parametrize(
    ("words", "images", "unstored"),
    [(["limit=100"], 100, 100), (["shard=2/4"], 362, 362), (["dataset.split=train"], None, None)],
)
def test_images_follow_what_is_chosen_of_them(tmp_path, words, images, unstored):
    config = load_config(["dataset=voc", "backbone=ssd1b", f"output_dir={tmp_path}", "device=cpu", *words])
    (found,) = look_ahead([config])
    assert (found.images, found.unstored) == (images, unstored), "of a split without a published size nothing is told"
    assert found.feature_bytes == (None if images is None else images * FEATURE_BYTES)


def test_disk_follows_where_and_how_features_are_kept(tmp_path):
    common = ["dataset=voc", "backbone=ssd1b", f"output_dir={tmp_path}", "device=cpu"]
    words = (
        [],
        ["features.dtype=float16"],
        ["features=memory"],
        ["backbone.block=[E32,E64]"],
        ["backbone.timestep=10"],
    )
    found = look_ahead([load_config([*common, *more]) for more in words])
    whole = 1449 * FEATURE_BYTES
    assert [each.feature_bytes for each in found] == [whole, whole // 2, 0, whole * 3 // 2, whole]
    assert [each.half_bytes for each in found] == [whole // 2, whole // 2, 0, whole * 3 // 4, whole // 2]
    assert len({each.operations for each in found}) == 1, "a block that is passed anyway costs nothing more"


def test_earlier_cells_tell_the_time_and_the_store_what_is_left(cli, tmp_path):
    shapes = write_shapes(tmp_path / "shapes", 4)
    base = [word for word in shapes_overrides(shapes, tmp_path / "out") if not word.startswith("output_dir")]
    rows = (
        "  - {name: done, published: {}}\n  - {name: again, overrides: [limit=3], published: {}}\n"
        "  - {name: finer, overrides: [segmenter.alpha=2], published: {}}\n"
        "  - {name: other, overrides: [backbone=colour], published: {}}"
    )
    columns = "shapes: [" + ", ".join(f'"{word}"' for word in base) + "]"
    words = experiment(tmp_path, columns, rows)
    assert cli("run", *base, f"output_dir={tmp_path / 'out'}", "device=cpu").code == 0
    done = cli("reproduce", "mine", "--dry-run", *words)
    assert done.code == 0, done.err
    assert line(done.out, "done", "shapes")[:3] == ["finished", "", ""]
    state, images, features, disk, here, best = line(done.out, "again", "shapes")
    assert (state, images, features, disk, best) == ("not started", "3", "0", "", "")
    assert re.fullmatch(r"[\d.]+ s", here), "measured, and no bound"
    assert line(done.out, "finer", "shapes")[1:] == ["4", "0", "", "", ""], (
        "the features are there; of the rest no word"
    )
    assert line(done.out, "other", "shapes")[1:] == ["4", "4", "768 B", "", ""], "nothing to count"
    assert "4 cells to run: 1 finished, 0 lack something, 0 not run" in done.out
    assert "to fetch" not in done.out


def test_a_time_is_of_cells_with_the_same_settings(cli, tmp_path):
    """Each stage's own settings, what goes before it, and the size that is scored; elsewhere the bound stands."""
    shapes = write_shapes(tmp_path / "shapes", 3)
    base = [*shapes_overrides(shapes, tmp_path / "out"), "device=cpu", "limit=2"]
    assert cli("run", *base, "refiner=pamr", "limit=3").code == 0
    other = [
        *("segmenter.alpha=2", "segmenter.tau=0.3", "refiner.iterations=30", "refiner=none", "protocol.eval_size=64"),
        *("upsampler=nearest", "protocol.crop=none", "backbone=colour"),
    ]
    settings: list[list[str]] = [[], ["num_workers=1", "seed=3"], *([word] for word in other)]
    pamr = [["refiner=pamr", *words] if "refiner=none" not in words else words for words in settings]
    same, free, *others = look_ahead([load_config([*base, *words]) for words in pamr])
    assert same.seconds == free.seconds > 0, "what takes no time of its own is not asked for"
    assert {word: found.seconds for word, found in zip(other, others, strict=True)} == dict.fromkeys(other)


@pytest.mark.parametrize("rate", ["0", "-5", "nan", "inf"])
def test_a_rate_is_above_nothing(cli, tmp_path, rate):
    refused = cli("reproduce", "mine", "--dry-run", "--tflops", rate, *experiment(tmp_path, "a: []", SSD1B))
    assert (refused.code, len(refused.err.splitlines())) == (2, 3)
    assert "no rate of operations" in refused.err


def test_small_backbones_have_a_price_and_what_the_paper_has_not_timed_no_line(cli, tmp_path):
    rows = (
        "  - {name: small, overrides: [backbone=efficientnet_lite0], published: {}}\n"
        "  - {name: colour, overrides: [backbone=colour], published: {}}\n"
        "  - {name: grid, overrides: [segmenter=grid, backbone=none, features=memory], published: {}}"
    )
    done = cli("reproduce", "mine", "--dry-run", *experiment(tmp_path, "voc: [dataset=voc]", rows))
    assert done.code == 0, done.err
    state, images, features, disk, here, best = line(done.out, "small", "voc")
    assert (state, images, features, disk) == ("needs data", "1449", "1449", "1.9 GB")
    assert here.startswith("≥ ") and best.startswith("≥ ")
    assert line(done.out, "colour", "voc")[1:] == ["1449", "1449", "17.8 MB", "", ""], "a mean is no network"
    assert line(done.out, "grid", "voc")[1:] == ["1449", "0", "", "", ""], "there are no features"
    assert "TITAN" not in done.out


def test_coherence_has_the_price_of_the_images_that_it_draws(cli, tmp_path):
    words = experiment(tmp_path, "auc: [dataset=voc]", SSD1B, "auc")
    done = cli("reproduce", "mine", "--dry-run", *words)
    assert done.code == 0, done.err
    pairs = draw_pairs([f"2007_{number:06}" for number in range(1449)], SamplingOptions())
    drawn = len({image for pair in pairs for image in pair})
    state, images, features, disk, here, best = line(done.out, "ours", "auc")
    assert (state, images, features) == ("needs data, ssd1b", str(drawn), str(drawn))
    assert disk == f"{drawn * FEATURE_BYTES / 1e9:.2f} GB" and here.startswith("≥ ") and best.startswith("≥ ")
    assert "TITAN" not in done.out, "which segmented, too"


def test_whole_images_are_bounded_by_half_a_square(cli, tmp_path):
    common = ["dataset=voc", "backbone=ssd1b", f"output_dir={tmp_path}", "device=cpu"]
    square, whole = look_ahead([load_config([*common, *more]) for more in ([], ["protocol.crop=none"])])
    assert whole.feature_bytes * 2 == square.feature_bytes and whole.half_bytes * 2 == square.half_bytes
    assert 0.4 < whole.operations / square.operations < 0.5, "attention is less than half"
    done = cli("reproduce", "mine", "--dry-run", *experiment(tmp_path, "voc: [dataset=voc, protocol=strict]", SSD1B))
    assert line(done.out, "ours", "voc")[3] == "≥ 3.8 GB"
    assert "disk       ≥ 3.8 GB of features" in done.out and "of whole images (crop=none): of half a square" in done.out


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has what the test wants to be away")
def test_weights_of_another_revision_are_told(cli, tmp_path):
    commit = "a" * 40
    cached = tmp_path / "hub" / "models--facebook--dinov2-base"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(commit)
    (cached / "snapshots" / commit).mkdir(parents=True)
    for name in ("config.json", "preprocessor_config.json", "model.safetensors"):
        (cached / "snapshots" / commit / name).write_text("{}")
    rows = "  - {name: ours, overrides: [backbone=dinov2_b14, segmenter=kmeans], published: {}}"
    done = cli("reproduce", "mine", "--dry-run", *experiment(tmp_path, "voc: [dataset=voc]", rows))
    assert done.code == 0, done.err
    assert "facebook/dinov2-base, of which another revision is here\n" in done.out
    assert "the cache has them at main (aaaaaaa): backbone.revision=main takes these\n" in done.out


def test_a_device_that_is_elsewhere_can_be_planned_for(cli, tmp_path):
    shapes = write_shapes(tmp_path / "shapes", 2)
    base = [word for word in shapes_overrides(shapes, tmp_path / "out") if not word.startswith("output_dir")]
    own = ", ".join(f'"{word}"' for word in base)
    words = experiment(tmp_path, f"voc: [dataset=voc, backbone=ssd1b], shapes: [{own}]", "  - {name: x, published: {}}")
    done = cli("reproduce", "mine", "--dry-run", *words, "device=cuda")
    assert done.code == 0, done.err
    told = ["needs data, ssd1b", "1449", "1449", "3.8 GB", "unknown", "≥ 11 s", "22 min"]
    assert line(done.out, "x", "voc") == told, "half precision there"
    assert line(done.out, "x", "shapes")[:2] == ["unknown, device not here", "2"]
    assert "device=cuda is not on this machine" in done.out
    refused = cli("reproduce", "mine", *words, "device=cuda")
    assert refused.code == 2 and "device 'cuda' is not available" in refused.err and not refused.out


def test_released_files_are_fetched_by_hand_and_a_missing_library_hides_no_weights(cli, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    row = """  - name: named
    overrides: [backbone=colour, namer=convnext_l]
    files: [{option: namer.classes_file, what: names, sha256: {}}]
  - {name: maskclip, overrides: [segmenter=maskclip]}"""
    words = experiment(tmp_path, "voc: [dataset=voc], context: [dataset=context]", row)
    done = cli("reproduce", "mine", "--dry-run", *words)
    assert done.code == 0, done.err
    assert "open_clip can't be imported" in done.out and "diffcut_bench[openvocab]" in done.out
    assert "hf download laion/CLIP-convnext_large_d_320.laion2B-s29B-b131K-ft-soup open_clip_model" in done.out
    (fetch,) = (each for each in done.out.splitlines() if "hf download openai/clip-vit-base-patch16" in each)
    assert fetch.endswith("tokenizer.json tokenizer_config.json"), "backbone and namer have one download"
    assert "openai/clip-vit-base-patch16 (at least 171 MB)" in done.out
    assert "names of the released code for named: voc, context (without them a verdict is limited)" in done.out
    assert 'namer.classes_file=FILE, by hand: docs/open_vocabulary.md, "Table 4 as released"' in done.out
    (tmp_path / "list.txt").write_text("0:cat")
    given = cli("reproduce", "mine", "--dry-run", *words, "--for", "voc", f"namer.classes_file={tmp_path / 'list.txt'}")
    assert "names of the released code for named: context (" in given.out


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.044, "0.044 s"), (11.4, "11 s"), (600, "10 min"), (7200, "2 h"), (1_002_000, "278 h"), (None, "unknown")],
)
def test_times_are_read_at_a_glance(seconds, text):
    assert time_text(seconds) == text
    assert time_text(seconds, at_least=True) == (text if seconds is None else f"≥ {text}")
