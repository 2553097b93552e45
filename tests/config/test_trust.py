"""What may be built from a config that lies in a file."""

from copy import deepcopy

import pytest

from diffcut_bench.config import RunConfig, load_config
from diffcut_bench.config.trust import _instructions, trusted
from diffcut_bench.errors import UserError


@pytest.fixture(scope="module")
def stored() -> dict:
    return load_config(["dataset=folder", "dataset.root=/data", "dataset.num_classes=3", "segmenter.tau=0.4"]).to_dict()


def changed(stored: dict, path: str, value: object) -> dict:
    made = deepcopy(stored)
    node = made
    *way, last = path.split("/")
    for name in way:
        node = node[name]
    node[last] = value
    return made


def test_what_a_run_wrote_is_trusted(stored):
    config = trusted(stored)
    assert isinstance(config, RunConfig)
    assert config.to_dict() == {**stored, "tracker": {}}


def test_values_may_differ_from_the_option_s(stored):
    for path, value in (
        ("segmenter/tau", 0.9),
        ("dataset/class_names", ["a", "b", "c"]),
        ("refiner/dilations", [1, 3]),
        ("dataset/background", None),
        ("backbone/suggests", {"tau": 0.1}),
    ):
        group, name = path.split("/")
        assert getattr(trusted(changed(stored, path, value)), group)[name] == value


EVIL = {"_target_": "os.system", "command": "true"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("segmenter/_target_", "sympy.sympify"),
        ("segmenter", EVIL),
        ("segmenter/_partial_", True),
        ("segmenter/_args_", ["x"]),
        ("segmenter/_recursive_", False),
        ("segmenter/_convert_", "none"),
        ("segmenter/tau", EVIL),
        ("segmenter/tau", [0.5, [EVIL]]),
        ("refiner/dilations", [1, {"x": {"_target_": "os.system"}}]),
        ("refiner/_target_", None),
        ("namer", EVIL),
        ("features/_target_", "pandas.read_pickle"),
        ("protocol/_target_", "os.system"),
        ("protocol/name", EVIL),
        ("dataset/_target_", "diffcut_bench.datasets.voc"),
        ("backbone", [EVIL]),
    ],
)
def test_no_other_code_than_the_option_s_own(stored, path, value):
    with pytest.raises(UserError, match="names code that is no option's own"):
        trusted(changed(stored, path, value))


def test_a_tracker_is_never_opened_from_a_file(stored):
    assert trusted(changed(stored, "tracker", EVIL)).tracker == {}
    assert trusted(changed(stored, "choices/tracker", "wandb")).tracker == {}


@pytest.mark.parametrize("option", ["../../x", "/etc/x", "x@y", "a,b", "x y", "", ["diffcut"], {"a": 1}, 5, ".hidden"])
def test_an_option_that_can_t_be_one_is_not_looked_for(stored, option):
    made = changed(stored, "choices/segmenter", option)
    made["segmenter"] = EVIL
    with pytest.raises(UserError, match="no option's own"):
        trusted(made)


@pytest.mark.parametrize("text", ["${oc.env:HOME}", "x${output_dir}", "${oc.decode:x}", "$\\{${a}}"])
@pytest.mark.parametrize("path", ["dataset/root", "output_dir", "segmenter/label_codes", "device"])
def test_nothing_is_resolved(stored, path, text):
    with pytest.raises(UserError, match="not resolved"):
        trusted(changed(stored, path, text))
    with pytest.raises(UserError, match="not resolved"):
        trusted(changed(stored, "dataset/class_names", ["a", text]))


@pytest.mark.parametrize("path", ["dataset/root", "backbone/model", "features/folder", "data_dir", "prepared"])
def test_no_variable_of_the_environment_is_put_into_a_path(stored, path):
    with pytest.raises(UserError, match="not resolved"):
        trusted(changed(stored, path, "/tmp/$HOME/x"))
    assert trusted(changed(stored, "dataset/class_names", ["$", "$HOME", "c"])).dataset["class_names"][1] == "$HOME"


@pytest.mark.parametrize("whole", [None, 5, [], "x", {}, {"choices": 3}])
def test_what_is_no_config_is_told(whole):
    with pytest.raises(UserError):
        trusted(whole)


def test_wrong_types_and_other_versions_are_told(stored):
    with pytest.raises(UserError, match="another version: it has later"):
        trusted({**stored, "later": 1})
    with pytest.raises(UserError, match="another version: it lacks batch_size"):
        trusted({name: value for name, value in stored.items() if name != "batch_size"})
    for name, value in (("batch_size", "many"), ("choices", [1]), ("seed", -1), ("device", {"a": 1})):
        with pytest.raises(UserError):
            trusted({**stored, name: value})


def test_what_the_user_names_is_trusted_and_wins(stored, tmp_path):
    (tmp_path / "segmenter").mkdir()
    (tmp_path / "segmenter" / "mine.yaml").write_text("_target_: mine.Segmenter\nsize: 3\n")
    made = changed(changed(stored, "segmenter", {"_target_": "mine.Segmenter", "size": 4}), "choices/segmenter", "mine")
    with pytest.raises(UserError, match="segmenter=mine"):
        trusted(made)
    search = f"hydra.searchpath=[file://{tmp_path}]"
    assert trusted(made, [search]).segmenter == {"_target_": "mine.Segmenter", "size": 4}
    assert trusted(made, [search, "segmenter.size=5"]).segmenter["size"] == 5
    assert trusted(made, [search, "segmenter=mine"]).segmenter["size"] == 4, "the file's values stay"
    other = changed(stored, "segmenter/_target_", "mine.Segmenter")
    assert trusted(other, ["segmenter._target_=mine.Segmenter"]).segmenter["_target_"] == "mine.Segmenter"
    assert trusted(stored, ["dataset.root=/elsewhere", "device=cpu"]).dataset["root"] == "/elsewhere"
    with pytest.raises(UserError, match="unknown key"):
        trusted(stored, ["dataset.rot=/elsewhere"])


def test_another_model_of_the_user_s_brings_its_revision():
    made = load_config(["backbone=ssd1b", "backbone.revision=v2", "dataset=folder", "dataset.root=/data"]).to_dict()

    def revision(*overrides: str) -> str:
        return trusted(made, overrides).backbone["revision"]

    pin = load_config(["backbone=ssd1b"]).backbone["revision"]
    assert revision("backbone.model=segmind/SSD-1B") == revision("backbone.model=/weights") == revision() == "v2"
    assert revision("backbone.model=someone/other") == "main"
    assert revision("backbone.model=someone/other", "backbone.revision=v3") == "v3"
    made["backbone"]["model"] = "someone/other"
    assert revision("backbone.model=segmind/SSD-1B") == pin


@pytest.mark.parametrize(
    "disguised",
    [
        {"x": [{"_target_": "evil"}], "x[0]": {"_target_": "good"}},
        {"x": [{"_target_": "evil"}], "x[0]._target_": "good"},
    ],
)
def test_a_key_that_looks_like_another_does_not_hide_it(disguised):
    assert _instructions(disguised) != _instructions({"x": [{"_target_": "good"}]})
    assert _instructions({"x[0]": {}, "x": [{"_target_": "good"}]}) == _instructions({"x": [{"_target_": "good"}]})
