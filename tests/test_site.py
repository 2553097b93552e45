"""The documentation site: every page is reached, and it is built without a broken link."""

import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import yaml

import diffcut_bench

ROOT = Path(__file__).parent.parent
ELSEWHERE = {"overview.md", "changelog.md", "contributing.md"}  # README.md and others, see docs/theme/links.py


class _Loader(yaml.SafeLoader):
    """Names of Python's as text."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/name:", lambda loader, suffix, node: suffix)
SETTINGS = yaml.load((ROOT / "mkdocs.yml").read_text(), _Loader)


def pages(entry: object) -> list[str]:
    """Of an entry of the navigation and all below it."""
    if isinstance(entry, str):
        return [entry]
    below = entry if isinstance(entry, list) else entry.values()
    return [page for each in below for page in pages(each)]


def test_every_page_is_in_the_navigation_once():
    docs = ROOT / "docs"
    assert sorted(pages(SETTINGS["nav"])) == sorted(
        ELSEWHERE | {str(path.relative_to(docs)) for path in docs.rglob("*.md")}
    )


def test_every_public_package_has_a_page():
    packages = {path.stem for path in (ROOT / "diffcut_bench").iterdir() if path.is_dir()} & {*diffcut_bench.__all__}
    named = {path.stem: path.read_text() for path in (ROOT / "docs" / "reference").glob("*.md")}
    assert packages == named.keys() - {"index", "results"}
    assert all(f"::: diffcut_bench.{package}\n" in named[package] for package in packages)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for library in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(library, reason="pip install 'diffcut_bench[docs]'")
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_every_public_name_is_on_a_page(site):
    inventory = zlib.decompress((site / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode()
    shown = {line.split()[0] for line in inventory.splitlines()}
    for package in ("", *diffcut_bench.__all__):
        module = getattr(diffcut_bench, package, diffcut_bench)
        for name in getattr(module, "__all__", ()):
            path = f"{module.__name__}.{name}"
            is_package = package == "" and hasattr(getattr(module, name), "__path__")
            assert is_package or shown & {path, f"{path}.{name}"}, path


@pytest.mark.slow
def test_text_is_set_as_it_is_meant(site):
    """Lists, tables and links that Python-Markdown did not see would stand there as they are written."""
    for page in site.rglob("index.html"):
        article = page.read_text().partition("<article")[2].partition("</article>")[0]
        text = re.sub(r"<[^>]+>", "", re.sub(r"<(pre|code).*?</\1>", "", article, flags=re.DOTALL))
        assert not re.search(r"^ *[*-] \S|^\| |\]\(|```|&gt;&gt;&gt;|\\\|", text, re.MULTILINE), page
