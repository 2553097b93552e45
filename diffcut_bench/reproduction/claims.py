"""What the text says about curves and rows, checked on ours."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from diffcut_bench.errors import UserError
from diffcut_bench.reproduction.curves import Point, check_curve, name_part, parts_of
from diffcut_bench.reproduction.leads import Contest, Lead, check_lead, measure_lead
from diffcut_bench.reproduction.plan import PlannedCell, part_of
from diffcut_bench.reproduction.spec import Claim, Reproduction
from diffcut_bench.reproduction.verdict import Measured, Verdict, known_measures


@dataclass(frozen=True)
class Checked:
    """A statement of the text, what ours do in words, the verdict, and what ours were set beside."""

    text: str
    ours: str
    verdict: Verdict
    beside: str = ""


def check_claims(
    reproduction: Reproduction,
    cells: Sequence[PlannedCell],
    measured: Mapping[int, Measured],
    failed: Mapping[int, str],
) -> list[Checked]:
    """Every statement of the text: of a figure for each row, column and protocol, of a table for each protocol.

    Args:
        reproduction: of the table or figure.
        cells: as planned.
        measured: values by index in ``cells``.
        failed: why a cell was not run, by index.
    """
    if not reproduction.sweep:
        unders = dict.fromkeys(cell.under for cell in cells if cell.config is not None) or {"": None}
        claims = [(claim, under) for under in unders for claim in reproduction.claims]
        return [_of_rows(claim, reproduction, cells, measured, failed, under) for claim, under in claims]
    measure, found = known_measures()[reproduction.measure], []
    for part in parts_of(cells):
        for claim in reproduction.claims:
            curve = [
                i
                for i, cell in enumerate(cells)
                if part_of(cell) == part
                and all((cell.point or {}).get(key) == value for key, value in claim.where.items())
            ]
            points = [Point((cells[i].point or {})[claim.axis], measured[i]) for i in curve if i in measured]
            ours, verdict = check_curve(claim, points, measure, len(curve))
            if not points:
                why = next((failed.get(i, cells[i].not_run) for i in curve), "")
                verdict = Verdict("not run", why)
            found.append(Checked(" ".join([claim.text, *name_part(cells, part)]), ours, verdict))
    return found


def _of_rows(
    claim: Claim,
    reproduction: Reproduction,
    cells: Sequence[PlannedCell],
    measured: Mapping[int, Measured],
    failed: Mapping[int, str],
    under: str,
) -> Checked:
    """A statement about a row beside others, in the columns where it and one of them at least were run."""
    measure = known_measures()[reproduction.measure]
    # Rows that are not run are planned once, under no protocol.
    indices = {(cell.row.name, cell.column): i for i, cell in enumerate(cells) if cell.under in (under, "")}
    asked = claim.columns or [column for column in reproduction.columns if (claim.row, column) in indices]
    contests: dict[str, Contest] = {}
    leads: dict[str, Lead] = {}
    untold: dict[str, _Untold] = {}
    for number, column in enumerate(asked):
        own = indices.get((claim.row, column), -1)
        others = {name: indices[name, column] for name in claim.others if (name, column) in indices}
        run = {name: measured[i] for name, i in others.items() if i in measured}
        left = [cells[i] for name, i in others.items() if name not in run]
        if own not in measured:
            untold[column] = _Untold(2, failed.get(own, cells[own].not_run if own >= 0 else ""))
            continue
        if not run:
            untold[column] = _Untold(1, "none of the rows beside it was run")
            continue
        stated = {cell.row.name: cell.published for cell in left if cell.published is not None}
        published, elsewhere = ({}, tuple(stated)) if cells[own].rescored else (stated, ())
        unrun = tuple(cell.row.name for cell in left if not cell.row.not_run)
        contest = Contest(measured[own], run, published, unrun, elsewhere)
        try:
            leads[column] = measure_lead(contest, measure, seed=42 + number)
            contests[column] = contest
        except (UserError, ValueError) as error:
            untold[column] = _Untold(0, f"{column}: {error.what if isinstance(error, UserError) else error}")
    ours, verdict = check_lead(claim, leads, measure, _limits(contests, untold))
    compared = dict.fromkeys(name for contest in contests.values() for name in contest.others)
    figures = dict.fromkeys(name for contest in contests.values() for name in contest.published)
    beside = "; published: ".join(", ".join(names) for names in (compared, figures) if names)
    return Checked(f"{claim.text} [{under}]" if under else claim.text, ours, verdict, beside)


@dataclass(frozen=True)
class _Untold:
    """Why a column was not compared; of several reasons that of the first rank tells most."""

    rank: int
    why: str


def _limits(contests: Mapping[str, Contest], untold: Mapping[str, _Untold]) -> list[str]:
    """Why the columns that could be compared are not what the text is about; or the one reason why there is none."""
    if not contests:
        return [min(untold.values(), key=lambda each: each.rank).why] if untold else []
    limits = [f"{len(contests)} of {len(contests) + len(untold)} columns"] if untold else []
    for column, contest in contests.items():
        limits += [f"{name} was not run in {column}" for name in contest.unrun]
        limits += [limit for each in (contest.ours, *contest.others.values()) for limit in each.limits]
    elsewhere = dict.fromkeys(name for contest in contests.values() for name in contest.elsewhere)
    limits += [f"without {', '.join(elsewhere)}, published under the table's own protocol"] if elsewhere else []
    return list(dict.fromkeys(limits))
