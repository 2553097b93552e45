import hashlib
import json
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import miniatures
import numpy as np
import pytest
import skimage.data
import torch
from conftest import SMALL, shapes_overrides
from PIL import Image

import diffcut_bench.datasets.ade20k  # noqa: F401 - the module, below; the package exports the function
from diffcut_bench.cli import main
from diffcut_bench.commands.arguments import COMMANDS
from diffcut_bench.config import expand_sweep
from diffcut_bench.datasets import Archive
from diffcut_bench.errors import UserError


def test_run_prints_table_protocol_and_paths(cli, shapes, tmp_path):
    done = cli("run", *shapes_overrides(shapes, tmp_path / "out"), "visualise=3")
    assert done.code == 0
    assert "mIoU" in done.out
    assert "images/s" in done.out
    assert "protocol released: crop=center, image_size=128" in done.out.replace("\n", " ")
    pictures = list((tmp_path / "out" / "results").glob("*/pictures/*.png"))
    assert sorted(path.stem for path in pictures) == ["picture0", "picture1", "picture2"]
    assert all(str(path) in done.out for path in pictures)


def test_run_again_says_skipped_and_draws_what_is_missing(cli, shapes, tmp_path):
    overrides = shapes_overrides(shapes, tmp_path / "out")
    cli("run", *overrides)
    result = next((tmp_path / "out" / "results").glob("*/result.json"))
    before = result.read_bytes()
    done = cli("run", *overrides, "visualise=2")
    assert done.code == 0
    assert "skipped: this cell is finished already" in done.out
    assert len(list((tmp_path / "out" / "results").glob("*/pictures/*.png"))) == 2
    assert result.read_bytes() == before


def test_a_sweep_runs_every_combination_and_shows_them_in_one_table(cli, shapes, tmp_path):
    overrides = [*shapes_overrides(shapes, tmp_path / "out"), "limit=2"]
    done = cli("run", "-m", *overrides, "segmenter.tau=0.3,0.7", "refiner=none,pamr")
    assert done.code == 0
    assert "sweep of 4 cells" in done.out
    assert len(list((tmp_path / "out" / "results").glob("*/result.json"))) == 4
    again = cli("run", *overrides, "segmenter.tau=0.3,0.7", "refiner=pamr", "-m")
    assert again.out.count("skipped") == 2


def test_a_sweep_is_checked_before_its_first_cell(cli, shapes, tmp_path):
    done = cli("run", "-m", *shapes_overrides(shapes, tmp_path / "out"), "protocol=released,relaesed")
    assert done.code == 2
    assert "did you mean released" in done.err
    assert not (tmp_path / "out").exists()


def test_a_failed_cell_does_not_stop_the_others(cli, shapes, tmp_path):
    overrides = [*shapes_overrides(shapes, tmp_path / "out"), "limit=2"]
    done = cli("run", "-m", *overrides, "segmenter.tau=2,0.5")
    assert done.code == 2
    assert "tau must lie in [0, 1], not 2" in done.err
    assert len(list((tmp_path / "out" / "results").glob("*/result.json"))) == 1


def test_equal_cells_of_a_sweep_are_one(cli, shapes, tmp_path):
    overrides = [*shapes_overrides(shapes, tmp_path / "out"), "limit=1"]
    done = cli("run", "-m", *overrides, "segmenter.tau=0.5,0.50,0.7", "segmenter.alpha=5,5.0")
    assert done.code == 0, done.err
    assert "sweep of 2 cells in 1 pass over images" in done.out
    assert "4 more equal one of these" in done.out
    assert len(list((tmp_path / "out" / "results").iterdir())) == 2
    alone = cli("run", "-m", *overrides, "segmenter.tau=0.5,0.50")
    assert "sweep of 1 cell in 1 pass" in alone.out
    assert "finished before" in alone.out


def test_every_line_of_a_sweep_tells_its_cell_apart(cli, shapes, tmp_path):
    overrides = [*shapes_overrides(shapes, tmp_path / "out"), "limit=1"]
    done = cli("run", "-m", *overrides, "protocol=glob(*,exclude=bsds)", "refiner=none")
    assert done.code == 0, done.err
    for number, name in enumerate(("paper", "released", "strict")):
        assert f"cell {number + 1}: protocol={name}\n" in done.out
    assert "as above" not in done.out


