"""Every row tells itself apart from every other one."""

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import DATA, shapes_overrides, write_shapes

from diffcut_bench.reporting import results_table, sweep_figures
from diffcut_bench.settings import compare_settings
from diffcut_bench.store import Result

RESULT = Result.from_json((DATA / "result_v1.json").read_text())
SCORES = 5  # columns behind the settings


def changed(path: str, value: object, result: Result = RESULT) -> Result:
    """The result with another value in its config, identity or record."""
    part, _, rest = path.partition("/")
    if part in ("dataset", "environment"):
        return replace(result, **{part: replace(getattr(result, part), **{rest: value})})
    if part == "key":
        return replace(result, key=str(value))
    tree = dict(getattr(result, part))
    group, _, name = rest.partition("/")
    tree[group] = {**(tree.get(group) or {}), name: value} if name else value
    return replace(result, **{part: tree})


def own_data(result: Result) -> Result:
    return changed("dataset/n_expected", None, result)


def columns_of(*results: Result) -> list[str]:
    table = results_table([(Path(f"/out/{n}"), result) for n, result in enumerate(results)])
    told = [row[: len(table.columns) - SCORES] for row in table.rows]
    assert len(set(told)) == len(told), "two rows read the same"
    return [column.name for column in table.columns][:-SCORES]


@pytest.mark.parametrize(
    ("path", "values", "column"),
    [
        ("config/segmenter/tau", (0.1, 0.2), "tau"),
        ("config/segmenter/folder", ("/a/x", "/a/y"), "folder"),
        ("config/backbone/model", ("/a/x", "org/model"), "backbone.model"),
        ("config/dataset/class_names", (["a", "b"], None), "dataset.class_names"),
        ("config/dataset/split", ("val", "train"), "dataset.split"),
        ("config/features/dtype", ("float16", "float32"), "features.dtype"),
        ("config/limit", (None, 10), "limit"),
        ("config/limit_seed", (1, 2), "limit_seed"),
        ("config/shard", ("1/2", "2/2"), "shard"),
        ("config/smallest_segment", (0.0, 0.001), "smallest_segment"),
        ("environment/seed", (1, 2), "seed"),
        ("dataset/fingerprint", ("a" * 64, "b" * 64), "fingerprint"),
        ("dataset/name", ("one", "other"), "data"),
        ("environment/packages", ({"torch": "2.1"}, {"torch": "2.2"}), "torch"),
        ("identity/device_type", ("cpu", "cuda"), "device"),
        ("identity/backbone/weights_sha256", ("a" * 64, "b" * 64), "backbone.weights_sha256"),
        ("environment/packages", ({"pillow": "1"}, {"pillow": "2"}), "pillow"),
        ("dataset/n_images", (11, 12), "of images"),
        ("key", ("a" * 64, "b" * 64), "key"),
    ],
)
def test_what_differs_is_a_column_and_nothing_else_is(path, values, column):
    assert columns_of(*(changed(path, value) for value in values)) == [column]


def test_the_root_of_one_s_own_data_is_what_it_is_and_that_of_a_published_split_is_not():
    pair = [own_data(changed("config/dataset/root", root)) for root in ("/data/x/A", "/data/x/B")]
    assert columns_of(*pair) == ["dataset.root"]
    told = compare_settings(pair)
    assert [texts["dataset.root"] for texts in told.texts] == ["…/A", "…/B"], "without what they share"
    portable = [own_data(changed("config/dataset/root", f"{{output_dir}}/../{root}")) for root in "AB"]
    assert [texts["dataset.root"] for texts in compare_settings(portable).texts] == ["…/A", "…/B"]
    published = [changed("key", key, changed("config/dataset/root", f"/{key}")) for key in "ab"]
    assert columns_of(*published) == ["key"]


def test_a_place_is_told_by_its_name_where_that_tells_it_apart():
    def column(*roots: str) -> list[str]:
        told = compare_settings([own_data(changed("config/dataset/root", root)) for root in roots])
        return [texts["dataset.root"] for texts in told.texts]

    assert column("/home/her/secret/a", "/home/her/b") == ["…/a", "…/b"]
    assert column("/home/her/one/a", "/home/her/two/a") == ["…/one/a", "…/two/a"]


def test_a_copy_of_a_cell_is_told_by_its_folder():
    assert columns_of(RESULT, RESULT) == ["folder"]


