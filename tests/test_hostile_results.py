"""Other people's results: nothing in them runs, is fetched, or reads as anything but text; a bad one stands alone."""

import csv
import json
import os
import pickle
import re
import shutil
import socket
from collections.abc import Callable
from copy import deepcopy
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import hydra.utils
import joblib
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import shapes_overrides, write_shapes

from diffcut_bench.cli import main
from diffcut_bench.config import load_config
from diffcut_bench.reporting.inlined import inlined


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hostile")
    assert main(["run", *shapes_overrides(write_shapes(root / "shapes", 2), root / "out")]) == 0
    return root


@pytest.fixture
def out(original, tmp_path) -> Path:
    """The output folder of one cell, to do with as one likes, and its data where they lay as seen from there."""
    (tmp_path / "shapes").symlink_to(original / "shapes")
    shutil.copytree(original / "out", tmp_path / "out", ignore=shutil.ignore_patterns("SHA256SUMS"))
    return tmp_path / "out"


def cell_of(out: Path) -> Path:
    (path,) = out.glob("results/*/result.json")
    return path


def change(out: Path, path: str, value: object) -> None:
    """Another value in the result; the last name may be new."""
    record = json.loads(cell_of(out).read_text())
    put(record, path, value)
    cell_of(out).write_text(json.dumps(record))


def put(record: dict[str, Any], path: str, value: object) -> None:
    *way, last = path.split("/")
    for name in way:
        record = record[name]
    record[last] = value


def page_of(out: Path) -> str:
    return (out / "reports" / "index.html").read_text()


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


