"""`run namer=…` and `segment --classes` from the command line to what they write."""

import hashlib
import json
import shutil

import numpy as np
import pytest
import text_checkpoints
import torch
from conftest import SMALL, shapes_overrides
from PIL import Image

from diffcut_bench.config import load_config
from diffcut_bench.scoring.passes import open_pass
from diffcut_bench.settings import settings_of
from diffcut_bench.store import Result, read_rows

NAMES = "dataset.class_names=[red,green,blue]"
COLOURS = np.array([(230, 20, 20), (20, 230, 20), (20, 20, 230)])


@pytest.fixture
def painted(shapes):
    """The shapes in the colours that their classes are named after; one image's disc is blue, as no name allows."""
    for path in sorted((shapes / "images").iterdir()):
        label = np.array(Image.open(shapes / "labels" / path.name))
        colours = COLOURS[[0, 2, 2]] if path.stem == "picture1" else COLOURS
        noise = np.random.default_rng(0).normal(0, 8, (*label.shape, 3))
        pixels = colours[np.where(label == 255, 1, label)] + noise
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return shapes


@pytest.fixture
def planted(tmp_path):
    """Overrides of a namer that calls things by their colour, ``red`` being the background."""
    (tmp_path / "options" / "namer").mkdir(parents=True)
    (tmp_path / "options" / "namer" / "colours.yaml").write_text(
        "_target_: text_checkpoints.colour_namer\nbackground_words: [red, crimson]\n"
    )
    return [f"hydra.searchpath=[file://{tmp_path / 'options'}]", NAMES]


def result_of(out):
    (path,) = out.glob("results/*/result.json")
    return Result.from_json(path.read_text()), read_rows(path.parent)


