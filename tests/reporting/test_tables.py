import csv
import io
import re
from dataclasses import replace
from pathlib import Path

from conftest import DATA
from rich.console import Console

from diffcut_bench.evaluation import FEWEST_IMAGES, known_metrics
from diffcut_bench.reporting import Column, Table, class_table, leading_metric, rank_table, results_table, score_table
from diffcut_bench.reporting.parts import headline
from diffcut_bench.reporting.tables import NO_INTERVAL, footer
from diffcut_bench.store import Bracket, ImageRow, Reference, Result, Score

RESULT = Result.from_json((DATA / "result_v1.json").read_text())


def printed(*results: Result) -> str:
    console = Console(file=io.StringIO(), width=160)
    results_table([(Path("x"), result) for result in results]).print(console)
    return console.file.getvalue()


def changed(*, protocol: dict[str, object] | None = None, segmenter: dict[str, object] | None = None) -> Result:
    config = {**RESULT.config, "segmenter": {**RESULT.config["segmenter"], **(segmenter or {})}}
    return replace(RESULT, config=config, protocol={**RESULT.protocol, **(protocol or {})})


def test_scores_are_percentages():
    low, high = (f"{100 * end:.1f}" for end in RESULT.metrics.miou_ci95)
    row = next(line for line in printed(RESULT).splitlines() if low in line)
    assert f"{100 * RESULT.metrics.miou:.1f}" in row
    assert high in row


def test_what_differs_is_a_column_and_what_is_shared_a_headline():
    text = printed(changed(segmenter={"tau": 0.3}), changed(segmenter={"tau": 0.7}))
    headline, columns = text.splitlines()[:2]
    assert "segmenter.alpha=5" in headline
    assert "tau" not in headline
    assert re.match(r"tau\b", columns)


def test_a_protocol_choice_that_differs_is_a_column_and_shows_both_values_below():
    results = [RESULT, changed(protocol={"similarity": "cosine"})]
    assert "similarity" in printed(*results).splitlines()[1]
    assert "similarity=dot|cosine" in footer(results)[0]


def test_protocols_of_different_names_are_one_column():
    results = [RESULT, changed(protocol={"name": "paper", "similarity": "cosine", "criterion": "iou"})]
    columns = printed(*results).splitlines()[1]
    assert "protocol" in columns
    assert "similarity" not in columns
    assert [line.split(":")[0] for line in footer(results)] == ["protocol released", "protocol paper"]


def test_an_older_result_says_what_became_of_surplus_clusters_and_differs_from_a_newer_one():
    assert "surplus" not in RESULT.protocol
    assert ", surplus=absent_class" in footer([RESULT])[0]
    results = [RESULT, changed(protocol={"surplus": "unmatched"})]
    assert "surplus" in printed(*results).splitlines()[1]
    assert "surplus=absent_class|unmatched" in footer(results)[0]
    assert "surplus" not in printed(RESULT, changed(protocol={"surplus": "absent_class"})).splitlines()[1]


def test_limited_results_say_so():
    limited = replace(RESULT, limited=True, dataset=replace(RESULT.dataset, name="voc", n_images=15, n_expected=1449))
    assert "15 of 1449 images of voc" in footer([limited])[-1]
    assert "(limited)" in printed(limited)


TABLE = Table(
    name="both",
    title="50 % & more",
    columns=(Column("data_set"), Column("mIoU", numeric=True)),
    rows=(("a|b", "65.2"), ("c_d", "–")),
    notes=("protocol released: a=b|c",),
)


def test_a_table_is_the_same_in_every_form(tmp_path):
    markdown, latex = TABLE.to_markdown(), TABLE.to_latex()
    assert r"| a\|b" in markdown
    assert "* protocol released: a=b|c" in markdown
    assert re.search(r"^\|:-+\|-+:\|$", markdown, re.MULTILINE), "numbers stand to the right"
    for command in (r"\toprule", r"\midrule", r"\bottomrule", r"\caption{50 \% \& more}", r"c\_d", r"data\_set"):
        assert command in latex
    assert list(csv.reader(io.StringIO(TABLE.to_csv()))) == [["data_set", "mIoU"], ["a|b", "65.2"], ["c_d", ""]]
    assert [path.name for path in TABLE.write(tmp_path)] == ["both.md", "both.tex", "both.csv"]
    assert (tmp_path / "both.md").read_text() == markdown


def test_an_empty_table_has_its_headings():
    empty = Table("none", "Nothing", (Column("a"), Column("b", numeric=True)), ())
    assert empty.to_csv() == "a,b\n"
    assert "| a" in empty.to_markdown()
    assert r"\toprule" in empty.to_latex()


def test_settings_of_one_option_are_columns_where_they_vary_within_it():
    def other(segmenter: dict[str, object], option: str) -> Result:
        choices = {**RESULT.config["choices"], "segmenter": option}
        return replace(RESULT, config={**RESULT.config, "choices": choices, "segmenter": segmenter})

    plain = RESULT.config["segmenter"]
    cells = [other({**plain, "tau": tau}, "diffcut") for tau in (0.3, 0.7)] + [other({"covers": "crop"}, "precomputed")]
    table = results_table([(Path("x"), cell) for cell in cells])
    names = [column.name for column in table.columns]
    assert names[:2] == ["segmenter", "tau"]
    assert "alpha" not in names, "it follows from the option"
    assert "tau" not in table.shared
    assert "alpha" not in table.shared
    assert [row[:2] for row in table.rows] == [("diffcut", "0.3"), ("diffcut", "0.7"), ("precomputed", "")]


