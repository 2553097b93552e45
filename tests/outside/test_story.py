"""A student's whole story, from an empty folder outside the package: her backbone, data set, segmenter and metric, then
a sweep, a table and a report. Files and commands are those of the docs, as they stand there."""

import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL
from PIL import Image

from diffcut_bench.store import read_result

DOCS = Path(__file__).parents[2] / "docs"
MODULES = {"backbone": "gratings", "dataset": "puddles", "segmenter": "leaders", "metric": "boundary_recall"}


def blocks(page: str, language: str = "") -> list[str]:
    """Code blocks of one language of a page of docs/, in their order."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", (DOCS / f"{page}.md").read_text(), re.DOTALL | re.MULTILINE)
    return [block for kind, block in found if kind == language]


def commands(page: str) -> list[list[str]]:
    """Every command line of a page, as a shell splits it, without ``diffcut-bench``."""
    lines = [line for block in blocks(page) for line in block.splitlines() if line.startswith("diffcut-bench ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Her folder with the files of the docs, as the current one, in which Python does not look of its own accord."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    for part, name in MODULES.items():
        page = f"adding_a_{part}"
        place = Path("options", "metrics") if part == "metric" else Path()
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{name}.py").write_text(blocks(page, "python")[0])
        if part != "metric":
            Path("options", part).mkdir(parents=True)
            Path("options", part, f"{name}.yaml").write_text(blocks(page, "yaml")[0])
    Path("options", "reproduction").mkdir()
    Path("options", "reproduction", "mine.yaml").write_text(blocks("outside", "yaml")[0])
    write_puddles(tmp_path)
    yield tmp_path
    for name in MODULES.values():
        sys.modules.pop(name, None)


def write_puddles(root: Path) -> None:
    """Three photographs with water (1), ice (2), ground (0) and something that is not annotated (9)."""
    generator = np.random.default_rng(0)
    stripes = (np.indices((160, 160)).sum(0) // 4 % 2 * 120, np.indices((160, 160))[0] // 3 % 2 * 200, 90)
    (root / "photos").mkdir()
    (root / "masks").mkdir()
    for number in range(3):
        mask = np.zeros((160, 160), dtype=np.uint8)
        mask[20:90, 10 + 20 * number : 80 + 20 * number] = 1
        mask[100:150, 60:150] = 2
        mask[:8] = 9
        grey = np.select([mask == 1, mask == 2], stripes[:2], stripes[2]) + generator.normal(0, 5, mask.shape)
        pixels = np.repeat(grey.clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2)
        Image.fromarray(pixels).save(root / "photos" / f"puddle{number}.jpg", quality=95)
        Image.fromarray(mask).save(root / "masks" / f"puddle{number}.png")


def told(cli, *asked: str) -> dict[str, str]:
    """What each command of outside.md printed, by the command without its folder of options; ``asked`` are their
    beginnings, none: all."""
    found = {}
    for words in commands("outside"):
        line = shlex.join(words).partition(" --config-dir")[0]
        if not asked or line in asked:
            done = cli(*words, *(SMALL if words[0] in ("run", "reproduce") else ()))
            assert done.code == 0, f"{words}\n{done.out}\n{done.err}"
            found[line] = done.out
    return found


@pytest.mark.slow
def test_the_whole_story(project, cli):
    out = told(cli)
    results = [read_result(path) for path in Path("outputs", "results").iterdir()]
    taus = {each.config["segmenter"]["tau"] for each in results if each.config["choices"]["segmenter"] == "leaders"}
    assert (taus, len(results)) == ({0.5, 0.7, 0.9}, 4)
    assert all(0 < result.scores["boundary_recall"].value < 1 for result in results)
    assert "sweep of 3 cells in 1 pass" in next(text for line, text in out.items() if line.startswith("run -m"))
    assert "boundary recall (%)" in out["reproduce mine score=boundary_recall"]
    first, second, *_ = (path.name for path in sorted(Path("outputs", "results").iterdir()))
    for words in (["show", first], ["compare", first, second], ["verify", "outputs"], ["list", "outputs"]):
        assert cli(*words).code == 0, "a result is read without the folder"
    page = Path("outputs", "reports", "index.html").read_text()
    assert "leaders" in page and "boundary recall" in page and "Puddles by two methods" in page


def test_the_story_in_short(project, cli):
    wanted = ("check backbone=gratings", "check segmenter=leaders", "data prepare puddles dataset.root=.")
    out = told(cli, *wanted, "reproduce mine")
    assert "[2, 32, 8, 4]" in out[wanted[0]]
    assert "4 for 4 and 3 for 3; 100% and 100%" in out[wanted[1]]
    assert "next: diffcut-bench data verify puddles --config-dir options" in out[wanted[2]]
    assert re.search("leaders are ahead +│ DiffCut", out["reproduce mine"])
    assert len(list(Path("outputs", "results").iterdir())) == 2


@pytest.mark.parametrize("part", ["segmenter", "metric"])
def test_the_tests_of_the_pages_hold(part, project, monkeypatch):
    monkeypatch.syspath_prepend(project)
    monkeypatch.syspath_prepend(project / "options" / "metrics")
    namespace: dict[str, Callable[[], None]] = {}
    exec(compile(blocks(f"adding_a_{part}", "python")[-1], f"test_{MODULES[part]}.py", "exec"), namespace)
    tests = [name for name in namespace if name.startswith("test_")]
    assert tests
    for name in tests:
        namespace[name]()
