"""The README's Python runs as printed, and the docs name only options and files that exist."""

import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import miniatures
import numpy as np
import pytest
import skimage.data
from conftest import shapes_overrides, write_shapes
from PIL import Image

from diffcut_bench.config import GROUPS, conf_dir, known_options
from diffcut_bench.evaluation import FEWEST_IMAGES
from diffcut_bench.store import read_result, read_rows

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_readme_python_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(skimage.data.chelsea()).resize((225, 150)).save("photo.jpg")
    exec(compile(block, "README.md", "exec"), {})
    assert "overlay.png" not in block or Image.open("overlay.png").size == (225, 150)


def test_readme_lists_every_option():
    for group in GROUPS:
        row = next(line for line in README.splitlines() if line.startswith(f"| `{group}` |"))
        assert set(re.findall(r"`(\w+)`", row)) - {group} == {path.stem for path in (conf_dir() / group).glob("*.yaml")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_table_and_figure_is_listed():
    page = (ROOT / "docs" / "reproducing.md").read_text()
    listed = re.search(r"`NAME` is one of (.*?)\. Cells", page, re.DOTALL)
    assert {name for names in re.findall(r"`([^`]+)`", listed[1]) for name in names.split()} == {
        *known_options("reproduction")
    }


def test_make_targets_of_the_readme_exist():
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"help", "demo", "test", "lint", "types", "docs", "package", "bench", "gpu-check", "clean"} <= set(targets)
    assert set(re.findall(r"`make ([a-z-]+)", README)) <= set(targets)
    assert README.index("make demo") < README.index("diffcut-bench run")


def test_the_worked_example_of_a_data_set_runs(tmp_path, monkeypatch, cli):
    page = (ROOT / "docs" / "adding_a_dataset.md").read_text()
    module, test = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "puddles.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    namespace: dict[str, Callable[[Path], None]] = {}
    exec(compile(test, "test_puddles.py", "exec"), namespace)
    namespace["test_label_map"](tmp_path)
    options = tmp_path / "options" / "dataset"
    options.mkdir(parents=True)
    (options / "puddles.yaml").write_text(re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[0])
    miniatures.picture(tmp_path / "photos" / "a.jpg", size=(60, 40))
    Image.fromarray(np.tile(np.array([[0, 1, 2]], dtype=np.uint8), (40, 20))).save(tmp_path / "masks" / "a.png")
    overrides = [f"hydra.searchpath=[file://{tmp_path / 'options'}]", f"output_dir={tmp_path / 'out'}"]
    prepared = cli("data", "prepare", "puddles", f"dataset.root={tmp_path}", *overrides)
    assert prepared.code == 0, prepared.err
    assert "1 pairs, but the published split has 3" in cli("data", "verify", "puddles", *overrides).out
    assert cli("run", "dataset=puddles", "protocol.image_size=128", *overrides).code == 0


def test_the_worked_example_of_a_backbone_runs(tmp_path, monkeypatch, cli):
    page = (ROOT / "docs" / "adding_a_backbone.md").read_text()
    module, test = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "gratings.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    namespace: dict[str, Callable[[], None]] = {}
    exec(compile(test, "test_gratings.py", "exec"), namespace)
    namespace["test_stripes_are_told_apart"]()
    options = tmp_path / "options" / "backbone"
    options.mkdir(parents=True)
    (options / "gratings.yaml").write_text(re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[0])
    overrides = [f"hydra.searchpath=[file://{tmp_path / 'options'}]", f"output_dir={tmp_path / 'out'}"]
    checked = cli("check", "backbone=gratings", *overrides)
    assert checked.code == 0, checked.out
    assert "[2, 32, 8, 4]" in checked.out
    assert cli("run", "backbone=gratings", "limit=2", "protocol.image_size=256", *overrides).code == 0
    assert cli("features", "list", f"output_dir={tmp_path / 'out'}").out.startswith("set")