def test_one_class_and_one_image_make_tables():
    one = replace(
        RESULT,
        scores={**RESULT.scores, "miou": Score(0.5, (0.5, 0.5), {"cat": 0.5}, {"cat": (0.5, 0.5)})},
        dataset=replace(RESULT.dataset, n_images=1),
    )
    row = ImageRow(0, "a", 1, 4, [2], [1], [1])
    assert class_table(one, [row]).rows == (("cat", "50.0", "–", "1"),)
    assert class_table(one).rows == (("cat", "50.0", "–", ""),)
    assert class_table(one, [row]).notes == (f"no interval is told of fewer than {FEWEST_IMAGES} images",)
    assert rank_table([row]).rows == (("1", "a", "50.0", "1"),)
    assert rank_table([]).rows == ()
    table = results_table([(Path("x"), one)])
    assert table.rows[0][1] == "–"
    assert all(form() for form in (table.to_markdown, table.to_latex, table.to_csv))


def test_a_class_is_told_in_how_many_images_it_is_annotated():
    rows = [ImageRow(n, str(n), 1, 9, [1, 0], [0, 1], [0, int(n < 3)]) for n in range(FEWEST_IMAGES)]
    ends = {"cat": (0.4, 0.6), "dog": (0.1, 0.1)}
    two = replace(RESULT, scores={**RESULT.scores, "miou": Score(0.3, None, {"cat": 0.5, "dog": 0.1}, ends)})
    assert class_table(two, rows).rows == (
        ("cat", "50.0", "40.0 – 60.0", str(FEWEST_IMAGES)),
        ("dog", "10.0", "–", "3"),
    )


def scored(**scores: float | None) -> Result:
    """A result with these scores and no other; ``miou`` keeps its classes."""
    own = {name: Score(value, None if value is None else (value - 0.1, value + 0.1)) for name, value in scores.items()}
    if "miou" in own:
        own["miou"] = replace(own["miou"], per_class=RESULT.scores["miou"].per_class)
    return replace(RESULT, scores=own)


def headings(*results: Result, score: str = "miou") -> list[str]:
    return [column.name for column in results_table([(Path("x"), cell) for cell in results], score=score).columns]


def test_the_score_that_leads_stands_first_with_its_interval():
    cell = scored(miou=0.3, ari=0.5, pixel_accuracy=0.8, voi=1.25)
    usual = ["mIoU", "95 % interval", "pixel accuracy", "images"]
    assert headings(cell) == usual, "ARI and VoI are no usual columns"
    assert headings(cell, score="ari") == ["ARI", "95 % interval", "mIoU", "its 95 % interval", *usual[2:]]
    assert headings(cell, score="pixel_accuracy")[:3] == ["pixel accuracy", "95 % interval", "mIoU"]
    table = results_table([(Path("x"), cell)], score="voi")
    assert table.rows[0][:2] == ("1.25", "1.15 – 1.35")
    assert any("lower is better" in note for note in table.notes), "what it is stands under the table"


def test_scores_of_segments_that_a_background_rule_merged_say_so():
    def told(cell: Result, rule: str) -> bool:
        merged = replace(cell, protocol={**cell.protocol, "background_rule": rule})
        notes = results_table([(Path("x"), merged)], score="ari").notes
        return any(note.startswith("ARI: of the segments that the background rule left") for note in notes)

    cell = scored(miou=0.3, ari=0.5, foreground_ari=0.4)
    assert told(cell, "unmatched") and not told(cell, "one_to_one")
    assert not told(scored(miou=0.3, ari=0.5), "unmatched"), "without a background class nothing is merged"


def test_a_result_without_the_score_that_leads_has_a_dash_and_shows_what_it_has():
    regions = scored(covering=0.6, segments=7.0)
    assert regions.class_names == ()
    assert leading_metric("miou", [regions]).name == "covering"
    assert leading_metric("ari", [scored(miou=0.3)]).name == "miou"
    assert leading_metric("ari", [scored(miou=0.3), scored(ari=0.3)]).name == "ari"
    table = results_table([(Path("x"), scored(miou=0.3)), (Path("y"), regions)])
    names = [column.name for column in table.columns]
    by_name = [dict(zip(names, row, strict=True)) for row in table.rows]
    assert (by_name[0]["mIoU"], by_name[0]["covering"]) == ("30.0", "–")
    assert (by_name[1]["mIoU"], by_name[1]["covering"]) == ("–", "60.0")
    assert headings(regions)[:2] == ["covering", "95 % interval"]
    assert score_table(regions).rows[0][0] == "covering (%)"
    assert class_table(regions).rows == ()
    assert leading_metric("miou", [scored(miou=None)]).name == "miou", "a score without a value is shown as a dash"


