from dataclasses import replace

import pytest

from diffcut_bench.evaluation import known_metrics
from diffcut_bench.reproduction.curves import check_curve
from diffcut_bench.reproduction.spec import Claim
from diffcut_bench.reproduction.verdict import Measured, Verdict, known_measures

MIOU = known_measures()["miou"]


def curve(values: dict[float, float], limits: tuple[str, ...] = (), spread: float = 0.0) -> dict[float, Measured]:
    """Points whose intervals over images are wide, which excuses nothing; over two seeds they lie ``spread`` apart."""

    def measured(y: float) -> Measured:
        whole = Measured(y, (y - 5, y + 5), limits)
        apart = [Measured(y - spread / 2), Measured(y + spread / 2)]
        return Measured.mean([Measured(each.value, whole.interval, limits) for each in apart], 2) if spread else whole

    return {x: measured(y) for x, y in values.items()}


def check_claim(claim: Claim, points: dict[float, Measured], measure: object) -> tuple[str, Verdict]:
    return check_curve(claim, points, measure, len(points))


BUMP = {0.3: 20.0, 0.4: 30.0, 0.5: 31.0, 0.6: 30.0, 0.7: 20.0}


def above(**more: object) -> Claim:
    return Claim("…", "above", "segmenter.tau", value=25.0, **more)


def test_above_a_value_from_here_to_there():
    said, verdict = check_claim(above(low=0.4, high=0.6), curve(BUMP), MIOU)
    assert (said, verdict.word) == ("0.4 – 0.6", "reproduced")
    assert check_claim(above(low=0.3, high=0.6), curve(BUMP), MIOU)[1].word == "differs"


def test_a_point_contradicts_only_beyond_the_tolerance():
    for value, word in ((24.65, "reproduced"), (24.64, "differs")):
        assert check_claim(above(low=0.3, high=0.6), curve(BUMP | {0.3: value}), MIOU)[1].word == word
    spread = curve(BUMP | {0.3: 24.0}, spread=1.0)  # a standard deviation of 0.71: the tolerance is 1.46
    assert check_claim(above(low=0.3, high=0.6), spread, MIOU)[1].word == "reproduced"


def test_only_there():
    claim = above(low=0.5, high=0.6, only=True)
    assert check_claim(claim, curve(BUMP), MIOU)[1].word == "differs"
    assert check_claim(claim, curve(BUMP | {0.4: 25.3}), MIOU)[1].word == "reproduced"
    assert check_claim(claim, curve(BUMP | {0.4: 25.4}), MIOU)[1].word == "differs"


def test_over_a_stretch_of_neighbours():
    assert check_claim(above(span=0.2), curve(BUMP), MIOU)[1].word == "reproduced"
    broken = BUMP | {0.5: 24.0}
    said, verdict = check_claim(above(span=0.2), curve(broken), MIOU)
    assert (said, verdict.word) == ("0.4, 0.6", "differs")
    nearly = BUMP | {0.5: 24.8}
    assert check_claim(above(span=0.2), curve(nearly), MIOU)[1].word == "reproduced", "it may lie above"


def test_where_less_is_better_the_best_is_the_least():
    metric = replace(known_metrics()["miou"], higher_is_better=False)
    dip = curve({x: 50 - y for x, y in BUMP.items()})
    claim = Claim("…", "best", "segmenter.tau", low=0.45, high=0.65)
    said, verdict = check_claim(claim, dip, replace(MIOU, metric=metric))
    assert (said, verdict.word) == ("19.0 at 0.5", "reproduced")
    assert check_claim(claim, dip, MIOU)[1].word == "differs"


@pytest.mark.parametrize(("low", "word"), [(0.45, "reproduced"), (0.55, "differs")])
def test_the_best_lies_where_the_text_says(low, word):
    claim = Claim("…", "best", "segmenter.tau", low=low, high=0.65)
    assert check_claim(claim, curve(BUMP), MIOU)[1].word == word
    assert check_claim(claim, curve(BUMP | {0.6: 30.8}), MIOU)[1].word == "reproduced", "0.6 is as good but for noise"


def test_all_within_a_range():
    claim = Claim("…", "within", "segmenter.tau", low=20.3, high=30.7)
    assert check_claim(claim, curve(BUMP), MIOU)[1].word == "reproduced"
    assert check_claim(claim, curve(BUMP | {0.7: 19.9}), MIOU)[1].word == "differs"
    assert check_claim(claim, curve(BUMP | {0.5: 31.1}), MIOU)[1].word == "differs"


def test_points_of_other_cells():
    assert check_claim(above(low=0.4, high=0.6), curve(BUMP, limits=("limit=3",)), MIOU)[1].word == "limited"


def test_a_curve_with_holes_is_limited():
    said, verdict = check_curve(above(low=0.4, high=0.6), curve({0.4: 30.0, 0.5: 31.0}), MIOU, planned=5)
    assert said == "0.4 – 0.5"
    assert str(verdict) == "limited: 2 of 5 points"
