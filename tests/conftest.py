"""What several test files share: golden figures, miniature data on disk, the command line in-process."""

import os

os.environ["COLUMNS"] = "200"  # read by the command line's console when it is imported

import importlib
import json
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import CHROMIUM, DRIVER, Browser
from PIL import Image, ImageDraw

from diffcut_bench.cli import main
from diffcut_bench.config import load_config
from diffcut_bench.evaluation import metrics
from diffcut_bench.ncut import levels
from diffcut_bench.scoring.events import Observer
from diffcut_bench.scoring.passes import run_cells

DATA = Path(__file__).parent / "data"
# The whole pipeline with the real network on 4×4 patches: a tenth of a second an image.
SMALL = ("protocol.image_size=128", "protocol.eval_size=32")
# What the user is promised; a process that is asked to end needs a tenth of it, one of loky's half.
NONE_LEFT_S = 2.0

# An older torch has no devices that are written in Python.
_PRETENDS = hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend")
collect_ignore = [] if _PRETENDS else ["accelerator", "benchmarks/test_run_counts.py"]

linux = pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="processes are found in /proc")


@pytest.fixture
def shared() -> Path:
    """The folder of golden outputs and real samples; the test is skipped where it is not given."""
    place = os.environ.get("DIFFCUT_SHARED")
    if not place:
        pytest.skip("DIFFCUT_SHARED is not set")
    return Path(place)


@pytest.fixture
def accelerator() -> Iterator[Any]:
    """A pretended accelerator, there while the test runs."""
    from benchmarks.pretended import Pretended  # names a device, which tests of other things need not see

    with Pretended() as pretended:
        yield pretended


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A window of Chromium; the test is skipped where there is none."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("Debian's chromium and chromium-driver are not installed")
    opened = Browser(tmp_path_factory.mktemp("browser"))
    yield opened
    opened.close()


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Finished]:
    """Run a command in this process."""
    return program(main, capsys)


def program(main: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]) -> Callable[..., Finished]:
    """A way to run a program in this process."""

    def run(*arguments: object) -> Finished:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Finished(code, captured.out, captured.err)

    return run


