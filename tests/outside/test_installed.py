"""Options and metrics that installed packages bring: distributions in a folder of ``sys.path``, as pip leaves them."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from diffcut_bench import extensions
from diffcut_bench.commands.completion import candidates
from diffcut_bench.config import instantiate, known_options, load_config, trusted
from diffcut_bench.errors import UserError
from diffcut_bench.evaluation import known_metrics

METRIC = """
from diffcut_bench.evaluation import Metric
METRIC = Metric(name="{name}", heading="{name}", measure=lambda image: [1.0, 1.0], reduce=lambda sums: sums[..., 0])
"""
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """A way to install a package with entry points, until the test ends."""
    before = set(sys.modules)
    number = 0

    def installed(name: str, entry_points: str, files: dict[str, str]) -> Path:
        nonlocal number
        number += 1
        site = tmp_path / f"site{number}"
        about = site / f"{name}-2.5.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.5\n")
        (about / "entry_points.txt").write_text(entry_points)
        for path, text in files.items():
            (site / path).parent.mkdir(parents=True, exist_ok=True)
            (site / path).write_text(text)
        monkeypatch.syspath_prepend(site)
        return site

    yield installed
    for name in set(sys.modules) - before:
        if name.startswith(("lab_parts", "broken_parts")):
            del sys.modules[name]


PARTS = {
    "lab_parts/__init__.py": "",
    "lab_parts/halves.py": "def halves(features, at=0.0):\n    return (features.mean(dim=1) > at).long()\n",
    "lab_parts/options/segmenter/lab_halves.yaml": "_target_: lab_parts.halves.halves\n_partial_: true\nat: 0.5\n",
    "lab_parts/options/reproduction/lab_table.yaml": "title: Lab\nsource: lab\ncolumns: {sample: [dataset=sample]}\n"
    "rows: [{name: halves, overrides: [segmenter=lab_halves]}]\n",
}


@pytest.mark.parametrize("value", ["lab_parts:options", "lab_parts.options", "lab_parts.options.list"])
def test_a_package_names_a_folder_or_a_module_in_it(value, install):
    files = {**PARTS, "lab_parts/options/list.py": ""}
    site = install("lab_parts", f"[diffcut_bench.conf]\nlab = {value}\n", files)
    assert extensions.option_folders() == (site / "lab_parts" / "options",)


def test_an_installed_package_brings_options_without_a_flag(install, cli, tmp_path):
    assert "lab_halves" not in known_options("segmenter")
    install("lab_parts", "[diffcut_bench.conf]\nlab = lab_parts:options\n", PARTS)
    assert "lab_halves" in known_options("segmenter")
    assert candidates("diffcut-bench run segmenter=lab") == ["segmenter=lab_halves"]
    assert candidates("diffcut-bench reproduce lab") == ["lab_table"]
    assert "lab_parts" not in sys.modules, "looking for options imports nothing"
    config = load_config(["segmenter=lab_halves"])
    assert instantiate("segmenter", config.segmenter).keywords == {"at": 0.5}
    checked = cli("check", "segmenter=lab_halves")
    assert checked.code == 0, checked.err
    planned = cli("reproduce", "lab_table", "--status", f"output_dir={tmp_path}")
    assert planned.code == 0 and "halves" in planned.out
    assert "did you mean lab_halves" in cli("run", "segmenter=lab_halve").err


def test_what_is_installed_is_trusted_and_nothing_else(install):
    stored = load_config([]).to_dict()
    install("lab_parts", "[diffcut_bench.conf]\nlab = lab_parts:options\n", PARTS)
    mine = load_config(["segmenter=lab_halves"]).to_dict()
    assert trusted(mine).segmenter == mine["segmenter"]
    with pytest.raises(UserError, match="no option's own"):
        trusted({**mine, "segmenter": {**mine["segmenter"], "_target_": "lab_parts.other"}})
    with pytest.raises(UserError, match="no option's own"):
        trusted({**stored, "segmenter": mine["segmenter"]})


def test_the_users_own_folder_comes_before_installed_ones_and_after_conf(install, tmp_path):
    install("lab_parts", "[diffcut_bench.conf]\nlab = lab_parts:options\n", PARTS)
    for option in ("lab_halves", "diffcut"):
        (tmp_path / "own" / "segmenter").mkdir(parents=True, exist_ok=True)
        (tmp_path / "own" / "segmenter" / f"{option}.yaml").write_text("_target_: lab_parts.halves.halves\nat: 9\n")
    own = f"hydra.searchpath=[{tmp_path / 'own'}]"
    assert load_config([own, "segmenter=lab_halves"]).segmenter["at"] == 9
    assert "at" not in load_config([own, "segmenter=diffcut"]).segmenter


@pytest.mark.parametrize(
    ("value", "files", "said"),
    [
        ("broken_parts:options", {}, "no such folder"),
        ("broken_parts:options", {"broken_parts/__init__.py": "raise RuntimeError('never')"}, "no such folder"),
        ("broken_parts:options", {"broken_parts/options/readme.txt": ""}, "holds no group"),
        ("no/name at all", {}, "no such folder"),
    ],
)
def test_a_broken_package_is_a_warning_with_its_name(value, files, said, install, cli):
    install("broken_parts", f"[diffcut_bench.conf]\nlab = {value}\n", files)
    done = cli("run", "--cfg", "job", "-p", "limit")
    assert (done.code, done.out.strip()) == (0, "null")
    assert done.err.startswith("warning: options left out")
    assert said in done.err and "package broken_parts 2.5" in done.err
    assert done.err.count("warning") == 1


def test_an_installed_package_brings_metrics(install, cli, tmp_path):
    module = METRIC.format(name="lab_one") + METRIC.format(name="lab_two").replace("METRIC =", "TWO =")
    entries = "[diffcut_bench.metrics]\none = lab_parts.measures\ntwo = lab_parts.measures:TWO\n"
    install("lab_parts", entries, {"lab_parts/__init__.py": "", "lab_parts/measures.py": module})
    assert {"lab_one", "lab_two"} <= set(known_metrics())
    assert load_config(["score=lab_two"]).score == "lab_two"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("x = 1", "there is no METRIC"),
        (METRIC.format(name="miou"), "two metrics have one name: miou"),
    ],
)
def test_a_broken_metric_ends_a_command_with_its_package(source, said, install, cli, tmp_path):
    files = {"broken_parts/__init__.py": "", "broken_parts/measure.py": source}
    install("broken_parts", "[diffcut_bench.metrics]\nedges = broken_parts.measure\n", files)
    done = cli("run", "backbone=colour", "limit=1", f"output_dir={tmp_path}")
    assert done.code == 2
    assert said in done.err and "package broken_parts 2.5" in done.err
    assert not (tmp_path / "results").exists()


def test_completion_and_helps_import_no_package(install):
    site = install(
        "broken_parts",
        "[diffcut_bench.conf]\nlab = broken_parts:options\n[diffcut_bench.metrics]\none = broken_parts\n",
        {"broken_parts/__init__.py": "raise RuntimeError('imported')", "broken_parts/options/dataset/x.yaml": "a: 1"},
    )
    program = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "from diffcut_bench import extensions\n"
        "assert [path.name for path in extensions.option_folders()] == ['options'], extensions.option_folders()\n"
        "assert 'broken_parts' not in sys.modules and 'torch' not in sys.modules and 'hydra' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