def test_sweeps_expand_lists_ranges_and_choices():
    cells = expand_sweep(["a=1,2", "b=range(0,0.3,0.1)", "c=x"])
    assert len(cells) == 6
    assert cells[0] == ["a=1", "b=0", "c=x"]


def test_a_range_gives_the_numbers_that_one_would_write():
    assert expand_sweep(["segmenter.tau=range(0.3,1.0,0.05)"])[8:10] == [["segmenter.tau=0.7"], ["segmenter.tau=0.75"]]
    assert expand_sweep(["segmenter.alpha=range(1,4)"]) == [[f"segmenter.alpha={n}"] for n in (1, 2, 3)]


ade20k_module = sys.modules["diffcut_bench.datasets.ade20k"]

MISTAKES = {
    "unknown command": (["rum"], "unknown command 'rum'", "did you mean run"),
    "unknown option": (["run", "backbone=efficientnet_lite1"], "unknown option", "did you mean efficientnet_lite0"),
    "unknown key": (["run", "segmenter.tua=0.4"], "unknown key", "did you mean segmenter.tau"),
    "missing data root": (["run", "dataset=voc"], "dataset.root is not set", "dataset.root=DIR"),
    "data root not there": (["run", "dataset=voc", "dataset.root=/no/such"], "folder not found", "dataset.root"),
    "tau=2": (["run", "segmenter.tau=2"], "tau must lie in [0, 1], not 2", "segmenter"),
    "protocol value": (["run", "protocol.void=maybe"], "void must be background | ignore", "conf/protocol"),
    "data set matching": (["run", "protocol.matching=dataset"], "matching=dataset", "per_image"),
    "flag": (["run", "--muultirun"], "unrecognized arguments: --muultirun", "--help"),
    "alpha=inf": (["run", "segmenter.alpha=inf"], "alpha must be positive and finite", "segmenter"),
    "tau=abc": (["run", "segmenter.tau=abc"], "tau must lie in [0, 1], not 'abc'", "segmenter"),
    "seed": (["run", "seed=-1"], "seed must be at least 0", "conf/config.yaml"),
    "no backbone": (["run", "backbone=null"], "backbone", ""),
    "unknown target": (["run", "upsampler._target_=foo.Bar"], "there is no module foo", "MODULE.NAME"),
    "similarity": (["segment", "/no/such.jpg", "upsampler.similarity=foo"], "similarity", ""),
    "glob of nothing": (["run", "-m", "refiner=glob(x*)"], "no option of refiner fits", "none, pamr"),
    "launcher alone": (["run", "hydra/launcher=joblib"], "a launcher starts the passes of a sweep", "add -m"),
    "launcher's key": (["run", "-m", "hydra.launcher.n_jobs=2"], "no such setting", "hydra/launcher=joblib"),
    "another launcher's key": (
        ["run", "-m", "hydra/launcher=joblib", "hydra.launcher.jobs=2"],
        "no such",
        "conf/hydra",
    ),
    "sweeper": (["run", "-m", "hydra/sweeper=ax"], "this sweeper is not known here", "hydra/sweeper=optuna"),
    "dashes": (["run", "--dataset=voc"], "unrecognized arguments", "no dashes: dataset=voc"),
    "dashes and blank": (["run", "--segmenter.tau", "0.4"], "unrecognized arguments", "no dashes: segmenter.tau="),
    "flag's name": (["run", "--multi-run"], "unrecognized arguments", "did you mean --multirun?"),
    "batch size": (["run", "batch_size=1e9"], "batch_size must be a whole number", "batch_size=1000000000"),
    "limit": (["run", "limit=0"], "limit must be at least 1", "conf/config.yaml"),
    "device": (["run", "device=gpu"], "device 'gpu' is not available", "device=auto"),
    "list for a path": (["run", "dataset=voc", "dataset.root=[a]"], "must be a path", "dataset.root=DIR"),
    "dashes in a name": (["segment", "--", "-dash.jpg"], "no such picture", "check the path"),
    "bench": (["bench", "--images", "0"], "the benchmarks are no command of the package", "make bench"),
    "picture with =": (["segment", "/no/a=b.png"], "no such picture", "check the path"),
    "list of one": (["data", "list", "voc"], "data list takes no data set", "data verify"),
    "download to verify": (["data", "verify", "voc", "--download"], "--download goes with prepare", "data prepare"),
    "missing picture": (["segment", "/no/such.jpg"], "no such picture", "check the path"),
    "no picture": (["segment", "segmenter.tau=0.4"], "no picture named", "photo.jpg"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_in_three_lines(cli, tmp_path, mistake):
    arguments, what, next_ = MISTAKES[mistake]
    done = cli(*arguments, *([] if arguments == ["rum"] else [f"output_dir={tmp_path / 'out'}"]))
    assert done.code == 2
    assert done.out.strip() == ""
    lines = done.err.strip().split("\n")
    assert len(lines) == 3
    assert lines[0].startswith("error: ")
    assert what in lines[0]
    assert lines[1].startswith("where: ")
    assert lines[2].startswith("next:  ")
    assert next_ in lines[2]
    assert "Traceback" not in done.err


def test_a_missing_argument_is_named_alone(cli):
    done = cli("compare", "one")
    assert done.code == 2
    assert done.err.splitlines()[0] == "error: the following arguments are required: CELL"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_device_that_is_not_here(cli, tmp_path):
    done = cli("run", "device=cuda", f"output_dir={tmp_path}")
    assert done.code == 2
    assert len(done.err.strip().split("\n")) == 3
    assert "device=cpu" in done.err


def test_an_output_folder_that_can_not_be_written(cli, shapes, tmp_path):
    (tmp_path / "file").write_text("")
    done = cli("run", *shapes_overrides(shapes, tmp_path / "file" / "out"))
    assert done.code == 2
    assert len(done.err.strip().split("\n")) == 3
    assert "output_dir=DIR" in done.err


def test_label_values_out_of_range_are_failures_that_name_the_file(cli, shapes, tmp_path):
    path = shapes / "labels" / "picture1.png"
    label = np.array(Image.open(path))
    label[0, 0] = 9
    Image.fromarray(label).save(path)
    done = cli("run", *shapes_overrides(shapes, tmp_path / "out"))
    assert done.code == 0
    assert "picture1.png: label value [9] out of range" in done.err
    stopped = cli("run", *shapes_overrides(shapes, tmp_path / "stop"), "max_failures=0")
    assert stopped.code == 2
    assert len(stopped.err.strip().split("\n")) == 3
    assert "label value [9]" in stopped.err


def test_segment_writes_labels_overlay_and_description(cli, tmp_path):
    photo = tmp_path / "cat photo.png"
    Image.fromarray(skimage.data.chelsea()).save(photo)
    done = cli("segment", photo, f"output_dir={tmp_path / 'out'}", "protocol.image_size=256")
    assert done.code == 0
    folder = tmp_path / "out" / "segments"
    labels = np.array(Image.open(folder / "cat photo_labels.png"))
    overlay = Image.open(folder / "cat photo_overlay.png")
    assert labels.shape == (300, 451)
    assert overlay.size == (451, 300)
    described = json.loads((folder / "segments.json").read_text())["images"][0]
    assert [segment["id"] for segment in described["segments"]] == sorted(np.unique(labels).tolist())
    assert sum(segment["area_px"] for segment in described["segments"]) == 300 * 451
    for segment in described["segments"]:
        left, top, right, bottom = segment["bbox"]
        assert (labels[top:bottom, left:right] == segment["id"]).sum() == segment["area_px"]


def test_absent_classes_can_be_named_on_the_command_line(cli, shapes, tmp_path):
    done = cli("run", "-m", *shapes_overrides(shapes, tmp_path / "out"), "protocol.absent_classes=nan,zero", "limit=1")
    assert done.code == 0
    assert "absent_classes=nan|zero" in done.out


@pytest.mark.slow
def test_sweeps_and_names_that_look_like_markup_or_need_quotes(cli, shapes, tmp_path):
    out = tmp_path / "it's [red] here"
    done = cli("run", "-m", *shapes_overrides(shapes, out), "segmenter.tau=0.3,0.5", "limit=1")
    assert done.code == 0, done.err
    assert len(list(out.glob("results/*/result.json"))) == 2
    photo = tmp_path / "[red]x[%2Fy].png"
    Image.fromarray(skimage.data.coffee()).save(photo)
    done = cli("segment", photo, f"output_dir={out}", "protocol.image_size=128")
    assert done.code == 0, done.err
    assert str(photo) in done.out
    assert cli("doctor", f"output_dir={out}").code == 0


def test_a_sweep_into_an_unwritable_folder_is_a_user_error(cli, shapes, tmp_path):
    (tmp_path / "file").write_text("")
    done = cli("run", "-m", *shapes_overrides(shapes, tmp_path / "file" / "out"), "segmenter.tau=0.3,0.5")
    assert done.code == 2
    assert len(done.err.strip().split("\n")) == 3


def test_segment_keeps_pictures_of_one_name_apart_and_goes_on_after_a_bad_one(cli, tmp_path):
    pictures = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        pictures.append(tmp_path / name / "same.png")
        Image.fromarray(skimage.data.coffee()).save(pictures[-1])
    (tmp_path / "bad.png").write_bytes(b"no picture")
    done = cli("segment", *pictures, tmp_path / "bad.png", f"output_dir={tmp_path}", "protocol.image_size=128")
    assert done.code == 2
    assert "bad.png" in done.err
    assert len(list((tmp_path / "segments").glob("same*_labels.png"))) == 2


def test_python_m(tmp_path):
    done = subprocess.run([sys.executable, "-m", "diffcut_bench", "--version"], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("diffcut-bench ")


def test_expand_sweep_refuses_what_is_no_override():
    with pytest.raises(UserError, match="no override"):
        expand_sweep(["nonsense"])


def test_default_run_scores_the_sample(cli, tmp_path):
    done = cli("run", f"output_dir={tmp_path}", *SMALL)
    assert done.code == 0
    result = json.loads(next(tmp_path.glob("results/*/result.json")).read_text())
    assert result["dataset"]["name"] == "sample"
    assert result["dataset"]["n_images"] == result["dataset"]["n_expected"] == 11


@pytest.fixture
def ade(tmp_path):
    miniatures.write_ade20k(tmp_path / "original", miniatures.values(1, 2, 150))
    return [f"dataset.root={tmp_path / 'original'}", f"output_dir={tmp_path / 'out'}"]


def test_data_prepare_then_verify(cli, ade):
    done = cli("data", "prepare", "ade20k", *ade, "num_proc=2")
    assert done.code == 0
    assert "prepared 2 of 2000 expected pairs" in done.out
    found = cli("data", "verify", "ade20k", *ade)
    assert found.code == 1
    assert "building" in found.out
    assert "2 pairs, but the published split has 2000" in found.out


def test_data_verify_of_a_fine_data_set_ends_with_zero(cli):
    done = cli("data", "verify", "sample")
    assert done.code == 0
    assert done.out.strip().splitlines()[-1].startswith("verdict      fine")


def test_data_verify_names_damaged_files(cli, ade, tmp_path):
    label = tmp_path / "original" / "ADEChallengeData2016" / "annotations" / "validation" / "ADE_val_00000001.png"
    miniatures.grey(label, miniatures.values(200))
    done = cli("data", "verify", "ade20k", *ade)
    assert done.code == 1
    assert "ADE_val_00000001.png: label value [200] out of range; ade20k has" in done.out
    assert "verdict      off: 1 problem" in done.out


def test_data_list_shows_all_with_licence_and_state(cli, ade):
    cli("data", "prepare", "ade20k", *ade)
    done = cli("data", "list", ade[1])
    assert done.code == 0
    for name in ("voc", "context", "coco_object", "coco_stuff27", "cityscapes27", "ade20k", "sample", "folder"):
        assert f"\n{name} " in done.out
    assert "prepared, 2 of 2000 pairs" in done.out
    assert "Non-commercial use only" in done.out


def test_cityscapes_download_says_what_to_do_by_hand(cli, tmp_path):
    done = cli("data", "prepare", "cityscapes27", "--download", f"dataset.root={tmp_path}")
    assert done.code == 2
    assert "Non-commercial" in done.out
    assert "register" in done.err
    assert "gtFine_trainvaltest.zip" in done.err


def test_download_fetches_unpacks_and_prepares(cli, tmp_path, monkeypatch, tls):
    miniatures.write_ade20k(tmp_path / "content", miniatures.values(1, 2))
    (tmp_path / "served").mkdir()
    miniatures.archive(tmp_path / "content", tmp_path / "served" / "ade.zip")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"https://127.0.0.1:{server.server_port}/ade.zip"
        card = replace(ade20k_module.CARD, archives=(Archive("ade.zip", (url,)),))
        monkeypatch.setattr(ade20k_module, "CARD", card)
        root = tmp_path / "root"
        done = cli("data", "prepare", "ade20k", "--download", f"dataset.root={root}", f"output_dir={tmp_path / 'out'}")
        server.shutdown()
    assert done.code == 0, done.err
    assert "licence:" in done.out
    assert "prepared 2 of 2000" in done.out
    digest = hashlib.sha256((root / "ade.zip").read_bytes()).hexdigest()
    assert f"warning: no checksum of ade.zip was published. Its SHA-256 is {digest}" in done.out
    assert (root / "ade.zip.sha256").read_text() == f"{digest}  ade.zip\n"


def test_data_without_a_name_is_explained(cli):
    done = cli("data", "prepare")
    assert done.code == 2
    assert "ade20k" in done.err


@pytest.mark.parametrize(
    ("segmenter", "instead"),
    [("diffcut", "segmenter.approximation=coarse_to_fine (docs/large_grids.md)"), ("autosc", "segmenter=diffcut")],
)
def test_a_grid_too_large_for_the_memory_is_refused_with_an_estimate(cli, shapes, tmp_path, segmenter, instead):
    large = [*shapes_overrides(shapes, tmp_path), "protocol.image_size=2048", "segmenter.max_memory_gib=0.01"]
    refused = cli("run", *large, "limit=1", "backbone=colour", "backbone.stride=16", f"segmenter={segmenter}")
    assert refused.code == 2
    assert "16384 patches needs about" in refused.err
    assert "raise segmenter.max_memory_gib, use a smaller protocol.image_size, or " + instead in refused.err


def test_a_sweep_of_numbers_draws_its_curves_and_heat_map(cli, shapes, tmp_path):
    overrides = [*shapes_overrides(shapes, tmp_path / "out"), "limit=2", "refiner=none"]
    done = cli("run", "-m", *overrides, "segmenter.tau=0.3,0.5,0.7", "segmenter.alpha=2,5")
    assert done.code == 0, done.err
    (folder,) = (tmp_path / "out" / "sweeps").iterdir()
    for name in ("curves.png", "heatmap.png"):
        assert str(folder / name) in done.out
        assert Image.open(folder / name).size[0] > 300
    again = cli("run", "-m", *overrides, "upsampler=concepts,nearest")
    assert "figure   " not in again.out, "nothing numeric varied"


def test_the_overview_and_a_slip_of_the_keyboard_do_not_wait_for_torch():
    """Heavy libraries are imported with the command that needs them."""
    program = (
        "import sys; from diffcut_bench import cli; code = 0\n"
        "try: code = cli.main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print(code, [name for name in ('torch', 'hydra', 'datasets', 'matplotlib') if name in sys.modules])"
    )
    for word, code, said in (
        ("--help", 0, "put finished shards"),
        ("--version", 0, "diffcut-bench"),
        ("rum", 2, "run"),
    ):
        done = subprocess.run([sys.executable, "-c", program, word], capture_output=True, text=True, check=True)
        assert said in done.stdout + done.stderr
        assert done.stdout.splitlines()[-1] == f"{code} []"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_overview_is_there(name):
    """The table names modules and functions as text; each has its own help."""
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])
