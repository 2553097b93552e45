"""``reproduce`` end to end: miniature data sets in their original layouts, tiny checkpoints of the real libraries."""

import csv
import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import diffusion_checkpoints as checkpoints
import miniatures
import numpy as np
import pytest
import torch
from conftest import shapes_overrides, write_shapes
from PIL import Image

import diffcut_bench.datasets
from diffcut_bench.config import load_config
from diffcut_bench.reporting import Table
from diffcut_bench.reproduction import load_reproduction, plan_cells
from diffcut_bench.store import Result

COLUMNS = ("voc", "context", "coco_object", "coco_stuff27", "cityscapes27", "ade20k")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    return checkpoints.write(checkpoints.sdxl_pipeline(folder / "tokenizers"), folder / "sdxl")


@pytest.fixture
def data(tmp_path) -> list[str]:
    """All data sets but Cityscapes; one VOC image is all background, the other a patchwork."""
    root = tmp_path / "data"
    miniatures.write_voc(root, miniatures.values(0))
    patchwork = np.arange(24).reshape(4, 6) % 21
    miniatures.grey(root / "VOCdevkit/VOC2012/SegmentationClass/2007_000033.png", patchwork)
    miniatures.write_context(root, miniatures.values(2, 9))
    miniatures.write_coco(root, miniatures.values(16))
    miniatures.write_ade20k(root, miniatures.values(5))
    flags = [word for name in COLUMNS if name != "cityscapes27" for word in ("--for", name, f"dataset.root={root}")]
    return [*flags, *(word for name in ("coco_object", "coco_stuff27") for word in ("--for", name, "dataset.ids=all"))]


@pytest.fixture
def two_are_all(monkeypatch):
    """The published splits of VOC and ADE20K have two images here, so that theirs are no limited results."""
    for name in ("voc", "ade20k"):
        original = getattr(diffcut_bench.datasets, name)

        def expecting_two(original=original, **arguments):
            return replace(original(**arguments), n_expected=2)

        monkeypatch.setattr(diffcut_bench.datasets, name, expecting_two)


def verdicts(folder: Path, name: str) -> dict[tuple[str, str], dict[str, str]]:
    with (folder / f"{name}_cells.csv").open() as file:
        return {(row["method"], row["column"]): row for row in csv.DictReader(file)}


@pytest.mark.slow
def test_table1_gives_verdicts(cli, data, two_are_all, checkpoint, tmp_path):
    base = [*data, "--for", "DiffCut", f"backbone.model={checkpoint}", f"output_dir={tmp_path / 'out'}"]
    planned = cli("reproduce", "table1", "--dry-run", *base)
    assert planned.code == 0, planned.err
    runnable = sum(cell.config is not None for cell in plan_cells(load_reproduction("table1")))
    lacking = runnable - 5  # DiffCut's on Cityscapes, and the rivals', whose networks this checkpoint is none of
    assert f"{runnable} cells to run: 0 finished, {lacking} lack something, {47 - runnable} not run" in planned.out
    assert "on a GPU that sustains 790 TFLOP/s" in planned.out
    assert not (tmp_path / "out" / "results").exists()

    done = cli("reproduce", "table1", *base)
    assert done.code == 0, done.err
    folder = tmp_path / "out" / "reproductions" / "table1"
    rows = verdicts(folder, "table1")
    own = {column: rows["DiffCut", column] for column in COLUMNS}
    for column in ("voc", "ade20k"):
        assert (own[column]["verdict"], own[column]["tolerance"]) == ("differs", "0.350")
    assert float(own["voc"]["low"]) <= 65.2 <= float(own["voc"]["high"]), "that of two images holds anything"
    assert own["context"]["verdict"] == "limited: 2 of 5105 images"
    assert own["coco_object"]["verdict"] == "limited: dataset.ids=all"
    assert own["cityscapes27"]["verdict"].startswith("not run: cityscapes27 is not prepared")
    assert own["cityscapes27"]["ours"] == ""
    assert rows["STEGO", "cityscapes27"]["verdict"] == "not run: trained"
    for path in (tmp_path / "out" / "results").glob("*/result.json"):
        result = Result.from_json(path.read_text())
        row = own[result.dataset.name]
        assert row["ours"] == f"{100 * result.metrics.miou:.3f}"
        published = load_reproduction("table1").rows[13].published[result.dataset.name]
        assert float(row["difference"].replace("−", "-")) == pytest.approx(
            100 * result.metrics.miou - published, abs=0.1
        )

    record = json.loads((folder / "reproduction.json").read_text())
    table = Table.from_dict(record["table"])
    assert table.to_markdown() == (folder / "table1.md").read_text()
    blocks = [row[:2] for row in table.rows if row[1] and not row[1].startswith("published (")]
    # No interval of so few images.
    lines = ("ours", "floor – ceiling", "lift", "difference", "tolerance", "verdict")
    assert blocks[-7:] == [("DiffCut", "published"), *(("", line) for line in lines)]
    notes = "\n".join(table.notes)
    assert "DiffCut: backbone.model=sdxl" in notes and str(checkpoint) not in notes, "a folder's name, not its place"
    assert "one matching of clusters to classes for the whole data set" in notes
    assert "protocol released: crop=center, image_size=1024" in notes
    assert "limited: 2 of 5105 images" in notes
    assert "DiffCut: noise drawn on the cpu; the released code drew on CUDA" in notes
    claims = Table.from_dict(record["claims"])
    assert all(row[-1].startswith("not run: none of the rows beside it was run") for row in claims.rows)

    again = cli("reproduce", "table1", *base)
    assert again.code == 0
    assert verdicts(folder, "table1") == rows
    status = cli("reproduce", "table1", "--status", *base)
    assert f"{runnable} cells to run: 5 finished, {lacking} lack something" in status.out


