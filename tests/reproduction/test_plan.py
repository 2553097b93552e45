import hashlib
import json
from dataclasses import replace

import pytest

from diffcut_bench.config import conf_dir, known_options, load_config
from diffcut_bench.errors import UserError
from diffcut_bench.reproduction import load_reproduction, plan_cells, resolve_under
from diffcut_bench.reproduction.deviations import deviations_of, is_commit
from diffcut_bench.reproduction.spec import Reproduction, Row

NAMES = [f"table{n}" for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)] + [f"figure{n}" for n in (3, 5, 7, 8)]


def test_every_table_and_figure_is_there():
    assert set(NAMES) <= set(known_options("reproduction"))


_LARGE = ("table1", "table6", "table7", "table9")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in _LARGE else n for n in NAMES])
def test_every_cell_composes(name):
    cells = plan_cells(load_reproduction(name))
    assert cells
    for cell in cells:
        assert (cell.config is None) == bool(cell.not_run)
        assert cell.deviations == () or cell.row.files, "what the released code's files are needed for"
        assert cell.row.not_run or not cell.not_run, cell.not_run


@pytest.fixture
def filed(tmp_path):
    """A reproduction whose one row was published with a file, and where that file lies."""
    (tmp_path / "reproduction").mkdir()
    released = tmp_path / "released.txt"
    released.write_text("0:class 0\n")
    digest = hashlib.sha256(released.read_bytes()).hexdigest()
    (tmp_path / "reproduction" / "filed.yaml").write_text(
        "title: F\nsource: me\ncolumns: {a: [dataset=folder], b: [dataset=folder]}\n"
        "rows:\n  - name: R\n    overrides: [backbone=colour, namer=clip_b16]\n    published: {a: 1.0, b: 2.0}\n"
        f"    files: [{{option: namer.classes_file, what: names, sha256: {{a: {digest}}}}}]\n"
    )
    return load_reproduction("filed", [f"hydra.searchpath=[file://{tmp_path}]"]), released


def test_a_row_without_the_file_that_it_was_published_with_is_another(filed, tmp_path):
    reproduction, released = filed

    def deviations(*overrides):
        return [cell.deviations for cell in plan_cells(reproduction, overrides)]

    (without, _) = deviations()
    assert without == ("names are our own, not the released ones, which namer.classes_file=FILE takes",)
    moved = tmp_path / "elsewhere" / "of another name.txt"
    moved.parent.mkdir()
    moved.write_bytes(released.read_bytes())
    for path in (released, moved):
        first, second = deviations(f"namer.classes_file='{path}'")
        assert first == (), "the content counts, not the place"
        assert second == ("names of namer.classes_file are not the released ones",), "it is of another column"
    moved.write_text("0:class 0,another\n")
    for path in (moved, tmp_path / "nowhere.txt"):
        (first, _) = deviations(f"namer.classes_file='{path}'", "namer.temperature=0.5")
        assert first == ("namer.temperature=0.5", "names of namer.classes_file are not the released ones")


def test_a_file_that_a_row_is_not_judged_by_is_named_without_its_folder():
    cells = plan_cells(load_reproduction("table4"), of_part={"voc": ["namer.classes_file=/home/someone/own.txt"]})
    deviations = {(cell.row.name, cell.column): cell.deviations for cell in cells if cell.config}
    assert deviations["MaskCLIP", "voc"] == ("namer.classes_file=own.txt",)
    assert deviations["MaskCLIP", "context"] == ()
    assert "names of namer.classes_file are not the released ones" in deviations["DiffCut", "voc"]
    ours = "{} are our own, not the released ones, which {}=FILE takes"
    files = [("names", "namer.classes_file"), ("templates", "namer.templates_file")]
    assert deviations["DiffCut", "context"] == tuple(ours.format(*each) for each in files)


def test_segments_of_the_users_need_no_names(filed, tmp_path):
    cells = plan_cells(filed[0], predictions={"R": tmp_path})
    assert [cell.deviations for cell in cells] == [(), ()]


