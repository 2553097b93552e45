"""Whole cells with a linker: what is planted is linked, and no way of running them changes a digit."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import finished_cells, interrupting_after, shapes_overrides
from PIL import Image

import diffcut_bench
from diffcut_bench.config import expand_sweep, load_config, trusted
from diffcut_bench.errors import UserError
from diffcut_bench.paths import reopened
from diffcut_bench.reporting import results_table
from diffcut_bench.scoring.passes import pass_key, run_cell, run_cells
from diffcut_bench.store import check_published, pack_prototypes, read_result, read_rows
from diffcut_bench.store.published import publish

# Directions that colours less mid-grey are far apart in.
COLOURS = np.array([[250, 5, 5], [5, 250, 5], [5, 5, 250], [250, 250, 5], [250, 5, 250], [5, 250, 250]])
FILES = ("config.yaml", "per_image.parquet")


@pytest.fixture
def planted(tmp_path):
    """Twelve pictures of three of six classes, each class of one colour, and label maps whose numbers are drawn anew in
    each picture; overrides of `run`."""
    generator = np.random.default_rng(1)
    root = tmp_path / "planted"
    for name in ("images", "labels", "segments"):
        (root / name).mkdir(parents=True)
    for number in range(12):
        chosen = generator.permutation(6)[:3]
        label = np.repeat(np.repeat(generator.permutation(chosen)[[[0, 1], [2, 1]]], 64, 0), 64, 1).astype(np.uint8)
        pixels = COLOURS[label] + generator.normal(0, 4, (128, 128, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / "images" / f"{number}.png")
        Image.fromarray(label).save(root / "labels" / f"{number}.png")
        Image.fromarray(generator.permutation(200).astype(np.uint8)[label]).save(root / "segments" / f"{number}.png")
    return [
        *("dataset=folder", f"dataset.root={root}", "dataset.num_classes=6", "protocol.image_size=128"),
        *("segmenter=precomputed", f"segmenter.folder={root / 'segments'}", "refiner=none", "batch_size=3"),
        *("backbone=colour", "backbone.stride=16", "protocol.eval_size=64"),
    ]


def score(words, out, *more):
    return run_cell(load_config([*words, f"output_dir={out}", *more]))


def test_what_is_planted_is_linked_perfectly(planted, tmp_path):
    cell = score(planted, tmp_path / "out", "linker=kmeans")
    result = cell.result
    assert result.metrics.miou == result.metrics.pixel_accuracy == 1
    assert result.reference.ceiling.value == result.reference.lift.value == 1 > result.reference.floor.value
    told = result.linking
    assert (told.clusters, told.seeds, told.segments, told.miou) == (6, 5, 36, [1.0] * 5)
    assert (told.mean, told.deviation) == (1, 0)
    assert (result.protocol["matching"], result.protocol["background_rule"]) == ("dataset", "one_to_one")
    rows = read_rows(cell.folder)
    assert all(sum(row.tp) == 5 * row.pixels for row in rows), "sums over the clusterings"
    unlinked = score([*planted, "dataset.background=null"], tmp_path / "out", "protocol.background_rule=one_to_one")
    assert unlinked.result.metrics.miou == 1, "in each image"
    assert unlinked.result.linking is None and "linking" not in json.loads(
        (unlinked.folder / "result.json").read_text()
    )


def test_without_a_linker_these_numbers_mean_nothing(planted, tmp_path):
    words = ["protocol.matching=dataset", "protocol.background_rule=one_to_one"]
    assert score(planted, tmp_path / "out", *words).result.metrics.miou < 0.5


def test_no_number_of_a_segment_changes_a_digit(planted, tmp_path):
    first = score(planted, tmp_path / "out", "linker=kmeans", "refiner=pamr", "seed=1")
    for path in sorted((tmp_path / "planted" / "segments").iterdir()):
        ids = np.array(Image.open(path))
        Image.fromarray(np.random.default_rng(9).permutation(256).astype(np.uint8)[ids]).save(path)
    second = score(planted, tmp_path / "out", "linker=kmeans", "refiner=pamr", "seed=1")
    assert first.result.key != second.result.key, "the files are part of the key"
    assert first.result.scores == second.result.scores and first.result.linking == second.result.linking
    for one, other in zip(read_rows(first.folder), read_rows(second.folder), strict=True):
        assert (one.tp, one.fp, one.fn) == (other.tp, other.fp, other.fn)


def test_clusters_left_over_go_where_most_of_their_pixels_are(planted, tmp_path):
    merged = [*planted, "linker=kmeans", "linker.seeds=1"]
    for path in sorted((tmp_path / "planted" / "labels").iterdir()):
        Image.fromarray(np.array(Image.open(path)) // 2).save(path)  # two colours a class
    few = score(merged, tmp_path / "out", "dataset.num_classes=3")
    more = score(merged, tmp_path / "out", "dataset.num_classes=3", "linker.clusters=6")
    assert few.result.metrics.miou < 0.9
    assert more.result.metrics.miou == 1
    assert more.result.linking.clusters == 6 and more.result.linking.deviation is None


def test_shards_merged_are_the_run_without_shards(cli, place):
    base = [*place("whole"), "linker=kmeans"]
    assert cli("run", *base, "batch_size=3").code == 0
    place("parts")
    done = cli("run", "-m", *base, "shard=1/3,2/3,3/3", "batch_size=2")
    assert done.code == 0, done.err
    merged = cli("merge", "output_dir=out")
    assert merged.code == 0, merged.err
    whole = finished_cells(Path("../whole/out"))
    (name,) = whole
    ours = finished_cells(Path("out"))[name]
    for side in (ours, whole[name]):
        del side[0]["config"]["batch_size"]
    assert ours[0] == whole[name][0]
    assert ours[2] == whole[name][2], "per_image.parquet"


def test_a_shard_of_another_linker_is_not_merged(cli, place):
    base = [*place("parts"), "linker=kmeans", "limit=4", "backbone=colour"]
    assert cli("run", "-m", *base, "shard=1/2,2/2").code == 0
    for path in Path().glob("out/results/*/result.json"):
        record = json.loads(path.read_text())
        record["identity"]["linker"]["clusters"] = {"_target_": "os.abort"}
        path.write_text(json.dumps(record))
        (path.parent / "SHA256SUMS").unlink()
    merged = cli("merge", "output_dir=out")
    assert merged.code == 2
    assert "linker" in merged.out + merged.err


def test_an_interrupted_cell_goes_on_and_failed_images_are_tried_again(shapes, tmp_path):
    words = [*shapes_overrides(shapes, tmp_path), "linker=kmeans", "batch_size=2", "backbone=colour"]
    whole = score(words, tmp_path / "whole")
    config = load_config([*words, f"output_dir={tmp_path / 'out'}"])
    with pytest.raises(KeyboardInterrupt):
        run_cell(config, interrupting_after(4))
    again = run_cell(config)
    assert (again.folder / "per_image.parquet").read_bytes() == (whole.folder / "per_image.parquet").read_bytes()
    assert again.result.linking == whole.result.linking

    picture = shapes / "images" / "picture3.png"
    content = picture.read_bytes()
    picture.write_bytes(content[:100])
    failed = score(words, tmp_path / "failed")
    assert [failure.id for failure in failed.result.failures] == ["picture3"]
    resumed = run_cell(replace(load_config([*words, f"output_dir={tmp_path / 'failed'}"]), if_exists="resume"))
    assert len(resumed.result.failures) == 1 and resumed.result.linking == failed.result.linking


def test_features_of_another_backbone(shapes, tmp_path):
    """One pass scores what shares the linker's backbone; its features go through the store."""
    words = [*shapes_overrides(shapes, tmp_path / "out"), "limit=4", "linker=kmeans"]
    other = [*words, "linker.backbone=colour", "linker.backbone.stride=16"]
    ways = [words, [*words, "linker.clusters=5"], other, [*other, "segmenter=slic"], [*other, "linker.seeds=2"]]
    configs = [load_config(way) for way in ways]
    keys = [pass_key(config) for config in configs]
    assert keys[0] == keys[1] != keys[2] == keys[4] and keys[3] not in keys[:3]
    own, _, linked, slic, fewer = [cell for config in configs for cell in run_cells([config])]
    assert len({cell.result.key for cell in (own, linked, slic, fewer)}) == 4
    compared = linked.result.identity["linker"]["backbone"]
    assert compared["stride"] == "16" and compared["seen"]["stride"] == 16
    assert [len(row.prototypes) for row in read_rows(linked.folder, prototypes=True)] != [
        len(row.prototypes) for row in read_rows(own.folder, prototypes=True)
    ]
    assert linked.result.config["choices"]["linker.backbone"] == "colour"
    assert len(list((tmp_path / "out" / "features").iterdir())) == 2
    (together,) = {cell.result.linking.segments for cell in run_cells([configs[2], configs[4]])}
    assert together == linked.result.linking.segments
    again = run_cells([replace(config, output_dir=str(tmp_path / "again"), features={}) for config in configs[2:3]])
    assert again[0].result.scores == linked.result.scores