class Touch:
    """What a pickle runs when it is read."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.fixture
def targets(tmp_path) -> dict[str, dict[str, Any]]:
    """Nodes that leave a marker when they are instantiated."""
    marker = tmp_path / "ran"
    (tmp_path / "evil.pickle").write_bytes(pickle.dumps(Touch(marker)))
    joblib.dump(Touch(marker), tmp_path / "evil.joblib")
    text = f"__import__('os').system('touch {marker}')"
    return {
        "sympy": {"_target_": "sympy.sympify", "a": text},
        "pandas": {"_target_": "pandas.read_pickle", "filepath_or_buffer": str(tmp_path / "evil.pickle")},
        "joblib": {"_target_": "joblib.load", "filename": str(tmp_path / "evil.joblib")},
        "method": {"_target_": "shutil.copyfile", "_args_": [str(tmp_path / "evil.pickle"), str(marker)]},
        "nested": {"_target_": "hydra.utils.get_method", "path": {"_target_": "sympy.sympify", "a": text}},
    }


STAGES = ["dataset", "backbone", "features", "segmenter", "upsampler", "refiner", "namer", "protocol", "tracker"]


def test_no_target_of_a_result_is_run(out, cli, targets, tmp_path):
    marker = tmp_path / "ran"
    for name, node in targets.items():
        with pytest.raises(Exception):  # noqa: B017 - what is built is no path, no stage
            hydra.utils.instantiate(node)
            raise ValueError
        assert marker.exists(), f"{name} does nothing that the report could be kept from"
        marker.unlink()
    nodes = list(targets.values())
    cases = [(f"config/{stage}", nodes[number % len(nodes)]) for number, stage in enumerate(STAGES)]
    cases += [("config/refiner/dilations", [1, node]) for node in nodes]
    cases += [("config/segmenter/tau", {"deep": [nodes[0]]}), ("config/choices/segmenter", "../../x")]
    first = cell_of(out).parent
    whole = json.loads((first / "result.json").read_text())
    for number, (path, value) in enumerate(cases):
        # Each the best of a data set of its own, so that its pictures are wanted.
        folder = shutil.copytree(first, out / "results" / f"crafted{number}") if number else first
        record = deepcopy(whole)
        record["dataset"]["name"] = f"crafted{number}"
        put(record, path, value)
        if path.startswith("config/choices"):
            put(record, "config/segmenter", nodes[0])
        (folder / "result.json").write_text(json.dumps(record))
    done = cli("report", out)
    assert done.code == 0, done.err
    assert not marker.exists()
    assert page_of(out).count("no option&#39;s own") == len(cases) - 1, "a tracker is passed over"
    exported = ("export", tmp_path / "exported")
    for command in (("show", first), ("compare", first, out / "results" / "crafted1"), ("list",), exported):
        assert cli(*command, f"output_dir={out}").code == 0
    assert not marker.exists()


def test_a_result_reads_no_environment(out, cli, monkeypatch):
    monkeypatch.setenv("DIFFCUT_SECRET", "hunter2-xyzzy")
    for path, text in (
        ("config/segmenter/label_codes", "${oc.env:DIFFCUT_SECRET}"),
        ("config/dataset/root", "${oc.env:DIFFCUT_SECRET}"),
        ("config/dataset/root", "/$DIFFCUT_SECRET"),
    ):
        change(out, path, text)
        done = cli("report", out)
        assert done.code == 0
        written = "".join(file.read_text() for file in (out / "reports").rglob("*") if file.is_file())
        assert "hunter2" not in written + done.out + done.err
        assert "is not resolved" in page_of(out)


def test_pictures_are_all_that_is_written_and_where_they_belong(original, out, cli, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    for path in ("output_dir", "data_dir"):
        change(out, f"config/{path}", str(elsewhere / path))
    change(out, "config/features/folder", str(elsewhere / "features"))
    change(out, "config/features/shard_mib", 1)
    before = files_of(tmp_path)
    assert cli("report", out).code == 0
    assert page_of(out).count("<img ") == 2
    new = {path for path in files_of(tmp_path) - before if "/reports/" not in path}
    assert new == {f"out/{cell_of(out).parent.relative_to(out)}/pictures/picture{n}.png" for n in (0, 1)}
    assert not elsewhere.exists()
    pictures = cell_of(out).parent / "pictures"
    pictures.rename(tmp_path / "moved")
    (tmp_path / "target").mkdir()
    pictures.symlink_to(tmp_path / "target")
    assert cli("report", out).code == 0
    assert "their folder is a link" in page_of(out)
    assert list((tmp_path / "target").iterdir()) == []


def test_nothing_is_fetched(out, cli):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/voc"
        voc = load_config(["dataset=voc"])
        for prepared in (url, f"simplecache::{url}", f"{url}.parquet"):
            change(out, "config/dataset", voc.dataset)
            change(out, "config/choices/dataset", "voc")
            change(out, "config/prepared", prepared)
            assert cli("report", out).code == 0
            assert "its prepared data are not on this disk" in page_of(out)
        with pytest.raises(TimeoutError):
            server.accept()


def test_a_result_of_one_s_own_option_is_drawn_when_it_is_named_again(original, cli, tmp_path):
    (tmp_path / "conf" / "segmenter").mkdir(parents=True)
    (tmp_path / "conf" / "segmenter" / "mine.yaml").write_text("_target_: diffcut_bench.segmenters.OneSegment\n")
    search = f"hydra.searchpath=[file://{tmp_path / 'conf'}]"
    out = tmp_path / "out"
    base = shapes_overrides(original / "shapes", out)
    done = cli("run", *base, search, "segmenter=mine")
    assert done.code == 0, done.err
    assert cli("report", out).code == 0
    assert page_of(out).count("<img ") == 0
    assert "unknown option segmenter=mine" in page_of(out)
    assert cli("report", out, search).code == 0
    assert page_of(out).count("<img ") == 2


def test_a_word_that_fits_no_result_is_the_user_s_mistake(original, out, cli):
    (original / "shapes").rename(original / "moved")
    try:
        done = cli("report", out, f"dataset.rot={original / 'moved'}")
        assert done.code == 2
        assert "unknown key dataset.rot" in done.err
        assert cli("report", out, f"dataset.root={original / 'moved'}").code == 0
    finally:
        (original / "moved").rename(original / "shapes")
    assert page_of(out).count("<img ") == 2


EVIL = [
    '=HYPERLINK("http://x","y")',
    "+1+cmd|' /C calc'!A0",
    "@SUM(1)",
    "-2+3",
    "\t=1+1",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "a|b\n# heading\n* item",
    "[link](http://x) `code` **bold**",
    "\\input{/etc/passwd}\n\\end{table}~^%&",
    "\x1b]0;title\x07\x1b[2J\x9b31m\r\u202egpj",
    "$\\frac{$",
    "_hidden",
    "\ud800 half",
    "",
]


class Tags(HTMLParser):
    """Names of elements, and attributes that could run something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.active: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.active += [name for name, value in attrs if name.startswith("on") or "javascript:" in (value or "")]
        self.active += [value or "" for name, value in attrs if name == "src" and not (value or "").startswith("data:")]


