import pytest

from diffcut_bench.reproduction import MEASURES, Claim, Measured, Point, Verdict
from diffcut_bench.reproduction import check_claim as check

MIOU = MEASURES["miou"]


def curve(values: dict[float, float], half: float = 1.0, limits: tuple[str, ...] = ()) -> list[Point]:
    return [Point(x, Measured(y, (y - half, y + half), limits)) for x, y in values.items()]


def check_claim(claim: Claim, points: list[Point], measure: object) -> tuple[str, Verdict]:
    return check(claim, points, measure, len(points))


BUMP = {0.3: 20.0, 0.4: 30.0, 0.5: 31.0, 0.6: 30.0, 0.7: 20.0}


def above(**more: object) -> Claim:
    return Claim("…", "above", "segmenter.tau", value=25.0, **more)


def test_above_a_value_from_here_to_there():
    said, verdict = check_claim(above(low=0.4, high=0.6), curve(BUMP), MIOU)
    assert (said, verdict.word) == ("0.4 – 0.6", "reproduced")
    assert check_claim(above(low=0.3, high=0.6), curve(BUMP), MIOU)[1].word == "differs"


def test_a_point_contradicts_only_with_its_whole_interval():
    nearly = BUMP | {0.3: 24.0}
    assert check_claim(above(low=0.3, high=0.6), curve(nearly), MIOU)[1].word == "reproduced"
    assert check_claim(above(low=0.3, high=0.6), curve(nearly, half=0.4), MIOU)[1].word == "differs"


def test_only_there():
    claim = above(low=0.5, high=0.6, only=True)
    assert check_claim(claim, curve(BUMP), MIOU)[1].word == "differs"
    assert check_claim(claim, curve(BUMP | {0.4: 25.2}), MIOU)[1].word == "reproduced"


def test_over_a_stretch_of_neighbours():
    assert check_claim(above(span=0.2), curve(BUMP), MIOU)[1].word == "reproduced"
    broken = BUMP | {0.5: 24.0}
    said, verdict = check_claim(above(span=0.2), curve(broken, half=0.4), MIOU)
    assert (said, verdict.word) == ("0.4, 0.6", "differs")
    assert check_claim(above(span=0.2), curve(broken, half=0.6), MIOU)[1].word == "reproduced", "it may lie above"


@pytest.mark.parametrize(("low", "word"), [(0.45, "reproduced"), (0.55, "differs")])
def test_the_best_lies_where_the_text_says(low, word):
    claim = Claim("…", "best", "segmenter.tau", low=low, high=0.65)
    assert check_claim(claim, curve(BUMP | {0.6: 29.0}, half=0.0), MIOU)[1].word == word
    assert check_claim(claim, curve(BUMP), MIOU)[1].word == "reproduced", "0.6 is within the intervals as good"


def test_all_within_a_range():
    claim = Claim("…", "within", "segmenter.tau", low=21.0, high=31.0)
    assert check_claim(claim, curve(BUMP), MIOU)[1].word == "reproduced"
    assert check_claim(claim, curve(BUMP, half=0.1), MIOU)[1].word == "differs"


def test_points_of_other_cells_and_no_points():
    assert check_claim(above(low=0.4, high=0.6), curve(BUMP, limits=("limit=3",)), MIOU)[1].word == "limited"
    assert check_claim(above(low=0.4, high=0.6), [], MIOU)[1].word == "not run"


def test_a_curve_with_holes_is_limited():
    said, verdict = check(above(low=0.4, high=0.6), curve({0.4: 30.0, 0.5: 31.0}), MIOU, planned=5)
    assert said == "0.4 – 0.5"
    assert str(verdict) == "limited: 2 of 5 points"
