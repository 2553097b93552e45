"""``diffcut-bench report`` on real results."""

import base64
import csv
import io
import json
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import DATA, shapes_overrides, write_shapes
from PIL import Image

from diffcut_bench.cli import main
from diffcut_bench.reporting.details import choose_images
from diffcut_bench.store import ImageRow, Result, read_rows

TAUS = ("segmenter.tau=0.3,0.5", "segmenter.alpha=2,5")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``shapes`` with twelve pictures, and ``out`` with a sweep of four cells over them."""
    root = tmp_path_factory.mktemp("sweep")
    overrides = shapes_overrides(write_shapes(root / "shapes", 12), root / "out")
    assert main(["run", "-m", *overrides, *TAUS, "visualise=1"]) == 0
    return root


@pytest.fixture
def swept(original, tmp_path) -> Path:
    """The sweep's output folder, to do with as one likes, and its data where they lay as seen from there."""
    (tmp_path / "shapes").symlink_to(original / "shapes")
    shutil.copytree(original / "out", tmp_path / "out", ignore=shutil.ignore_patterns("SHA256SUMS"))
    return tmp_path / "out"


def page_of(folder: Path) -> str:
    return (folder / "reports" / "index.html").read_text()


def table_of(folder: Path, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "reports" / "tables" / f"{name}.csv").open()))


def results_of(folder: Path) -> list[tuple[Path, Result]]:
    return [(path.parent, Result.from_json(path.read_text())) for path in sorted(folder.glob("results/*/result.json"))]


def best_of(folder: Path) -> tuple[Path, Result]:
    return max(results_of(folder), key=lambda cell: cell[1].metrics.miou)


def pictures_of(page: str) -> list[Image.Image]:
    found = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)" width="(\d+)" height="(\d+)"', page)
    pictures = []
    for data, width, height in found:
        picture = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
        picture.load()
        assert (picture.format, picture.size) == ("JPEG", (int(width), int(height)))
        pictures.append(picture)
    return pictures


def write_reproduction(folder: Path, name: str, **changes: object) -> None:
    table = {
        "name": name,
        "title": f"title of {name}",
        "columns": [{"name": "method", "numeric": False}, {"name": "verdict", "numeric": False}],
        "rows": [["DiffCut", "reproduced"]],
        "notes": ["a note"],
        "shared": "",
    }
    record = {"schema_version": 1, "name": name, "title": f"title of {name}", "table": table, "curves": None, **changes}
    path = folder / "reproductions" / name / "reproduction.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(record))


def test_a_sweep_becomes_a_page_with_tables_figures_and_pictures(swept, cli):
    done = cli("report", swept)
    assert (done.code, done.err) == (0, "")
    page = page_of(swept)
    names = sorted(path.name for path in (swept / "reports" / "tables").iterdir())
    assert names == sorted(
        f"{stem}.{end}" for stem in ("results", "classes_folder", "versions") for end in ("csv", "md", "tex")
    )
    assert all(stem in done.out for stem in ("index.html", "results.md", "classes_folder.md"))

    rows = table_of(swept, "results")
    assert [(row["tau"], row["alpha"]) for row in rows] == [("0.3", "2"), ("0.3", "5"), ("0.5", "2"), ("0.5", "5")]
    folder, best = best_of(swept)
    assert f"{100 * best.metrics.miou:.1f} <small>% mIoU" in page
    classes = table_of(swept, "classes_folder")
    assert [float(row["IoU"]) for row in classes] == pytest.approx(
        [100 * iou for iou in best.metrics.iou_per_class.values()], abs=0.051
    )
    assert all("–" in row["95 % interval"] for row in classes)
    assert page.count("<svg") == 5, "curves, heat map, two of scores by segments, bars"
    assert page.count("<details>") == 4
    assert all(result.key in page for _, result in results_of(swept))

    pictures = pictures_of(page)
    assert len(pictures) == 6
    assert all(picture.width == 1100 for picture in pictures)
    assert len({picture.tobytes() for picture in pictures}) == 6
    assert len(list((folder / "pictures").glob("*.png"))) >= 6
    shown = re.findall(r"<figcaption>(\w+): mean IoU ([\d.]+) %, \d+ segments?</figcaption>", page)
    scores = [float(score) for _, score in shown]
    assert scores == sorted(scores, reverse=True)
    assert len({name for name, _ in shown}) == 6


