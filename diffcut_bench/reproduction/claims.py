"""What the text says about curves and rows, checked on ours."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter

from diffcut_bench.errors import UserError
from diffcut_bench.reproduction.curves import check_curve, name_part, parts_of
from diffcut_bench.reproduction.leads import Lead, check_lead, measure_lead
from diffcut_bench.reproduction.outcome import Outcome
from diffcut_bench.reproduction.spec import Claim, Reproduction
from diffcut_bench.reproduction.verdict import Verdict, known_measures


@dataclass(frozen=True)
class Checked:
    """A statement of the text, what ours do in words, the verdict, and what ours were set beside."""

    text: str
    ours: str
    verdict: Verdict
    beside: str = ""


def check_claims(reproduction: Reproduction, outcomes: Sequence[Outcome]) -> list[Checked]:
    """Every statement of the text: of a figure for each row, column and protocol, of a table for each protocol.

    Args:
        reproduction: of the table or figure.
        outcomes: of its cells, without seeds of the noise (`average_seeds`).
    """
    unstated = next((each.cell.unstated for each in outcomes if each.cell.unstated), "")
    if unstated:
        return [Checked(claim.text, "–", Verdict("not stated", unstated)) for claim in reproduction.claims]
    if not reproduction.sweep:
        unders = dict.fromkeys(each.cell.under for each in outcomes if each.cell.config is not None) or [""]
        return [_of_rows(claim, reproduction, outcomes, under) for under in unders for claim in reproduction.claims]
    found, parts = [], parts_of(outcomes)
    for part in parts:
        whole = [each for each in outcomes if each.cell.part == part]
        for claim in reproduction.claims:
            curve = [each for each in whole if claim.where.items() <= each.cell.point.items()]
            points = {each.cell.point[claim.axis]: each.ours for each in curve if each.ours is not None}
            if points:
                ours, verdict = check_curve(claim, points, known_measures()[reproduction.measure], len(curve))
            else:
                ours, verdict = "–", Verdict("not run", curve[0].why if curve else "")
            found.append(Checked(f"{claim.text} {name_part(parts, part)}".strip(), ours, verdict))
    return found


def _of_rows(claim: Claim, reproduction: Reproduction, outcomes: Sequence[Outcome], under: str) -> Checked:
    """A statement about a row beside others, in the columns where it and at least one of them were run."""
    measure = known_measures()[reproduction.measure]
    # Rows that are not run are planned once, under no protocol.
    cells = {(each.cell.row.name, each.cell.column): each for each in outcomes if each.cell.under in (under, "")}
    asked = claim.columns or [column for column in reproduction.columns if (claim.row, column) in cells]
    leads: dict[str, Lead] = {}
    limits: list[str] = []
    untold: list[tuple[int, str]] = []  # why a column was not compared; the reason of the first rank tells most
    compared: dict[str, None] = {}
    published: dict[str, None] = {}
    elsewhere: dict[str, None] = {}  # published under another protocol than ours is scored under, and left out
    for number, column in enumerate(asked):
        own = cells.get((claim.row, column))
        if own is None or own.ours is None:
            untold.append((2, own.why if own is not None else ""))
            continue
        others = [cells[name, column] for name in claim.others if (name, column) in cells]
        run = {each.cell.row.name: each.ours for each in others if each.ours is not None}
        if not run:
            untold.append((1, "none of the rows beside it was run"))
            continue
        left = [each.cell for each in others if each.ours is None]
        stated = {cell.row.name: cell.published for cell in left if cell.published is not None}
        figures = {} if own.cell.rescored else stated
        try:
            leads[column] = measure_lead(own.ours, [*run.values()], measure, [*figures.values()], seed=42 + number)
        except (UserError, ValueError) as error:
            untold.append((0, f"{column}: {error.what if isinstance(error, UserError) else error}"))
            continue
        limits += [f"{cell.row.name} was not run in {column}" for cell in left if not cell.row.not_run]
        limits += [limit for each in (own.ours, *run.values()) for limit in each.limits]
        compared |= dict.fromkeys(run)
        published |= dict.fromkeys(figures)
        elsewhere |= dict.fromkeys(stated if own.cell.rescored else ())
    if elsewhere:
        limits.append(f"without {', '.join(elsewhere)}, published under the table's own protocol")
    if leads and untold:
        limits.insert(0, f"{len(leads)} of {len(asked)} columns")
    elif untold:
        limits = [min(untold, key=itemgetter(0))[1]]
    ours, verdict = check_lead(claim, leads, measure, list(dict.fromkeys(limits)))
    beside = "; published: ".join(", ".join(names) for names in (compared, published) if names)
    return Checked(f"{claim.text} [{under}]" if under else claim.text, ours, verdict, beside)
