"""A bug in code of the user's shows itself: where it is, on the terminal; its whole traceback, in a log."""

import os
import pickle
import re
import sys
from pathlib import Path

import pytest
import torch
from conftest import shapes_overrides
from PIL import Image

import diffcut_bench
from diffcut_bench.config import load_config
from diffcut_bench.config.overrides import hydra_main
from diffcut_bench.datasets import SegmentationDataset
from diffcut_bench.errors import UserError
from diffcut_bench.scoring.features import open_features
from diffcut_bench.scoring.passes import open_dataset
from diffcut_bench.scoring.reading import CodeFailure, Wanted, example_loader
from diffcut_bench.store import log_trace
from diffcut_bench.traces import DEBUG, CodeError, Trace, error_in_code, is_debugging

CODE = """\
from diffcut_bench.backbones import Backbone


def helper(image):
    raise {raises}


def broken(image):
    return helper(image)


def on_one(image, image_id):
    return helper(image) if image_id == "picture3" else (image[0] > 0.5).long()


class Refusing:
    def __init__(self, levels=2):
        helper(levels)


class Hers(Backbone):
    name, stride, channels = "hers", 16, 3

    def forward(self, images):
        return helper(images)

    def fingerprint(self):
        return {{"model": "hers"}}
"""
OPTIONS = {
    "segmenter/broken": "_target_: her_code.broken\n_partial_: true\n",
    "segmenter/on_one": "_target_: her_code.on_one\n_partial_: true\n",
    "segmenter/refusing": "_target_: her_code.Refusing\nlevels: 3\n",
    "segmenter/unloadable": "_target_: her_typo.broken\n_partial_: true\n",
    "backbone/hers": "_target_: her_code.Hers\n",
}


