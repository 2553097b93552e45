"""Claims about rows of a table, on cells of made-up images whose scores are known."""

import itertools
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from conftest import DATA
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcut_bench.config import known_options, load_config
from diffcut_bench.errors import UserError
from diffcut_bench.reproduction import (
    PlannedCell,
    average_seeds,
    load_reproduction,
    plan_cells,
)
from diffcut_bench.reproduction.claims import Checked, check_claims
from diffcut_bench.reproduction.leads import mean_lead, measure_lead
from diffcut_bench.reproduction.outcome import Outcome
from diffcut_bench.reproduction.spec import Claim, Reproduction, Row
from diffcut_bench.reproduction.verdict import Measured, known_measures
from diffcut_bench.store import ImageRow, Result
from diffcut_bench.store.published import publish

MIOU = known_measures()["miou"]
RESULT = Result.from_json((DATA / "result_v1_before_identity.json").read_text())
CLASSES = ("ground", "disc", "square")
PIXELS = 1000  # of a class in an image: a hit more of it is 0.1 points of its recall
IMAGES = 40
numbers = itertools.count()


def hits(mean: float, spread: float = 0.0, seed: int = 0) -> np.ndarray:
    """Correct pixels of each class in each image; what is hard about an image is the same whatever the mean."""
    ease = np.random.default_rng(1).permutation(10 * np.arange(IMAGES) - 195)[:, None]
    own = np.random.default_rng(seed).normal(0, spread, (IMAGES, len(CLASSES)))
    return np.clip(10 * mean + ease + own, 0, PIXELS).round().astype(int)


def cell(folder: Path, hit: np.ndarray, limits: tuple[str, ...] = (), names: tuple[str, ...] = CLASSES) -> Measured:
    """A finished cell on disk. Pixels that are missed belong to nobody, so that a class's IoU is its recall."""
    finished = folder / f"cell{next(numbers)}"
    finished.mkdir(parents=True)
    rows = [
        ImageRow(i, f"image{i}", 3, PIXELS * len(CLASSES), own.tolist(), [0] * len(CLASSES), (PIXELS - own).tolist())
        for i, own in enumerate(hit)
    ]
    per_class = {n: h.mean() / PIXELS for n, h in zip(names, hit.T, strict=True)}
    scores = {**RESULT.scores, "miou": replace(RESULT.scores["miou"], value=hit.mean() / PIXELS, per_class=per_class)}
    dataset = replace(RESULT.dataset, n_images=len(rows))
    result = replace(RESULT, scores=scores, dataset=dataset, limited=False, failures=[], protocol={"name": "released"})
    publish(finished, result, rows, "", range(len(rows)))
    return Measured.of(result, "miou", limits, finished)


ROWS = [
    Row("ours", published={"a": 60, "b": 60}),
    Row("theirs", published={"a": 50, "b": 50}),
    Row("trained", published={"a": 30, "b": 30}, not_run="trained"),
]
config = lru_cache(load_config)


def told(
    values: dict[tuple[str, str], Measured], *others: str, deviations: tuple[str, ...] = (), **more: object
) -> Checked:
    """A claim about the first row of a table, some of whose cells were run."""
    claim = Claim("ours is ahead", "exceeds", row="ours", others=list(others or ["theirs"]), **more)
    reproduction = Reproduction("Made", "a test", columns={"a": [], "b": []}, rows=ROWS, claims=[claim])
    assert reproduction.problems() == []
    outcomes = []
    for row, column in itertools.product(ROWS, ("a", "b")):
        cell = PlannedCell(row, column, config=None if row.not_run else config(()), deviations=deviations)
        ours = values.get((row.name, column))
        outcomes.append(Outcome(cell, ours, "" if ours is not None else cell.not_run or "no weights"))
    return check_claims(reproduction, outcomes)[0]


def both(tmp_path: Path, ours: float, theirs: float, spread: float = 0.0, **more: object) -> dict:
    """Ours and theirs in both columns, as far ahead in b as in a."""
    return {
        (name, column): cell(tmp_path, hits(mean, spread, seed), **more)
        for seed, (name, mean) in enumerate({"ours": ours, "theirs": theirs}.items())
        for column in ("a", "b")
    }