def test_protocols_and_rules_side_by_side(cli, tmp_path):
    options = own_experiment(tmp_path, shapes := write_shapes(tmp_path / "shapes", 4))
    done = cli("reproduce", "mine", "--under", "released,overlap,strict", *options)
    assert done.code == 0, done.err
    folder = tmp_path / "out" / "reproductions" / "mine"
    with (folder / "mine_cells.csv").open() as file:
        cells = [row for row in csv.DictReader(file) if row["method"] == "ours"]
    assert [row["under"] for row in cells] == ["released", "overlap", "strict"]
    values = {}
    for path in (tmp_path / "out" / "results").glob("*/result.json"):
        result = Result.from_json(path.read_text())
        rule = "overlap" if result.protocol["background_rule"] == "overlap" else "released"
        values["strict" if result.protocol["name"] == "strict" else rule] = f"{100 * result.metrics.miou:.3f}"
    assert {row["under"]: row["ours"] for row in cells} == values
    judged = {row["under"]: row["verdict"] for row in cells}
    assert judged.pop("released") == "differs"
    another = {"overlap": "protocol.background_rule=overlap", "strict": "protocol=strict"}
    assert judged == {under: f"limited: {why}" for under, why in another.items()}, "what was published is released"
    assert shapes.exists()
    for name in ("ours [released]", "ours [overlap]", "ours [strict]"):
        assert name in done.out


def own_experiment(tmp_path: Path, shapes: Path, more: str = "") -> list[str]:
    """A reproduction of one's own on the `shapes` pictures; the overrides that find it."""
    (tmp_path / "options" / "reproduction").mkdir(parents=True)
    overrides = [o for o in shapes_overrides(shapes, tmp_path / "out") if not o.startswith("output_dir")]
    quoted = ", ".join(f'"{override}"' for override in overrides)
    (tmp_path / "options" / "reproduction" / "mine.yaml").write_text(
        f"title: Mine\nsource: a test\ncolumns: {{shapes: [{quoted}]}}\n"
        "trained: [protocol.matching=dataset, protocol.background_rule=one_to_one, refiner=none]\n"
        "rows:\n  - {name: ours, published: {shapes: 50}}\n"
        "  - {name: theirs, published: {shapes: 100}, not_run: trained, trained: true}\n" + more
    )
    return [f"hydra.searchpath=[file://{tmp_path / 'options'}]", f"output_dir={tmp_path / 'out'}"]