def test_the_worked_example_of_a_metric_runs(tmp_path, monkeypatch, add_metric, cli):
    root, output = write_shapes(tmp_path / "shapes", FEWEST_IMAGES), tmp_path / "out"
    base = [*shapes_overrides(root, output), "backbone=colour"]
    assert "boundary" not in cli("run", *base, "segmenter.tau=0.2").out
    page = (ROOT / "docs" / "adding_a_metric.md").read_text()
    module, test = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    add_metric("boundary_recall", module)
    monkeypatch.setitem(sys.modules, "boundary_recall", ModuleType("boundary_recall"))
    exec(module, sys.modules["boundary_recall"].__dict__)
    namespace: dict[str, Callable[[], None]] = {}
    exec(compile(test, "test_boundary_recall.py", "exec"), namespace)
    namespace["test_a_boundary_is_found_if_it_is_near"]()

    (tmp_path / "options" / "reproduction").mkdir(parents=True)
    (tmp_path / "options" / "reproduction" / "edges.yaml").write_text(
        "title: Edges\nsource: me\nmeasure: boundary_recall\ncolumns: {shapes: [dataset=folder]}\n"
        "rows:\n  - {name: fine, overrides: [segmenter.tau=0.9], published: {shapes: 80.0}}\n"
        "  - {name: coarse, overrides: [segmenter.tau=0.5], published: {shapes: 70.0}}\n"
        "claims: [{text: fine is ahead, kind: exceeds, row: fine, others: [coarse]}]\n"
    )
    done = cli("run", *base)
    own = [word for word in base if word != "dataset=folder"]
    redrawn = cli("reproduce", "edges", f"hydra.searchpath=[file://{tmp_path / 'options'}]", *own)
    assert (done.code, redrawn.code) == (0, 0), done.err + redrawn.err
    by_tau = {read_result(cell).config["segmenter"]["tau"]: cell for cell in output.glob("results/*")}
    score = read_result(by_tau[0.5]).scores["boundary_recall"]
    found, of = np.array([row.measured["boundary_recall"] for row in read_rows(by_tau[0.5])]).T
    assert score.value == found.sum() / of.sum()
    low, high = score.ci95
    assert 0 < low < score.value < high < 1
    assert re.search(rf"boundary recall .*\n.*\n.*│ +{100 * score.value:.1f} │", done.out)
    assert "a predicted boundary at most 2 pixels away" in done.out
    assert "boundary recall (%)" in redrawn.out
    assert f"{100 * score.value:.3f}" in (output / "reproductions" / "edges" / "edges_cells.csv").read_text()
    assert re.search(r"fine is ahead +│ coarse +│ [+−]\d+\.\d+ \(", redrawn.out)

    difference = r"^boundary recall +│(?: +[−\d.]+ │){3} +[−\d.]+ – [−\d.]+ │ +[≤ \d.]+ *$"
    assert re.search(difference, cli("compare", by_tau[0.5], by_tau[0.9]).out, re.MULTILINE)
    before = cli("compare", by_tau[0.2], by_tau[0.9])
    assert before.code == 0 and not re.search(difference, before.out, re.MULTILINE), "not measured on the first"
    assert cli("report", output, "--gallery", "0").code == cli("verify", output).code == 0
    told = f"{100 * score.value:.1f} [{100 * low:.1f} – {100 * high:.1f}]"
    assert told in (output / "reports" / "index.html").read_text()
    for shard in ("1/2", "2/2"):
        assert cli("run", *shapes_overrides(root, tmp_path / "shards"), "backbone=colour", f"shard={shard}").code == 0
    assert cli("merge", "--from", tmp_path / "shards", f"output_dir={tmp_path / 'merged'}").code == 0
    (merged,) = (tmp_path / "merged").glob("results/*")
    assert read_result(merged).scores == read_result(by_tau[0.5]).scores


@pytest.mark.slow
def test_the_worked_example_of_numbers_shows_what_it_says(tmp_path, monkeypatch, cli, shapes):
    page = (ROOT / "docs" / "protocol.md").read_text()
    (tmp_path / "renumbered.py").write_text(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0])
    monkeypatch.syspath_prepend(tmp_path)
    (command,) = re.findall(r"```\ndiffcut-bench ([^`]*renumbered[^`]*)```", page)
    words = shlex.split(command.replace("\\\n", "").replace("range(10)", "0,1"))
    own = [*shapes_overrides(shapes, tmp_path / "out"), "limit=2", "protocol.background_rule=one_to_one"]
    done = cli(*(word for word in words if not word.startswith("dataset")), *own)
    assert done.code == 0, done.err
    found: dict[str, set[str]] = {"released": set(), "paper": set(), "strict": set()}
    for cell in (tmp_path / "out" / "results").iterdir():
        found[read_result(cell).protocol["name"]].add(str(read_rows(cell)))
    assert {name: len(rows) for name, rows in found.items()} == {"released": 2, "paper": 1, "strict": 1}


def test_every_benchmark_has_a_page():
    pages = {path.stem for path in (ROOT / "docs" / "datasets").glob("*.md")}
    assert pages == {path.stem for path in (conf_dir() / "dataset").glob("*.yaml")} - {"sample", "folder"}
