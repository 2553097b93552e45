"""Features and results on disk: keys, atomic writes, journals of running cells, the schema of result.json."""

from diffcut_bench.store.atomic import unwritable, write_atomically
from diffcut_bench.store.cells import Cell, ImageRow, Progress, cell_key, join_progress, read_result, read_rows
from diffcut_bench.store.feature_store import FeatureStore, StoredSet, StoreOptions, in_units, list_sets, open_set
from diffcut_bench.store.schema import (
    DatasetRecord,
    Environment,
    Failure,
    Metrics,
    Result,
    SegmentsPerImage,
    Timings,
)

__all__ = [
    "Cell",
    "DatasetRecord",
    "Environment",
    "Failure",
    "FeatureStore",
    "ImageRow",
    "Metrics",
    "Progress",
    "Result",
    "SegmentsPerImage",
    "StoreOptions",
    "StoredSet",
    "Timings",
    "cell_key",
    "in_units",
    "join_progress",
    "list_sets",
    "open_set",
    "read_result",
    "read_rows",
    "unwritable",
    "write_atomically",
]