@pytest.fixture
def tls(monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """What makes a server on 127.0.0.1 one of https that this process trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(DATA / "localhost.pem"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(DATA / "localhost.pem")
    return context


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """Eight pictures as a folder data set: a disc (1) with a void border and a square (2) on plain ground (0)."""
    return write_shapes(tmp_path / "shapes", 8)


@pytest.fixture(scope="session")
def kept_cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``out``: whole cells of tau 0.3 and 0.6, one of 0.4 merged from two shards, which are there too, half of one of
    0.45 (shard 2/2), and one of 0.5 interrupted after four images; of twelve pictures. To be read only."""
    root = tmp_path_factory.mktemp("kept")
    base = [*shapes_overrides(write_shapes(root / "shapes", 12), root / "out"), "backbone=colour", "reference=none"]
    for words in (["tau=0.3,0.6"], ["tau=0.4", "shard=1/2,2/2"], ["tau=0.45", "shard=2/2"]):
        assert main(["run", "-m", *base, f"segmenter.{words[0]}", *words[1:]]) == 0
    assert main(["merge", f"output_dir={root / 'out'}"]) == 0
    with pytest.raises(KeyboardInterrupt):
        run_cells([load_config([*base, "segmenter.tau=0.5", "batch_size=2"])], interrupting_after(4))
    return root


@pytest.fixture
def place(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """A way into a fresh folder where paths read as in any other."""

    def enter(name: str) -> list[str]:
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        Path("shapes").symlink_to(shapes)
        return shapes_overrides(Path("shapes"), Path("out"))

    return enter


@pytest.fixture
def add_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """A way to put a file into the folder of metrics, where it stays until the test ends."""
    folder = tmp_path / "metrics"
    folder.mkdir()
    monkeypatch.setattr(metrics, "__path__", [*metrics.__path__, str(folder)])

    def add(name: str, source: str) -> None:
        (folder / f"{name}.py").write_text(source)
        importlib.invalidate_caches()
        metrics._known.cache_clear()

    yield add
    metrics._known.cache_clear()
    for path in folder.glob("*.py"):
        sys.modules.pop(f"{metrics.__name__}.{path.stem}", None)


def make_older(cell: Path) -> None:
    """Turn a finished cell into one that a program of schema version 1 wrote."""
    record = json.loads((cell / "result.json").read_text())
    del record["scores"]
    (cell / "result.json").write_text(json.dumps({**record, "schema_version": 1}))
    (cell / "SHA256SUMS").unlink()


def driven(code: str, *arguments: str) -> Any:
    """What a program prints as JSON; it starts commands with `killing`."""
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def finished_cells(output_dir: Path) -> dict[str, tuple[object, ...]]:
    """What does not depend on a clock or on the process of every finished cell, by name."""
    found = {}
    for cell in output_dir.glob("results/*"):
        result = json.loads((cell / "result.json").read_text())
        del result["timings"], result["environment"]
        found[cell.name] = (result, *((cell / name).read_bytes() for name in ("config.yaml", "per_image.parquet")))
    return found


def interrupting_after(images: int) -> Observer:
    """An observer as a user who presses Ctrl-C when so many images are scored."""

    class Interrupting(Observer):
        def scored(self, done: int, total: int) -> None:
            if done >= images:
                raise KeyboardInterrupt

    return Interrupting()


def write_shapes(root: Path, count: int) -> Path:
    generator = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    for number in range(count):
        size = (150 + 10 * (number % 3), 140)
        label = Image.new("L", size, 0)
        pen = ImageDraw.Draw(label)
        x, y = generator.integers(5, 40, 2).tolist()
        pen.ellipse((x, y, x + 50, y + 50), fill=1, outline=255, width=2)
        pen.rectangle((x + 55, y + 30, x + 95, y + 80), fill=2)
        colours = generator.integers(0, 255, (256, 3))
        pixels = colours[np.asarray(label)] + generator.normal(0, 12, (size[1], size[0], 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / "images" / f"picture{number}.png")
        label.save(root / "labels" / f"picture{number}.png")
    return root


def shapes_overrides(root: Path, output_dir: Path) -> list[str]:
    return [
        *("dataset=folder", f"dataset.root={root}", "dataset.num_classes=3", "dataset.background=0"),
        *(f"output_dir={output_dir}", *SMALL),
    ]


def same_partition(first: torch.Tensor | np.ndarray, second: torch.Tensor | np.ndarray) -> bool:
    """Equal up to renaming."""
    a, b = np.asarray(first).ravel(), np.asarray(second).ravel()
    return len(set(zip(a.tolist(), b.tolist(), strict=True))) == len(np.unique(a)) == len(np.unique(b))


def agreement(first: np.ndarray, second: np.ndarray) -> float:
    """Share of pixels on which two label maps agree once each label of the first is given its best partner."""
    table = np.zeros((first.max() + 1, second.max() + 1))
    np.add.at(table, (first.ravel(), second.ravel()), 1)
    return float(table.max(axis=1).sum() / first.size)


def blobs(
    groups: int, size: int, channels: int = 16, noise: float = 0.05, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Planted features [1, groups·size, channels] and their group ids: noisy copies of random directions."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.nn.functional.normalize(torch.randn(groups, channels, generator=generator), dim=1)
    truth = torch.arange(groups).repeat_interleave(size)
    features = centres[truth] + noise * torch.randn(groups * size, channels, generator=generator)
    return features[None], truth


@pytest.fixture
def passes(monkeypatch) -> list[int]:
    """The number of open sub-graphs of each pass of the cut: one a level, and more where some need another round."""
    counts: list[int] = []
    original = levels._bipartitions

    def counting(weights, owner, level, *others):
        counts.append(len(level))
        return original(weights, owner, level, *others)

    monkeypatch.setattr(levels, "_bipartitions", counting)
    return counts
