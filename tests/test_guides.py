"""README and tutorial do what they say: each block is run in order in an empty folder, as a reader would.

A block of commands or Python is run, and one with a title is a file of that name. What can't be run here has a comment
before it that says why: ``<!-- skip: needs a GPU -->``.
"""

import argparse
import re
import runpy
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import skimage.data
import yaml
from PIL import Image

from diffcut_bench.commands.arguments import COMMANDS, add_config_flags

ROOT = Path(__file__).parent.parent
GUIDES = [ROOT / "README.md", ROOT / "docs" / "tutorial.md"]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(
    r'(?:^<!-- skip: *(?P<skip>.*?) *-->\n)?^```(?P<language>\w*)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$',
    re.DOTALL | re.MULTILINE,
)
COMMAND_LINES, PYTHON = ("", "bash"), "python"


class Block(NamedTuple):
    """A fenced block; ``skip`` is why it can't be run here, None where it can."""

    skip: str | None
    language: str
    title: str | None
    text: str


def blocks(page: Path) -> list[Block]:
    return [Block(**match.groupdict()) for match in _BLOCK.finditer(page.read_text())]


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command of a block, without comments."""
    for line in text.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield words


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_blocks_that_are_skipped_say_why(page):
    text, found = page.read_text(), blocks(page)
    assert len(found) == len(re.findall(r"^```\w*", text, re.MULTILINE)) / 2 > 5
    skipped = [block for block in found if block.skip is not None]
    assert len(skipped) == text.count("<!-- skip"), "a comment that no block follows"
    assert all(re.match(r"\w+ \w", block.skip or "") for block in skipped)
    assert len(skipped) <= len(found) / 2


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_code_of_the_guides_can_be_read(page):
    for block in blocks(page):
        if block.language == PYTHON:
            compile(block.text, page.name, "exec")
        if block.language == "yaml":
            assert yaml.safe_load(block.text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_the_docs_have_the_flags_that_they_use(page):
    for block in blocks(page):
        lines = block.text.replace("\\\n", " ") if block.language in COMMAND_LINES else ""
        for line in re.findall(r"^(?:\w+=\S+ )*diffcut-bench (.*)", lines, re.MULTILINE):
            name, *words = shlex.split(re.split(r" (?:[|&>]|-- )", line)[0], comments=True)
            if name in ("--version", "--help"):
                continue
            parser = argparse.ArgumentParser(exit_on_error=False)
            if (add_arguments := COMMANDS[name].add_arguments) is not None:
                add_arguments(parser)
            add_config_flags(parser)
            parser.add_argument("overrides", nargs="*")
            try:
                parser.parse_intermixed_args(words)
            except (argparse.ArgumentError, SystemExit) as error:
                pytest.fail(f"{line}: {error}")


@pytest.mark.slow
@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_the_guide_runs_from_top_to_bottom(page, tmp_path, monkeypatch, cli):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for picture in (Path("photo.jpg"), Path("photos", "trip", "cat.jpg")):  # the reader's own
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(skimage.data.chelsea()).resize((225, 150)).save(picture)
    namespace: dict[str, Any] = {}
    for block in blocks(page):
        if block.skip is not None:
            continue
        if block.title is not None:
            Path(block.title).write_text(block.text)
        elif block.language == PYTHON:
            exec(compile(block.text, page.name, "exec"), namespace)
        elif block.language in COMMAND_LINES:
            for words in commands(block.text):
                run(words, cli)


def run(words: list[str], cli: Any) -> None:
    """A command, in this process where it is ours."""
    program, *arguments = words
    if program == "diffcut-bench":
        try:
            done = cli(*(each for word in arguments for each in (Path().glob(word) if "*" in word else [word])))
        except SystemExit as ended:  # --help, --version
            assert ended.code == 0, words
        else:
            assert done.code == 0, f"{shlex.join(words)}\n{done.err}"
    elif program == "python":
        runpy.run_path(arguments[0], run_name="__main__")
    else:
        subprocess.run(words, check=True)