def test_a_row_that_is_ahead(tmp_path):
    checked = told(both(tmp_path, 62.5, 60, spread=20), by=2.5)
    assert str(checked.verdict) == "reproduced"
    assert checked.ours.startswith("+2.") and "(+2." in checked.ours, (
        "an interval of tenths, where a cell's is of points"
    )
    assert checked.beside == "theirs"


def test_an_effect_that_is_absent_is_refused(tmp_path):
    checked = told(both(tmp_path, 60, 60, spread=100))
    assert str(checked.verdict) == "differs: absent"


def test_an_effect_that_is_reversed_is_refused(tmp_path):
    checked = told(both(tmp_path, 57.5, 60, spread=20), by=2.5)
    assert str(checked.verdict) == "differs: reversed"
    assert checked.ours.startswith("−2.")


def test_an_effect_of_another_size_is_refused(tmp_path):
    values = both(tmp_path, 62.5, 60)
    assert told(values, by=2.8).verdict.word == "reproduced"
    assert str(told(values, by=2.9).verdict) == ("differs: of another size than +2.9 ± 0.35")
    assert told(values, by=2.1).verdict.word == "differs"


def test_in_every_column_one_that_is_behind_is_enough(tmp_path):
    assert told(both(tmp_path, 62, 60), each_column=True).verdict.word == "reproduced"
    behind = both(tmp_path, 62, 60) | {("ours", "b"): cell(tmp_path, hits(59))}
    checked = told(behind, each_column=True)
    assert str(checked.verdict) == "differs: reversed in b"
    assert checked.ours == "a +2.00 (+2.00 – +2.00); b −1.00 (−1.00 – −1.00)"
    mean = told(behind, by=0.5)
    assert (mean.verdict.word, mean.ours) == ("reproduced", "+0.50 (+0.50 – +0.50); a +2.00, b −1.00")
    assert told(behind, columns=["a"], each_column=True).verdict.word == "reproduced"


def test_over_a_published_figure_a_row_is_ahead_by_more_than_the_tolerance(tmp_path):
    """There is nothing to pair it with: it has no interval, and is known to 0.35 points."""

    def over_30(ours: float) -> Checked:
        return told(both(tmp_path, ours, 20), "theirs", "trained", columns=["a"])

    ahead = over_30(32)
    assert (ahead.verdict.word, ahead.beside) == ("reproduced", "theirs; published: trained")
    assert ahead.ours == "+2.00, over those run +12.00 (+12.00 – +12.00)"
    verdicts = {ours: str(over_30(ours).verdict) for ours in (30.4, 30.3, 30, 29.7, 29.6)}
    assert verdicts == {
        **{30.4: "reproduced", 29.6: "differs: reversed"},
        **dict.fromkeys((30.3, 30, 29.7), "differs: absent"),
    }
    beaten = told(both(tmp_path, 32, 33), "theirs", "trained", columns=["a"])
    assert (beaten.ours, str(beaten.verdict)) == ("−1.00 (−1.00 – −1.00)", "differs: reversed"), (
        "by the one that was run"
    )


def test_a_lead_over_a_published_figure_within_the_tolerance_is_none(tmp_path):
    ours, theirs = (cell(tmp_path, hits(mean)) for mean in (62, 20))
    lead = measure_lead(ours, [theirs], MIOU, [61.9])
    assert (round(lead.value, 6), lead.sign) == (0.1, "absent")
    assert lead.interval == pytest.approx((42, 42)), "over the one that was run"
    signs = {stated: measure_lead(ours, [theirs], MIOU, [stated]).sign for stated in (61.7, 61.69, 61.6, 62.4)}
    assert signs == {61.7: "absent", 61.69: "ahead", 61.6: "ahead", 62.4: "reversed"}, "two digits are known to 0.305"


def test_in_the_mean_each_published_figure_may_be_off_by_the_tolerance(tmp_path):
    """Two of 30: ours are 30.2 and 30.8, 0.5 ahead in the mean; of 30.1 and 30.5, 0.3, which is no lead."""
    for means, word in (((30.2, 30.8), "reproduced"), ((30.1, 30.5), "differs"), ((29.2, 30.0), "differs")):
        values = {("ours", column): cell(tmp_path, hits(mean)) for column, mean in zip("ab", means, strict=True)}
        values |= {("theirs", column): cell(tmp_path, hits(20)) for column in "ab"}
        checked = told(values, "theirs", "trained")
        assert checked.verdict.word == word
        assert checked.verdict.why == ("reversed" if means[0] < 30 else "absent" if word == "differs" else "")