def test_names_are_text_in_every_medium(out, cli):
    iou = dict.fromkeys(EVIL, 0.5)
    wild = "\n".join(EVIL)
    for path, value in (
        ("metrics/iou_per_class", iou),
        ("metrics/iou_per_class_ci95", dict.fromkeys(EVIL)),
        ("dataset/name", f"../../{wild}"),
        ("failures", [{"id": name, "error": name} for name in EVIL]),
        ("protocol/name", wild),
        ("protocol/void", EVIL[0]),
        ("config/choices", dict.fromkeys(("dataset", "backbone", "segmenter", "namer"), wild)),
        ("config/segmenter", {"tau": wild, "_target_": wild, wild: wild}),
        ("environment/packages", dict.fromkeys(EVIL, wild)),
        ("environment/device", wild),
        ("environment/git", {"commit": wild}),
    ):
        change(out, path, value)
    twin = out / "results" / "twin"  # two rows: what differs becomes a column
    twin.mkdir()
    shutil.copy(cell_of(out), twin / "copy.json")
    record = json.loads((twin / "copy.json").read_text())
    record["config"]["segmenter"] = {"tau": "=1", wild: "@x"}
    (twin / "result.json").write_text(json.dumps(record))
    table = {
        "name": "x",
        "title": wild,
        "columns": [{"name": n} for n in EVIL],
        "rows": [EVIL],
        "notes": EVIL,
        "shared": wild,
    }
    curve = {"label": wild, "x": [1], "y": [2]}
    curves = {"x_label": wild, "y_label": wild, "curves": [curve, {**curve, "label": "_b"}], "references": [[wild, 1]]}
    path = out / "reproductions" / "a b'\"<i>\x1b" / "reproduction.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"title": wild, "table": table, "curves": curves}))
    before = files_of(out.parent)

    done = cli("report", out)
    assert done.code == 0, done.err
    assert "left out" not in done.err, "hostile names are no reason to leave a result out"
    shown = cli("show", twin)
    new = files_of(out.parent) - before
    assert all(path.startswith("out/reports/") for path in new)
    assert all(re.fullmatch(r"[\w.-]+", Path(path).name) for path in new)

    texts = {path: (out.parent / path).read_bytes().decode() for path in new}
    for text in (*texts.values(), done.out, done.err, shown.out, shown.err):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", text)
    own = f"<script>{inlined('report.js')}</script>"
    assert page_of(out).count(own) == 1
    tags = Tags(page_of(out).replace(own, ""))
    assert not tags.names & {"script", "i", "iframe", "object", "embed", "form", "base"}
    assert tags.active == []
    assert "alert(1)" in page_of(out), "the name itself is shown"
    for path, text in texts.items():
        if path.endswith(".csv"):
            rows = list(csv.reader(text.splitlines()))
            assert {len(row) for row in rows} == {len(rows[0])}
            for cell in (cell for row in rows for cell in row):
                assert not cell.lstrip().startswith(tuple("=+-@\t\r")) or re.fullmatch(r"[-+]?[\d.]+", cell), cell
        if path.endswith(".md"):
            assert not re.search(r"(?<!\\)<\w|(?<!\\)\]\(|^# |^\* item", text, re.MULTILINE)
            lines = [line for line in text.splitlines() if line.startswith("|")]
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
        if path.endswith(".tex"):
            code = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
            assert "\\input" not in code
            assert code.count("\\end{table}") == 1
            assert code.startswith("\\begin{table}")


BROKEN = [
    "null",
    "{}",
    "5",
    "[]",
    '"x"',
    "",
    "{",
    "[" * 100_000,
    '{"schema_version": 1}',
    '{"schema_version": true}',
    "NaN",
]


