import functools
import sys

import numpy
import pytest
import torch

from diffcut_bench.scoring.fingerprints import code_fingerprint
from diffcut_bench.segmenters import DiffCut


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes modules that can be imported, and forgets them."""
    monkeypatch.syspath_prepend(tmp_path)
    written = []

    def write(name: str, text: str):
        (tmp_path / f"{name}.py").write_text(text)
        for each in (*written, name):
            sys.modules.pop(each, None)
        written.append(name)
        return __import__(name)

    yield write
    for each in written:
        sys.modules.pop(each, None)


def test_our_own_stages_and_nothing_have_no_fingerprint():
    assert code_fingerprint([DiffCut(), DiffCut, None, functools.partial(DiffCut)]) == {}


@pytest.mark.parametrize("stage", ["Cut()", "Cut", "cut", "functools.partial(functools.partial(cut, 1), b=2)"])
def test_a_stage_from_outside_is_covered_by_its_source(module, stage):
    text = "import functools\nclass Cut: pass\ndef cut(a, b): pass\n"
    mine = module("mine_a", text)
    first = code_fingerprint([eval(stage, vars(mine))])
    assert list(first) == ["mine_a"]
    mine = module("mine_a", text + "# changed\n")
    assert code_fingerprint([eval(stage, vars(mine))]) != first


def test_modules_that_it_uses_are_covered_and_packages_by_their_version(module):
    module("mine_b", "def helper(): return 1\n")
    mine = module("mine_c", "import numpy, torch\nfrom mine_b import helper\nclass Cut(torch.nn.Module): pass\n")
    found = code_fingerprint([mine.Cut()])
    assert set(found) == {"mine_b", "mine_c", "numpy", "torch"}
    assert found["numpy"] == numpy.__version__
    assert found["torch"].partition("+")[0] == torch.__version__.partition("+")[0]


def test_what_settings_name_at_any_depth_is_a_stage(module):
    module("mine_d", "class Cut: pass\n")
    settings = {"_target_": "diffcut_bench.segmenters.DiffCut", "inner": [{"of": {"_target_": "mine_d.Cut"}}]}
    assert list(code_fingerprint([], [settings])) == ["mine_d"]


def test_a_stage_may_say_its_own_version(module):
    mine = module("mine_e", "class Cut:\n    code_version = '3'\n")
    assert code_fingerprint([mine.Cut()]) == {"mine_e.Cut": "3"}