def test_scores_are_told_with_the_images_they_are_over():
    cell = replace(scored(miou=0.3, ari=0.5), scores={**scored(miou=0.3).scores, "ari": Score(0.5, (0.4, 0.6), n=7)})
    images = RESULT.dataset.n_images - len(RESULT.failures)
    assert [row[0] for row in score_table(cell, score="ari").rows] == ["ARI (%)", "mIoU (%)"]
    assert [row[3] for row in score_table(cell, score="ari").rows] == ["7", str(images)], "older scores are over all"


def test_no_interval_is_told_of_a_score_that_is_over_few_images():
    def told(images: int) -> Table:
        cell = replace(RESULT, scores={**RESULT.scores, "ari": Score(0.5, (0.4, 0.6), n=images)})
        return results_table([(Path("x"), replace(cell, dataset=replace(RESULT.dataset, n_images=99)))], score="ari")

    assert told(FEWEST_IMAGES).rows[0][:2] == ("50.0", "40.0 – 60.0")
    assert told(FEWEST_IMAGES - 1).rows[0][:2] == ("50.0", "–")
    assert [NO_INTERVAL in told(FEWEST_IMAGES - less).notes for less in (0, 1)] == [False, True]


def test_classes_are_those_of_the_score_that_leads_and_of_usual_ones():
    of = {"cat": 0.5, "dog": 0.25}
    cell = replace(RESULT, scores={"miou": Score(0.3, None, of), "majority_miou": Score(0.4, None, of)})
    names = [column.name for column in class_table(cell).columns]
    assert names == ["class", "IoU", "95 % interval", "images"]
    names = [column.name for column in class_table(cell, score="majority_miou").columns]
    assert names == ["class", "majority IoU", "95 % interval", "IoU", "its 95 % interval", "images"]


def test_images_are_ranked_by_the_score_that_leads():
    rows = [ImageRow(n, str(n), 1, 9, [1], [n], [0], measured={"voi": [n / 4, 1.0]}) for n in range(3)]
    table = rank_table(rows, leading=known_metrics()["voi"])
    assert table.columns[2].name == "VoI"
    assert [row[1:3] for row in table.rows] == [("0", "0.00"), ("1", "0.25"), ("2", "0.50")], "the least is the best"
    assert rank_table(rows, leading=known_metrics()["ari"]).rows == (), "which was not measured on them"


def place(floor: float, ceiling: float, lift: float, ends: tuple[float, float]) -> tuple[Score, Score, Score]:
    return Score(floor), Score(ceiling), Score(lift, ends)


def test_floor_ceiling_and_lift_have_columns_where_they_are_asked_for():
    others = {"voi": Bracket(*place(1.5, 0.5, -0.25, (-0.5, 0.001)))}
    known = Reference(*place(0.2, 0.8, 0.4167, (0.304, 0.496)), "miou", others)
    cells = [(Path("x"), replace(scored(miou=0.45, voi=1.75), reference=known)), (Path("y"), scored(miou=0.3))]
    assert "floor" not in [column.name for column in results_table(cells).columns]
    assert "floor" not in [column.name for column in results_table(cells[1:], reference=True).columns]
    table = results_table(cells, reference=True)
    names = [column.name for column in table.columns]
    start = names.index("floor")
    assert names[start - 2 : start + 3] == ["mIoU", "95 % interval", "floor", "ceiling", "lift (95 % interval)"]
    assert table.rows[0][start : start + 3] == ("20.0", "80.0", "0.42 (0.30 – 0.50)")
    assert table.rows[1][start : start + 3] == ("–", "–", "–")
    assert any(note.startswith("floor: a grid of as many segments") for note in table.notes)
    of_voi = results_table(cells, score="voi", reference=True)
    assert of_voi.rows[0][start : start + 3] == ("1.50", "0.50", "−0.25 (−0.50 – 0.00)")
    lines = {row[0]: row[4:] for row in score_table(cells[0][1]).rows}
    assert lines == {
        "mIoU (%)": ("20.0", "80.0", "0.42 (0.30 – 0.50)"),
        "VoI": ("1.50", "0.50", "−0.25 (−0.50 – 0.00)"),
    }
    assert len(score_table(cells[1][1]).columns) == 4
    few = replace(cells[0][1], dataset=replace(RESULT.dataset, n_images=FEWEST_IMAGES - 1))
    assert score_table(few).rows[0][-1] == "0.42", "no interval of few images"
    untold = replace(few, reference=replace(known, lift=Score(None)))
    assert score_table(untold).rows[0][-1] == "–"


def test_a_card_says_where_its_score_lies_between_floor_and_ceiling():
    known = Reference(*place(0.2, 0.8, 0.4167, (0.304, 0.496)), "miou")
    cell = replace(scored(miou=0.45), reference=known)
    told = headline("voc", Path("voc-1"), cell, "diffcut").lift
    assert told == "lift 0.42 (0.30 – 0.50) of the way from a blind grid (20.0) to the annotation itself (80.0)"
    assert headline("voc", Path("voc-1"), scored(miou=0.45), "diffcut").lift == ""