def test_a_function_of_the_users(tmp_path):
    def brighter_half(image):
        grey = image.mean(dim=0)
        return (grey > grey.median()).long()

    result = diffcut_bench.evaluate(brighter_half, "limit=3", "linker=kmeans", output_dir=tmp_path)
    assert result.linking.segments == 6
    assert 0 < result.metrics.miou < 1


def test_rows_are_checked_when_their_prototypes_are_read(planted, tmp_path):
    cell = score(planted, tmp_path / "out", "linker=kmeans", "limit=2")
    (first, second) = read_rows(cell.folder, prototypes=True)
    assert first.unpack_prototypes().shape == (3, 3)
    assert np.allclose(np.linalg.norm(first.unpack_prototypes().astype(float), axis=1), 1, atol=2e-3)
    assert read_rows(cell.folder)[0].prototypes is None, "the largest part is not read unless it is asked for"
    of = {
        "no prototypes": [None, pack_prototypes(np.ones((2, 4), np.float16)), ""],
        "multiple": [first.prototypes[:-4]],
        "padding|ASCII": [first.prototypes[:-1], "…"],
        "not finite": [pack_prototypes(np.array([[np.inf, 0, 0]] * 3, np.float16))],
    }
    for what, wrong in of.items():
        for text in wrong:
            with pytest.raises(ValueError, match=what):
                replace(first, prototypes=text).unpack_prototypes()
    check_published(cell.folder, prototypes=True)
    wide = pack_prototypes(np.ones((3, 4), np.float16))
    publish(cell.folder, cell.result, [first, replace(second, prototypes=wide)], "", range(2))
    check_published(cell.folder)
    with pytest.raises(UserError, match="prototypes of 3 and 4 channels"):
        check_published(cell.folder, prototypes=True)
    (own, *others) = first.table
    for entry in ([99, *own[1:]], [-1, *own[1:]], [*own[:2], -5], [*own[:2], 2**62]):
        publish(cell.folder, cell.result, [replace(first, table=[entry, *others]), second], "", range(2))
        with pytest.raises(UserError, match=f"the table of {first.id} is not of its"):
            check_published(cell.folder)


