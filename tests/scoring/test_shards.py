"""Shards merged are the whole cell, byte for byte where no clock is read; what can't be merged is named."""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import DATA, make_older
from PIL import Image

FILES = ("config.yaml", "per_image.parquet")


def without_clock(folder: Path) -> dict[str, object]:
    """A result as written, without what two runs of a cell may differ in."""
    result = json.loads((folder / "result.json").read_text())
    del result["timings"], result["environment"]
    return result


def only(pattern: str) -> Path:
    (found,) = Path().glob(pattern)
    return found


@pytest.fixture
def place(place, shapes):
    """A way into a fresh folder where paths read as in any other; two of the eight pictures are unreadable."""
    for number in (2, 4):
        picture = shapes / "images" / f"picture{number}.png"
        picture.write_bytes(picture.read_bytes()[:100])
    return lambda name: [*place(name), "backbone=colour"]


def test_merged_shards_are_the_run_without_shards(cli, place):
    base = [*place("whole"), "visualise=3"]
    assert cli("run", *base).code == 0
    place("parts")
    assert cli("run", "-m", *base, "shard=1/2,2/2").code == 0
    shards = sorted(Path().glob("out/results/*"))
    merged = cli("merge", "output_dir=out")
    assert merged.code == 0, merged.err
    whole = only("../whole/out/results/*")
    ours = Path("out/results") / whole.name
    assert ours not in shards
    assert without_clock(ours) == without_clock(whole)
    assert [failure["index"] for failure in without_clock(ours)["failures"]] == [2, 4]
    assert without_clock(ours)["reference"]["floor"]["n"] == 6
    assert all((ours / name).read_bytes() == (whole / name).read_bytes() for name in FILES)
    assert sorted(path.relative_to(ours) for path in ours.rglob("*")) == sorted(
        path.relative_to(whole) for path in whole.rglob("*")
    )
    spent = [json.loads((shard / "result.json").read_text())["timings"] for shard in shards]
    total = json.loads((ours / "result.json").read_text())["timings"]
    assert total["segment_s"] == pytest.approx(sum(one["segment_s"] for one in spent))
    assert total["images_per_s"] == pytest.approx(6 / sum(one["wall_s"] for one in spent))
    assert "finished already" in cli("run", *base).out


def test_shards_of_an_older_schema_make_a_whole_of_todays(cli, place):
    base = place("whole")
    assert cli("run", *base).code == 0
    place("parts")
    assert cli("run", "-m", *base, "shard=1/2,2/2").code == 0
    for shard in Path().glob("out/results/*"):
        make_older(shard)
    assert cli("merge", "output_dir=out").code == 0
    whole = only("../whole/out/results/*")
    assert without_clock(Path("out/results") / whole.name) == without_clock(whole)


def test_a_machine_without_the_data_merges_all_but_floors_and_ceilings(cli, place):
    base = place("parts")
    assert cli("run", "-m", *base, "shard=1/2,2/2").code == 0
    Path("shapes").unlink()
    merged = cli("merge", "output_dir=out")
    assert merged.code == 0, merged.err
    assert merged.out.count("reference  no floor and ceiling: ") == 1 and "not found" in merged.out
    (whole,) = (path for path in Path().glob("out/results/*") if without_clock(path)["config"]["shard"] is None)
    assert "reference" not in without_clock(whole)
    Path("shapes").symlink_to("../shapes")
    assert "finished already" in cli("run", *base).out
    assert without_clock(whole)["reference"]["score"] == "miou"


@pytest.mark.slow
def test_shards_of_machines_without_a_common_disk(cli, place):
    cli("run", *place("whole"))
    base = [word for word in place("parts") if not word.startswith("output_dir")]
    for number, machine in enumerate(("one", "two", "three"), start=1):
        assert cli("run", *base, f"shard={number}/3", f"output_dir={machine}").code == 0
    cli("run", "-m", *base, "shard=1/2,2/2", "output_dir=two")  # the same cell once more, cut otherwise
    missing = cli("merge", "output_dir=one", "--from", "three")
    assert missing.code == 2
    assert "needs shard 2/3" in missing.err
    merged = cli("merge", "output_dir=one", "--from", "two", "--from", "three")
    assert merged.code == 0, merged.err
    whole = only("../whole/out/results/*")
    ours = Path("one/results") / whole.name
    assert (ours / "per_image.parquet").read_bytes() == (whole / "per_image.parquet").read_bytes()
    assert without_clock(ours)["metrics"] == without_clock(whole)["metrics"]
    assert not (Path("two/results") / whole.name).exists()


def test_what_is_missing_is_named_with_the_command_that_computes_it(cli, place):
    base = [*place("parts"), "output_dir=an out's folder", "limit=7", "limit_seed=3", "upsampler=nearest"]
    base += ["batch_size=3", "protocol.void=ignore", "segmenter.tau=0.4", "protocol.absent_classes=zero"]
    base += ["refiner.dilations=[1,3]", "max_failures=4"]
    assert cli("run", *base, "shard=2/3").code == 0
    found = cli("merge", "output_dir=an out's folder")
    assert found.code == 2
    assert "needs shard 1/3, 3/3" in found.err
    (command,) = [line.strip() for line in found.err.splitlines() if line.strip().startswith("diffcut-bench")]
    assert cli(*shlex.split(command)[1:]).code == 0
    assert len(list(Path().glob("*/results/*"))) == 3
    assert cli("merge", "output_dir=an out's folder").code == 0