@settings(max_examples=15, deadline=None)
@given(st.integers(300, 700), st.integers(300, 700), st.integers(300, 700))
def test_one_that_is_published_makes_no_lead_greater(tmp_path_factory, ours, theirs, published):
    folder = tmp_path_factory.mktemp("cells")
    one, others = cell(folder, hits(ours / 10, 20, 1)), [cell(folder, hits(theirs / 10, 20, 2))]
    alone = measure_lead(one, others, MIOU)
    beside = measure_lead(one, others, MIOU, [published / 10])
    assert beside.value == pytest.approx(min(alone.value, one.value - published / 10))
    assert beside.interval == alone.interval and beside.over_run == alone.over_run
    order = ["reversed", "absent", "ahead"]
    assert order.index(beside.sign) <= order.index(alone.sign)


def test_what_is_published_under_another_protocol_is_left_out(tmp_path):
    """Of the row itself too: under the table's own protocol it would be ahead of the 30 that are published."""
    values = both(tmp_path, 32, 20, limits=("protocol=strict",))
    checked = told(values, "theirs", "trained", columns=["a"], deviations=("protocol=strict",))
    assert (checked.beside, checked.ours) == ("theirs", "+12.00 (+12.00 – +12.00)")
    assert str(checked.verdict) == "limited: protocol=strict; without trained, published under the table's own protocol"
    other = told(both(tmp_path, 32, 20), "theirs", "trained", columns=["a"], deviations=("protocol.void=ignore",))
    assert (other.verdict.word, other.beside) == ("limited", "theirs")
    same = told(both(tmp_path, 32, 20), "theirs", "trained", columns=["a"], deviations=("segmenter.tau=0.4",))
    assert same.beside == "theirs; published: trained"


def test_other_cells_than_the_published_are_limited_and_their_difference_is_told(tmp_path):
    checked = told(both(tmp_path, 62, 60, limits=("limit=3",)))
    assert (str(checked.verdict), checked.ours) == ("limited: limit=3", "+2.00 (+2.00 – +2.00); a +2.00, b +2.00")
    few = {
        key: cell(tmp_path, hits(60 + 2 * (key[0] == "ours"))[:9]) for key in itertools.product(("ours", "theirs"), "a")
    }
    checked = told(few)
    assert checked.ours == "+2.00", "no interval is told of so few"
    assert str(checked.verdict) == "limited: 1 of 2 columns; fewer than 10 images of a, too few for an interval"


def test_cells_that_are_missing(tmp_path):
    assert str(told({}).verdict) == "not run: no weights"
    values = both(tmp_path, 62, 60)
    ours = {key: value for key, value in values.items() if key[0] == "ours"}
    assert str(told(ours).verdict) == "not run: none of the rows beside it was run"
    part = ours | {("theirs", "a"): values["theirs", "a"]}
    assert str(told(part).verdict) == "limited: 1 of 2 columns"
    (ours_b := dict(ours)).pop(("ours", "a"))
    assert str(told(ours_b).verdict) == "not run: none of the rows beside it was run", "one reason, the most telling"
    alone = told(ours, "theirs", "trained", columns=["a"])
    assert alone.verdict.word == "not run", "a published value alone is no test on the same images"


def test_only_images_that_all_have_are_compared(tmp_path):
    ours, theirs = hits(62), hits(60)
    theirs[-1] = 0  # were it compared, it would add more than a point
    lead = measure_lead(cell(tmp_path, ours[:-1]), [cell(tmp_path, theirs)], MIOU)
    assert (lead.images, round(lead.value, 6)) == (IMAGES - 1, 2.0)
    other = cell(tmp_path, theirs, names=("a", "b", "c"))
    with pytest.raises(ValueError, match="other classes"):
        measure_lead(cell(tmp_path, ours), [other], MIOU)