@pytest.fixture
def hers(tmp_path, shapes, monkeypatch):
    """A way to have code that raises; gives the words that choose it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def write(raises: str = 'ValueError("my bug")') -> list[str]:
        Path("her_code.py").write_text(CODE.format(raises=raises))
        Path("her_typo.py").write_text("def broken(image)\n    return image\n")
        for name, text in OPTIONS.items():
            path = Path("options", f"{name}.yaml")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        words = ["hydra.searchpath=[options]", *shapes_overrides(shapes, Path("out")), "features=memory", "limit=2"]
        return [*words, "reference=none"]

    yield write
    for name in ("her_code", "her_typo"):
        sys.modules.pop(name, None)


NO_FEATURES = ("backbone=none", "refiner=none")


def the_log() -> str:
    (log,) = Path("out", "logs").iterdir()
    return log.read_text()


def test_a_bug_in_every_image_is_shown_once_with_its_lines(cli, hers):
    done = cli("run", "segmenter=broken", *NO_FEATURES, *hers())
    assert done.code == 2
    error, *places, where, hint, trace = done.err.splitlines()
    assert error == "error: no image could be scored; the first: ValueError: my bug"
    assert places == [
        "  her_code.py:9 in broken",
        "    return helper(image)",
        "  her_code.py:5 in helper",
        '    raise ValueError("my bug")',
    ]
    assert where == "where: image picture0"
    assert hint == "next:  mend this code, then run the same command again"
    log = next(Path("out", "logs").iterdir())
    assert trace == f"trace: {log} holds the whole traceback; --debug raises it"
    assert "scoring/pipeline.py" in the_log() and "my bug" in the_log()
    assert the_log().count("Traceback") == 1


@pytest.mark.parametrize("place", ["before", "after"])
def test_debug_raises_whatever_went_wrong(cli, hers, place):
    words = ["run", "segmenter=broken", *NO_FEATURES, *hers()]
    with pytest.raises(ValueError, match="my bug") as raised:
        cli(*(["--debug", *words] if place == "before" else [*words, "--debug"]))
    assert raised.traceback[-1].path.name == "her_code.py"
    assert not Path("out", "logs").exists()
    with pytest.raises(UserError, match="unknown"):
        cli("--debug", "run", "segmenter=nobody")
    assert DEBUG not in os.environ


def test_hydras_variable_is_as_good_as_the_flag(cli, hers, monkeypatch):
    words = ["segmenter=broken", *NO_FEATURES, *hers()]
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ValueError, match="my bug"):
        cli("run", *words)
    monkeypatch.delenv("HYDRA_FULL_ERROR")
    hydra_main(lambda config: None, ["segmenter=kmeans"])
    assert "HYDRA_FULL_ERROR" not in os.environ and not is_debugging()


def test_debug_is_a_flag_of_every_command(cli, capsys):
    for words in (["--help"], ["doctor", "--help"], ["segment", "--help"]):
        with pytest.raises(SystemExit):
            cli(*words)
        assert "--debug" in capsys.readouterr().out


def test_a_bug_in_one_image_leaves_the_others_and_names_the_log(cli, hers):
    done = cli("run", "segmenter=on_one", *NO_FEATURES, *hers(), "limit=5")
    assert done.code == 0
    assert "picture3: ValueError: my bug" in done.err
    assert "her_code.py:5 in helper" in done.out
    assert done.out.count('my bug")') == 1
    assert f"the traceback is in {next(Path('out', 'logs').iterdir())}" in done.out


def test_a_class_that_raises_when_it_is_built(cli, hers):
    done = cli("run", "segmenter=refusing", *NO_FEATURES, *hers())
    assert done.code == 2
    assert done.err.startswith("error: ValueError: my bug\n  her_code.py:18 in __init__\n")
    assert "where: segmenter=her_code.Refusing" in done.err
    assert "InstantiationException" in the_log()


def test_a_file_that_python_cannot_read(cli, hers):
    done = cli("run", "segmenter=unloadable", *NO_FEATURES, *hers())
    assert done.code == 2
    assert "SyntaxError" in done.err
    assert "her_typo.py:1\n    def broken(image)" in done.err


def test_an_option_that_is_wrong_or_not_there_is_no_bug(cli, hers):
    for words in (["segmenter=refusing", "+segmenter.level=2"], ["segmenter=broken", "segmenter._target_=her_code.no"]):
        done = cli("run", *words, *NO_FEATURES, *hers())
        assert done.code == 2 and len(done.err.splitlines()) == 3, done.err


def test_a_bug_in_a_backbone(cli, hers):
    words = hers('TypeError("no such thing")')
    for command in (["run"], ["check"], ["coherence"]):
        done = cli(*command, "backbone=hers", *words, "limit=4")
        assert done.code == 2, command
        assert "TypeError: no such thing" in done.err.splitlines()[0]
        assert '  her_code.py:5 in helper\n    raise TypeError("no such thing")\nwhere: ' in done.err
    assert the_log().count("coherence/measure.py") >= 1


def test_a_failed_cell_of_a_sweep_and_of_a_table(cli, hers):
    words = hers()
    done = cli("run", "-m", "segmenter=broken,one_segment", *NO_FEATURES, *words)
    assert done.code == 2
    assert "her_code.py:5 in helper" in done.err and "trace: out/logs" in done.err
    assert "one_segment" in done.out
    with pytest.raises(CodeError, match="my bug"):
        cli("run", "-m", "segmenter=refusing,one_segment", *NO_FEATURES, *words, "--debug")


def test_what_ends_a_whole_pass_is_told_of_its_cells(cli, hers, monkeypatch):
    words = hers()
    monkeypatch.setattr("diffcut_bench.scoring.passes.data_fingerprint", lambda data: data.no_such_thing)
    done = cli("run", "-m", "segmenter=one_segment,grid", *NO_FEATURES, *words)
    assert done.code == 2
    assert done.err.count("no attribute 'no_such_thing'") == 1, "two cells, one bug"
    assert len(re.findall("^cell .*segmenter=(?:one_segment|grid)", done.err, re.MULTILINE)) == 2
    assert "lambda data: data.no_such_thing" in done.err and "trace: out/logs" in done.err
    with pytest.raises(AttributeError):
        cli("run", "-m", "segmenter=one_segment,grid", *NO_FEATURES, *words, "--debug")


def test_a_failed_cell_of_a_table_says_where_and_names_the_log(cli, hers, monkeypatch):
    words = hers()
    table = Path("options", "reproduction", "mine.yaml")
    table.parent.mkdir()
    columns = "columns:\n  one: []\n"
    rows = "rows:\n  - {name: Hers, overrides: [segmenter=broken], published: {one: 50.0}}\n"
    table.write_text(f"title: mine\nsource: here\nmeasure: miou\n{columns}{rows}")
    done = cli("reproduce", "mine", *NO_FEATURES, *words)
    assert "her_code.py:5 in helper; its traceback is in out/logs/" in " ".join(done.out.split()), done
    monkeypatch.setattr("diffcut_bench.scoring.passes.data_fingerprint", lambda data: data.no_such_thing)
    done = cli("reproduce", "mine", *NO_FEATURES, *words)
    assert "has no attribute 'no_such_thing'" in " ".join(done.out.split()), "what ends a pass ends no table"
    with pytest.raises(AttributeError):
        cli("reproduce", "mine", *NO_FEATURES, *words, "--debug")


def test_pictures_that_fail_alike_show_their_lines_once(cli, hers, tmp_path):
    words = [word for word in hers() if word.startswith("hydra.")]
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in "abc":
        Image.effect_noise((64, 48), 50).convert("RGB").save(photos / f"{name}.png")
    done = cli("segment", photos, "segmenter=broken", *NO_FEATURES, *words, "output_dir=out")
    assert done.code == 2
    assert done.err.count("her_code.py:5 in helper") == 1
    assert done.err.count("the same: ") == 2
    assert the_log().count("Traceback") >= 1
    with pytest.raises(Exception, match="my bug"):
        cli("segment", photos, "segmenter=broken", *NO_FEATURES, *words, "output_dir=out", "--debug")


def test_the_only_picture_leaves_its_log_where_everything_is_written(cli, hers, tmp_path):
    words = [word for word in hers('RuntimeError("my bug")') if word.startswith("hydra.")]
    Image.effect_noise((64, 48), 50).convert("RGB").save("photo.png")
    done = cli("segment", "photo.png", "-o", "pictures", "segmenter=broken", *NO_FEATURES, *words)
    assert done.code == 2
    assert "her_code.py:5 in helper" in done.err and "trace: pictures/logs/" in done.err
    assert not Path("outputs").exists()


def test_python_chains_the_exception(shapes, tmp_path):
    def mine(image):
        return image.undefined

    words = [word for word in shapes_overrides(shapes, tmp_path) if not word.startswith(("dataset=", "output_dir"))]
    with pytest.raises(CodeError, match="no image could be scored") as raised:
        diffcut_bench.evaluate(mine, *words, "limit=1", "backbone=none", dataset="folder", output_dir=tmp_path)
    assert isinstance(raised.value.__cause__, AttributeError)
    assert "return image.undefined" in str(raised.value)


@pytest.mark.parametrize(
    ("raises", "told"),
    [
        ("Silent()", "Silent: (no message: RuntimeError when it was asked for)"),
        ('ValueError("\\udcff")', "ValueError: "),
        ('ValueError("a\\nerror: b")', "ValueError: a error: b"),
        ('ValueError("x" * 1_000_000)', "(1000000 characters)"),
        ("SystemExit(0)", "SystemExit: 0"),
    ],
)
def test_no_exception_of_one_image_costs_another(raises, told, cli, hers):
    words = hers(raises)
    with Path("her_code.py").open("a") as file:
        file.write("\n\nclass Silent(Exception):\n    def __str__(self):\n        raise RuntimeError\n    ")
        file.write("def __eq__(self, other):\n        raise RuntimeError\n    __hash__ = Exception.__hash__\n")
    done = cli("run", "segmenter=on_one", *NO_FEATURES, *words, "limit=4")
    assert done.code == 0, done.err
    assert len([line for line in done.err.splitlines() if told in line]) == 1
    assert len(done.err) + len(done.out) < 10_000
    assert "her_code.py" in the_log()


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_module_that_ends_the_program_is_a_bug(command, cli, hers):
    words = hers("SystemExit(0)")
    Path("her_typo.py").write_text("import sys\nsys.exit(0)\n")
    stages = NO_FEATURES if command == "run" else ()
    done = cli(command, "segmenter=unloadable", *stages, *words)
    assert done.code == 2
    assert done.err.startswith("error: SystemExit: 0\n  her_typo.py:2 in <module>")
    assert cli(command, "segmenter=broken", *stages, *words).code == 2


def test_an_unreadable_picture_is_a_line_and_no_bug(cli, hers, shapes):
    (shapes / "images" / "picture0.png").write_bytes(b"no picture")
    words = hers()
    done = cli("run", "segmenter=slic", *NO_FEATURES, *words)
    assert done.code == 0
    assert "picture0: " in done.err
    assert not Path("out", "logs").exists()


def test_a_bug_in_a_data_set_is_told_from_damaged_data(shapes):
    class Hers(SegmentationDataset):
        def class_map(self, raw, where):
            return raw.no_such_thing if "picture0" in where else sys.exit(0)

    plain = load_config(["dataset=folder", f"dataset.root={shapes}", "dataset.num_classes=3", "backbone=none"])
    dataset, source = open_dataset(plain), open_features(plain, torch.device("cpu"))
    hers = Hers(**{name: getattr(dataset, name) for name in dataset.__dataclass_fields__})
    ((failure,),) = example_loader(hers, [Wanted(0)], source, batch_size=1)
    assert isinstance(failure, CodeFailure)
    assert failure.error == "AttributeError: 'numpy.ndarray' object has no attribute 'no_such_thing'"
    assert "return raw.no_such_thing" in pickle.loads(pickle.dumps(failure)).trace.excerpt
    ((ended,),) = example_loader(hers, [Wanted(1)], source, batch_size=1)
    assert isinstance(ended, CodeFailure) and ended.error == "SystemExit: 0"
    (shapes / "labels" / "picture0.png").write_bytes(b"no picture")
    ((failure,),) = example_loader(hers, [Wanted(0)], source, batch_size=1)
    assert not isinstance(failure, CodeFailure) and "picture0" in failure.error


def caught(raising, *arguments) -> Trace:
    try:
        raising(*arguments)
    except Exception as error:
        trace = Trace.of(error)
        assert trace is not None
        return trace
    raise AssertionError


def fetch(url: str) -> None:
    raise RuntimeError(f"no answer of {url}")


def test_neither_message_nor_log_holds_credentials(tmp_path):
    trace = caught(fetch, "https://me:secret@host/x?token=abc")
    error = pickle.loads(pickle.dumps(error_in_code(trace.cause, "here")))
    log = log_trace(tmp_path, error.trace, "https://me:secret@host")
    assert log is not None and log.parent == tmp_path / "logs"
    text = log.read_text() + str(error)
    assert "https://host/x?token=***" in text
    assert "secret" not in text and "abc" not in text
    assert error.trace == trace and error.trace.cause is None


def test_the_source_may_be_gone(tmp_path):
    path = tmp_path / "gone.py"
    exec(compile("def gone():\n    raise KeyError('x')\n", str(path), "exec"), names := {})
    trace = caught(names["gone"])
    assert trace.place.endswith("gone.py:2 in gone") and trace.error == "KeyError: 'x'"


def test_bugs_are_added_to_one_log_and_each_once(tmp_path):
    first, second = (caught(fetch, name) for name in ("one", "two"))
    assert first.origin == second.origin
    logs = {log_trace(tmp_path, trace, "image") for trace in (first, second, first)}
    (log,) = logs
    assert log is not None and log.read_text().count("Traceback") == 2


def test_a_folder_that_cannot_be_written_costs_the_log_alone(tmp_path):
    (tmp_path / "logs").write_text("a file")
    assert log_trace(tmp_path, caught(fetch, "x"), "image") is None
    assert "--debug raises it" in str(error_in_code(caught(fetch, "x").cause, "here"))


def test_without_code_of_the_users_the_last_lines_of_ours_are_shown(monkeypatch):
    monkeypatch.setattr("diffcut_bench.traces._is_of_user", lambda name: False)
    trace = caught(load_config, None)
    assert not trace.of_user
    assert "diffcut_bench/config/" in trace.excerpt