def test_a_row_that_needs_a_file_is_run_where_the_user_gives_it(tmp_path):
    row = Row(
        "T",
        overrides=["segmenter=cluster_probe", "backbone=colour"],
        published={"a": 1.0, "b": 2.0},
        not_run="trained",
        needs="segmenter.checkpoint",
        trained=True,
    )
    reproduction = Reproduction(
        "T",
        "me",
        columns={"a": ["dataset=sample"], "b": ["dataset=sample", "limit=3"]},
        common=["refiner=pamr"],
        rows=[row],
        trained=["refiner=none", "protocol.matching=dataset"],
    )
    without = plan_cells(reproduction, of_part={"T": ["segmenter.layout=hp"]})
    assert [(cell.not_run, cell.overrides) for cell in without] == [("trained", ())] * 2
    first, second = plan_cells(reproduction, of_part={"a": ["segmenter.checkpoint=/home/someone/x.ckpt"]})
    assert first.weights == ("segmenter.checkpoint=x.ckpt",)
    assert (first.not_run, second.not_run, first.deviations) == ("", "trained", ())
    assert (
        first.config.segmenter["checkpoint"] == "/home/someone/x.ckpt"
        and first.config.protocol["matching"] == "dataset"
    )
    assert first.config.choices["refiner"] == "none", "as trained rows were published"
    both = plan_cells(reproduction, of_part={"T": ["segmenter.checkpoint=x.ckpt", "segmenter.layout=hp"]})
    assert [cell.deviations for cell in both] == [("segmenter.layout=hp",)] * 2
    one = {"T/b": ["segmenter.checkpoint=y.ckpt"], "T": ["segmenter.checkpoint=x.ckpt"]}
    assert [cell.config.segmenter["checkpoint"] for cell in plan_cells(reproduction, of_part=one)] == [
        "x.ckpt",
        "y.ckpt",
    ]
    (first, second) = plan_cells(reproduction, of_part={"T/b": one["T/b"]})
    assert (first.not_run, second.not_run) == ("trained", "")
    for part in ("T/c", "R/b", "T/"):
        with pytest.raises(UserError, match="in this table"):
            plan_cells(reproduction, of_part={part: one["T"]})
    with pytest.raises(UserError, match="T/a is not run") as told:  # a word mistyped would else be lost
        plan_cells(reproduction, of_part={"T/a": ["segmenter.chekpoint=x.ckpt"]})
    assert told.value.hint == "--for ROW/COLUMN segmenter.checkpoint=FILE, with a column of T: a, b"
    (scored, _) = plan_cells(reproduction, predictions={"T": tmp_path})
    assert scored.config.choices["segmenter"] == "precomputed"
    under = plan_cells(
        reproduction, of_part={"T": ["segmenter.checkpoint=x"]}, under=resolve_under(["dataset", "strict"])
    )
    assert [cell.under for cell in under] == ["dataset"] * 2 + ["strict"] * 2
    assert {cell.config.choices["linker"] for cell in under} == {"none"}


@pytest.mark.parametrize(
    ("part", "hint"), [("IIC/coco_stuff27", "--predictions IIC=DIR"), ("EAGLE/voc", "coco_stuff27, cityscapes27")]
)
def test_settings_for_a_cell_that_a_table_does_not_run_are_refused(part, hint):
    with pytest.raises(UserError, match=f"{part} is not run") as told:
        plan_cells(load_reproduction("table1"), of_part={part: ["segmenter.checkpoint=x.ckpt"]})
    assert hint in told.value.hint


def values(name: str) -> dict[str, dict[str, float]]:
    return {row.name: dict(row.published) for row in load_reproduction(name).rows if row.published}


@pytest.mark.shared
def test_published_values_are_the_papers(shared):
    published = json.loads((shared / "paper" / "published.json").read_text())

    def rows(table: str, *names: str) -> list[dict[str, float]]:
        return [row.get("miou") or {"voc": row["voc"]} for row in published[table]["rows"]]

    later = values("later")
    assert {row["method"]: row["miou"] for row in published["third_party"]["rows"]}.items() <= later.items()
    for table in ("table1", "table2", "table3", "table4", "table5", "table6", "table7", "table8"):
        assert list(values(table).values()) == rows(table), table
    nine = published["table9"]
    assert values("table9") == {n: dict(zip(nine["columns"], v, strict=True)) for n, v in nine["rows"].items()}
    plain, tuned = published["table10"]["rows"]
    own = load_reproduction("table10").rows
    assert dict(own[0].published) == {name: plain[name] for name in own[0].published}
    assert dict(own[1].published) == {name: tuned[name] for name in own[1].published}
    assert dict(own[1].chosen) == tuned["chosen"]
    eleven = {name: row["images_per_s"] for name, row in values("table11").items()}
    assert eleven == published["table11"]["rows"]
    assert {name: row["auc"] for name, row in values("figure3").items()} == published["figure3"]["auc"]


