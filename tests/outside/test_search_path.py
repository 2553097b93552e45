"""What the user names is found by everything that a command does, and a slip in naming it is told."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SMALL, write_shapes

from diffcut_bench import evaluate, extensions
from diffcut_bench.config import conf_dir, known_options, load_config, searching
from diffcut_bench.errors import UserError
from diffcut_bench.evaluation import known_metrics
from diffcut_bench.store import read_result

BACKBONE = """
from torch.nn.functional import avg_pool2d
from diffcut_bench.backbones import Backbone
class Mean(Backbone):
    name, stride, channels = "mean", 16, 3
    def forward(self, images):
        return avg_pool2d(images, self.stride)
    def fingerprint(self):
        return {"model": self.name}
"""
METRIC = """
from diffcut_bench.evaluation import Metric
METRIC = Metric(
    name="own_share", heading="own share", measure=lambda image: [1.0, 1.0], reduce=lambda s: s[..., 0] / s[..., 1]
)
"""


@pytest.fixture
def options(tmp_path, monkeypatch):
    """A folder with options and a metric beside a module, as the current one, in which Python does not look."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    Path("own_mean.py").write_text(BACKBONE)
    for group, text in {
        "backbone": "_target_: own_mean.Mean\n",
        "dataset": "_target_: diffcut_bench.datasets.voc\nroot: null\n",
        "protocol": "defaults: [strict]\nname: own\n",
        "experiment": "# @package _global_\nlimit: 3\n",
    }.items():
        Path("my options", group).mkdir(parents=True)
        Path("my options", group, "own.yaml").write_text(text)
    Path("my options", "metrics").mkdir()
    Path("my options", "metrics", "own_share.py").write_text(METRIC)
    Path("my options", "metrics", "script.py").write_text("raise RuntimeError('no METRIC, and not run')")
    yield tmp_path / "my options"
    sys.modules.pop("own_mean", None)


def test_everything_finds_what_the_command_line_names(options, cli, tmp_path):
    flag = ["--config-dir", "my options"]
    assert cli("run", "--cfg", "job", "-p", "limit", "experiment=own", *flag).out.strip() == "3"
    assert "own" in cli("data", "verify", *flag).err, "name one data set, of …"
    assert "did you mean own?" in cli("reproduce", "table1", "--under", "owm", "--status", *flag).err
    assert "own_share" in cli("run", "score=own_sharp", *flag).err
    assert known_options("backbone").count("own") == 0 and "own_share" not in known_metrics(), "only for the command"


def test_a_module_beside_the_options_is_found_as_by_python_m(options, cli):
    before = sys.path[:]
    assert cli("check", "backbone=own", "--config-dir", "my options").code == 0
    assert sys.path == before
    sys.modules.pop("own_mean")
    with pytest.raises(UserError, match="own_mean"), searching([f"hydra.searchpath=[{options}]"]):
        evaluate("kmeans", "limit=1", backbone="own")  # a library looks where Python looks


