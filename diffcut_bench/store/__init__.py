"""Features and results on disk: keys, atomic writes, journals of running cells, the schema of result.json."""

from diffcut_bench.store.atomic import remove_partial, sync_folder, sync_tree, unwritable, write_atomically
from diffcut_bench.store.cells import Cell, cell_key
from diffcut_bench.store.error_log import log_error, log_trace
from diffcut_bench.store.feature_store import FeatureStore, StoredSet, StoreOptions, in_units, list_sets, open_set
from diffcut_bench.store.journal import append_line, parse_lines
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

__all__ = [
    "SCHEMA_VERSION",
    "SUMS",
    "Bracket",
    "Cell",
    "CellLock",
    "DatasetRecord",
    "Environment",
    "Failure",
    "FeatureStore",
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
    "append_line",
    "cell_key",
    "check_published",
    "check_sums",
    "in_units",
    "join_progress",
    "keep_rows",
    "kept_rows",
    "list_sets",
    "log_error",
    "log_trace",
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
    "unwritable",
    "write_atomically",
]
