"""What is public can be seen: `dir()` and `__all__` name it and nothing else."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

import diffcut_bench

PACKAGES = [name for name in diffcut_bench.__all__ if inspect.ismodule(getattr(diffcut_bench, name))]
STABILITY = (Path(__file__).parents[1] / "docs" / "stability.md").read_text()


@pytest.mark.parametrize("name", ["", *PACKAGES])
def test_dir_lists_what_is_public(name):
    module = importlib.import_module(f"diffcut_bench.{name}".rstrip("."))
    assert dir(module) == sorted(set(module.__all__))
    assert not any(each.startswith("_") for each in dir(module))
    for each in module.__all__:
        assert getattr(module, each) is not None


def test_names_lead_to_what_they_name():
    assert {"segment", "evaluate", "PictureSegmenter", "Segmentation", "UserError"} <= {*dir(diffcut_bench)}
    assert diffcut_bench.ncut.recursive_ncut.__module__.startswith("diffcut_bench.ncut")
    with pytest.raises(AttributeError, match="no attribute 'segmnt'"):
        diffcut_bench.segmnt  # noqa: B018


def test_the_page_of_what_is_stable_names_every_public_package():
    row = next(line for line in STABILITY.splitlines() if line.startswith("| Python |"))
    assert set(re.findall(r"`(\w+)`", row)) == {*PACKAGES, "diffcut_bench", "__all__"}


def test_every_public_name_has_a_docstring():
    for package in PACKAGES:
        module = getattr(diffcut_bench, package)
        for name in module.__all__:
            found = getattr(module, name)
            if inspect.isclass(found) or inspect.isfunction(found):
                assert inspect.getdoc(found), f"{package}.{name}"