def test_a_report_by_another_score(swept, cli):
    done = cli("report", swept, "score=voi")
    assert (done.code, done.err) == (0, "")
    page = page_of(swept)
    folder, best = min(results_of(swept), key=lambda cell: cell[1].scores["voi"].value)
    assert f'class="score">{best.scores["voi"].value:.2f} <small>VoI</small>' in page
    assert "VoI by tau, for each alpha" in page and "VoI by segments an image, for each alpha" in page
    assert [*table_of(swept, "results")[0]][2:4] == ["VoI", "95 % interval"]
    shown = re.findall(r"<figcaption>\w+: VoI ([\d.]+), \d+ segments?</figcaption>", page)
    assert len(shown) == 6 and shown == sorted(shown), "the least first"
    assert "VoI of each image alone" in page
    assert "IoU of each class of folder" in page, "there is no VoI of a class"
    assert len(list((folder / "pictures").glob("*.png"))) >= 6
    refused = cli("report", swept, "score=vio")
    assert refused.code == 2 and "did you mean voi" in refused.err


def test_results_without_the_score_have_cards_of_what_they_have(swept, cli):
    for path in swept.glob("results/*/result.json"):
        record = json.loads(path.read_text())
        record["scores"] = {name: score for name, score in record["scores"].items() if name != "ari"}
        path.write_text(json.dumps(record))
    done = cli("report", swept, "--gallery", "0", "score=ari")
    assert (done.code, done.err) == (0, "")
    assert "<small>% mIoU</small>" in page_of(swept)
    assert [*table_of(swept, "results")[0]][2] == "mIoU"


def test_the_same_results_give_the_same_bytes(swept, cli):
    assert cli("report", swept).code == 0
    first = page_of(swept)
    assert cli("report", f"output_dir={swept}").code == 0
    assert page_of(swept) == first


def test_the_gallery_holds_as_many_as_asked_and_none_if_none(swept, cli):
    assert cli("report", swept, "--gallery", "1").code == 0
    assert len(pictures_of(page_of(swept))) == 3
    assert cli("report", "--gallery", "0", swept).code == 0
    assert 'id="gallery"' not in page_of(swept)
    refused = cli("report", swept, "--gallery", "-1")
    assert refused.code == 2
    assert "--gallery" in refused.err


def test_pictures_that_cannot_be_drawn_leave_a_note(swept, original, cli):
    folder, _ = best_of(swept)
    kept = len(list((folder / "pictures").glob("*.png")))
    (original / "shapes").rename(original / "moved")
    try:
        done = cli("report", swept, "--gallery", "8")
    finally:
        (original / "moved").rename(original / "shapes")
    assert done.code == 0
    assert len(pictures_of(page_of(swept))) == kept == 1
    assert "pictures can&#39;t be drawn" in page_of(swept)


def test_a_picture_is_not_drawn_from_other_data_or_another_config(swept, cli):
    folder, _ = best_of(swept)
    folder = folder.rename(folder.with_name("renamed"))
    path = folder / "result.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "key": "0" * 64}))
    assert cli("report", swept).code == 0
    assert "are not those of the result" in page_of(swept)
    del record["config"]["batch_size"]
    path.write_text(json.dumps(record))
    assert cli("report", swept).code == 0
    assert "config is of another version" in page_of(swept)
    assert [path.name for path in (folder / "pictures").iterdir()] == ["picture0.png"]


def test_a_result_that_cannot_be_read_is_named_and_left_out(swept, cli):
    broken = swept / "results" / "broken"
    for name, text in (("broken", "{"), ("list", "[1]"), ("later", '{"schema_version": 99}')):
        (swept / "results" / name).mkdir()
        (swept / "results" / name / "result.json").write_text(text)
    done = cli("report", swept, "--gallery", "0")
    assert done.code == 0
    assert done.err.count("left out") == 3
    assert str(broken / "result.json") in done.err
    assert len(table_of(swept, "results")) == 4