@pytest.mark.slow
def test_processes_of_a_launcher_know_the_same_folders(options, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    program = (
        "import sys; from diffcut_bench.cli import main\n"
        f"sys.path[:] = [path for path in sys.path if path not in ('', {str(tmp_path)!r})]\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    words = ["run", "-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "backbone=own,colour", "limit=1", *SMALL]
    words += ["output_dir=out", "--config-dir", "my options"]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    results = [read_result(path) for path in Path("out", "results").iterdir()]
    assert {result.config["choices"]["backbone"] for result in results} == {"own", "colour"}
    assert all(result.scores["own_share"].value == 1 for result in results)


def test_nobody_elses_module_is_imported_from_the_current_folder(options, cli, monkeypatch, tmp_path):
    """A module of the folder that one happens to be in is found by its name in an option alone, and never first."""
    for name in ("triton", "torch", "yaml"):
        Path(f"{name}.py").write_text("raise RuntimeError('imported from the current folder')")
    assert cli("run", "backbone=colour", "limit=1", *SMALL, f"output_dir={tmp_path / 'out'}").code == 0
    with extensions.current_folder_importable():
        for target in ("torch.nn.Linear", "yaml.safe_load", "no_such_module.x", "my options.x", ""):
            extensions.find_target(target)
        assert str(tmp_path) not in sys.path
        extensions.find_target("own_mean.Mean")
        assert sys.path[-1] == str(tmp_path)
    monkeypatch.setattr(sys, "flags", type("Flags", (), {"safe_path": True}))
    with extensions.current_folder_importable():
        extensions.find_target("own_mean.Mean")
        assert str(tmp_path) not in sys.path


def test_printed_commands_name_the_folder(options, cli, tmp_path):
    flag = "--config-dir 'my options'"
    assert f"data prepare voc dataset.root=DIR {flag}" in cli("run", "dataset=own", "--config-dir", "my options").err
    assert flag in cli("run", "dataset=own", f"hydra.searchpath=[{options}]").err
    root = write_shapes(tmp_path / "shapes", 4)
    words = [
        "dataset=folder",
        f"dataset.root={root}",
        "dataset.num_classes=3",
        "dataset.background=0",
        "output_dir=out",
    ]
    first = cli("run", *words, *SMALL, "backbone=own", "shard=1/2", "--config-dir", "my options")
    assert first.code == 0, first.err
    merged = cli("merge", "output_dir=out", "--config-dir", "my options")
    assert merged.code == 2
    assert "backbone=own" in merged.err and merged.err.rstrip().endswith(f"shard=2/2 {flag}")
    assert "add its own values" not in merged.err


def test_the_librarys_callers_name_it_as_an_override(options, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    own = [f"+hydra.searchpath=['{options}']", "limit=1", *SMALL]
    result = evaluate("kmeans", *own, backbone="own", output_dir=tmp_path / "out")
    assert result.scores["own_share"].value == 1
    assert extensions.named_folders() == ()


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("/nope", "no such folder"),
        ("pkg://nope.conf", "no such package"),
        ("pkg://diffcut_bench.nope", "no such package, or no such folder in it"),
    ],
)
def test_a_search_path_that_is_not_there_is_an_error(entry, said, cli):
    done = cli("run", f"hydra.searchpath=[{entry}]", "--cfg", "job")
    assert done.code == 2 and said in done.err


def test_a_package_may_be_named_too(cli):
    assert load_config(["hydra.searchpath=[pkg://hydra.conf]"]).batch_size == 4


def test_a_folder_without_options_is_warned_of(options, cli):
    Path("empty").mkdir()
    for folder, said in (("empty", "DIR/backbone/NAME.yaml"), (options / "backbone", f"did you mean {options}?")):
        done = cli("run", "--cfg", "job", "-p", "limit", "--config-dir", folder)
        assert done.code == 0
        assert done.err.startswith(f"warning: hydra.searchpath: {Path(folder).absolute()} holds no options")
        assert said in done.err


def test_an_option_that_is_never_read_is_warned_of(options, cli):
    ours = conf_dir() / "backbone" / "colour.yaml"
    (options / "backbone" / "colour.yaml").write_bytes(ours.read_bytes())
    words = ["run", "--cfg", "job", "-p", "limit", "--config-dir", "my options"]
    assert cli(*words).err == ""
    with (options / "backbone" / "colour.yaml").open("a") as file:
        file.write("stride: 8\n")
    done = cli(*words)
    assert done.code == 0
    assert "backbone/colour.yaml is not read: the package's own backbone=colour comes first" in done.err


def test_a_broken_metric_is_told_with_its_file(options, cli):
    (options / "metrics" / "own_share.py").write_text("METRIC = 1 / 0")
    done = cli("run", "backbone=own", "limit=1", "--config-dir", "my options")
    assert done.code == 2
    assert "ZeroDivisionError: division by zero" in done.err and "own_share.py" in done.err


def test_what_is_no_file_is_passed_over_and_a_lost_metric_is_told(options, cli):
    (options / "backbone" / "colour.yaml").mkdir()
    (options / "backbone" / "none.yaml").symlink_to(options / "gone")
    (options / "metrics" / "folder.py").mkdir()
    (options / "metrics" / "lost.py").symlink_to(options / "gone")
    words = ["run", "score=own_share", "--cfg", "job", "-p", "limit", "--config-dir", "my options"]
    lost = cli("run", "score=own_share", "--config-dir", "my options")
    assert lost.code == 2 and "a metric can't be read" in lost.err and "lost.py" in lost.err
    (options / "metrics" / "lost.py").unlink()
    assert (cli(*words).code, cli(*words).err) == (0, "")