def test_a_bad_file_is_named_with_its_reason_and_the_rest_is_shown(out, cli):
    for number, text in enumerate(BROKEN):
        for path in (f"results/bad{number:02}/result.json", f"reproductions/bad{number:02}/reproduction.json"):
            (out / path).parent.mkdir(parents=True)
            (out / path).write_text(text)
    (out / "results" / "bytes").mkdir()
    (out / "results" / "bytes" / "result.json").write_bytes(b"\xff\xfe\x00{")
    done = cli("report", out)
    assert done.code == 0
    assert done.err.count("left out") == 2 * len(BROKEN) + 1
    assert page_of(out).count("<details>") == 1
    listed = re.findall(r"<li><code>([^<]*)</code>: ([^<]+)", page_of(out))
    assert len(listed) == 2 * len(BROKEN) + 1
    assert ("results/bad00/result.json") in {path for path, _ in listed}
    assert all(not path.startswith("/") for path, _ in listed)


@pytest.mark.parametrize("text", [*BROKEN[:3], "[]"])
def test_a_bad_file_is_a_user_error_of_the_other_commands(out, cli, text):
    folder = cell_of(out).parent
    (folder / "result.json").write_text(text)
    for command in (("show", folder), ("compare", folder, folder)):
        done = cli(*command, f"output_dir={out}")
        assert done.code == 2
        assert len(done.err.strip().splitlines()) == 3


WRONG = [
    ("metrics", None),
    ("metrics/miou", "high"),
    ("metrics/miou_ci95", 5),
    ("metrics/iou_per_class", ["a"]),
    ("metrics/iou_per_class", {"a": "x"}),
    ("segments_per_image", []),
    ("failures", {"a": 1}),
    ("failures", [5]),
    ("timings/wall_s", "long"),
    ("environment/packages", [1]),
    ("environment/git", None),
    ("dataset/n_images", "many"),
    ("dataset/name", None),
    ("protocol", [1]),
    ("identity", 5),
    ("config", None),
]


def test_a_result_of_wrong_types_never_ends_a_report(out, cli):
    good = json.loads(cell_of(out).read_text())
    for number, (path, value) in enumerate(WRONG):
        record = deepcopy(good)
        put(record, path, value)
        folder = out / "results" / f"bad{number:02}"
        folder.mkdir()
        (folder / "result.json").write_text(json.dumps(record))
    done = cli("report", out)
    assert done.code == 0, done.err
    assert f"{100 * good['metrics']['miou']:.1f}" in page_of(out)
    for number, (path, _) in enumerate(WRONG):
        assert f"results/bad{number:02}" in page_of(out), path


def test_class_names_that_are_no_words_leave_the_other_results_alone(out, cli):
    first = cell_of(out).parent
    whole = json.loads((first / "result.json").read_text())
    for number, names in enumerate(([True, False, 0], [0, 1, 2], ["a", None, "c"], "abc", 5)):
        folder = shutil.copytree(first, out / "results" / f"odd{number}")
        record = deepcopy(whole)
        put(record, "config/dataset/class_names", names)
        put(record, "dataset/name", f"odd{number}")
        (folder / "result.json").write_text(json.dumps(record))
    done = cli("report", out)
    assert done.code == 0
    assert page_of(out).count("<details>") == 6
    assert page_of(out).count("<img ") == 2, "those of the result that is sound"


def test_rows_of_another_kind_cost_the_pictures_only(out, cli):
    path = cell_of(out).parent / "per_image.parquet"
    rows = pq.read_table(path).to_pylist()
    for changed in (
        [{**row, "tp": row["tp"][:1]} for row in rows],
        [{name: value for name, value in row.items() if name != "fn"} for row in rows],
        [{**row, "later": 1} for row in rows],
        [],
    ):
        pq.write_table(pa.Table.from_pylist(changed), path)
        done = cli("report", out)
        assert done.code == 0
        assert page_of(out).count("<details>") == 1
        assert "Classes of" not in done.err
        for command in (("show", path.parent), ("compare", path.parent, path.parent)):
            shown = cli(*command, f"output_dir={out}")
            assert shown.code in (0, 2)
            assert "Traceback" not in shown.err


def test_no_place_of_this_disk_is_on_the_page(out, cli, original, tmp_path):
    home = str(Path.home())
    change(out, "config/dataset/root", "/srv/people/ann/shapes")
    change(
        out, "failures", [{"id": "x", "error": f"{home}/data/x.png: {tmp_path}/y is no /srv/people/ann/picture.png"}]
    )
    assert cli("report", out).code == 0
    page = page_of(out)
    for path in ("/srv/people", f"{home}/data", str(tmp_path), "ann/"):
        assert path not in page
    assert "…/shapes" in page
    assert "picture.png" in page
