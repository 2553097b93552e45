"""``diffcut-bench list``: the cells of an output folder, a line each. It answers at once: no torch."""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.text import Text

from diffcut_bench.commands.terminal import console, say, warn_left_out
from diffcut_bench.commands.words import output_folder
from diffcut_bench.config import load_config
from diffcut_bench.errors import UserError
from diffcut_bench.escaping import counted, one_line
from diffcut_bench.settings import config_settings, heading, shown_texts, varying_names
from diffcut_bench.store import Result, Unfinished, finished_cells, unfinished_cells, without_covered

_SHORT = 8  # characters of a key; `show` and `compare` take the beginning of one
_GAP = "  "  # between columns
_LEAST = 8  # characters that a title keeps


@dataclass(frozen=True)
class _Line:
    """A cell as it is listed."""

    title: str  # data set, backbone and segmenter
    key: str
    state: str  # finished, interrupted or running
    when: float  # seconds since 1970
    score: float | None  # in the unit of files
    text: str  # the same as it is shown
    images: int  # done
    of: int | None  # images that it is of; None where that is not known
    failed: int
    config: dict[str, Any]
    folder: Path
    result: Result | None = None

    @property
    def shard(self) -> str | None:
        return self.config.get("shard")


def list_cells(options: argparse.Namespace) -> int:
    """Finished and unfinished cells, newest first.

    Raises:
        UserError: there is no such folder.
    """
    folder, overrides = output_folder(options.overrides)
    score = load_config(overrides).score if overrides else "miou"
    if not folder.is_dir():
        raise UserError("no such folder", str(folder.absolute()), "diffcut-bench list DIR, or output_dir=DIR")

    lines = [_unfinished(cell) for cell in unfinished_cells(folder, warn_left_out)]
    hidden = 0
    if not options.unfinished:
        for path in sorted(folder.glob("results/*")):
            if path.is_dir() and not (path / "result.json").is_file():
                warn_left_out(path, "it holds no result.json")
        found = finished_cells(folder, warn_left_out)
        shown = found if options.all else without_covered(found)
        hidden = len(found) - len(shown)
        lines += [_finished(path, result, score) for path, result in shown]
    ordered = _sorted(lines, options.sort, score)
    if options.json:
        for line in ordered:
            say(json.dumps(_plain(line)))
        return 0
    for text in _table(ordered, score):
        say(text)
    if not lines:
        say(f"no {'unfinished ' if options.unfinished else ''}cells in {folder}")
    if hidden:
        say(f"{counted(hidden, 'shard')} of merged cells not shown (--all shows them)")
    return 0


def _finished(folder: Path, result: Result, score: str) -> _Line:
    name = score if score in result.scores else next(iter(result.scores), score)
    value = result.scores[name].value if name in result.scores else None
    text = _text(name, value) + ("" if name == score else f" {name}")
    when, done = (folder / "result.json").stat().st_mtime, result.dataset.n_images
    title, failed = folder.name.rpartition("-")[0] or folder.name, len(result.failures)
    value = value if name == score else None
    return _Line(
        title, result.key, "finished", when, value, text, done, done, failed, result.config, folder, result=result
    )


def _unfinished(cell: Unfinished) -> _Line:
    about, state = cell.about, "running" if cell.runs else "interrupted"
    title, key, config = about.title or "?", about.key or cell.folder.name, about.config
    return _Line(title, key, state, cell.when, None, "–", cell.done, about.images, cell.failed, config, cell.folder)


def _sorted(lines: Sequence[_Line], by: str, score: str) -> Sequence[_Line]:
    lines = sorted(lines, key=lambda line: (line.title, line.key))
    if by == "date":
        return sorted(lines, key=lambda line: -line.when)
    if by == "score":
        sign = -1.0 if score == "miou" else -float(_sign(score))
        return sorted(lines, key=lambda line: (line.score is None, sign * (line.score or 0)))
    return lines


def _text(name: str, value: float | None) -> str:
    """A score as other tables show it."""
    if value is None or name == "miou":
        return "–" if value is None else f"{100 * value:.1f}"
    from diffcut_bench.evaluation import known_metrics  # see `_sign`

    metric = known_metrics().get(name)
    return f"{value:.3f}" if metric is None else metric.text(value)


def _sign(score: str) -> int:
    from diffcut_bench.evaluation import known_metrics  # only for a score that was asked for: torch takes seconds

    return known_metrics()[score].sign


def _plain(line: _Line) -> dict[str, Any]:
    """A line as JSON: every score as result.json has it, times as ISO 8601."""
    result, when = line.result, datetime.fromtimestamp(line.when).astimezone()
    scores = {
        name: dict(zip(("value", "low", "high"), (score.value, *(score.ci95 or (None, None))), strict=True))
        for name, score in (result.scores if result else {}).items()
    }
    return {
        "cell": line.folder.name,
        "key": line.key,
        "state": line.state,
        "when": when.isoformat(timespec="seconds"),
        "images": line.images,
        "of": line.of,
        "failed": line.failed,
        "shard": line.shard,
        "limited": result.limited if result else None,
        "scores": scores,
        "choices": line.config.get("choices", {}),
        "folder": str(line.folder),
    }


def _table(lines: Sequence[_Line], score: str) -> Iterator[str]:
    """A heading and a line each, cut to the width of the terminal: titles first, which are much alike."""
    if not lines:
        return
    rows = [("when", "mIoU" if score == "miou" else score, "images", "key", "cell", "")]
    for line, settings in zip(lines, _differing(lines), strict=True):
        about = [line.state] if line.state != "finished" else []
        about += [f"shard {line.shard}"] if line.shard else ["limited"] if line.result and line.result.limited else []
        about += [f"{line.failed} failed"] if line.failed else []
        about += settings
        images = str(line.images) + ("" if line.state == "finished" else f"/{'?' if line.of is None else line.of}")
        when = datetime.fromtimestamp(line.when).strftime("%Y-%m-%d %H:%M")
        rows.append(
            (when, line.text, images, one_line(line.key[:_SHORT]), one_line(line.title), one_line(" ".join(about)))
        )
    widths = [max(cell_len(row[col]) for row in rows) for col in range(4)]
    room = console.width - sum(widths) - 4 * len(_GAP)
    for row in rows:
        cells = [Text(text) for text in row]
        for col, width in enumerate(widths):
            cells[col].align("right" if col in (1, 2) else "left", width)
        cells[4].truncate(max(room - cell_len(row[5]) - 1, _LEAST), overflow="ellipsis")
        whole = Text(_GAP).join([*cells[:4], Text(" ").join(cells[4:])])
        whole.truncate(console.width, overflow="ellipsis")
        yield whole.plain.rstrip()


def _differing(lines: Sequence[_Line]) -> list[list[str]]:
    """Of each line the settings by which it differs from others of its title."""
    told: list[list[str]] = [[] for _ in lines]
    titles: dict[str, list[int]] = {}
    for index, line in enumerate(lines):
        if line.config:  # of an unfinished cell of an older version nothing is known
            titles.setdefault(line.title, []).append(index)
    for indices in titles.values():
        settings = [config_settings(lines[index].config) for index in indices]
        names = [name for name in varying_names(settings) if name != "shard"]  # which is told anyway
        for index, texts in zip(indices, shown_texts(settings, names), strict=True):
            told[index] = [f"{heading(name)}={text}" for name, text in texts.items() if text]
    return told