def test_a_row_whose_files_are_damaged_is_said(tmp_path):
    values = both(tmp_path, 62, 60)
    (values["theirs", "a"].folder / "per_image.parquet").write_bytes(b"")
    verdict = told(values).verdict
    assert verdict.word == "limited" and "1 of 2 columns" in verdict.why


@settings(max_examples=15, deadline=None)
@given(ours=st.integers(300, 700), theirs=st.lists(st.integers(300, 700), min_size=1, max_size=3))
def test_the_lead_is_over_the_best(tmp_path_factory, ours, theirs):
    folder = tmp_path_factory.mktemp("cells")
    others = [cell(folder, hits(mean / 10)) for mean in theirs]
    lead = measure_lead(cell(folder, hits(ours / 10)), others, MIOU)
    assert lead.value == pytest.approx((ours - max(theirs)) / 10)
    low, high = lead.interval
    assert low <= lead.value + 1e-9 and high >= lead.value - 1e-9


def test_the_mean_of_per_image_jaccard_is_compared_likewise(tmp_path):
    ours, theirs = hits(62, 30, 1), hits(60, 30, 2)
    lead = measure_lead(cell(tmp_path, ours), [cell(tmp_path, theirs)], known_measures()["jaccard"])
    assert lead.value == pytest.approx(100 * (ours.mean() - theirs.mean()) / PIXELS), "of equally large classes"
    assert lead.interval[0] < lead.value < lead.interval[1]


def test_any_metric_is_compared_and_where_less_is_better_less_is_ahead(tmp_path, add_metric):
    add_metric(
        "missed",
        "from diffcut_bench.evaluation import Metric\n"
        "METRIC = Metric(name='missed', heading='missed', higher_is_better=False, is_fraction=False, digits=2,\n"
        "    statistic=lambda images: images.fn, reduce=lambda sums: sums.sum(dim=-1))\n",
    )
    measure = known_measures()["missed"]
    rows = [cell(tmp_path, hits(mean)) for mean in (62, 60)]
    lead = measure_lead(rows[0], [rows[1]], measure)
    assert lead.value == 20 * IMAGES * len(CLASSES) and lead.sign == "ahead"
    assert measure_lead(rows[1], [rows[0]], measure).sign == "reversed"
    published = measure_lead(rows[0], [rows[1]], measure, [10.0])
    assert published.sign == "reversed", "of a published figure less is better too"
    assert Measured.of(rows[0].result, "missed").limits[-1].startswith("no missed was measured")


def over_seeds(tmp_path: Path, means: dict[int, float], planned: int = 3) -> Measured:
    runs = [replace(cell(tmp_path, hits(mean)), seed=seed) for seed, mean in means.items()]
    return Measured.mean(runs, planned, "no memory")


def test_seeds_are_paired(tmp_path):
    """Over seeds both rows move by a point, together; the difference moves by a tenth."""
    ours = over_seeds(tmp_path, {42: 61.0, 43: 62.0, 44: 63.0})
    theirs = over_seeds(tmp_path, {42: 60.0, 43: 61.1, 44: 62.0})
    lead = measure_lead(ours, [theirs], MIOU)
    assert lead.by_seed == pytest.approx({42: 1.0, 43: 0.9, 44: 1.0})
    assert lead.deviation == pytest.approx(0.0577, abs=1e-3)
    still = measure_lead(ours, [theirs.seeds[0]], MIOU)
    assert still.by_seed == pytest.approx({42: 1.0, 43: 2.0, 44: 3.0}), "a row without noise has one cell for all seeds"


def test_a_seed_that_failed_of_one_row_is_left_out_of_the_others(tmp_path):
    """Seeds are ten points apart, so that pairing them by position would make much of a lead of one."""
    ours = over_seeds(tmp_path, {43: 51.0, 44: 61.0})
    theirs = over_seeds(tmp_path, {42: 40.0, 43: 50.0, 44: 60.0})
    still = cell(tmp_path, hits(45))
    lead = measure_lead(ours, [theirs], MIOU)
    assert (lead.by_seed, lead.value) == (pytest.approx({43: 1.0, 44: 1.0}), pytest.approx(1.0))
    assert lead.interval == pytest.approx((1.0, 1.0))
    beside = measure_lead(ours, [theirs, still], MIOU)
    assert beside.by_seed == lead.by_seed
    others = replace(theirs, seeds=theirs.seeds[:1])
    with pytest.raises(ValueError, match="no seed of the noise in common"):
        measure_lead(ours, [others], MIOU)
    checked = told({("ours", "a"): ours, ("theirs", "a"): theirs}, columns=["a"])
    assert checked.ours == "+1.00 (+1.00 – +1.00); seeds in common: 2"
    assert str(checked.verdict) == "limited: 2 of 3 seeds: no memory"