def test_shards_of_an_earlier_version_are_to_be_computed_anew(cli, place):
    assert cli("run", *place("parts"), "shard=1/2").code == 0
    path = only("out/results/*/result.json")
    record = json.loads(path.read_text())
    record["identity"]["numerics_version"] -= 1
    path.write_text(json.dumps(record))
    (path.parent / "SHA256SUMS").unlink()
    said = cli("merge", "output_dir=out").err
    assert "needs shard 2/2" in said
    assert "an earlier version" in said
    assert "shard=1/2,2/2" in said


def test_no_command_is_given_that_names_code_of_a_file(cli, place):
    assert cli("run", *place("parts"), "limit=4", "shard=2/2").code == 0
    path = only("out/results/*/result.json")
    record = json.loads(path.read_text())
    record["config"]["segmenter"] = {"_target_": "os.system", "command": "true"}
    path.write_text(json.dumps(record))
    (path.parent / "SHA256SUMS").unlink()
    found = cli("merge", "output_dir=out")
    assert found.code == 2
    assert "segmenter=diffcut" in found.err
    assert "os.system" not in found.err
    assert "names code that is no option's own" in found.err


def test_empty_shards_are_not_waited_for(cli, place):
    base = [*place("parts"), "limit=2"]
    cli("run", "-m", *base, "shard=1/5,2/5")
    merged = cli("merge", "output_dir=out")
    assert merged.code == 0, merged.err


def test_one_matching_for_the_data_set_is_made_anew(cli, place):
    base = [*place("whole"), "protocol.matching=dataset", "protocol.background_rule=one_to_one", "refiner=none"]
    predictions = Path("../predictions")
    predictions.mkdir()
    for label in Path("shapes/labels").iterdir():
        classes = np.asarray(Image.open(label))
        # Two ids change places in every second picture: each shard alone would be matched in its own way.
        ids = np.array([2, 0, 1])[np.where(classes == 255, 0, classes)]
        Image.fromarray((ids if int(label.stem[-1]) % 2 else 2 - ids).astype(np.uint8)).save(predictions / label.name)
    base += ["segmenter=precomputed", f"segmenter.folder={predictions}", "backbone=none"]
    assert cli("run", *base).code == 0
    place("parts")
    assert cli("run", "-m", *base, "shard=1/2,2/2").code == 0
    assert cli("merge", "output_dir=out").code == 0
    whole = only("../whole/out/results/*")
    ours = Path("out/results") / whole.name
    assert without_clock(ours) == without_clock(whole)
    assert (ours / "per_image.parquet").read_bytes() == (whole / "per_image.parquet").read_bytes()


def test_a_result_without_identity_is_named_and_left_out(cli, place):
    place("parts")
    old = json.loads((DATA / "result_v1_before_identity.json").read_text())
    old["config"]["shard"] = "1/2"
    folder = Path("out/results/old-folder")
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(old))
    found = cli("merge", "output_dir=out")
    assert found.code == 2
    assert "old-folder" in found.err
    assert "older version" in found.err
    assert found.err.strip().splitlines()[-3].startswith("error: no finished shards")


def test_shards_that_disagree_are_an_error(cli, place):
    base = place("parts")
    cli("run", "-m", *base, "shard=1/2,2/2")
    _, second = sorted(Path().glob("out/results/*"))
    shutil.copytree("out", "copy")
    assert cli("merge", "output_dir=out", "--from", "copy").code == 0
    copied = Path("copy/results") / second.name / "per_image.parquet"
    rows = pq.read_table(copied).to_pylist()
    rows[0]["segments"] += 1
    pq.write_table(pa.Table.from_pylist(rows), copied)
    damaged = cli("merge", "output_dir=out", "--from", "copy", "if_exists=overwrite")
    assert damaged.code == 0, "a damaged copy is left out, and the other is there"
    assert "its SHA-256 is not the one in SHA256SUMS" in damaged.err
    copied.with_name("SHA256SUMS").unlink()
    done = cli("merge", "output_dir=out", "--from", "copy", "if_exists=overwrite")
    assert done.code == 2
    assert "two results of shard" in done.err


def test_a_shard_that_holds_images_of_another_is_an_error(cli, place):
    base = place("parts")
    cli("run", "-m", *base, "shard=1/2,2/2")
    for folder in Path().glob("out/results/*"):
        rows = pq.read_table(folder / "per_image.parquet").to_pylist()
        pq.write_table(
            pa.Table.from_pylist([{**row, "index": 10 + row["index"]} for row in rows]), folder / "per_image.parquet"
        )
        (folder / "SHA256SUMS").unlink()
    done = cli("merge", "output_dir=out", "if_exists=overwrite")
    assert done.code == 2
    assert "holds others than its own" in done.err


def test_a_whole_cell_that_is_there_is_kept_unless_it_is_to_be_overwritten(cli, place):
    base = place("parts")
    cli("run", "-m", *base, "shard=1/2,2/2")
    cli("run", *base)
    whole = next(path for path in Path().glob("out/results/*") if without_clock(path)["config"]["shard"] is None)
    before = (whole / "result.json").read_bytes()
    assert "skipped" in cli("merge", "output_dir=out").out
    assert (whole / "result.json").read_bytes() == before
    assert "skipped" not in cli("merge", "output_dir=out", "if_exists=overwrite").out
    assert (whole / "result.json").read_bytes() != before
    assert without_clock(whole).items() <= json.loads(before).items()
    refused = cli("merge", "output_dir=out", "if_exists=resume")
    assert refused.code == 2
    assert "if_exists=skip or overwrite" in refused.err


def test_nothing_to_merge_and_no_such_folder(cli, place):
    place("parts")
    assert "no finished shards" in cli("merge", "output_dir=out").err
    wrong = cli("merge", "output_dir=out", "--from", "nowhere")
    assert wrong.code == 2
    assert len(wrong.err.strip().splitlines()) == 3
