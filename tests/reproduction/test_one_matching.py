"""``reproduce --under dataset``: rows that number each image anew beside trained ones, under their rule."""

import csv
import json

import numpy as np
import pytest
from conftest import shapes_overrides, write_shapes
from PIL import Image

from diffcut_bench.errors import UserError
from diffcut_bench.reproduction import load_reproduction, plan_cells, resolve_under

UNDER = resolve_under(["dataset"])


def planned(column="voc", **given):
    cells = plan_cells(load_reproduction("table1"), under=UNDER, **given)
    return {cell.row.name: cell for cell in cells if cell.column == column}


@pytest.mark.slow
def test_rows_that_number_each_image_anew_are_linked():
    cell = planned()["DiffCut"]
    assert cell.config.linker["_target_"].endswith("KMeansLinker")
    assert (cell.config.protocol["matching"], cell.config.protocol["background_rule"]) == ("dataset", "one_to_one")
    assert cell.config.choices["refiner"] == "pamr", "as the row was published"
    rule = ("protocol.background_rule=one_to_one", "protocol.matching=dataset")
    assert sorted(cell.deviations) == sorted(("linker=kmeans", *rule))
    assert cell.rescored and cell.name == "DiffCut [dataset]"


@pytest.mark.slow
def test_rows_of_one_numbering_are_not(tmp_path):
    cells = planned(predictions={"STEGO": tmp_path, "IIC": tmp_path})
    assert cells["IIC"].config.linker.get("_target_") is None
    assert cells["IIC"].config.protocol["matching"] == "dataset" and cells["IIC"].deviations == ()
    assert cells["MaskCLIP"].config is None
    assert "namer" in cells["MaskCLIP"].not_run


@pytest.mark.slow
def test_a_row_takes_the_features_of_another_backbone():
    cells = planned(of_part={"DiffSeg-dagger": ["linker.backbone=sd14"], "voc": ["linker.clusters=40"]})
    assert cells["DiffSeg-dagger"].config.linker["backbone"]["timestep"] == 50
    assert cells["DiffSeg-dagger"].config.choices["linker.backbone"] == "sd14"
    assert {cell.config.linker["clusters"] for cell in cells.values() if cell.config} == {40}
    own = {"linker=kmeans", "linker.clusters=40", "linker.backbone=sd14"}
    assert own <= {*cells["DiffSeg-dagger"].deviations}
    with pytest.raises(UserError):
        plan_cells(load_reproduction("table1"), of_part={"DiffCut": ["linker.clusters=40"]})


def test_an_unknown_rule_is_told_of_it():
    with pytest.raises(UserError, match="dataset"):
        resolve_under(["dataste"])


def test_the_table_says_which_rows_one_may_compare(cli, tmp_path):
    shapes = write_shapes(tmp_path / "shapes", 4)
    (tmp_path / "options" / "reproduction").mkdir(parents=True)
    words = [word for word in shapes_overrides(shapes, tmp_path) if not word.startswith("output_dir")]
    (tmp_path / "options" / "reproduction" / "mine.yaml").write_text(
        f"title: Mine\nsource: a test\ncolumns: {{shapes: {json.dumps(words)}}}\ncommon: [backbone=colour]\n"
        "trained: [protocol.matching=dataset, protocol.background_rule=one_to_one, refiner=none]\n"
        "rows:\n  - {name: ours, published: {shapes: 50}}\n"
        "  - {name: theirs, published: {shapes: 100}, not_run: trained, trained: true}\n"
    )
    (tmp_path / "predictions" / "shapes").mkdir(parents=True)
    for path in (shapes / "labels").iterdir():
        label = np.array(Image.open(path))
        Image.fromarray(np.where(label == 255, 0, label)).save(tmp_path / "predictions" / "shapes" / path.name)
    options = [f"hydra.searchpath=[file://{tmp_path / 'options'}]", f"output_dir={tmp_path / 'out'}"]
    given = ["--predictions", f"theirs={tmp_path / 'predictions'}"]
    done = cli("reproduce", "mine", "--under", "released,dataset", *given, *options)
    assert done.code == 0, done.err
    folder = tmp_path / "out" / "reproductions" / "mine"
    with (folder / "mine_cells.csv").open() as file:
        cells = {(row["method"], row["under"]): row for row in csv.DictReader(file)}
    assert cells["theirs", "dataset"]["verdict"] == "reproduced"
    assert cells["ours", "dataset"]["verdict"].startswith("limited: linker=kmeans")
    assert cells["ours", "released"]["ours"] != cells["ours", "dataset"]["ours"]
    notes = (folder / "mine.md").read_text().replace("\\", "")
    assert "ours [dataset], theirs [dataset]: one matching for the whole data set" in notes
    assert "where they are not marked [dataset]" in notes
    assert "ours [dataset], shapes: 5 clusterings of" in notes