@pytest.mark.slow
def test_the_table_of_rivals_has_every_segmenter():
    cells = plan_cells(load_reproduction("rivals"))
    listed = {cell.config.choices["segmenter"] for cell in cells}
    known = {path.stem for path in (conf_dir() / "segmenter").glob("*.yaml")}
    assert known - listed == {"precomputed", "ucm", "maskclip", "oracle", "cluster_probe"}
    assert {cell.config.choices["refiner"] for cell in cells} == {"none"}, "all go the same way"


def test_masks_and_labels_of_rivals_are_scored_as_they_are():
    """Concept assignment is DiffCut's own step: one upsampler a segmenter, in every table."""
    chosen = {}
    for reproduction in map(load_reproduction, known_options("reproduction")):
        for row in reproduction.rows:
            words = dict(word.split("=", 1) for word in [*reproduction.common, *row.overrides] if "=" in word)
            chosen.setdefault(words.get("segmenter"), set()).add(words.get("upsampler"))
    for segmenter in ("diffseg", "maskcut", "tokencut", "lost", "found"):
        assert chosen[segmenter] == {"nearest"}, segmenter
    for segmenter in ("autosc", "spectral", "kway_ncut", "kmeans"):
        assert chosen[segmenter] == {"concepts"}, segmenter


def test_the_published_autosc_ran_with_its_bug_which_is_no_deviation():
    table = load_reproduction("table2")
    row = next(row for row in table.rows if row.name == "AutoSC")
    alone = replace(table, rows=[row], columns={"voc": table.columns["voc"]})
    (cell,) = plan_cells(alone)
    assert cell.config.segmenter["released_bug"] and cell.deviations == ()
    for value, deviations in (("true", ()), ("false", ("segmenter.released_bug=False",))):
        (cell,) = plan_cells(alone, [f"segmenter.released_bug={value}"])
        assert cell.deviations == deviations


@pytest.mark.slow
def test_hyper_parameters_of_cells_are_the_papers():
    cell = next(cell for cell in plan_cells(load_reproduction("table1")) if cell.row.name == "DiffCut")
    assert cell.config.choices | {"tracker": "none"} == {
        **{"dataset": "voc", "backbone": "ssd1b", "features": "store", "segmenter": "diffcut"},
        **{"upsampler": "concepts", "refiner": "pamr", "namer": "none", "linker": "none"},
        **{"protocol": "released", "tracker": "none"},
    }
    assert (cell.config.segmenter["tau"], cell.config.segmenter["alpha"]) == (0.5, 10)
    assert cell.config.backbone["timestep"] == 50
    by_name = {(c.row.name, c.column): c for c in plan_cells(load_reproduction("table7"))}
    assert by_name["sd14", "voc"].config.segmenter["tau"] == 0.2
    points = [cell.point for cell in plan_cells(load_reproduction("figure5"))]
    assert len(points) == 84
    assert {point["segmenter.alpha"] for point in points} == {1, 5, 10, 15}


def test_what_the_user_changes_is_told_apart_from_where_things_lie():
    where = ["dataset.root=/data", "backbone.model=/weights", "device=cpu", "batch_size=8", "output_dir=/out"]
    changed = ["segmenter.tau=0.4", "limit=3", "refiner=none", "protocol.void=ignore"]
    (cell,) = (c for c in plan_cells(load_reproduction("table8"), [*where, *changed]) if c.row.name == "nearest")
    assert set(cell.deviations) == {"segmenter.tau=0.4", "limit=3", "protocol.void=ignore"}
    assert cell.config.dataset["root"] == "/data"
    assert cell.weights == ("backbone.model=weights",), "the table says whose weights they were, not whose folder"
    (other, _) = plan_cells(load_reproduction("table8"), ["backbone=colour"])
    assert other.deviations == ("backbone=colour",)


