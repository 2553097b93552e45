from dataclasses import replace

import pytest
from conftest import DATA
from hypothesis import given
from hypothesis import strategies as st

from diffcut_bench.reproduction.verdict import Measured, Verdict, judge, known_measures
from diffcut_bench.store import Failure, Result

MIOU = known_measures()["miou"]
RESULT = Result.from_json((DATA / "result_v1_before_identity.json").read_text())


@pytest.mark.parametrize(
    ("published", "ours", "word"),
    [
        (65.2, 65.2, "reproduced"),
        (65.2, 65.55, "reproduced"),  # half of the last digit, and 0.3: exactly, whatever binary fractions say
        (65.2, 64.85, "reproduced"),
        (65.2, 65.56, "differs"),
        (65.2, 64.84, "differs"),
        (71.68, 71.985, "reproduced"),  # two digits are stated: rounded by 0.005
        (71.68, 71.99, "differs"),
        (30.0, 30.35, "reproduced"),
        (30.0, 30.36, "differs"),
    ],
)
def test_reproduced_means_but_for_rounding_and_noise(published, ours, word):
    for interval in (None, (ours, ours), (ours - 3, ours + 3)):
        judged = judge(published, Measured(ours, interval), MIOU)
        assert judged == Verdict(word), "what other images would have given excuses nothing"


@given(st.integers(1, 999), st.integers(-100, 100))
def test_verdicts_of_hundredths_are_those_of_exact_arithmetic(tenths, hundredths):
    published = tenths / 10
    ours = (10 * tenths + hundredths) / 100
    assert judge(published, Measured(ours), MIOU).word == ("reproduced" if abs(hundredths) <= 35 else "differs")


def over_seeds(*values: float, planned: int | None = None) -> Measured:
    seeds = [Measured(value, (value - 2, value + 2), seed=42 + index) for index, value in enumerate(values)]
    return Measured.mean(seeds, planned or len(seeds), "" if planned is None else "no memory")


def test_over_seeds_the_mean_is_judged_by_twice_the_deviation_if_that_is_more():
    steady, wild = over_seeds(65.0, 65.1, 65.2), over_seeds(64.0, 65.0, 66.0)
    assert (wild.value, wild.interval, wild.deviation) == (65.0, (63.0, 67.0), 1.0)
    assert [seed.seed for seed in wild.seeds] == [42, 43, 44]
    assert MIOU.tolerance(65.2, steady.deviation) == pytest.approx(0.35)
    assert judge(67.0, wild, MIOU).word == "reproduced"
    assert judge(67.1, wild, MIOU).word == "differs"
    assert Measured(65.0).deviation is None
    assert str(judge(65.0, over_seeds(65.0, 65.1, planned=3), MIOU)) == "limited: 2 of 3 seeds: no memory"


def test_another_cell_than_the_published_one_is_limited_however_well_it_agrees():
    measured = Measured(65.0, (63.0, 67.0), ("15 of 1449 images", "backbone=colour"))
    assert str(judge(65.0, measured, MIOU)) == "limited: 15 of 1449 images; backbone=colour"


def test_a_speed_is_reproduced_when_it_is_reached():
    speed = known_measures()["images_per_s"]
    assert [judge(1.11, Measured(ours), speed).word for ours in (9.0, 1.105)] == ["reproduced"] * 2
    assert judge(1.11, Measured(1.1), speed).word == "differs"


def test_an_area_under_a_curve_is_stated_with_two_digits():
    words = [judge(0.83, Measured(ours), known_measures()["auc"]).word for ours in (0.82, 0.84, 0.819, 0.841)]
    assert words == ["reproduced", "reproduced", "differs", "differs"]


def test_a_result_gives_percent_and_says_what_it_lacks():
    whole = replace(RESULT, limited=False)
    measured = Measured.of(whole, "miou")
    assert measured.value == pytest.approx(100 * RESULT.metrics.miou)
    assert measured.interval == pytest.approx([100 * end for end in RESULT.metrics.miou_ci95])
    assert measured.limits == ()
    failed = replace(whole, failures=[Failure("a", "broken")])
    assert Measured.of(failed, "miou", ["refiner=none"]).limits == ("1 images failed", "refiner=none")
    assert Measured.of(RESULT, "miou").limits == ("6 of 11 images",)


def test_values_are_printed_with_the_measures_digits_and_a_minus_sign():
    assert MIOU.text(-30.55, signed=True) == "−30.6"
    assert MIOU.text(0.04, signed=True) == "+0.0"
    assert MIOU.text(61.65) == "61.7", "halves are rounded up, as people do"
    assert (MIOU.more_stated(71.68), MIOU.text(71.68, more=1)) == (1, "71.68")
    assert (MIOU.more_stated(65.2), MIOU.more_stated(50.0), MIOU.more_stated(1e-07)) == (0, 0, 0)
    assert (MIOU.plain(-30.5512), MIOU.plain(None)) == ("-30.551", "")
    assert MIOU.text(None) == MIOU.text(float("nan")) == "–"
    assert known_measures()["auc"].text(0.83, more=1) == "0.830"
