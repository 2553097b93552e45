"""What an install weighs: each extra in a clean environment of its own, as a Markdown table.

python -m benchmarks.install_sizes [EXTRA …]
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

from diffcut_bench.commands.terminal import errors, say
from diffcut_bench.errors import UserError
from diffcut_bench.reporting import Column, Table

ROOT = Path(__file__).parent.parent
# torch and what only it asks for, whose size is that of its build: with CUDA or without.
_OF_TORCH = re.compile(r"torch|triton|nvidia-.*|cuda-.*", re.IGNORECASE)
_OF_DEVELOPERS = ("dev", "docs")


@dataclass(frozen=True)
class Weight:
    """Packages of an environment, and bytes of their files, before Python compiles any; `torch`: of torch's own."""

    packages: int
    bytes: int
    torch: int


def weigh(site: Path) -> Weight:
    """What is installed in a folder of packages."""
    sizes = {found.name: sum(map(_size, _files(found))) for found in distributions(path=[str(site)])}
    return Weight(len(sizes), sum(sizes.values()), sum(sizes[name] for name in sizes if _OF_TORCH.fullmatch(name)))


def _files(distribution: Distribution) -> list[Path]:
    return [Path(str(distribution.locate_file(file))) for file in distribution.files or ()]


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def installed(requirement: str, constraints: str | None) -> Weight:
    """Install a requirement into a new environment, weigh it, and remove it. uv does it where it is at hand, else pip.

    Raises:
        UserError: pip can't install it.
    """
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=False)
        python = str(Path(folder) / "bin" / "python")
        limits = ["--constraint", constraints] if constraints else []
        pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-compile"]
        uv = ["uv", "pip", "install", "--python", python]
        install = [*(uv if shutil.which("uv") else pip), "--quiet", *limits, requirement]
        done = subprocess.run(install, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            what = f"pip can't install it: {done.stderr.strip().splitlines()[-1]}"
            raise UserError(what, requirement, " ".join(install))
        return weigh(next(Path(folder).glob("lib/python*/site-packages")))


def table(extras: Sequence[str], install: Callable[[str], Weight], note: str) -> Table:
    """A row for the plain install, and one for each extra; `install` takes what pip would."""
    columns = Column("install"), *(Column(name, numeric=True) for name in ("packages", "MB", "MB without torch"))
    rows = []
    for extra in ("", *(f"[{extra}]" for extra in extras)):
        weight = install(f"{ROOT}{extra}")
        sizes = (f"{size / 1e6:.0f}" for size in (weight.bytes, weight.bytes - weight.torch))
        rows.append((f"diffcut_bench{extra}", str(weight.packages), *sizes))
        errors.print(*rows[-1], markup=False, highlight=False)
    return Table("sizes", "Sizes of installs", columns, tuple(rows), (note,))


def main(arguments: Sequence[str] | None = None) -> int:
    """Install, weigh and print; returns the exit code: 0, or 2 where pip can't install something."""
    options = _parser().parse_args(arguments)
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    extras = options.extras or [name for name in known if name not in _OF_DEVELOPERS]
    versions = options.constraint or "today"
    note = f"before Python compiles modules; Python {sys.version.split()[0]}, versions of {versions}"
    try:
        say(table(extras, lambda requirement: installed(requirement, options.constraint), note).to_markdown())
    except UserError as mistake:
        errors.print(str(mistake), markup=False, highlight=False, soft_wrap=True)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.install_sizes", description=__doc__)
    parser.add_argument(
        "extras", nargs="*", metavar="EXTRA", help="extras of pyproject.toml; none: all but dev and docs"
    )
    parser.add_argument("--constraint", default="constraints.txt", metavar="FILE", help='versions; "": the newest')
    return parser


if __name__ == "__main__":
    sys.exit(main())