def test_weights_of_the_namer_are_told_as_those_of_the_backbone_are(tmp_path):
    (tmp_path / "ours").mkdir()
    words = [f"namer.model={tmp_path}/ours/", "namer.revision=v2", "backbone.model=someone/tiny"]
    cells = {cell.row.name: cell for cell in plan_cells(load_reproduction("table4"), of_part={"DiffCut": words})}
    assert cells["DiffCut"].weights == ("namer.model=ours", "namer.revision=v2", "backbone.model=someone/tiny")
    assert cells["MaskCLIP"].weights == ()
    for cell in plan_cells(load_reproduction("table8"), ["backbone.model=~/weights/SSD-1B"]):
        assert cell.weights == ("backbone.model=SSD-1B",)


def test_another_model_of_the_hub_is_read_at_main_and_that_is_told():
    for cell in plan_cells(load_reproduction("table8"), ["backbone.model=someone/other"]):
        assert cell.config.backbone["revision"] == "main"
        assert cell.config == load_config(cell.overrides)
        assert cell.deviations == ("backbone.revision=main",)
    for cell in plan_cells(load_reproduction("table8"), ["backbone.model=segmind/SSD-1B"]):
        assert cell.deviations == ()


def test_another_revision_is_a_deviation_and_what_was_released_is_none():
    """Of a branch nobody knows what it was; a commit in its place says which, and a pinned one is meant."""
    config, commit, other = load_config(["backbone=ssd1b"]), "a" * 40, "b" * 40

    def told(planned: str, **given: str) -> tuple[str, ...]:
        before = replace(config, backbone={**config.backbone, "revision": planned})
        return deviations_of(before, replace(config, backbone={**before.backbone, **given}))

    assert is_commit(config.backbone["revision"]), "what the tables are made from is pinned"
    assert told("main", prompt_dtype="float16") == (), "as released, on whatever device"
    assert told("main", prompt_dtype="bfloat16") == ("backbone.prompt_dtype=bfloat16",)
    assert told("main", revision="fp16") == ("backbone.revision=fp16",)
    assert told("main", revision=commit) == ()
    assert told(commit, model="/weights") == (), "a folder's files are recorded by their hashes"
    assert told(commit, revision=other) == (f"backbone.revision={other}",)
    assert told(commit, revision="main") == ("backbone.revision=main",)


@pytest.fixture
def pinned(two_kinds):
    """A cell planned with pinned weights, by the user's overrides; what its backbone says of them is made up."""
    model, commit = (load_config(["backbone=ssd1b"]).backbone[name] for name in ("model", "revision"))

    def planned(*overrides: str):
        return plan_cells(replace(two_kinds, rows=two_kinds.rows[:1]), overrides)[0]

    assert planned().pin == (model, commit)
    return planned, model, commit


def test_the_commit_that_was_found_counts_and_not_the_one_that_was_asked_for(pinned, two_kinds):
    planned, model, commit = pinned
    other = "f" * 40

    def told(found: dict[str, str], *overrides: str) -> tuple[str, ...]:
        return planned(*overrides, "device=cpu").deviations_with(found)

    hub = {"checkpoint": model}
    snapshots = [f"/hub/models--{model.replace('/', '--')}/snapshots/{each}" for each in (commit, other)]
    assert told(hub | {"revision": commit}) == told(hub | {"revision": commit}, "backbone.revision=main") == ()
    assert told(hub | {"revision": commit}, f"backbone.model={snapshots[0]}") == ()
    elsewhere = (f"backbone.revision={other}",)
    assert told(hub | {"revision": other}, f"backbone.model={snapshots[1]}", "limit=3") == ("limit=3", *elsewhere)
    assert told(hub | {"revision": other}, f"backbone.revision={other}") == elsewhere
    for revision in ("", commit, "main"):
        folder = {"checkpoint": "SSD-1B", "revision": revision}
        assert told(folder, "backbone.model=/weights/SSD-1B") == (), "of a folder's files nobody knows the commit"
    assert told({}, "backbone.revision=fp16") == ("backbone.revision=fp16",)
    colour = plan_cells(replace(two_kinds, rows=two_kinds.rows[2:]))[0]
    assert (colour.pin, colour.deviations_with(hub | {"revision": other})) == (None, ()), "nothing is pinned"


