"""A leaderboard: of each data set and protocol the cells, best first. Its JSON Schema: docs/leaderboard.schema.json."""

import json
from collections.abc import Sequence
from typing import Any

from diffcut_bench.evaluation import Metric, choices_in_force
from diffcut_bench.exporting.public import Value, public_value, settings_of
from diffcut_bench.redaction import public_text
from diffcut_bench.scoring.ranking import leading_metric, merit
from diffcut_bench.store import Result, Score

SCHEMA_VERSION = 1


def leaderboard(results: Sequence[Result], score: str) -> dict[str, Any]:
    """As plain JSON. Cells of one board are scored on the same images by the same rules; shards are on none.

    Args:
        results: of cells.
        score: that ranks them; a board of which no cell has it is ranked by the first that one has.
    """
    boards: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        if result.shard is None:
            dataset, choices = result.dataset, json.dumps(_protocol(result), sort_keys=True)
            place = dataset.name, str(result.limited), str(dataset.n_images), dataset.fingerprint, choices
            boards.setdefault(place, []).append(result)
    found = [_board(boards[place], score) for place in sorted(boards)]
    return {"format": "diffcut_bench leaderboard", "schema_version": SCHEMA_VERSION, "boards": found}


def _board(results: Sequence[Result], score: str) -> dict[str, Any]:
    metric, dataset = leading_metric(score, results), results[0].dataset
    ranks = {result.key: merit(result, metric.name) for result in results}
    ordered = sorted(sorted(results, key=lambda result: result.key), key=lambda one: ranks[one.key], reverse=True)
    cells = [
        {"rank": 1 + sum(ranks[other.key] > ranks[result.key] for other in ordered), **_cell(result, metric)}
        for result in ordered
    ]
    return {
        "dataset": {
            "name": public_text(dataset.name),
            "fingerprint": public_text(dataset.fingerprint),
            "images": dataset.n_images,
            "images_published": dataset.n_expected,
            "limited": results[0].limited,
        },
        "protocol": _protocol(results[0]),
        "metric": {
            "name": metric.name,
            "heading": metric.heading,
            "higher_is_better": metric.higher_is_better,
            "is_fraction": metric.is_fraction,
        },
        "cells": cells,
    }


def _cell(result: Result, metric: Metric) -> dict[str, Any]:
    made_in, segments = result.environment, result.segments_per_image
    return {
        "key": public_text(result.key),
        **_score(result.scores.get(metric.name, Score(None))),
        "scores": {public_text(name): _score(score) for name, score in sorted(result.scores.items())},
        "images_failed": len(result.failures),
        "segments_per_image": segments.mean,
        "settings": settings_of(result.config),
        "environment": {
            "device": public_text(made_in.device),
            "commit": public_text(str(made_in.git["commit"])) if made_in.git.get("commit") else None,
            "dirty": bool(made_in.git.get("dirty")),
            "packages": {public_text(name): public_text(text) for name, text in sorted(made_in.packages.items())},
        },
        "images_per_s": result.timings.images_per_s,
    }


def _score(score: Score) -> dict[str, float | int | None]:
    low, high = score.ci95 or (None, None)
    return {"score": score.value, "low": low, "high": high, "images": score.n}


def _protocol(result: Result) -> dict[str, Value]:
    choices = choices_in_force(result.protocol)
    name = choices.get("name")
    told = {"name": name if isinstance(name, str) else "unknown", **{k: v for k, v in choices.items() if k != "name"}}
    return {public_text(name): public_value(name, value) for name, value in told.items()}