def test_what_no_setting_explains_is_told_beside_the_settings():
    cells = [
        changed("environment/packages", {"torch": version, "pillow": version}, changed("config/segmenter/tau", tau))
        for tau in (0.1, 0.2)
        for version in ("2.1", "2.2")
    ]
    assert columns_of(*cells) == ["tau", "torch"]


def test_numbers_that_are_one_are_not_told_apart():
    cells = [changed("config/segmenter/alpha", 5), changed("config/segmenter/alpha", 5.0)]
    assert columns_of(*cells) == ["folder"]


def named(namer: str, **protocol: str) -> Result:
    """A cell with a namer, which its `namer.pooling` repeats the protocol's choice of."""
    choices = {**RESULT.config["choices"], "namer": namer}
    pooling = protocol.get("name_pooling", "pixels")
    config = {**RESULT.config, "choices": choices, "namer": {"pooling": pooling, "image_size": 512}}
    return replace(RESULT, config=config, protocol={**RESULT.protocol, "matching": "named", **protocol})


def test_what_a_namer_takes_from_its_protocol_is_told_once():
    assert columns_of(named("a"), named("a", name_pooling="nearest_exact")) == ["name_pooling"]
    assert columns_of(named("a"), named("b")) == ["namer"]
    assert columns_of(named("a"), named("b", name_input="unit")) == ["namer"], "b is the one that follows"
    both = [{"name": "released", "name_pooling": "nearest_exact"}, {"name": "strict", "criterion": "iou"}]
    cells = [named(namer, **own) for namer in "ab" for own in both]
    cells[2] = named("b", **both[0], name_input="unit")
    assert columns_of(*cells) == ["namer", "protocol"]
    older = changed("config/namer/image_size", 1024, named("a"))
    assert columns_of(named("a"), older) == ["namer.image_size"]


def test_one_row_has_no_column_of_settings():
    assert columns_of(RESULT) == []


def test_figures_of_a_sweep_over_data_are_told_apart():
    cells = [
        own_data(
            changed(
                "dataset/fingerprint", root, changed("config/dataset/root", root, changed("config/segmenter/tau", tau))
            )
        )
        for root in ("/d/A", "/d/B")
        for tau in (0.3, 0.5)
    ]
    figures = sweep_figures(cells)
    assert [figure.title for figure in figures] == ["mIoU by tau: …/A", "mIoU by tau: …/B"]
    assert len({figure.name for figure in figures}) == 2
    versions = [
        changed("environment/packages", {"torch": version}, changed("config/segmenter/tau", tau))
        for version in ("2.1", "2.2")
        for tau in (0.3, 0.5)
    ]
    assert [figure.title for figure in sweep_figures(versions)] == ["mIoU by tau: torch=2.1", "mIoU by tau: torch=2.2"]


def test_a_sweep_over_roots_and_seeds_through_the_commands(cli, tmp_path):
    write_shapes(tmp_path / "A", 3)
    write_shapes(tmp_path / "B", 3)
    for folder in ("images", "labels"):  # the same pictures under the same names would be the same cells
        (tmp_path / "B" / folder / "picture0.png").unlink()
    base = shapes_overrides(tmp_path / "A", tmp_path / "out")
    roots = f"dataset.root={tmp_path / 'A'},{tmp_path / 'B'}"
    words = [word for word in base if not word.startswith("dataset.root")]
    done = cli("run", "-m", *words, roots, "limit=1", "seed=1,2")
    assert done.code == 0, done.err
    (heading,) = [line for line in done.out.splitlines() if "mIoU ┃" in line]
    assert [name.strip() for name in heading.split("┃")][:3] == ["dataset.root", "seed", "mIoU"]
    assert cli("report", tmp_path / "out", "--gallery", "0").code == 0
    table = (tmp_path / "out" / "reports" / "tables" / "results.csv").read_text().splitlines()
    told = [tuple(line.split(",")[:2]) for line in table[1:]]
    assert sorted(told) == [(f"…/{root}", seed) for root in "AB" for seed in "12"]
    page = (tmp_path / "out" / "reports" / "index.html").read_text()
    titles = [line for line in page.splitlines() if line.startswith("<summary>")]
    assert len(titles) == len(set(titles)) == 4
    assert str(tmp_path) not in page
