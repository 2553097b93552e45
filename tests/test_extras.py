"""What a plain install does without its extras, and what it says where one is needed."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from diffcut_bench.errors import UserError
from diffcut_bench.extras import require

ROOT = Path(__file__).parent.parent
# Nothing of these is in a plain install: `import` fails, as there.
ABSENT = (
    *("datasets", "diffusers", "huggingface_hub", "matplotlib", "open_clip", "pandas", "pycocotools", "shapely"),
    *("tokenizers", "torchmetrics", "transformers", "wandb"),
)
PROGRAM = """
import sys
sys.modules.update(dict.fromkeys({absent}))
from diffcut_bench.cli import main
for line in {lines}:
    print(">>>", *line, flush=True)
    code = main(line)
    print("<<<", code, flush=True)
"""


@pytest.fixture(scope="module")
def extras() -> dict[str, list[str]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found: dict[str, list[str]] = project["optional-dependencies"]
    return found


def test_without_extras_folders_are_scored_and_pictures_segmented(shapes, tmp_path):
    out = f"output_dir={tmp_path / 'out'}"
    data = ["dataset=folder", f"dataset.root={shapes}", "dataset.num_classes=3", "protocol.image_size=256", out]
    picture = str(next((shapes / "images").iterdir()))
    lines = [
        ["run", "-m", *data, "limit=2", "segmenter.tau=0.4,0.5", "visualise=1"],
        ["segment", picture, out],
        ["report", str(tmp_path / "out")],
        ["run", *data, "limit=2", "segmenter.tau=0.4", "tracker=wandb", "if_exists=overwrite"],
        ["run", *data, "backbone=ssd1b"],
        ["run", *data, "backbone=dinov2_b14"],
        ["segment", picture, out, "--classes", "disc, ground"],
        ["segment", picture, out, "--format", "geojson"],
        ["coherence", *data],
    ]
    program = PROGRAM.format(absent=ABSENT, lines=lines)
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    codes = re.findall(r"^<<< (\d)$", done.stdout, re.MULTILINE)
    assert codes == ["0", "0", *"2222222"], done.stderr
    asked = re.findall(r"^next: +pip install 'diffcut_bench\[(\w+)\]'$", done.stderr, re.MULTILINE)
    assert asked == ["report", "wandb", "diffusion", "transformers", "transformers", "formats", "report"]
    assert "figure   none: not installed: matplotlib; pip install 'diffcut_bench[report]'" in done.stdout
    assert len(list((tmp_path / "out" / "results").iterdir())) == 2


def test_every_extra_that_is_asked_for_is_declared(extras):
    code = "".join(path.read_text() for path in (ROOT / "diffcut_bench").rglob("*.py"))
    asked = {*re.findall(r"require\(\s*\"(\w+)\"", code), *re.findall(r"diffcut_bench\[(\w+)\]", code)}
    assert asked <= extras.keys()
    assert {"data", "diffusion", "report", "transformers", "wandb"} <= asked


def test_all_is_every_extra_of_the_commands(extras):
    (of_all,) = extras["all"]
    parts = set(re.search(r"\[(.+)\]", of_all)[1].split(","))
    assert parts == extras.keys() - {"all", "crf", "dev", "docs", "launchers", "openvocab", "rivals", "sweepers"}


def test_require_names_what_is_missing_and_the_extra():
    require("data", "nothing", "json")
    with pytest.raises(UserError, match=r"not installed: no_such_module, no_such.part") as caught:
        require("data", "prepared=auto", "json", "no_such_module", "no_such.part")
    assert (caught.value.where, caught.value.hint) == ("prepared=auto", "pip install 'diffcut_bench[data]'")