def test_a_linked_cell_is_verified_by_its_counts(planted, tmp_path, cli):
    cell = score(planted, tmp_path / "out", "linker=kmeans", "limit=3")
    assert cli("verify", tmp_path / "out").code == 0
    rows = read_rows(cell.folder, prototypes=True)
    publish(cell.folder, cell.result, [replace(rows[0], fp=[7] * 6), *rows[1:]], "", range(3))
    found = cli("verify", tmp_path / "out")
    assert found.code == 1 and "that of its rows" in found.out


def test_tables_tell_what_was_linked(planted, tmp_path):
    cells = [score(planted, tmp_path / "out", "linker=kmeans", f"linker.seeds={seeds}") for seeds in (1, 3)]
    (note,) = [note for note in results_table([(cells[1].folder, cells[1].result)]).notes if "linked" in note]
    assert note == "linked: 3 clusterings of 36 segments into 6 clusters; mIoU 100.0 ± 0.0 over them"
    table = results_table([(cell.folder, cell.result) for cell in cells])
    assert table.columns[0].name == "linker.seeds"
    assert "linked (colour, precomputed): 1 clustering of" in "\n".join(table.notes)


def test_one_image_without_a_scored_pixel(shapes, tmp_path):
    label = shapes / "labels" / "picture1.png"
    Image.fromarray(np.full(np.array(Image.open(label)).shape, 255, np.uint8)).save(label)
    words = [*shapes_overrides(shapes, tmp_path / "out"), "linker=kmeans", "protocol.void=ignore", "limit=3"]
    cell = run_cell(load_config([*words, "accept_labels=true"]))
    rows = read_rows(cell.folder, prototypes=True)
    assert rows[1].pixels == 0 and rows[1].prototypes == "" and rows[1].tp == [0, 0, 0]
    assert read_result(cell.folder) == cell.result


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["backbone=none", "features=memory", "segmenter=slic"], "linker.backbone="),
        (["linker.backbone=none"], "linker.backbone="),
        (["linker.clusters=0"], "linker"),
        (["linker.backbone=coluor"], "colour"),
        (["namer=clip_b16"], "leave one of the two out"),
    ],
)
def test_what_can_not_be_linked_is_said(shapes, tmp_path, words, hint):
    with pytest.raises(UserError) as refused:
        run_cell(load_config([*shapes_overrides(shapes, tmp_path / "out"), "linker=kmeans", *words]))
    assert hint in f"{refused.value}"


