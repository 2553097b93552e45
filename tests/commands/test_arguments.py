"""The parsers of all commands: light, and of one mind with what they stand for."""

import argparse
import subprocess
import sys
from dataclasses import fields
from importlib.metadata import packages_distributions
from typing import get_args, get_type_hints

import pytest

from diffcut_bench.coherence import SamplingOptions
from diffcut_bench.commands.arguments import COMMANDS, DEFAULT_FORMATS, FORMATS
from diffcut_bench.reproduction.spec import Tuning
from diffcut_bench.segmentation import formats

# What a command line may import before it knows what it is asked to do: nothing but these and Python's own modules.
# rich below 15 looks whether there is an attr.
LIGHT = {"_yaml", "attr", "diffcut_bench", "markdown_it", "mdurl", "pygments", "rich", "yaml"}


def parser_of(name: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    COMMANDS[name].add_arguments(parser)
    return parser


@pytest.mark.parametrize("line", ["--help", "run --help", "reproduce --help", "completion candidates x"])
def test_what_helps_imports_nothing_heavy(line):
    program = (
        "import sys; before = set(sys.modules)\n"
        "from diffcut_bench.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print(*({name.partition('.')[0] for name in set(sys.modules) - before}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program, *line.split()], capture_output=True, text=True, check=True)
    assert set(done.stderr.splitlines()[-1].split()) & packages_distributions().keys() <= LIGHT


def test_coherence_has_the_options_of_its_sampling():
    given, kinds = vars(parser_of("coherence").parse_args([])), get_type_hints(SamplingOptions)
    choices = {action.dest: action.choices for action in parser_of("coherence")._actions}
    for field in fields(SamplingOptions):
        if field.name != "seed":
            assert given[field.name] == field.default
            assert (choices[field.name] or ()) == get_args(kinds[field.name])


def test_tune_and_segment_have_the_defaults_of_what_they_call():
    given = parser_of("tune").parse_args([])
    assert (given.setting, given.draw) == (Tuning.setting, Tuning.draw)
    assert tuple(formats.FORMATS) == FORMATS
    assert {*DEFAULT_FORMATS.split(",")} < {*FORMATS}