def test_a_row_is_run_from_its_predictions(cli, tmp_path):
    shapes = write_shapes(tmp_path / "shapes", 4)
    options = own_experiment(tmp_path, shapes)
    predictions = tmp_path / "predictions" / "shapes"
    predictions.mkdir(parents=True)
    for path in (shapes / "labels").iterdir():
        label = np.array(Image.open(path))
        Image.fromarray(np.where(label == 255, 0, label)).save(predictions / path.name)
    done = cli("reproduce", "mine", "--predictions", f"theirs={tmp_path / 'predictions'}", *options)
    assert done.code == 0, done.err
    theirs = verdicts(tmp_path / "out" / "reproductions" / "mine", "mine")["theirs", "shapes"]
    assert (theirs["ours"], theirs["verdict"]) == ("100.000", "reproduced")
    assert "matching=per_image|dataset" in done.out.replace("\n", " ")


def test_another_score_has_nothing_published_to_be_compared_with(cli, tmp_path):
    claims = "claims: [{text: ours is ahead, kind: exceeds, row: ours, others: [theirs]}]\n"
    options = own_experiment(tmp_path, write_shapes(tmp_path / "shapes", 3), claims)
    assert cli("reproduce", "mine", *options).code == 0
    done = cli("reproduce", "mine", "score=ari", *options)
    assert done.code == 0, done.err
    folder = tmp_path / "out" / "reproductions"
    assert verdicts(folder / "mine", "mine")["ours", "shapes"]["published"] == "50.000", "which stays"
    rows = verdicts(folder / "mine-ari", "mine-ari")
    assert list(rows) == [("ours", "shapes")], "of a row that is not run there are published values only"
    (path,) = (tmp_path / "out" / "results").glob("*/result.json")
    ours = Result.from_json(path.read_text()).scores["ari"]
    told = rows["ours", "shapes"]
    assert told["ours"] == f"{100 * ours.value:.3f}" and told["published"] == told["difference"] == ""
    assert told["verdict"] == "not stated: published in mIoU, and not in ARI"
    record = json.loads((folder / "mine-ari" / "reproduction.json").read_text())
    table, stated = Table.from_dict(record["table"]), Table.from_dict(record["claims"])
    assert table.shared == "ARI (%)" and table.title == "Mine, told by ARI"
    assert [row[1] for row in table.rows] == ["ours", "floor – ceiling", "lift", "verdict"]
    assert "(a) not stated: published in mIoU, and not in ARI" in table.notes
    assert not any(note.startswith("reproduced:") for note in table.notes)
    assert [row[-1] for row in stated.rows] == ["not stated: published in mIoU, and not in ARI"]
    refused = cli("reproduce", "mine", "score=arri", *options)
    assert refused.code == 2 and "did you mean ari" in refused.err


FIGURE = """sweep: ["segmenter.alpha=2,5", "segmenter.tau=0.2,0.5,0.8"]
axis: segmenter.tau
references: {AutoSC: 25.3}
claims:
  - {text: everything is possible, kind: within, axis: segmenter.tau, where: {segmenter.alpha: 5}, low: 0, high: 100}
  - {text: nothing is, kind: within, axis: segmenter.tau, where: {segmenter.alpha: 5}, low: 101, high: 102}
"""


def test_a_figure_is_curves_and_claims(cli, tmp_path):
    options = own_experiment(tmp_path, write_shapes(tmp_path / "shapes", 3), FIGURE)
    done = cli("reproduce", "mine", *options)
    assert done.code == 0, done.err
    folder = tmp_path / "out" / "reproductions" / "mine"
    record = json.loads((folder / "reproduction.json").read_text())
    verdict = {row[0]: row[2] for row in record["table"]["rows"]}
    assert verdict == {"everything is possible": "reproduced", "nothing is": "differs"}
    drawn = record["curves"]
    assert drawn["x_label"] == "tau"
    assert drawn["references"] == [["AutoSC", 25.3]]
    assert [curve["label"] for curve in drawn["curves"]] == ["alpha 2", "alpha 5"]
    assert all(curve["x"] == [0.2, 0.5, 0.8] for curve in drawn["curves"])
    results = [Result.from_json(p.read_text()) for p in (tmp_path / "out" / "results").glob("*/result.json")]
    by_point = {(r.config["segmenter"]["alpha"], r.config["segmenter"]["tau"]): r.metrics.miou for r in results}
    expected = [[100 * by_point[alpha, tau] for tau in (0.2, 0.5, 0.8)] for alpha in (2, 5)]
    assert [curve["y"] for curve in drawn["curves"]] == [pytest.approx(values) for values in expected]
    assert Image.open(folder / "mine.png").size[0] > 300
    assert (folder / "mine.svg").read_text().startswith("<?xml")
    assert cli("reproduce", "mine", "score=voi", *options).code == 0
    told = json.loads((folder.parent / "mine-voi" / "reproduction.json").read_text())
    assert (told["curves"]["y_label"], told["curves"]["references"]) == ("VoI", [])
    assert {row[2] for row in told["table"]["rows"]} == {"not stated: published in mIoU, and not in VoI"}