def test_the_mean_over_columns_is_of_seeds_that_each_has(tmp_path):
    values = {
        **{("ours", "a"): over_seeds(tmp_path, {42: 61.0, 43: 72.0}, 2), ("ours", "b"): cell(tmp_path, hits(63))},
        **{("theirs", "a"): over_seeds(tmp_path, {42: 60.0, 43: 70.0}, 2), ("theirs", "b"): cell(tmp_path, hits(60))},
    }
    leads = [measure_lead(values["ours", column], [values["theirs", column]], MIOU) for column in "ab"]
    mean = mean_lead(leads)
    assert mean.by_seed == pytest.approx({42: 2.0, 43: 2.5})
    assert (mean.value, mean.over_run) == pytest.approx((2.25, 2.25))
    assert told(values).ours == "+2.25 (+2.25 – +2.25); a +1.50, b +3.00; seeds in common: 2"


def test_means_over_seeds_take_the_place_of_their_cells(two_seeds=2):
    cells = plan_cells(load_reproduction("table8"), ["device=cpu"], seeds=two_seeds)
    assert [(each.row.name, each.seed) for each in cells] == [
        *(("concept assignment", 42), ("concept assignment", 43), ("nearest", 42), ("nearest", 43))
    ]
    values = (Measured(61.0), Measured(63.0), Measured(60.0), None)
    means = average_seeds(
        [Outcome(each, ours, "" if ours else "no memory") for each, ours in zip(cells, values, strict=True)]
    )
    assert [(each.cell.row.name, each.cell.seed) for each in means] == [("concept assignment", None), ("nearest", None)]
    first, second = (each.ours for each in means)
    assert (first.value, [each.seed for each in first.seeds]) == (62.0, [42, 43])
    assert second.limits == ("1 of 2 seeds: no memory",)
    none = average_seeds([Outcome(each, None, "no weights") for each in cells])
    assert [(each.ours, each.why) for each in none] == [(None, "no weights")] * 2


@pytest.mark.parametrize("name", known_options("reproduction"))
def test_stated_sizes_are_those_of_the_published_values(name):
    reproduction = load_reproduction(name)
    rows = {row.name: row.published for row in reproduction.rows}
    for claim in (claim for claim in reproduction.claims if claim.kind == "exceeds"):
        leads = [
            value - max(rows[other][column] for other in claim.others if column in rows[other])
            for column, value in rows[claim.row].items()
        ]
        assert min(leads) > 0 if claim.each_column else sum(leads) > 0
        if claim.by is not None:
            assert sum(leads) / len(leads) == pytest.approx(claim.by, abs=0.0501), claim.text


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ("kind: exceeds, row: oers, others: [theirs]", "no row 'oers'"),
        ("kind: exceeds, row: ours, others: [theirs], columns: [c]", "no column 'c'"),
        ("kind: exceeds, row: ours", "others names no row"),
        ("kind: exceeds, row: ours, others: [theirs], by: 1, each_column: true", "by is of the mean"),
        ("kind: above, axis: segmenter.tau", "a curve needs sweep"),
        ("kind: beats, row: ours", "kind must be above | best | within | exceeds"),
    ],
)
def test_a_claim_that_says_nothing_is_refused(tmp_path, claim, message):
    (tmp_path / "reproduction").mkdir()
    (tmp_path / "reproduction" / "made.yaml").write_text(
        "title: Made\nsource: a test\ncolumns: {a: [dataset=sample]}\nrows: [{name: ours}, {name: theirs}]\n"
        f"claims: [{{text: a claim, {claim}}}]\n"
    )
    with pytest.raises(UserError) as refused:
        load_reproduction("made", [f"hydra.searchpath=[file://{tmp_path}]"])
    assert message in refused.value.what