@pytest.mark.parametrize("refiner", ["pamr", "none"])
def test_named_segments_are_scored_as_they_are_called(cli, painted, planted, tmp_path, refiner):
    out = tmp_path / "out"
    base = [*shapes_overrides(painted, out), "backbone=colour", "limit=3", f"refiner={refiner}", "features=memory"]
    done = cli("run", *base, *planted, "namer=colours")
    assert done.code == 0, done.err
    result, rows = result_of(out)
    assert (result.protocol["matching"], result.protocol["background_rule"]) == ("named", "one_to_one")

    # By hand: the segments of the same cell without a namer, each called after the colour that its mean is nearest to.
    opened = open_pass(load_config([*base, "protocol.background_rule=one_to_one"]))
    scores = []
    for outcome, row in zip(
        opened.cell(load_config([*base, "protocol.background_rule=one_to_one"])).outcomes(range(3)), rows, strict=True
    ):
        seen = torch.nn.functional.interpolate(outcome.example.image[None], (64, 64), mode="bilinear", antialias=True)
        patches = torch.nn.functional.avg_pool2d(seen, 4)[0]
        segments, label = outcome.prediction.numpy(), outcome.example.label.numpy()
        called = np.zeros_like(segments)
        for segment in np.unique(segments):
            ys, xs = np.nonzero(segments == segment)
            mean = patches[:, ys * 16 // segments.shape[0], xs * 16 // segments.shape[1]].mean(dim=1)
            called[segments == segment] = int(mean.argmax())
        tp, fp, fn = [], [], []
        for each in range(3):
            scored = label >= 0
            tp.append(int(((called == each) & (label == each)).sum()))
            fp.append(int(((called == each) & (label != each) & scored).sum()))
            fn.append(int(((called != each) & (label == each)).sum()))
        assert (row.tp, row.fp, row.fn) == (tp, fp, fn)
        assert sum(tp) > 0
        ious = [t / (t + p + n) for t, p, n in zip(tp, fp, fn, strict=True) if t + p + n]
        scores.append(sum(ious) / len(ious))
    assert result.metrics.mean_image_jaccard == pytest.approx(sum(scores) / 3)
    sums = [sum(getattr(row, name)[c] for row in rows) for name in ("tp", "fp", "fn") for c in range(3)]
    ious = [sums[c] / (sums[c] + sums[3 + c] + sums[6 + c]) for c in range(3)]
    assert result.metrics.miou == pytest.approx(sum(ious) / 3)
    assert result.metrics.miou != pytest.approx(result.metrics.mean_image_jaccard)
    assert rows[1].tp[1] == 0, "a matching would have given the blue disc to its class"
    assert "image Jaccard" in done.out
    low, high = result.metrics.mean_image_jaccard_ci95
    assert low <= result.metrics.mean_image_jaccard <= high


@pytest.mark.slow
def test_a_pass_with_and_without_names_equals_its_cells_alone(cli, painted, planted, tmp_path):
    base = [*shapes_overrides(painted, tmp_path / "alone"), "backbone=colour", "limit=3", *planted]
    for own in (["namer=colours"], ["namer=colours", "namer.background_words=[crimson]"], ["namer=none"]):
        done = cli("run", *base, *own)
        assert done.code == 0, done.err
    alone = {p.parent.name: read_rows(p.parent) for p in (tmp_path / "alone").glob("results/*/result.json")}
    assert len(alone) == 3, "the namer is in the key"
    together = [word.replace("alone", "together") for word in base]
    for _ in range(2):  # the second time features come from the store, and images have to be read for their names
        done = cli("run", "-m", *together, "namer=colours,none")
        assert done.code == 0, done.err
        found = {p.parent.name: read_rows(p.parent) for p in (tmp_path / "together").glob("results/*/result.json")}
        assert len(found) == 2
        assert found.items() <= alone.items()
        for path in (tmp_path / "together").glob("results/*/result.json"):
            shutil.rmtree(path.parent)


def test_shards_of_a_named_cell_make_the_whole(cli, painted, planted, tmp_path):
    def base(name):
        return [*shapes_overrides(painted, tmp_path / name), "backbone=colour", "limit=4", *planted, "namer=colours"]

    assert cli("run", *base("whole")).code == 0
    for shard in ("1/2", "2/2"):
        assert cli("run", *base("shards"), f"shard={shard}").code == 0
    done = cli("merge", "--from", tmp_path / "shards", f"output_dir={tmp_path / 'merged'}")
    assert done.code == 0, done.err
    whole, merged = (result_of(tmp_path / name)[0] for name in ("whole", "merged"))
    assert merged.metrics == whole.metrics
    assert merged.metrics.mean_image_jaccard > 0


def test_segments_made_elsewhere_get_names_whatever_their_numbers(cli, painted, planted, tmp_path):
    (tmp_path / "made").mkdir()
    for path in sorted((painted / "labels").iterdir()):
        label = np.array(Image.open(path)).astype(np.uint16)
        Image.fromarray(np.choose(np.where(label == 255, 1, label), [60000, 5, 40000]).astype(np.uint16)).save(
            tmp_path / "made" / path.name
        )
    out = tmp_path / "out"
    made = ["segmenter=precomputed", f"segmenter.folder={tmp_path / 'made'}", "refiner=none"]
    made += ["limit=1", "protocol.void=ignore"]
    done = cli("run", *shapes_overrides(painted, out), *made, *planted, "namer=colours")
    assert done.code == 0, done.err
    result, (row,) = result_of(out)
    assert row.segments == 3
    assert not result.failures
    assert (row.fp, row.fn) == ([0, 0, 0], [0, 0, 0])


def test_without_a_namer_there_is_no_jaccard(cli, shapes, tmp_path):
    done = cli("run", *shapes_overrides(shapes, tmp_path / "out"), "backbone=colour", "limit=2")
    assert done.code == 0
    assert "Jaccard" not in done.out
    (path,) = (tmp_path / "out").glob("results/*/result.json")
    assert "mean_image_jaccard" not in path.read_text()
    assert "namer" not in json.loads(path.read_text())["identity"]


def test_matching_by_name_needs_a_namer(cli, shapes, tmp_path):
    done = cli("run", *shapes_overrides(shapes, tmp_path / "out"), "backbone=colour", "protocol.matching=named")
    assert done.code == 2
    assert "add namer=clip_b16" in done.err


def test_maskclip_names_every_patch(cli, shapes, tmp_path):
    folder = tmp_path / "tiny"
    text_checkpoints.write_checkpoint(folder, "clip")
    folders = [f"backbone.model={folder}", f"namer.model={folder}", "backbone.image_size=32", "namer.image_size=32"]
    overrides = [*shapes_overrides(shapes, tmp_path / "out"), "segmenter=maskclip", *folders, "limit=2"]
    words = "dataset.class_names=[background,disc,square]"
    done = cli("run", *overrides, words, "visualise=1")
    assert done.code == 0, done.err
    result, rows = result_of(tmp_path / "out")
    assert result.segments_per_image.min == result.segments_per_image.max == 64
    assert result.protocol["matching"] == "named"
    assert result.config["choices"]["namer"] == "clip_b16"
    assert all(sum(row.tp) + sum(row.fp) == row.pixels for row in rows)
    assert len(list((tmp_path / "out").glob("results/*/pictures/*.png"))) == 1


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_segments_of_a_users_picture_get_names(cli, tmp_path, kind):
    text_checkpoints.write_checkpoint(tmp_path / "tiny", kind)
    pixels = np.zeros((60, 90, 3), dtype=np.uint8)
    pixels[:, 45:] = (200, 30, 30)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    out = tmp_path / "out"
    overrides = ["backbone=colour", f"namer.model={tmp_path / 'tiny'}", "namer.image_size=32", SMALL[0]]
    namer = [] if kind == "clip" else ["namer=siglip_b16"]  # clip_b16 unless said otherwise
    classes = ("--classes", "cat|kitten, sofa, background")
    done = cli("segment", *classes, tmp_path / "photo.png", *namer, *overrides, f"output_dir={out}")
    assert done.code == 0, done.err
    (image,) = json.loads((out / "segments" / "segments.json").read_text())["images"]
    assert len(image["segments"]) >= 2
    for segment in image["segments"]:
        assert segment["name"] in {"cat", "sofa", "background"}
        assert 1 / 3 - 1e-6 <= segment["score"] <= 1
        assert segment["name"] in done.out
    labels = Image.open(out / "segments" / image["labels"])
    overlay = Image.open(out / "segments" / image["overlay"])
    assert labels.size == (90, 60)
    assert overlay.size[0] == 90
    assert overlay.size[1] > 60, "a legend beneath"


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["namer=clip_b16"], "a namer without classes"),
        (["--classes", " , "], "no class named"),
        (["--classes", "cat", "namer=none"], "classes without a namer"),
    ],
)
def test_mistakes_with_classes_end_in_three_lines(cli, tmp_path, words, what):
    text_checkpoints.write_checkpoint(tmp_path / "tiny", "clip")
    Image.new("RGB", (40, 30)).save(tmp_path / "photo.png")
    if "namer=clip_b16" in words:
        words = [*words, f"namer.model={tmp_path / 'tiny'}"]
    done = cli("segment", tmp_path / "photo.png", *words, "backbone=colour", f"output_dir={tmp_path / 'out'}")
    assert done.code == 2
    assert what in done.err
    assert len(done.err.strip().splitlines()) == 3


