"""The built wheel works in a clean environment, from another directory, without the checkout."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)],
        check=True,
        capture_output=True,
    )
    return next(out.glob("*.whl"))


@pytest.mark.slow
def test_carries_conf_and_labels_and_neither_top_level_conf_nor_benchmarks(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for path in (ROOT / "conf").rglob("*.yaml"):
        assert f"diffcut_bench/conf/{path.relative_to(ROOT / 'conf')}" in names
    assert "diffcut_bench/datasets/sample.json" in names
    assert {f"diffcut_bench/reporting/report.{suffix}" for suffix in ("html.j2", "js")} <= set(names)
    assert {f"diffcut_bench/reporting/explorer.{suffix}" for suffix in ("html.j2", "css", "js")} <= set(names)
    assert "diffcut_bench/conf/reproduction/table1.yaml" in names
    assert {name.split("/")[0] for name in names} == {"diffcut_bench", wheel.name.split("-py3")[0] + ".dist-info"}


@pytest.mark.slow
def test_runs_installed_in_a_clean_environment_from_another_directory(wheel, tmp_path):
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    # Its dependencies are this environment's, by a path file, so that nothing is downloaded; the package is its own.
    site = next((environment / "lib").glob("python*/site-packages"))
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True, capture_output=True)
    here = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "dependencies.pth").write_text(here)
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