def test_a_backbone_without_a_linker_is_said():
    with pytest.raises(UserError, match="no linker") as refused:
        load_config(["linker.backbone=colour"])
    assert refused.value.hint == "add linker=kmeans"


def test_pictures_of_ones_own_are_not_linked():
    with pytest.raises(UserError, match="compares the segments"):
        diffcut_bench.segment(np.zeros((8, 8, 3), np.uint8), "colour", "linker=kmeans")


def test_the_linkers_backbone_takes_settings_as_the_cells_does(monkeypatch, tmp_path):
    monkeypatch.setenv("WEIGHTS", str(tmp_path))
    words = ["linker=kmeans", "linker.backbone=ssd1b"]
    assert load_config([*words, "linker.backbone.model=$WEIGHTS/net"]).linker["backbone"]["model"] == f"{tmp_path}/net"
    pin = load_config(["backbone=ssd1b"]).backbone["revision"]
    assert load_config(words).linker["backbone"]["revision"] == pin
    assert load_config([*words, "linker.backbone.model=someone/other"]).linker["backbone"]["revision"] == "main"
    swept = [load_config(each) for each in expand_sweep(["linker=kmeans", "linker.backbone=colour,dino_b16"])]
    assert [config.choices["linker.backbone"] for config in swept] == ["colour", "dino_b16"]


def test_the_config_of_a_result_may_be_used_again(shapes, tmp_path):
    base = [*shapes_overrides(shapes, tmp_path / "out"), "limit=2", "backbone=colour"]
    cell = run_cell(load_config([*base, "linker=kmeans", "linker.backbone=colour", "linker.backbone.stride=16"]))
    stored = reopened(cell.result.config, tmp_path / "out")
    assert trusted(stored).linker == stored["linker"]
    assert run_cell(trusted(stored)).skipped
    stored["linker"]["backbone"]["_target_"] = "os.abort"
    with pytest.raises(UserError, match="no option's own"):
        trusted(stored)