def test_a_cell_without_its_rows_has_no_pictures_but_classes(swept, cli):
    folder, _ = best_of(swept)
    (folder / "per_image.parquet").unlink()
    assert cli("report", swept).code == 0
    assert "no pictures: its rows can&#39;t be taken" in page_of(swept)
    assert len(table_of(swept, "classes_folder")) == 3


def test_no_results_is_the_users_mistake(tmp_path, cli):
    done = cli("report", tmp_path)
    assert done.code == 2
    assert str(tmp_path / "results") in done.err
    assert "diffcut-bench run" in done.err
    assert cli("report", tmp_path, tmp_path / "other").code == 2


def test_an_older_result_gets_its_intervals_from_its_rows(swept, cli):
    folder, best = best_of(swept)
    record = json.loads((folder / "result.json").read_text())
    del record["metrics"]["iou_per_class_ci95"]
    (folder / "result.json").write_text(json.dumps(record))
    assert cli("report", swept, "--gallery", "0").code == 0
    told = [row["95 % interval"] for row in table_of(swept, "classes_folder")]
    assert told == [f"{100 * low:.1f} – {100 * high:.1f}" for low, high in best.metrics.iou_per_class_ci95.values()]


def test_an_old_file_alone_makes_a_page(tmp_path, cli):
    (tmp_path / "results" / "old").mkdir(parents=True)
    shutil.copy(DATA / "result_v1_before_identity.json", tmp_path / "results" / "old" / "result.json")
    assert cli("report", tmp_path).code == 0
    assert {row["95 % interval"] for row in table_of(tmp_path, "classes_sample")} == {""}
    assert 'id="sweeps"' not in page_of(tmp_path)


def test_two_data_sets_of_the_user_are_not_taken_for_one(tmp_path, cli):
    record = json.loads((DATA / "result_v1_before_identity.json").read_text())
    own = {**record["dataset"], "name": "folder", "n_expected": None}
    published = {**record["dataset"], "name": "voc"}
    for number, (dataset, root) in enumerate([(own, "a"), (own, "b"), (own, "b"), (published, "c"), (published, "d")]):
        config = {**record["config"], "dataset": {"root": root}}
        (tmp_path / "results" / str(number)).mkdir(parents=True)
        changed = {**record, "dataset": dataset, "config": config}
        (tmp_path / "results" / str(number) / "result.json").write_text(json.dumps(changed))
    assert cli("report", tmp_path).code == 0
    cards = re.findall(r'<div class="card">\s*<h3>([^<]*?)\s*<', page_of(tmp_path))
    assert cards == ["folder", "folder (2)", "voc"]
    assert (tmp_path / "reports" / "tables" / "classes_folder_2.csv").is_file()


def test_limited_cells_stand_back(tmp_path, cli):
    record = json.loads((DATA / "result_v1_before_identity.json").read_text())
    for name, limited, miou in (("whole", False, 0.3), ("worse", False, 0.2), ("limited", True, 0.9)):
        (tmp_path / "results" / name).mkdir(parents=True)
        changed = {**record, "limited": limited, "metrics": {**record["metrics"], "miou": miou}}
        (tmp_path / "results" / name / "result.json").write_text(json.dumps(changed))
    assert cli("report", tmp_path).code == 0
    assert re.findall(r'class="score">([\d.]+)', page_of(tmp_path)) == ["30.0"]