@pytest.mark.parametrize(
    ("row", "overrides", "deviations"),
    [
        ("colour", ["features.dtype=float16"], ("features.dtype=float16",)),
        ("colour", ["features.dtype=float32"], ()),
        ("colour", ["features=memory"], ()),
        ("diffusion", ["features.dtype=float16", "device=cpu"], ("features.dtype=float16",)),
        ("diffusion", ["features.dtype=float16", "device=meta"], ()),  # as an accelerator computes them
        ("diffusion", ["features.dtype=float32", "device=meta"], ()),
        ("diffusion", ["features.dtype=bfloat16", "device=meta"], ("features.dtype=bfloat16",)),
    ],
)
def test_features_that_are_kept_with_loss_are_a_deviation(two_kinds, row, overrides, deviations):
    cells = {cell.row.name: cell for cell in plan_cells(two_kinds, overrides)}
    assert cells[row].deviations == deviations


@pytest.mark.parametrize("overrides", [[], ["segmenter.alpha=5"]])
def test_scored_under_another_protocol_a_cell_is_another(two_kinds, overrides):
    alone = replace(two_kinds, rows=two_kinds.rows[:1])
    cells = plan_cells(alone, overrides, under=resolve_under(["all", "unmatched"]))
    told = {cell.under: cell.deviations for cell in cells}
    assert told == {
        **{name: tuple(overrides) for name in ("released", "unmatched")},
        **{name: (*overrides, f"protocol={name}") for name in ("paper", "strict")},
        **{name: (*overrides, f"protocol.background_rule={name}") for name in ("overlap", "one_to_one")},
    }
    assert {cell.under for cell in cells if cell.rescored} == {"paper", "strict", "overlap", "one_to_one"}
    for cell in cells:
        assert cell.config == load_config(cell.overrides)
        assert cell.config.choices["protocol"] == (cell.under if cell.under in ("paper", "strict") else "released")
    own = plan_cells(alone, ["protocol.similarity=cosine", "segmenter.label_codes=exact"])
    assert own[0].deviations == ("segmenter.label_codes=exact", "protocol.similarity=cosine"), "told once each"


@pytest.mark.slow
def test_points_of_a_figure_are_what_composing_each_would_give():
    for cell in plan_cells(load_reproduction("figure8"))[::19]:
        assert cell.config == load_config(cell.overrides)
    own = plan_cells(load_reproduction("figure7"), ["backbone.timestep=5"])
    assert {cell.config.backbone["timestep"] for cell in own} == {5}, "what the user sets wins"


TWO_KINDS = """title: Two
source: me
columns: {sample: [dataset=sample]}
rows:
  - {name: diffusion, overrides: [backbone=ssd1b], published: {sample: 50}}
  - {name: attention, overrides: [backbone=sd14_attention], published: {sample: 40}}
  - {name: colour, overrides: [backbone=colour, segmenter=kmeans]}
"""


@pytest.fixture
def two_kinds(tmp_path):
    (tmp_path / "reproduction").mkdir()
    (tmp_path / "reproduction" / "two.yaml").write_text(TWO_KINDS)
    return load_reproduction("two", [f"hydra.searchpath=[file://{tmp_path}]"])


def test_a_setting_that_only_some_rows_have_is_theirs(two_kinds):
    diffusion, attention, colour = plan_cells(two_kinds, ["backbone.timestep=10", "segmenter.alpha=5"])
    assert diffusion.deviations == ("backbone.timestep=10", "segmenter.alpha=5")
    assert attention.config.backbone["timestep"] == 10
    assert colour.config is not None and colour.deviations == ()
    _, _, colour = plan_cells(two_kinds, ["segmenter=kmeans", "segmenter.clusters=4", "backbone.timestep=10"])
    assert colour.deviations == ("segmenter.clusters=4",), "what an option of the user's own brings is known"


