"""The built wheel works in a clean environment, from another directory, without the checkout; what an index shows."""

import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

from diffcut_bench import __version__

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ADDRESS = PROJECT["project"]["urls"]["Repository"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)],
        check=True,
        capture_output=True,
    )
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean environment with the wheel in it."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    # Its dependencies are this environment's, by a path file, so that nothing is downloaded; the package is its own.
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True, capture_output=True)
    site = next((environment / "lib").glob("python*/site-packages"))
    (site / "dependencies.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    return environment


@pytest.mark.slow
def test_carries_conf_and_labels_and_neither_top_level_conf_nor_benchmarks(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for path in (ROOT / "conf").rglob("*.yaml"):
        assert f"diffcut_bench/conf/{path.relative_to(ROOT / 'conf')}" in names
    assert {"diffcut_bench/datasets/sample.json", "diffcut_bench/py.typed"} <= set(names)
    assert {f"diffcut_bench/reporting/report.{suffix}" for suffix in ("html.j2", "js")} <= set(names)
    assert {f"diffcut_bench/reporting/explorer.{suffix}" for suffix in ("html.j2", "css", "js")} <= set(names)
    assert "diffcut_bench/conf/reproduction/table1.yaml" in names
    assert {name.split("/")[0] for name in names} == {"diffcut_bench", wheel.name.split("-py3")[0] + ".dist-info"}


@pytest.mark.slow
def test_runs_installed_in_a_clean_environment_from_another_directory(environment, tmp_path):
    python, site = environment / "bin" / "python", next((environment / "lib").glob("python*/site-packages"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code = "import diffcut_bench, diffcut_bench.config as c; print(diffcut_bench.__file__); print(c.conf_dir())"
    located = subprocess.run([python, "-c", code], cwd=elsewhere, capture_output=True, text=True, check=True)
    assert all(line.startswith(str(site)) for line in located.stdout.split())
    done = subprocess.run(
        [environment / "bin" / "diffcut-bench", "run", "limit=2", "protocol.image_size=128"],
        cwd=elsewhere,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert len(list(elsewhere.glob("outputs/results/*/result.json"))) == 1


_SCRIPT = """
import torch

import diffcut_bench
from diffcut_bench.ncut import ncut_tree, recursive_ncut
from diffcut_bench.segmenters import DiffCut

features = torch.rand(2, 64, 8)
labels: torch.Tensor = recursive_ncut(features, tau=0.5, alpha=10)
tree: diffcut_bench.ncut.NCutTree = ncut_tree(features, max_tau=0.9, alpha=10)
try:
    result = diffcut_bench.segment("photo.jpg", None, "segmenter.tau=0.4")
except diffcut_bench.UserError as error:
    print(error.hint.upper())
count: int = result.at(0.6).num_segments
score: float | None = diffcut_bench.evaluate(DiffCut(tau=0.5), dataset="voc", root="VOC").metrics.miou
wrong: str = result.num_segments
recursive_ncut(features, tau=0.5, alpha=10, solver="power")
"""


@pytest.mark.slow
def test_a_script_of_a_user_is_type_checked_strictly_against_the_installed_package(environment, tmp_path):
    (tmp_path / "script.py").write_text(_SCRIPT.lstrip())
    checker = [sys.executable, "-m", "mypy", "--strict", "--python-executable", environment / "bin" / "python"]
    done = subprocess.run([*checker, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    found = re.findall(r"^script\.py:(\d+): error: .*\[([a-z-]+)\]$", done.stdout, re.MULTILINE)
    last = len(_SCRIPT.strip().splitlines())
    assert found == [(str(last - 1), "assignment"), (str(last), "arg-type")], done.stdout + done.stderr


def test_readme_on_a_package_index_has_no_relative_links():
    pytest.importorskip("hatch_fancy_pypi_readme", reason="pip install 'diffcut_bench[dev]'")
    from hatchling.metadata.core import ProjectMetadata
    from hatchling.plugin.manager import PluginManager

    text = ProjectMetadata(str(ROOT), PluginManager()).core.readme
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert len(targets) == len(re.findall(r"\]\([^)]+\)", (ROOT / "README.md").read_text())) > 40
    assert all(target.startswith(("https://", "#")) for target in targets)
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert pictures and all(target.startswith(f"{ADDRESS}/raw/main/docs/images/") for target in pictures)


def test_the_projects_address_is_in_one_file():
    host = ADDRESS.partition("://")[2].lower()
    folders = ("diffcut_bench", "benchmarks", "conf", "examples", "tests", "docs", ".github", ".devcontainer", ".ci")
    files = [*ROOT.glob("*"), *(path for folder in folders for path in (ROOT / folder).rglob("*"))]
    texts = {path: path.read_bytes().lower() for path in files if path.is_file() and "__pycache__" not in path.parts}
    assert [path.name for path, text in texts.items() if host.encode() in text] == ["pyproject.toml"]
    addresses = re.findall(
        rf"https://[^\s\"\\']*{PROJECT['project']['name']}[^\s\"\\']*", texts[ROOT / "pyproject.toml"].decode()
    )
    assert len(addresses) > 5 and all(address.startswith(ADDRESS) for address in addresses)


def test_versions_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text().replace("[", "").replace("]", "")
