import functools
import logging
import random
import re
import subprocess
import sys
import threading

import numpy
import pytest
import torch

from diffcut_bench.scoring.fingerprints import code_fingerprint, object_fingerprint
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


class Threshold:
    def __init__(self, level: float, weights: torch.Tensor | None = None) -> None:
        self.level, self.weights = level, weights

    def __call__(self, features):
        return (features.mean(dim=1) > self.level).long()


def closure(level: float):
    return lambda features: (features.mean(dim=1) > level).long()


def cut_at(features, level=0.5):
    return (features.mean(dim=1) > level).long()


def test_objects_are_told_apart_by_what_they_hold():
    network, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    one, two = torch.zeros(2), torch.ones(2)
    values = [
        *(Threshold(0.1), Threshold(0.2), Threshold(0.1, one), Threshold(0.1, two), Threshold(0.1, one.double())),
        *(closure(0.1), closure(0.2), cut_at, functools.partial(cut_at, level=0.3), Threshold(0.1).__call__),
        *(network, other, [one, two, one], [one, two, two], {"a": 1}, {"a": "1"}, numpy.zeros(2), numpy.zeros((1, 2))),
        *({"a", "b"}, {"a"}, numpy.int64(3), 3, torch.float16, DiffCut(tau=0.4), DiffCut(tau=0.5), Threshold),
    ]
    found = [object_fingerprint(value) for value in values]
    assert len(set(found)) == len(values)
    assert found == [object_fingerprint(value) for value in values]
    assert object_fingerprint(Threshold(0.1, torch.zeros(2))) == object_fingerprint(Threshold(0.1, torch.zeros(2)))
    assert object_fingerprint(closure(0.1)) == object_fingerprint(closure(0.1))


def test_an_object_may_hold_itself_or_say_what_it_is():
    loop = Threshold(0.1)
    loop.weights = [loop]
    assert object_fingerprint(loop) != object_fingerprint(Threshold(0.1))

    class Said(Threshold):
        def fingerprint(self):
            return "version 3"

    assert object_fingerprint(Said(0.1)) == object_fingerprint(Said(0.2)) != object_fingerprint(Threshold(0.1))


class Network(torch.nn.Module):
    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = level

    def forward(self, image):
        return image > self.level


class Slotted:
    __slots__ = ("level",)

    def __init__(self, level: float) -> None:
        self.level = level


class Derived(Slotted):
    pass


SETTING = [0.1]


def with_a_global(image):
    return image > SETTING[0]


class WithAGlobal:
    def __call__(self, image):
        return with_a_global(image)


PAIRS = {
    "lambdas of one line": lambda: (lambda image: image > 0.1, lambda image: image > 0.2),
    "parameters": lambda: (lambda image: image, lambda features: features),
    "a number of a network": lambda: (Network(0.1), Network(0.2)),
    "a number of a compiled network": lambda: (torch.jit.script(Network(0.1)), torch.jit.script(Network(0.2))),
    "slots": lambda: (Slotted(0.1), Slotted(0.2)),
    "slots of a base": lambda: (Derived(0.1), Derived(0.2)),
    "patterns": lambda: (re.compile("a"), re.compile("b")),
    "helpers": lambda: (functools.partial(cut_at, level=lambda: 1), functools.partial(cut_at, level=lambda: 2)),
}


@pytest.mark.parametrize("made", PAIRS.values(), ids=PAIRS)
def test_what_differs_in_code_or_in_one_value_is_told_apart(made):
    first, second = map(object_fingerprint, made())
    assert first != second
    assert first == object_fingerprint(made()[0])


@pytest.mark.parametrize("stage", [with_a_global, WithAGlobal()])
def test_a_global_of_a_script_that_code_reads_counts(stage, monkeypatch):
    first = object_fingerprint(stage)
    monkeypatch.setitem(globals(), "SETTING", [0.2])
    assert object_fingerprint(stage) != first


def test_attributes_of_a_function_count():
    def stage(features):
        return features

    first = object_fingerprint(stage)
    stage.gives = "finer_partition"
    assert object_fingerprint(stage) != first


LOCK = threading.Lock()
LOG = logging.getLogger(__name__)
NETWORK = None


def test_a_global_that_has_no_value_or_is_set_by_the_code_itself_is_no_setting(monkeypatch):
    def stage(image):
        global NETWORK
        with LOCK:
            LOG.debug("loading")
            NETWORK = NETWORK or Network(0.1)
            return NETWORK(image)

    first = object_fingerprint(stage)
    monkeypatch.setitem(globals(), "NETWORK", Network(0.2))
    assert object_fingerprint(stage) == first


@pytest.mark.parametrize("value", [iter([]), threading.Lock(), torch.Generator(), random.Random(), sys.stdout])
def test_what_has_no_value_is_refused(value):
    with pytest.raises(ValueError, match=r"at \['weights'\]|at \[1\]\['weights'\]"):
        object_fingerprint(Threshold(0.1, value))


TYPED_IN = """
import subprocess
import sys
import threading
from diffcut_bench.scoring.fingerprints import object_fingerprint
LEVEL = {level}
def helper(x): return x > LEVEL
def cut(features): return helper(features) if features in {{"a", "b", "c"}} else [helper(f) for f in features]
class Cut:
    level = {level}
    def __call__(self, features): return features > self.level
print(object_fingerprint(cut), object_fingerprint(Cut()))
"""


def test_code_that_was_typed_in_is_covered_with_what_it_names():
    def printed(level: float) -> list[str]:
        code = TYPED_IN.format(level=level)
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    first, again, other = printed(0.1), printed(0.1), printed(0.2)
    assert first == again
    assert all(one != two for one, two in zip(first, other, strict=True))