def test_a_setting_that_no_row_has_is_a_mistake(two_kinds):
    with pytest.raises(UserError, match=r"did you mean backbone.timestep") as refused:
        plan_cells(two_kinds, ["backbone.timestpe=10", "segmenter.alpha=5"])
    assert refused.value.where == "backbone.timestpe=10"
    with pytest.raises(UserError, match=r"unknown key segmenter.alpha"):
        plan_cells(two_kinds, of_part={"colour": ["segmenter.alpha=5"]})


@pytest.mark.parametrize(
    ("override", "deviations"),
    [
        ("backbone.generator=cuda", ()),  # the released one
        ("backbone.generator=cpu", ()),  # what auto is on the CPU, where this is planned
        ("backbone.generator=auto", ()),
        ("backbone.unet_dtype=float16", ()),
        ("backbone.unet_dtype=bfloat16", ("backbone.unet_dtype=bfloat16",)),
        ("backbone.seed=7", ("backbone.seed=7",)),
    ],
)
def test_what_approaches_the_released_computation_is_no_deviation(two_kinds, override, deviations):
    assert plan_cells(two_kinds, [override, "device=cpu"])[0].deviations == deviations


def test_where_the_device_would_draw_the_released_noise_the_cpu_is_a_deviation(two_kinds):
    (cell, *_) = plan_cells(two_kinds, ["backbone.generator=cpu", "device=meta"])
    assert cell.deviations == ("backbone.generator=cpu",)


def test_a_cell_that_draws_noise_is_planned_for_each_seed(two_kinds):
    cells = plan_cells(two_kinds, ["device=cpu"], seeds=3)
    assert [(cell.row.name, cell.seed) for cell in cells] == [
        *(("diffusion", 42), ("diffusion", 43), ("diffusion", 44)),
        *(("attention", None), ("colour", None)),  # noise: false, and no noise at all
    ]
    assert all(cell.deviations == () for cell in cells), "seeds are asked for to measure, not to deviate"
    assert cells[1].config == load_config(cells[1].overrides)
    own = plan_cells(two_kinds, ["backbone.seed=7", "device=cpu"], seeds=2)
    assert [cell.config.backbone.get("seed") for cell in own] == [7, 8, 7, None]
    assert own[1].config == load_config(own[1].overrides)
    assert [cell.deviations for cell in own] == [*[("backbone.seed=7",)] * 2, (), ()], "one draws none"


def test_overrides_of_one_column_reach_that_column_only():
    cells = plan_cells(load_reproduction("table5"), of_part={"ade20k": ["dataset.root=/ade"]})
    assert {cell.column for cell in cells if cell.config.dataset["root"] == "/ade"} == {"ade20k"}


def test_a_rows_own_overrides_of_one_column_reach_that_cell_only(tmp_path):
    cells = {(cell.row.name, cell.column): cell for cell in plan_cells(load_reproduction("table1"))}
    thresholds = {"coco_stuff27": 1.1, "cityscapes27": 0.9}
    assert {column: cells["DiffSeg", column].config.segmenter["threshold"] for column in thresholds} == thresholds
    assert {cells["DiffSeg-dagger", column].config.segmenter["threshold"] for column in thresholds} == {1.0}
    options = tmp_path / "reproduction"
    options.mkdir()
    (options / "wrong.yaml").write_text("title: W\nsource: me\nrows: [{name: a, of_column: {nowhere: []}}]\n")
    with pytest.raises(UserError, match="a has no column nowhere"):
        load_reproduction("wrong", [f"hydra.searchpath=[file://{tmp_path}]"])