@pytest.mark.slow
def test_a_figure_of_several_rows_has_curves_of_each(cli, tmp_path):
    row = "  - {name: nearest, overrides: [upsampler=nearest]}\n"
    options = own_experiment(tmp_path, write_shapes(tmp_path / "shapes", 3), row + FIGURE)
    assert cli("reproduce", "mine", *options, "--for", "nearest", "limit=2").code == 0
    record = json.loads((tmp_path / "out" / "reproductions" / "mine" / "reproduction.json").read_text())
    labels = [f"alpha {alpha} [{name}]" for name in ("ours", "nearest") for alpha in (2, 5)]
    assert [curve["label"] for curve in record["curves"]["curves"]] == labels
    assert all(len(curve["x"]) == 3 for curve in record["curves"]["curves"])
    verdict = {row[0]: row[2] for row in record["table"]["rows"]}
    assert verdict["everything is possible [ours]"] == "reproduced"
    assert verdict["everything is possible [nearest]"].startswith("limited: 2 of 3 images")


CLAIMS = """  - {name: one segment, overrides: [segmenter=one_segment]}
  - {name: the same, overrides: [segmenter=one_segment]}
common: [backbone=colour, backbone.stride=16, refiner=none]
claims:
  - {text: cutting helps, kind: exceeds, row: ours, others: [one segment, the same]}
  - {text: by a point, kind: exceeds, row: ours, others: [one segment], by: 1}
  - {text: cutting does harm, kind: exceeds, row: one segment, others: [ours], each_column: true}
  - {text: a name helps, kind: exceeds, row: one segment, others: [the same]}
"""


def test_effects_that_are_absent_or_reversed_are_refused(cli, tmp_path):
    options = own_experiment(tmp_path, write_shapes(tmp_path / "shapes", 12), CLAIMS)
    done = cli("reproduce", "mine", *options)
    assert done.code == 0, done.err
    folder = tmp_path / "out" / "reproductions" / "mine"
    record = json.loads((folder / "reproduction.json").read_text())
    assert [(row[0], row[3]) for row in record["claims"]["rows"]] == [
        *(("cutting helps", "reproduced"), ("by a point", "differs: of another size than +1.0 ± 0.35")),
        *(("cutting does harm", "differs: reversed in shapes"), ("a name helps", "differs: absent")),
    ]


def diffusion_beside_colour(checkpoint: Path) -> str:
    """A row that draws noise, beside one that draws none."""
    overrides = f"[backbone=ssd1b, 'backbone.model={checkpoint}']"
    row = f"  - {{name: diffusion, overrides: {overrides}, published: {{shapes: 50}}}}\n"
    return row + "common: [backbone=colour, refiner=none]\n"


