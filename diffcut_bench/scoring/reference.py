"""What a score is worth: the floor and the ceiling of each cell, from annotations alone, and where its score lies.

The *floor* of an image is a grid with as many segments as the method gave in it, which never looks at the picture. The
*ceiling* is the annotation itself, cut to the patches of the backbone (`Oracle`) where the segmenter works on these,
else as it is. Both go through the cell's own protocol, without upsampler, refiner and namer.
Of linked cells neither is linked: a grid's numbers are places, and the annotation's are classes.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffcut_bench import evaluation
from diffcut_bench.errors import UserError
from diffcut_bench.evaluation import Protocol, choices_in_force, known_metrics, percentile_interval, resample_together
from diffcut_bench.interruption import raise_if_interrupted
from diffcut_bench.scoring.cell import OpenedPass, RunningCell, image_row
from diffcut_bench.scoring.events import FinishedCell
from diffcut_bench.scoring.identity import NUMERICS_VERSION
from diffcut_bench.scoring.pipeline import score_together
from diffcut_bench.scoring.stages import Pipeline
from diffcut_bench.scoring.summary import image_table, match_rows, score_of
from diffcut_bench.segmenters import Oracle, as_segmenter, grid_of
from diffcut_bench.store import (
    Bracket,
    ImageRow,
    Reference,
    Result,
    Score,
    cell_key,
    keep_rows,
    kept_rows,
    log_trace,
    read_rows,
)
from diffcut_bench.traces import Trace, described, is_debugging

# Raise when a change outside of evaluation/ changes floors or ceilings.
_VERSION = 1
# Choices of a protocol that say something of the segments that methods make, and of nothing else.
_OF_METHODS = ("name", "similarity", "label_codes", "zero_affinity", "name_pooling", "name_input")
_CEILING = 0  # in the place of the number of segments
_LEADING = "miou"
_PIXELS_AT_ONCE = 1 << 19


@dataclass
class _Side:
    """Floors, or ceilings, of all cells that share them.

    Attributes:
        kind: ``floor``, ``ceiling_of_patches`` or ``ceiling_of_pixels``.
        pipeline: of a cell, for what comes after segments.
        folder: where rows are kept.
        wanted: image's index and number of segments of each row; `_CEILING` for a ceiling.
        rows: that were found or made.
    """

    kind: str
    pipeline: Pipeline
    folder: Path
    wanted: set[tuple[int, int]] = field(default_factory=set)
    rows: dict[tuple[int, int], ImageRow] = field(default_factory=dict)

    def scorer(self, segments: Mapping[str, int]) -> Pipeline:
        """What scores images, with a number of segments by id, one for each."""

        def grid(image_id: str, scored_size: tuple[int, int]) -> Int[Tensor, "height width"]:
            return grid_of(scored_size, segments[image_id])

        def annotation(labels: Int[Tensor, "batch height width"]) -> Int[Tensor, "batch height width"]:
            return labels.clamp_min(0)

        methods: dict[str, Callable[..., Tensor]] = {"floor": grid, "ceiling_of_patches": Oracle()}
        return replace(self.pipeline, segmenter=as_segmenter(methods.get(self.kind, annotation)))


def add_references(
    scored: Sequence[RunningCell], found: Sequence[tuple[RunningCell, FinishedCell]], opened: OpenedPass
) -> dict[str, Result]:
    """Find what scores of cells are worth: left in ``reference`` of those that are to be written, and written into
    results that were found without.

    Labels are read once for all cells, and not at all where an earlier run has kept what is needed. What stands in the
    way is said in a line, and the cells that it concerns have no reference then: it costs no cell.

    Args:
        scored: cells of the pass whose images are all scored.
        found: cells that were finished before.
        opened: the pass.

    Returns:
        Results as they are on disk now, by key of the cells that were filled in.
    """
    asked = [cell for cell in scored if cell.config.reference != "none" and cell.progress.rows]
    lacking = [cell for cell, end in found if cell.config.reference != "none" and end.result.reference is None]
    try:
        find_references(
            [
                *((cell, cell.counted[0]) for cell in asked),
                *((cell, read_rows(cell.cell.finished_dir)) for cell in lacking),
            ]
        )
        filled = {cell.key: cell.fill_in() for cell in lacking if cell.reference is not None}
        return {key: result for key, result in filled.items() if result is not None}
    except Exception as error:  # such as data that are gone, or no room on the disk
        raise_if_interrupted()
        if is_debugging() and not isinstance(error, UserError):
            raise
        opened.observer.say(why_no_reference(error))
        trace = None if isinstance(error, UserError) else Trace.of(error)
        if trace is not None and asked + lacking:
            log = log_trace(Path((asked + lacking)[0].config.output_dir), trace, "references")
            opened.observer.say(trace.told(log))
        return {}


def why_no_reference(error: Exception) -> str:
    """A line on what stood in the way."""
    why = f"{error.what} ({error.where})" if isinstance(error, UserError) else described(error)
    return f"reference  no floor and ceiling: {why}"


def find_references(cells: Sequence[tuple[RunningCell, Sequence[ImageRow]]]) -> None:
    """Leave floor, ceiling and lift in the ``reference`` of cells of a pass, each given with its rows as they are
    published; see `add_references`."""
    if not cells:
        return
    opened, batch_size = cells[0][0].opened, cells[0][0].config.batch_size
    sides: dict[Path, _Side] = {}
    places = []
    for cell, rows in cells:
        of_patches = cell.pipeline.segmenter.needs & {"features", "grid_sizes"}
        floor = _side(cell, "floor", sides)
        ceiling = _side(cell, "ceiling_of_patches" if of_patches else "ceiling_of_pixels", sides)
        places.append((cell, rows, floor, ceiling))
        floor.wanted |= {(row.index, row.segments) for row in rows}
        ceiling.wanted |= {(row.index, _CEILING) for row in rows}
    failed = _fill(list(sides.values()), opened, max(batch_size, _at_once(opened)))
    if failed:
        first = next(iter(failed.values()))
        opened.observer.say(
            f"reference  no floor and ceiling: {len(failed)} labels can't be scored, the first: {first}"
        )
    for cell, rows, floor, ceiling in places:
        if not failed.keys() & {row.index for row in rows}:
            classes = cell.dataset.num_classes
            low = [floor.rows[row.index, row.segments] for row in rows]
            high = [ceiling.rows[row.index, _CEILING] for row in rows]
            cell.reference = place(
                rows,
                match_rows(low, classes, floor.pipeline.protocol),
                match_rows(high, classes, ceiling.pipeline.protocol),
                cell.pipeline.protocol,
                cell.config.seed,
            )


def _at_once(opened: OpenedPass) -> int:
    """Images that are scored together at least: small ones cost less so."""
    size = opened.features.framing.eval_size
    return 1 if isinstance(size, str) else max(_PIXELS_AT_ONCE // size**2, 1)


def _side(cell: RunningCell, kind: str, sides: dict[Path, _Side]) -> _Side:
    """One side of a cell, the one of other cells if they share it; its folder is named by all that rows depend on."""
    protocol = cell.pipeline.protocol
    if protocol.matching == "named" and kind == "floor":  # a grid has no names
        protocol = replace(protocol, matching="per_image")
    elif protocol.matching == "named":  # the annotation's names are its classes, which have to keep their numbers
        protocol = replace(protocol, surplus="absent_class")
    identity = {
        "version": [_VERSION, NUMERICS_VERSION],
        "dataset": cell.opened.fingerprint,
        "framing": asdict(cell.opened.features.framing),
        "protocol": {n: value for n, value in choices_in_force(asdict(protocol)).items() if n not in _OF_METHODS},
        "code": _code_of_evaluation(),
    }
    folder = Path(cell.config.output_dir) / "references" / cell_key(identity)[:12] / kind
    own = cell.pipeline
    pipeline = Pipeline(own.features, own.segmenter, own.upsampler, refiner=None, protocol=protocol)
    return sides.setdefault(folder, _Side(kind, pipeline, folder))


def _code_of_evaluation() -> str:
    """Digest of what matches and measures, metrics of the user's among it."""
    digest = hashlib.sha256()
    for folder in (*evaluation.__path__, *evaluation.metrics.__path__):
        for path in sorted(Path(folder).glob("*.py")):
            digest.update(f"{path.name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _fill(sides: Sequence[_Side], opened: OpenedPass, batch_size: int) -> dict[int, str]:
    """Find the rows that sides want on disk, and make the others, which are kept there.

    Returns:
        What went wrong, by index of the image.
    """
    ids: list[str] = opened.dataset.ids
    pipelines: list[Pipeline] = []
    takers: list[tuple[_Side, dict[int, int]]] = []  # side and number of segments by index, of each pipeline
    for side in sides:
        for row in kept_rows(side.folder, lambda *key, wanted=side.wanted: key in wanted):
            if row.id == ids[row.index] and len(row.tp) == opened.dataset.num_classes:
                side.rows[row.index, row.segments] = row
        missing: dict[int, list[int]] = defaultdict(list)
        for index, segments in sorted(side.wanted - side.rows.keys()):
            missing[index].append(segments)
        while missing:  # a pipeline scores an image once
            asked = {index: numbers.pop() for index, numbers in missing.items()}
            missing = {index: numbers for index, numbers in missing.items() if numbers}
            pipelines.append(side.scorer({ids[index]: segments for index, segments in asked.items()}))
            takers.append((side, asked))
    if not pipelines:
        return {}
    failed: dict[int, str] = {}
    made: dict[Path, list[ImageRow]] = defaultdict(list)
    for batches in score_together(pipelines, opened.dataset, [asked.keys() for _, asked in takers], batch_size):
        raise_if_interrupted()
        for (side, asked), batch in zip(takers, batches, strict=True):
            failed |= {index: f"{failure.id}: {failure.error}" for index, failure in batch.failures.items()}
            for row in map(image_row, batch.outcomes):
                key = (row.index, asked[row.index])
                side.rows[key] = replace(row, segments=key[1])
                made[side.folder].append(side.rows[key])
    for folder, rows in made.items():
        keep_rows(folder, rows)
    return failed


def place(
    rows: Sequence[ImageRow], floor: Sequence[ImageRow], ceiling: Sequence[ImageRow], protocol: Protocol, seed: int
) -> Reference | None:
    """Where scores lie between floor and ceiling: the bracket of every score that is better high or better low.

    Lift is (score − floor) / (ceiling − floor), also where low is better: the ceiling is the lower one then. Its
    interval is of the paired bootstrap: each resample draws the same images for all three. Samples whose ceiling is no
    better than their floor are left out of it.

    Args:
        rows: of the scored images, matched.
        floor, ceiling: of the same images in the same order, matched.
        protocol: whose scores these are.
        seed: of the bootstrap.

    Returns:
        None where there is no such score.
    """
    tables, choices = [image_table(each) for each in (floor, ceiling, rows)], asdict(protocol)
    metrics = [
        metric
        for metric in known_metrics().values()
        if metric.higher_is_better is not None and not any(metric.missing_in(table, choices) for table in tables)
    ]
    if not metrics:
        return None
    told = resample_together(tables, metrics, choices, seed=seed)
    brackets = {}
    for number, metric in enumerate(metrics):
        counted = [metric.scored_images(table) for table in tables]
        low, high, own = (each[number].scores[0] for each in told)
        lows, highs, owns = (each[number].resampled[:, 0] for each in told)
        brackets[metric.name] = Bracket(
            _score(low, lows, counted[0]),
            _score(high, highs, counted[1]),
            _score(_lift(low, high, own, metric.sign), _lift(lows, highs, owns, metric.sign), counted[2]),
        )
    leading = _LEADING if _LEADING in brackets else next(iter(brackets))
    first = brackets.pop(leading)
    return Reference(first.floor, first.ceiling, first.lift, leading, brackets)


def _lift(
    floor: Float[Tensor, "*resamples"],
    ceiling: Float[Tensor, "*resamples"],
    own: Float[Tensor, "*resamples"],
    sign: int,
) -> Float[Tensor, "*resamples"]:
    """Share of the way from floor to ceiling; NaN where the ceiling is no better than the floor."""
    room = ceiling - floor
    return ((own - floor) / room).where(sign * room > 0, float("nan"))


def _score(value: Float[Tensor, ""], resampled: Float[Tensor, " resamples"], images: int) -> Score:
    """As result.json has it; no interval of what is not defined."""
    interval = percentile_interval(resampled[:, None]).where(value.isfinite(), torch.nan)
    return score_of(value[None], interval, images)