def test_shards_of_a_merged_cell_are_left_out_and_others_never_lead(kept_cells, tmp_path, cli):
    left = shutil.ignore_patterns("features", "SHA256SUMS")
    out = shutil.copytree(kept_cells / "out", tmp_path / "out", ignore=left)
    for folder, result in results_of(out):
        if result.shard:  # whatever images a shard happens to have
            record = json.loads((folder / "result.json").read_text())
            record["metrics"]["miou"], record["limited"] = 0.99, False
            (folder / "result.json").write_text(json.dumps(record))
    assert cli("report", out, "--gallery", "0").code == 0
    shown = [(row["tau"], row["shard"], row["images"]) for row in table_of(out, "results")]
    assert shown == [("0.3", "", "12"), ("0.4", "", "12"), ("0.45", "2/2", "6 (shard 2/2)"), ("0.6", "", "12")]
    assert "2 shards of merged cells are not shown" in page_of(out)
    covered = [
        folder for folder, result in results_of(out) if result.shard and result.config["segmenter"]["tau"] == 0.4
    ]
    missed = cli("show", "zzz", f"output_dir={out}")
    assert (missed.code, len(covered)) == (2, 2)
    assert not any(folder.name in missed.err for folder in covered)

    (merged,) = (path for path, cell in results_of(out) if cell.config["segmenter"]["tau"] == 0.4 and not cell.shard)
    shutil.rmtree(merged)
    assert cli("report", out, "--gallery", "0").code == 0
    assert len(table_of(out, "results")) == 5
    best = max(result.metrics.miou for _, result in results_of(out) if not result.shard)
    assert re.findall(r'class="score">([\d.]+)', page_of(out)) == [f"{100 * best:.1f}"]
    assert page_of(out).count('<span class="badge warn">shard') == 3


def test_a_row_leads_to_all_that_is_known_of_its_cell(swept, cli):
    assert cli("report", swept, "--gallery", "0").code == 0
    page = page_of(swept)
    links = re.findall(r'<a class="key" href="#([\w.-]+)">(\w{8})</a>', page)
    assert len(links) == 4
    for (anchor, key), row in zip(links, table_of(swept, "results"), strict=True):
        section = page[page.index(f'<dl id="{anchor}">') :].partition("</details>")[0]
        assert f"tau={row['tau']}" in section and f"<dd>{key}" in section
        assert "Classes of folder" in section and "Best and worst images" in section
        assert section.count("<td>picture") == 10
    best_folder, _ = best_of(swept)
    assert f'<p><a href="#cell-{best_folder.name}">' in page


def test_reproductions_stand_by_number_tables_first(swept, cli):
    line = {"label": "voc", "x": [0.3, 0.5], "y": [40, 50], "low": [], "high": []}
    curves = {"x_label": "tau", "y_label": "mIoU (%)", "curves": [line], "references": [["AutoSC", 25.3]]}
    write_reproduction(swept, "figure3", curves=curves)
    write_reproduction(swept, "figure4", curves={**curves, "curves": []})
    for name in ("table11", "table2", "table1"):
        write_reproduction(swept, name)
    write_reproduction(swept, "table3", table={"title": "no rows"})
    done = cli("report", swept, "--gallery", "0")
    assert done.code == 0
    assert done.err.count("left out") == 1
    page = page_of(swept)
    assert re.findall(r"<h3>title of (\w+)</h3>", page) == ["table1", "table2", "table11", "figure3", "figure4"]
    assert page.count("<svg") == 6
    assert "AutoSC: 25.3" in page
    assert '<span class="badge good">reproduced 5</span>' in page
    assert table_of(swept, "table11") == [{"method": "DiffCut", "verdict": "reproduced"}]


def test_claims_about_a_tables_rows_stand_below_it(swept, cli):
    columns = [{"name": name, "numeric": False} for name in ("claim", "verdict")]
    claims = {"name": "c", "title": "claims", "columns": columns, "notes": [], "shared": ""}
    write_reproduction(swept, "table1", claims={**claims, "rows": [["first <everywhere>", "differs: absent"]]})
    write_reproduction(swept, "table2", claims={**claims, "rows": [["too", "many", "cells"]]})
    done = cli("report", swept, "--gallery", "0")
    assert (done.code, done.err.count("left out")) == (0, 1)
    assert "first &lt;everywhere&gt;" in page_of(swept)
    for verdict in ('good">reproduced 1', 'bad">differs 1'):
        assert f'<span class="badge {verdict}</span>' in page_of(swept)
    assert table_of(swept, "table1_claims") == [{"claim": "first <everywhere>", "verdict": "differs: absent"}]


