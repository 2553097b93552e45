"""The README's Python runs as printed, and the docs name only options and files that exist."""

import re
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

from diffcut_bench.config import GROUPS, conf_dir

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


def test_make_targets_of_the_readme_exist():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"help", "demo", "test", "lint", "types", "bench", "clean"} <= set(targets)
    assert README.index("make demo") < README.index("diffcut-bench run")