@pytest.mark.slow
def test_rows_of_diffseg_are_run_as_they_were_published():
    found = {}
    for name in ("table1", "table2", "table7", "table11"):
        for cell in plan_cells(load_reproduction(name)):
            if cell.row.name.startswith("DiffSeg"):
                assert cell.not_run == "" and cell.config.choices["segmenter"] == "diffseg"
                assert (cell.config.backbone["timestep"], cell.config.backbone["noise"]) == (300, False)
                assert cell.config.backbone["image_size"] == 512
                assert cell.config.choices["upsampler"] == "nearest"
                settings = (cell.config.choices["backbone"], cell.config.choices["refiner"])
                found.setdefault((name, cell.row.name), set()).add((*settings, cell.config.segmenter["threshold"]))
    assert found["table1", "DiffSeg"] == {("sd14_attention", "none", 1.1), ("sd14_attention", "none", 0.9)}
    assert found["table1", "DiffSeg-dagger"] == found["table7", "DiffSeg-dagger"] == {("sd14_attention", "pamr", 1.0)}
    assert found["table2", "DiffSeg (threshold 0.5)"] == {("ssd1b_attention", "none", 0.5)}
    assert {row for table, row in found if table == "table11"} == {"DiffSeg - SD1.4", "DiffSeg - SSD-1B"}


@pytest.mark.slow
def test_rows_of_autosc_and_kmeans_are_run_as_they_were_published():
    autosc = [cell for cell in plan_cells(load_reproduction("table2")) if cell.row.name == "AutoSC"]
    assert len(autosc) == 6
    for cell in autosc:
        assert (cell.config.choices["segmenter"], cell.config.choices["backbone"]) == ("autosc", "ssd1b")
        assert cell.config.segmenter["alphas"] == [1, 5, 10, 15]
    clusters = {"voc_k3": 3, "coco_stuff27_k6": 6, "cityscapes27_k6": 6}
    cells = {(cell.row.name, cell.column): cell.config for cell in plan_cells(load_reproduction("table9"))}
    assert len(cells) == 8 * 6
    for (backbone, column), config in cells.items():
        assert (config.choices["segmenter"], config.choices["backbone"]) == ("kmeans", backbone)
        assert config.choices["dataset"] == column.rpartition("_")[0]
        assert config.dataset.get("background") is (False if column.startswith("voc") else None)
        assert config.segmenter["clusters"] == clusters.get(column, "annotated")


@pytest.mark.slow
def test_weights_are_of_one_network():
    with pytest.raises(UserError, match="rows have the backbones sd14, vega, ssd1b") as refused:
        plan_cells(load_reproduction("table7"), ["backbone.model=/weights"])
    assert '--for "sd14" backbone.model=/weights' in refused.value.hint
    cells = plan_cells(load_reproduction("table7"), of_part={"vega": ["backbone.model=/weights"]})
    assert {cell.row.name for cell in cells if cell.config and cell.config.backbone["model"] == "/weights"} == {"vega"}


@pytest.mark.slow
def test_protocols_and_rules_side_by_side():
    under = resolve_under(["all"])
    assert list(under) == ["released", "paper", "strict", "overlap", "one_to_one"]
    cells = [cell for cell in plan_cells(load_reproduction("table8"), under=under) if cell.row.name == "nearest"]
    assert [cell.config.protocol["background_rule"] for cell in cells] == [
        *("unmatched", "overlap", "overlap", "overlap", "one_to_one")
    ]
    assert cells[4].name == "nearest [one_to_one]"
    another = [("protocol=paper",), ("protocol=strict",)]
    another += [(f"protocol.background_rule={rule}",) for rule in ("overlap", "one_to_one")]
    assert [cell.deviations for cell in cells] == [(), *another], "what was published is none of these"
    table = load_reproduction("table1")
    once = plan_cells(replace(table, rows=[row for row in table.rows if row.name == "STEGO"]), under=under)
    assert [cell.under for cell in once] == ["", ""]


def test_predictions_make_a_row_a_cell_scored_as_it_was_published(tmp_path):
    cells = plan_cells(load_reproduction("table1"), predictions={"STEGO": tmp_path, "ReCo": tmp_path})
    stego = next(cell for cell in cells if cell.row.name == "STEGO")
    assert stego.config.choices["segmenter"] == "precomputed"
    assert stego.config.segmenter["folder"] == str(tmp_path / "coco_stuff27")
    assert (stego.config.protocol["matching"], stego.config.choices["refiner"]) == ("dataset", "none")
    reco = next(cell for cell in cells if cell.row.name == "ReCo")
    assert (reco.config.protocol["matching"], reco.config.choices["refiner"]) == ("per_image", "pamr")
    assert stego.deviations == reco.deviations == ()