def test_images_are_chosen_from_both_ends_and_the_middle():
    def rows(count: int) -> list[ImageRow]:
        return [ImageRow(i, f"i{i}", 1, 100, [i], [100 - i], [0]) for i in range(count)]

    def chosen(count: int, each: int) -> list[tuple[str, list[int]]]:
        return [(kind, [row.index for row, _ in images]) for kind, images in choose_images(rows(count), each)]

    assert chosen(9, 2) == [("best", [8, 7]), ("median", [4, 3]), ("worst", [1, 0])]
    assert chosen(9, 1) == [("best", [8]), ("median", [4]), ("worst", [0])]
    assert chosen(5, 2) == [("best", [4, 3]), ("median", [2]), ("worst", [1, 0])]
    assert chosen(3, 2) == [("best", [2, 1]), ("worst", [0])]
    assert chosen(1, 2) == [("best", [0])]
    assert chosen(0, 2) == chosen(5, 0) == []
    void = ImageRow(0, "void", 1, 0, [0], [0], [0])
    assert choose_images([void], 2) == []


def test_the_score_of_an_image_is_the_mean_over_its_own_classes(swept):
    rows = read_rows(best_of(swept)[0])
    for _, images in choose_images(rows, 2):
        for row, score in images:
            sums = [(tp, tp + fp + fn) for tp, fp, fn in zip(row.tp, row.fp, row.fn, strict=True)]
            own = [tp / total for tp, total in sums if total]
            assert score == pytest.approx(sum(own) / len(own))


def explorers_of(folder: Path) -> dict[str, dict]:
    """The data of each explorer that the page links to, by its place."""
    linked = dict.fromkeys(re.findall(r'href="(explorers/[^"]+)"', page_of(folder)))
    pages = {place: (folder / "reports" / place).read_text() for place in linked}
    return {
        place: json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page)[1])
        for place, page in pages.items()
    }


def test_pictures_of_the_gallery_open_their_explorer(swept, cli):
    folder, best = best_of(swept)
    done = cli("report", swept, "--gallery", "1", "explore=true")
    assert (done.code, done.err) == (0, "")
    assert "and 3 explorers of" in done.out
    shown = re.findall(
        r'<a href="([^"]+)"><img [^>]+></a>\s*<figcaption>(\w+): [^<]* · <a href="([^"]+)">', page_of(swept)
    )
    assert len(shown) == 3 and all(first == second for first, _, second in shown)
    pages = explorers_of(swept)
    assert [*pages] == [place for place, _, _ in shown]
    rows = {row.id: row for row in read_rows(folder)}
    for place, name, _ in shown:
        data = pages[place]
        assert data["tau"] == best.config["segmenter"]["tau"]
        made = [reached for reached in data["reached"] if reached < np.float32(data["tau"])]
        assert len(made) + 1 == rows[name].segments
        assert set(data["names"]) - {""} <= {"background", *best.class_names}
        assert set(data["names"]) != {""}
    assert cli("report", swept, "--gallery", "1").code == 0
    assert explorers_of(swept) == {}, "only where they were asked for"


def test_a_report_that_was_sent_to_somebody_opens_its_explorers(swept, cli, browser, tmp_path):
    assert cli("report", swept, "--gallery", "1", "explore=true").code == 0
    (swept / "reports").rename(tmp_path / "sent")
    browser.resize(1280, 900)
    browser.open(tmp_path / "sent" / "index.html")
    name = browser.run("return document.querySelector('.gallery figcaption').textContent").split(":")[0]
    browser.run("document.querySelector('.gallery figcaption a').click()")
    for _ in range(100):
        if browser.run("return document.querySelector('h1').textContent") == name:
            break
        time.sleep(0.1)
    row = next(row for row in read_rows(best_of(swept)[0]) if row.id == name)
    assert browser.run("return document.getElementById('count').textContent") == str(row.segments)
    assert browser.errors() == []


def test_an_explorer_that_somebody_else_wrote_is_never_shown(swept, original, cli):
    assert cli("report", swept, "--gallery", "1", "explore=true").code == 0
    for path in (swept / "reports" / "explorers").iterdir():
        path.write_text("<script>alert(1)</script>")
    (original / "shapes").rename(original / "moved")  # nothing can be scored again
    try:
        done = cli("report", swept, "--gallery", "1", "explore=true")
    finally:
        (original / "moved").rename(original / "shapes")
    assert done.code == 0
    assert explorers_of(swept) == {}
    assert [*(swept / "reports" / "explorers").iterdir()] == []
    assert "there are no explorers" in page_of(swept)
    assert len(pictures_of(page_of(swept))) == 3
    shutil.rmtree(swept / "reports" / "explorers")
    (swept / "other").mkdir()
    (swept / "reports" / "explorers").symlink_to(swept / "other")
    assert cli("report", swept, "--gallery", "1", "explore=true").code == 0
    assert "their folder is a link" in page_of(swept)
    assert [*(swept / "other").iterdir()] == []


