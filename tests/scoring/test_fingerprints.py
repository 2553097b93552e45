import functools
import sys
import threading

import numpy
import pytest
import torch

from diffcut_bench.errors import UserError
from diffcut_bench.scoring.fingerprints import code_fingerprint, settings_of
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


class Cut:
    def __init__(self, **values):
        vars(self).update(values)

    def __call__(self, features): ...


class Slotted:
    __slots__ = ("tau",)

    def __init__(self, tau):
        self.tau = tau

    def __call__(self, features): ...


def surrounded(tau):
    def cut(features, alpha=1): ...

    cut.note = tau
    return (lambda features: tau), cut


def unlike(*methods):
    return len({str(settings_of(method)) for method in methods}) == len(methods)


def test_settings_are_the_values_that_a_method_was_built_with():
    found = settings_of(Cut(tau=0.5, names=("a",)))
    assert (found["name"], found["tau"]) == ("test_fingerprints.Cut", 0.5)
    bound = settings_of(functools.partial(surrounded(3)[1], alpha=2))
    assert bound["alpha"] == 2 and bound["name"].endswith("surrounded.<locals>.cut")
    assert settings_of(DiffCut(0.3))["tau"] == 0.3


def test_methods_that_differ_have_other_settings_and_equal_ones_the_same():
    weights = torch.rand(3, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    layer = torch.nn.Linear(2, 2)
    makers = (
        lambda: Cut(w=weights.clone()),
        lambda: Cut(w=weights + 1),
        lambda: Cut(w=weights.bfloat16()),
        lambda: Cut(w=weights.numpy()),
        lambda: Cut(part={"w": weights[:1]}),
        lambda: Slotted(1),
        lambda: Slotted(2),
        lambda: surrounded(1)[0],
        lambda: surrounded(2)[0],
        lambda: Cut(by=surrounded(1)[0]),
        lambda: Cut(by=surrounded(2)[0]),
        lambda: Cut(tau=1).__call__,
        lambda: Cut(tau=2).__call__,
        lambda: lambda features: 1,
        lambda: lambda features: 2,
        lambda: layer,
        lambda: torch.nn.Linear(2, 2),
    )
    assert unlike(*(make() for make in makers))
    for make in makers[:-1]:
        assert settings_of(make()) == settings_of(make())


def test_a_class_that_no_file_holds_is_covered_by_its_code():
    def written(body):
        names = {"__name__": "a_notebook"}
        exec(f"class Cut:\n    def __call__(self, features): return {body}", names)
        return settings_of(names["Cut"]())

    assert written("1") == written("1") != written("2")


def test_what_cannot_be_told_is_a_mistake_with_a_way_out():
    with pytest.raises(UserError, match=r"can't be digested.*lock"):
        settings_of(Cut(lock=threading.Lock()))
    assert settings_of(Cut(lock=threading.Lock(), code_version="2")) == {
        "name": "test_fingerprints.Cut",
        "code_version": "2",
    }