def test_what_draws_noise_is_run_with_several_seeds(cli, checkpoint, tmp_path):
    claims = "claims: [{text: colour helps, kind: exceeds, row: ours, others: [diffusion]}]\n"
    options = own_experiment(
        tmp_path, write_shapes(tmp_path / "shapes", 3), diffusion_beside_colour(checkpoint) + claims
    )
    done = cli("reproduce", "mine", "--seeds", 2, *options)
    assert done.code == 0, done.err
    folder = tmp_path / "out" / "reproductions" / "mine"
    record = json.loads((folder / "reproduction.json").read_text())
    cells = Table.from_dict(record["cells"])
    named = [dict(zip((column.name for column in cells.columns), row, strict=True)) for row in cells.rows]
    assert named == list(csv.DictReader((folder / "mine_cells.csv").open()))
    mean, *seeds = (row for row in named if row["method"] == "diffusion")
    found = [Result.from_json(p.read_text()) for p in (tmp_path / "out" / "results").glob("*/result.json")]
    scores = {r.config["backbone"]["seed"]: 100 * r.metrics.miou for r in found if "seed" in r.config["backbone"]}
    assert {row["seed"]: row["ours"] for row in seeds} == {str(s): f"{score:.3f}" for s, score in scores.items()}
    assert set(scores) == {42, 43} and len(found) == 3, "what draws no noise is run once"
    assert {row["verdict"] for row in seeds} == {"one of 2 seeds"}
    assert (mean["seed"], mean["ours"]) == ("mean of 2", f"{np.mean([*scores.values()]):.3f}")
    deviation = np.std([*scores.values()], ddof=1)
    assert mean["deviation"] == f"{deviation:.3f}"
    assert float(mean["tolerance"]) == pytest.approx(0.05 + max(0.3, 2 * deviation), abs=1e-3)
    assert "deviation over 2 seeds" in [row[1] for row in record["table"]["rows"]]
    assert [row[1] for row in record["claims"]["rows"]] == ["diffusion"]
    status = cli("reproduce", "mine", "--status", "--seeds", 2, *options)
    assert "3 cells to run: 3 finished" in status.out and "diffusion, seed 43" in status.out
    refused = cli("reproduce", "mine", "--seeds", 1, *options)
    assert (refused.code, "takes 2 to 1000 seeds" in refused.err) == (2, True)