def test_the_content_of_a_class_list_is_in_the_key_and_not_its_path(cli, shapes, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    text_checkpoints.write_checkpoint(tmp_path / "tiny", "clip")
    out, first = tmp_path / "out", tmp_path / "classes.txt"
    second = tmp_path / "elsewhere" / "of another name.txt"
    second.parent.mkdir()
    base = [*shapes_overrides(shapes, out), "backbone=colour", "limit=1", "namer=clip_b16", "namer.image_size=32"]
    base += [f"namer.model={tmp_path / 'tiny'}", "dataset.class_names=[background,disc,square]"]
    content = "0:background,sofa\n1:square\n2:invalid_class_id\n3:disc,cat\n"

    def key(path):
        config = load_config([*base, f"namer.classes_file='{path}'"])
        return open_pass(config).cell(config).key

    first.write_text(content)
    done = cli("run", *base, f"namer.classes_file={first}")
    assert done.code == 0, done.err
    (path,) = out.glob("results/*/result.json")
    result = json.loads(path.read_text())
    assert result["identity"]["namer"]["classes_sha256"] == hashlib.sha256(first.read_bytes()).hexdigest()
    assert result["identity"]["namer"]["words"] == [["background", "sofa"], ["disc", "cat"], ["square"]]
    assert result["config"]["namer"]["classes_file"] == "~/classes.txt"
    assert str(tmp_path) not in json.dumps(result)
    first.rename(second)
    assert key(second) == key("~/elsewhere/of another name.txt") == result["key"]
    second.write_text(content.replace(",cat", ""))
    assert key(second) != result["key"]
    second.write_text(content.replace("square", "square,"))
    damaged = cli("run", *base, f"namer.classes_file='{second}'")
    assert (damaged.code, len(damaged.err.strip().splitlines())) == (2, 3)
    assert damaged.err.splitlines()[:2] == ["error: id 1 has an empty name", f"where: {second}, line 2"]


def test_the_released_steps_are_other_cells(cli, shapes, tmp_path):
    text_checkpoints.write_checkpoint(tmp_path / "tiny", "clip")
    (tmp_path / "templates.txt").write_text("a photo of a {}\n")
    base = [*shapes_overrides(shapes, tmp_path / "out"), "backbone=colour", "limit=1", "namer=clip_b16"]
    base += [f"namer.model={tmp_path / 'tiny'}", "namer.image_size=32", "dataset.class_names=[background,disc,square]"]
    base.append("protocol.name_pooling=pixels")
    released = ["namer.input=unit", "protocol.name_pooling=nearest_exact"]
    released.append(f"namer.templates_file={tmp_path / 'templates.txt'}")
    done = cli("run", *base, *released)
    assert done.code == 0, done.err
    namer = result_of(tmp_path / "out")[0].identity["namer"]
    assert (namer["input"], namer["pooling"], namer["templates"]) == ("unit", "nearest_exact", ["a photo of a {}"])
    opened = open_pass(load_config(base))
    assert len({opened.cell(load_config([*base, *own])).key for own in ([], *([word] for word in released))}) == 4


@pytest.mark.parametrize(
    ("overrides", "pooling"),
    [
        (["protocol=released"], "nearest_exact"),
        (["protocol=strict"], "pixels"),
        (["protocol=released", "namer.pooling=pixels"], "pixels"),
        (["protocol=strict", "protocol.name_pooling=nearest_exact"], "nearest_exact"),
    ],
)
def test_a_namer_follows_the_protocol_unless_told_otherwise(cli, shapes, tmp_path, overrides, pooling):
    text_checkpoints.write_checkpoint(tmp_path / "tiny", "clip")
    base = [*overrides, *shapes_overrides(shapes, tmp_path / "out"), "backbone=colour", "limit=1", "namer=clip_b16"]
    base += [f"namer.model={tmp_path / 'tiny'}", "namer.image_size=32", "dataset.class_names=[background,disc,square]"]
    done = cli("run", *base)
    assert done.code == 0, done.err
    result, _ = result_of(tmp_path / "out")
    assert result.protocol["name_pooling"] == result.identity["namer"]["pooling"] == pooling
    assert result.protocol["name_input"] == result.identity["namer"]["input"] == "normalised"
    assert f"name_pooling={pooling}, name_input=normalised" in done.out


def test_the_record_of_a_namer_of_ones_own_says_what_it_does(painted, planted, tmp_path):
    config = load_config([*shapes_overrides(painted, tmp_path), *planted, "backbone=colour", "namer=colours"])
    protocol = open_pass(config).cell(config).pipeline.protocol
    assert config.protocol["name_pooling"] == "nearest_exact"
    assert (protocol.name_pooling, protocol.name_input) == ("pixels", "normalised"), "it does not follow"


def test_a_run_without_names_says_nothing_of_them(cli, shapes, tmp_path):
    base = [*shapes_overrides(shapes, tmp_path / "out"), "backbone=colour", "limit=2"]
    done = cli("run", *base)
    assert done.code == 0, done.err
    result, _ = result_of(tmp_path / "out")
    for choices in (result.protocol, result.identity["protocol"], settings_of(result)):
        assert not [name for name in choices if "name_" in name]
    assert cli("report", tmp_path / "out").code == 0
    report = tmp_path / "out" / "reports" / "index.html"
    assert not [word for word in ("name_pooling", "name_input") if word in done.out + report.read_text()]
    config = load_config([*base, "protocol.name_pooling=pixels", "protocol.name_input=normalised"])
    assert open_pass(config).cell(config).key == result.key, "nothing of it depends on them"


def test_a_class_list_gives_synonyms_to_the_classes_of_a_users_picture(cli, tmp_path):
    text_checkpoints.write_checkpoint(tmp_path / "tiny", "clip")
    Image.new("RGB", (40, 30)).save(tmp_path / "photo.png")
    (tmp_path / "classes.txt").write_text("0:background,square\n1:cat,kitten\n2:disc\n3:sofa")
    base = [tmp_path / "photo.png", "backbone=colour", f"namer.model={tmp_path / 'tiny'}", "namer.image_size=32"]
    base += [f"namer.classes_file={tmp_path / 'classes.txt'}", SMALL[0], f"output_dir={tmp_path / 'out'}"]
    done = cli("segment", "--classes", "sofa, cat, background", *base)
    assert done.code == 0, done.err
    done = cli("segment", "--classes", "sofa, dog", *base)
    assert done.code == 2
    assert "1 of 2 classes are in no line: dog" in done.err


def test_a_table_says_whose_names_it_has(cli, shapes, tmp_path):
    text_checkpoints.write_checkpoint(tmp_path / "tiny", "clip")
    classes = tmp_path / "released.txt"
    classes.write_text("0:background\n1:disc\n2:square\n")
    digest = hashlib.sha256(classes.read_bytes()).hexdigest()
    (tmp_path / "reproduction").mkdir()
    (tmp_path / "reproduction" / "small4.yaml").write_text(
        "title: S\nsource: me\nmeasure: jaccard\ncolumns: {shapes: [dataset=folder]}\n"
        "rows:\n  - name: R\n    overrides: [backbone=colour, namer=clip_b16, namer.image_size=32]\n"
        f"    files: [{{option: namer.classes_file, what: names, sha256: {{shapes: {digest}}}}}]\n"
        "    published: {shapes: 50.0}\n"
    )
    shared = [word for word in shapes_overrides(shapes, tmp_path / "out") if word != "dataset=folder"]
    base = ["reproduce", "small4", f"hydra.searchpath=[file://{tmp_path}]", *shared, "limit=1"]
    base += ["dataset.class_names=[background,disc,square]", f"namer.model={tmp_path / 'tiny'}"]
    without = cli(*base)
    assert without.code == 0, without.err
    written = tmp_path / "out" / "reproductions" / "small4" / "small4_cells.csv"
    assert "names are our own, not the released ones, which namer.classes_file=FILE takes" in written.read_text()
    given = cli(*base, "--for", "R", f"namer.classes_file={classes}")
    assert given.code == 0, given.err
    assert "limited" in written.read_text(), "an image, a folder"
    assert "not the released ones" not in written.read_text()


def test_cells_of_a_pass_share_one_network(painted, planted, tmp_path):
    base = [*shapes_overrides(painted, tmp_path / "out"), *planted, "backbone=colour", "features=memory"]
    configs = [load_config([*base, "namer=colours", f"segmenter.tau={tau}"]) for tau in (0.3, 0.6)]
    opened = open_pass(configs[0])
    first, second = (opened.cell(config).pipeline.namer for config in configs)
    assert first is second is not None
    other = load_config([*base, "namer=colours", "namer.background_words=[crimson]"])
    assert opened.cell(other).pipeline.namer is not first
    assert opened.cell(load_config(base)).pipeline.namer is None
