"""The notebook of the docs runs, and shows what it says it shows."""

from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient", reason="runs the notebook; pip install 'diffcut_bench[dev]'")
nbformat = pytest.importorskip("nbformat", reason="reads the notebook; pip install 'diffcut_bench[dev]'")
pytest.importorskip("ipykernel", reason="runs the notebook; pip install 'diffcut_bench[dev]'")

NOTEBOOK = Path(__file__).parents[1] / "docs" / "segmenting.ipynb"


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_notebook_runs_and_prints_what_it_holds(tmp_path, monkeypatch):
    for library in ("shapely", "pycocotools"):
        pytest.importorskip(library, reason="pip install 'diffcut_bench[formats]'")
    stored, notebook = nbformat.read(NOTEBOOK, 4), nbformat.read(NOTEBOOK, 4)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    found = outputs(notebook)
    pages = [output["data"]["text/html"] for output in found if "text/html" in output.get("data", {})]
    assert len(pages) == 1
    assert "&lt;input" in pages[0]
    printed, expected = (
        [
            "".join(output.get("text", ""))
            for cell in each.cells
            for output in cell.get("outputs", [])
            if output.get("name") == "stdout"
        ]
        for each in (notebook, stored)
    )
    assert "".join(printed) == "".join(expected)
    assert sum("image/png" in output.get("data", {}) for output in found) == 2
    assert not any("text/html" in output.get("data", {}) for output in outputs(stored))  # half a megabyte of page


def test_the_notebook_is_small():
    assert NOTEBOOK.stat().st_size < 600_000