def test_weights_of_another_commit_are_others_wherever_they_lie(cli, checkpoint, tmp_path):
    """Folders of the hub's cache say which commit they are of."""
    row = "  - {name: diffusion, overrides: [backbone=ssd1b], published: {shapes: 50}}\ncommon: [refiner=none]\n"
    options = own_experiment(tmp_path, write_shapes(tmp_path / "shapes", 2), row)
    pinned = str(load_config(["backbone=ssd1b"]).backbone["revision"])
    found = {}
    for commit in (pinned, "f" * 40):
        folder = tmp_path / "hub" / "models--segmind--SSD-1B" / "snapshots" / commit
        shutil.copytree(checkpoint, folder)
        done = cli("reproduce", "mine", "--for", "diffusion", f"backbone.model={folder}", *options)
        assert done.code == 0, done.err
        rows = verdicts(tmp_path / "out" / "reproductions" / "mine", "mine")
        found[commit] = rows["diffusion", "shapes"]["verdict"]
    assert found == {pinned: "differs", "f" * 40: f"limited: backbone.revision={'f' * 40}"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA generator here")
def test_noise_of_cuda_where_there_is_none_is_the_fate_of_rows_that_draw_some(cli, checkpoint, tmp_path):
    options = own_experiment(tmp_path, write_shapes(tmp_path / "shapes", 2), diffusion_beside_colour(checkpoint))
    done = cli("reproduce", "mine", "backbone.generator=cuda", *options)
    assert done.code == 0, done.err
    rows = verdicts(tmp_path / "out" / "reproductions" / "mine", "mine")
    assert rows["diffusion", "shapes"]["verdict"].startswith("not run: no noise generator on 'cuda' here")
    assert rows["ours", "shapes"]["verdict"] in ("reproduced", "differs"), "it has no such setting"


def test_an_unwritable_folder_costs_no_work(cli, tmp_path):
    (tmp_path / "file").write_text("")
    options = own_experiment(tmp_path, write_shapes(tmp_path / "shapes", 3))
    done = cli("reproduce", "mine", options[0], f"output_dir={tmp_path / 'file' / 'out'}")
    assert done.code == 2
    assert done.out.strip() == ""
    assert len(done.err.strip().splitlines()) == 3


@pytest.mark.slow
def test_table10_tunes_on_training_images_first(cli, tmp_path):
    shapes, training = write_shapes(tmp_path / "shapes", 4), write_shapes(tmp_path / "training", 4)
    row = "  - {name: tuned, published: {shapes: 50}, tune: {images: 3, grid: [0.2, 0.8]}, chosen: {shapes: 0.8}}\n"
    options = own_experiment(tmp_path, shapes, row + "measure: pixel_accuracy\n")
    plan = tmp_path / "options" / "reproduction" / "mine.yaml"
    suggested = f"\"+dataset.suggests={{train: ['dataset.root={training}']}}\""
    plan.write_text(plan.read_text().replace("columns: {shapes: [", f"columns: {{shapes: [{suggested}, "))
    done = cli("reproduce", "mine", *options)
    assert done.code == 0, done.err
    assert "chosen, published 0.8" in done.out.replace("\n", " ")
    results = [Result.from_json(p.read_text()) for p in (tmp_path / "out" / "results").glob("*/result.json")]
    trained = {r.config["segmenter"]["tau"]: r.metrics.miou for r in results if r.config["limit"] == 3}
    assert set(trained) == {0.2, 0.8}
    chosen = max(trained, key=lambda tau: trained[tau])
    final = next(r for r in results if r.config["limit"] is None and r.config["segmenter"]["tau"] == chosen)
    tuned = verdicts(tmp_path / "out" / "reproductions" / "mine", "mine")["tuned", "shapes"]
    assert tuned["ours"] == f"{100 * final.scores['pixel_accuracy'].value:.3f}", "judged by the table's measure"
    status = cli("reproduce", "mine", "--status", *options)
    assert "2 finished" in status.out


@pytest.mark.parametrize(("measure", "name"), [("images_per_s", "images/s"), ("auc", "AUC")])
def test_speed_and_coherence_are_measures_of_their_own(cli, tmp_path, measure, name):
    options = own_experiment(tmp_path, write_shapes(tmp_path / "shapes", 4), f"measure: {measure}\n")
    done = cli("reproduce", "mine", *options)
    assert done.code == 0, done.err
    ours = verdicts(tmp_path / "out" / "reproductions" / "mine", "mine")["ours", "shapes"]
    if measure == "auc":
        (record,) = (json.loads(p.read_text()) for p in (tmp_path / "out" / "coherence").glob("*/coherence.json"))
        assert ours["ours"] == f"{record['backbones'][0]['auc']:.4f}"
        assert ours["verdict"] == "differs"
    else:
        (result,) = (Result.from_json(p.read_text()) for p in (tmp_path / "out").glob("results/*/result.json"))
        assert ours["ours"] == f"{result.timings.images_per_s:.4f}"
        assert ours["verdict"] == ("reproduced" if result.timings.images_per_s >= 50 else "differs")
    assert name in done.out


def test_nothing_that_can_be_run_is_an_exit_code(cli, tmp_path):
    done = cli("reproduce", "table8", f"output_dir={tmp_path}")
    assert done.code == 2
    assert "not run" in done.out
    (tmp_path / "reproduction").mkdir()
    (tmp_path / "reproduction" / "theirs.yaml").write_text(
        "title: Theirs\nsource: a test\ncolumns: {voc: [dataset=voc]}\n"
        "rows: [{name: theirs, published: {voc: 50}, not_run: trained}]\n"
    )
    published = cli("reproduce", "theirs", f"hydra.searchpath=[file://{tmp_path}]", f"output_dir={tmp_path}")
    assert published.code == 0, "nothing was to be run"


def test_mistakes(cli, tmp_path):
    run = partial(cli, "reproduce")
    (tmp_path / "mine" / "reproduction").mkdir(parents=True)
    (tmp_path / "mine" / "reproduction" / "unreadable.yaml").write_text(": : :")
    (tmp_path / "mine" / "reproduction" / "binary.yaml").write_bytes(bytes(range(256)))
    search = f"hydra.searchpath=[file://{tmp_path / 'mine'}]"
    for arguments, hint in (
        (["tabel1"], "did you mean table1"),
        (["table1", "--under", "relased"], "did you mean released"),
        (["table1", "--predictions", "STEGO"], "ROW=DIR"),
        (["table1", "--predictions", "STEGGO=."], "did you mean STEGO"),
        (["table8", "--for", "vok", "dataset.root=/x"], "did you mean voc"),
        (["table8", "segmenter.tua=1"], "did you mean segmenter.tau"),
        (["table8", "--seeds", "1"], "such as --seeds 3"),
        (["table8", "--seeds", "3", "backbone.seed=null"], "such as backbone.seed=42"),
        (["table8", "--seeds", "3", "backbone.seed=1.5"], "such as backbone.seed=42"),
        (["unreadable", search], "docs/reproducing.md"),
        (["binary", search], "docs/reproducing.md"),
    ):
        done = run(*arguments, f"output_dir={tmp_path}")
        assert done.code == 2, arguments
        assert hint in done.err
        assert len(done.err.strip().splitlines()) == 3