@pytest.fixture
def two_methods(swept, cli) -> Path:
    """The sweep, and a method that cuts nothing."""
    words = [
        *shapes_overrides(swept.parent / "shapes", swept),
        "segmenter=one_segment",
        "backbone=none",
        "refiner=none",
    ]
    done = cli("run", *words)
    assert done.code == 0, done.err
    return swept


def uncut_of(folder: Path) -> Path:
    return next(path for path, result in results_of(folder) if result.config["choices"]["segmenter"] == "one_segment")


def beside_of(page: str) -> list[str]:
    """Captions of what stands beside the pictures of the best cell."""
    return [figures.split("<figcaption>")[2].split("<")[0] for figures in page.split('<div class="image">')[1:]]


def test_another_method_stands_beside_the_best(two_methods, cli):
    done = cli("report", two_methods, "--gallery", "1", "explore=true")
    assert (done.code, done.err) == (0, "")
    page = page_of(two_methods)
    other = uncut_of(two_methods)
    names = re.findall(r"<figcaption>(picture\d+):", page)
    captions = beside_of(page)
    assert len(names) == len(captions) == 3
    segments = {row.id: row.segments for row in read_rows(other)}
    for name, caption in zip(names, captions, strict=True):
        assert re.fullmatch(rf"none, one_segment.*: mean IoU [\d.]+ %, {segments[name]} segments?", caption.strip())
    wide = [(int(w), int(h)) for w, h in re.findall(r'base64,[^"]+" width="(\d+)" height="(\d+)"', page)]
    assert [w for w, _ in wide] == [1100, 364] * 3
    assert "only the exact recursive cut has a tree" in page
    assert len(explorers_of(two_methods)) == 3


def test_cells_that_are_named_stand_beside_the_best(two_methods, cli):
    best, _ = best_of(two_methods)
    other = next(path for path, result in results_of(two_methods) if result.config["segmenter"].get("tau") == 0.3)
    done = cli("report", two_methods, "--gallery", "1", "--beside", other.name, "--beside", str(best))
    assert done.code == 0
    assert all("diffcut" in caption and "tau=0.3" in caption for caption in beside_of(page_of(two_methods)))
    assert f"--beside {best.name}" in done.err, "it is there already"
    refused = cli("report", two_methods, "--beside", "nothing")
    assert refused.code == 2 and "no finished cell" in refused.err


def test_a_picture_of_an_older_version_has_no_prediction_of_its_own(two_methods, cli):
    assert cli("report", two_methods, "--gallery", "1").code == 0
    for path in (uncut_of(two_methods) / "pictures").glob("*.png"):
        with Image.open(path) as picture:
            picture.copy().save(path)  # without what it says about itself
    done = cli("report", two_methods, "--gallery", "1")
    assert (done.code, done.err) == (0, "")
    assert "its picture can&#39;t be read (drawn by an older version)" in page_of(two_methods)
    assert len(pictures_of(page_of(two_methods))) == 3


def test_a_run_writes_explorers_beside_its_pictures(original, tmp_path, cli):
    words = [*shapes_overrides(original / "shapes", tmp_path), "visualise=2", "explore=true"]
    assert cli("run", "-m", *words, "segmenter=diffcut,one_segment").code == 0
    made = {path.parent.parent.name.split("-")[2]: path for path in tmp_path.glob("results/*/pictures/*.html")}
    assert [*made] == ["diffcut"]
    page = made["diffcut"]
    assert sorted(path.name for path in page.parent.iterdir()) == [
        f"picture{number}.{end}" for number in (0, 1) for end in ("html", "png")
    ]
    page.unlink()
    again = cli("run", *words).out
    assert "skipped" in again and f"explorer {page}" in again
    assert page.is_file(), "what is missing is written later"
