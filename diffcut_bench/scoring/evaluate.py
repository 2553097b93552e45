"""The user's own function or object, scored under our rules: `diffcut_bench.evaluate`."""

import functools
import math
import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from diffcut_bench import segmenters
from diffcut_bench.config import conf_dir, load_config, quoted, searching
from diffcut_bench.errors import UserError
from diffcut_bench.scoring.events import Observer
from diffcut_bench.scoring.fingerprints import object_fingerprint
from diffcut_bench.scoring.passes import run_cell
from diffcut_bench.segmenters import Segmenter, as_segmenter
from diffcut_bench.store import Result


def evaluate(
    segmenter: Any,
    *overrides: str,
    dataset: str = "sample",
    backbone: str | None = None,
    protocol: str = "released",
    root: str | Path | None = None,
    output_dir: str | Path = "outputs",
    observer: Observer | None = None,
) -> Result:
    """Score a segmenter on a data set, or find that done: `diffcut-bench run` for a function or object.

    The cell is written below ``output_dir`` like any other: ``compare``, ``show`` and ``report`` know it, and an
    interrupted one continues. Its key holds the code of the segmenter and every value in it (`object_fingerprint`), so
    that a changed one is another cell.

    Args:
        segmenter: a function or object as `diffcut_bench.segmenters.as_segmenter` takes it, such as
            ``def mine(features)`` from feature maps [batch, channels, rows, cols] to segments [batch, rows, cols]; or
            the name of an option, such as ``"kmeans"``.
        overrides: further Hydra overrides, such as ``"refiner=none"`` or ``"limit=20"``.
        dataset: name of an option, such as ``voc``, or ``folder`` for data of your own.
        backbone: name of an option: whose features the segmenter gets; None: ``efficientnet_lite0``, or what the
            option of a named segmenter chooses.
        protocol: ``released``, ``paper`` or ``strict``.
        root: folder of the data set's originals.
        output_dir: root of all that is written.
        observer: is told what happens, batch by batch.

    Returns:
        Scores, intervals, failures and timings; see `Result`.

    Raises:
        UserError: an option is out of range, data or weights are missing, the segmenter holds something that no key can
            hold, or no image could be scored.

    >>> import tempfile
    >>> import diffcut_bench
    >>> def brighter_half(image):  # [3, height, width] in [0, 1] to segments [height, width]
    ...     grey = image.mean(dim=0)
    ...     return (grey > grey.median()).long()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     result = diffcut_bench.evaluate(brighter_half, "limit=2", output_dir=folder)
    >>> result.dataset.n_images, result.failures
    (2, [])
    >>> 0 < result.metrics.miou < 1
    True
    """
    words = [f"dataset={dataset}", f"protocol={protocol}", f"output_dir={quoted(str(output_dir))}"]
    words += [] if backbone is None else [f"backbone={backbone}"]
    words += [] if root is None else [f"dataset.root={quoted(str(root))}"]
    with searching(overrides):
        return _evaluated(segmenter, words, overrides, observer)


def _evaluated(segmenter: Any, words: Sequence[str], overrides: Sequence[str], observer: Observer | None) -> Result:
    """`evaluate`, whose other arguments are ``words``."""
    if isinstance(segmenter, str):
        return run_cell(load_config([*words, f"segmenter={segmenter}", *overrides]), observer).result
    for word in overrides:
        if word.lstrip("+~").startswith(("segmenter=", "segmenter.", "segmenter@")):
            raise UserError("the segmenter is the object that was given", word, "set it in the object, or give a name")
    config = load_config([*words, *overrides])
    made = as_segmenter(segmenter)
    # One that says no more than its method does is the cell of the method.
    name, described = _described(made.method if made == as_segmenter(made.method) else made)
    config = replace(config, segmenter=described, choices={**config.choices, "segmenter": name})
    return run_cell(config, observer, segmenter).result


def _described(segmenter: Any) -> tuple[str, dict[str, Any]]:
    """A name for tables, and what key and result hold of the object: its plain fields, so that tables tell two of one
    class apart, and its fingerprint; of a segmenter of this package what its option would hold."""
    inner = segmenter.method if isinstance(segmenter, Segmenter) else segmenter
    while isinstance(inner, functools.partial):
        inner = inner.func
    kind = inner if hasattr(inner, "__qualname__") else type(inner)
    name = re.sub(r"\W+", "_", kind.__qualname__.rpartition("<locals>.")[2]).strip("_") or "own"
    held = {field.name: getattr(inner, field.name) for field in fields(inner)} if is_dataclass(inner) else {}
    if str(kind.__module__).startswith(segmenters.__name__) and held and segmenter is inner:
        target = f"{segmenters.__name__}.{kind.__qualname__}"
        named = [
            path.stem
            for path in (conf_dir() / "segmenter").glob("*.yaml")
            if f"_target_: {target}\n" in path.read_text()
        ]
        return next(iter(named), name), {"_target_": target, **held}
    # A result holds no infinite number; the fingerprint does.
    plain = {name: value for name, value in held.items() if isinstance(value, (bool, int, float, str))}
    plain = {name: value for name, value in plain.items() if isinstance(value, str) or math.isfinite(value)}
    try:
        fingerprint = object_fingerprint(segmenter)
    except ValueError as error:
        hint = "give its class a method fingerprint() that returns text, another for each result"
        raise UserError(str(error), f"segmenter: {kind.__qualname__}", hint) from error
    return name, {"object": f"{kind.__module__}.{kind.__qualname__}", "fields": plain, "fingerprint": fingerprint}