def test_an_experiment_of_ones_own(tmp_path):
    options = tmp_path / "reproduction"
    options.mkdir()
    (options / "mine.yaml").write_text(
        "title: Mine\nsource: me\ncolumns: {sample: [dataset=sample]}\n"
        "rows: [{name: ours, overrides: [segmenter.tau=0.4], published: {sample: 50}}]\n"
    )
    search = f"hydra.searchpath=[file://{tmp_path}]"
    reproduction = load_reproduction("mine", [search])
    assert reproduction.rows == [Row("ours", ["segmenter.tau=0.4"], {"sample": 50.0})]
    (cell,) = plan_cells(reproduction, [search])
    assert cell.config.segmenter["tau"] == 0.4
    (options / "wrong.yaml").write_text("title: W\nsource: me\nrows: [{name: a, published: {nowhere: 1}}]\n")
    with pytest.raises(UserError, match="a has no column nowhere"):
        load_reproduction("wrong", [search])
    (options / "empty.yaml").write_text("title: E\nsource: me\n")
    with pytest.raises(UserError, match="no rows or no columns"):
        load_reproduction("empty", [search])
    (options / "tuned.yaml").write_text(
        "title: T\nsource: me\nmeasure: auc\ncolumns: {a: []}\nrows: [{name: a, tune: {images: 3, grid: [0.5]}}]\n"
    )
    with pytest.raises(UserError, match="a: tune is of tables of scores"):
        load_reproduction("tuned", [search])
    (options / "typo.yaml").write_text("title: W\nsource: me\ncolums: {}\n")
    with pytest.raises(UserError, match="colums"):
        load_reproduction("typo", [search])


def test_a_table_is_no_experiment_of_run(tmp_path):
    with pytest.raises(UserError, match="diffcut-bench reproduce table8"):
        load_config(["experiment=table8"])
    options = tmp_path / "experiment"
    options.mkdir()
    (options / "mine.yaml").write_text("# @package _global_\nsegmenter: {tau: 0.35}\nseed: 7\n")
    config = load_config(["experiment=mine", f"hydra.searchpath=[file://{tmp_path}]"])
    assert (config.segmenter["tau"], config.seed) == (0.35, 7)


def test_a_rows_own_sweep_is_one_cell_of_several_settings():
    rows = [Row("cut", ["backbone=ssd1b"], sweep=["segmenter.tau=0.3,0.5"]), Row("grid", ["segmenter=grid"])]
    columns = {"voc": ["dataset=voc"], "sample": ["dataset=sample"]}
    table = Reproduction("Best", "nobody", measure="miou_ods", columns=columns, rows=rows)
    assert table.problems() == []
    cells = plan_cells(table)
    assert [(cell.row.name, cell.column, len(cell.configs)) for cell in cells] == [
        *(("cut", "voc", 2), ("cut", "sample", 2), ("grid", "voc", 1), ("grid", "sample", 1))
    ]
    assert [config.segmenter["tau"] for config in cells[0].configs] == [0.3, 0.5]
    assert cells[0].point == {} and [each.point["segmenter.tau"] for each in cells[0].settings] == [0.3, 0.5]
    seeded = plan_cells(table, seeds=2)
    drawn = [cell.configs for cell in seeded if (cell.row.name, cell.column) == ("cut", "voc")]
    assert [[(config.backbone["seed"], config.segmenter["tau"]) for config in configs] for configs in drawn] == [
        [(42, 0.3), (42, 0.5)],
        [(43, 0.3), (43, 0.5)],
    ]
    (own, *_) = plan_cells(table, ["segmenter.tau=0.4"])
    assert [config.segmenter["tau"] for config in own.configs] == [0.4, 0.4]
    wrong = replace(table, rows=[replace(rows[0], sweep=["segmenter.taus=1,2"]), rows[1]])
    assert [bool(cell.error) for cell in plan_cells(wrong)] == [True, True, False, False]
    with pytest.raises(UserError, match="qr is no number"):
        plan_cells(replace(table, rows=[replace(rows[0], sweep=["segmenter.discretisation=qr,kmeans"])]))
