"""Features and results on disk: keys, atomic writes, journals of running cells, the schema of result.json.

What is of features is imported when it is asked for: it takes torch along, which results do without.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from diffcut_bench.store.atomic import (
    only_writer,
    remove_partial,
    sync_folder,
    sync_tree,
    unwritable,
    write_atomically,
)
from diffcut_bench.store.cells import Cell, cell_key
from diffcut_bench.store.error_log import log_error, log_trace
from diffcut_bench.store.journal import append_line, parse_lines
from diffcut_bench.store.listing import (
    About,
    Found,
    Unfinished,
    finished_cells,
    unfinished_cells,
    whole_key,
    without_covered,
)
from diffcut_bench.store.lock import CellLock
from diffcut_bench.store.published import SUMS, check_published, check_sums, read_result, read_rows, republish
from diffcut_bench.store.reference_rows import keep_rows, kept_rows
from diffcut_bench.store.rows import ImageRow, Progress, join_progress, pack_prototypes, read_journal
from diffcut_bench.store.schema import (
    SCHEMA_VERSION,
    Bracket,
    DatasetRecord,
    Environment,
    Failure,
    Linking,
    Reference,
    Result,
    Score,
    SegmentsPerImage,
    Timings,
)

if TYPE_CHECKING:
    from diffcut_bench.store.feature_store import FeatureStore, StoredSet, StoreOptions, in_units, list_sets, open_set

__all__ = [
    "SCHEMA_VERSION",
    "SUMS",
    "About",
    "Bracket",
    "Cell",
    "CellLock",
    "DatasetRecord",
    "Environment",
    "Failure",
    "FeatureStore",
    "Found",
    "ImageRow",
    "Linking",
    "Progress",
    "Reference",
    "Result",
    "Score",
    "SegmentsPerImage",
    "StoreOptions",
    "StoredSet",
    "Timings",
    "Unfinished",
    "append_line",
    "cell_key",
    "check_published",
    "check_sums",
    "finished_cells",
    "in_units",
    "join_progress",
    "keep_rows",
    "kept_rows",
    "list_sets",
    "log_error",
    "log_trace",
    "only_writer",
    "open_set",
    "pack_prototypes",
    "parse_lines",
    "read_journal",
    "read_result",
    "read_rows",
    "remove_partial",
    "republish",
    "sync_folder",
    "sync_tree",
    "unfinished_cells",
    "unwritable",
    "whole_key",
    "without_covered",
    "write_atomically",
]
_OF_FEATURES = ("FeatureStore", "StoreOptions", "StoredSet", "in_units", "list_sets", "open_set")


def __getattr__(name: str) -> Any:
    if name in _OF_FEATURES:
        return getattr(import_module("diffcut_bench.store.feature_store"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
