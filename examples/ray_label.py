"""Segment any number of pictures with Ray Data: parquet or WebDataset in, run lengths in parquet out.

    pip install 'diffcut_bench[formats]' 'ray[data]'
    python examples/ray_label.py pictures.parquet labels --actors 2
    python examples/ray_label.py 'shards/*.tar' labels --column jpg --actors 8 --gpus 1 backbone=ssd1b device=cuda

A picture is the bytes of a JPEG, PNG …, or a struct with the field ``bytes`` (as Hugging Face stores them). The output
has all other columns of the input, and

    height, width   of the picture
    counts          list of text: COCO's compressed run lengths of each segment, for pycocotools
    error           why there are none; null where there are
"""

import argparse
import time
from glob import glob
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pycocotools import mask

from diffcut_bench import PictureSegmenter
from diffcut_bench.errors import UserError

FIELDS = {"height": pa.int32(), "width": pa.int32(), "counts": pa.list_(pa.string()), "error": pa.string()}


class Labeller:
    """An actor: it builds the pipeline once, and segments batch after batch.

    Args:
        overrides: of Hydra, as after `diffcut-bench segment`.
        column: that holds the pictures.
    """

    def __init__(self, overrides: list[str], column: str) -> None:
        self._segmenter, self._column = PictureSegmenter(overrides), column

    def __call__(self, batch: pa.Table) -> pa.Table:
        pictures = [each["bytes"] if isinstance(each, dict) else each for each in batch[self._column].to_pylist()]
        rows = [labelled(each) for each in self._segmenter.try_map(pictures, batch_size=len(pictures))]
        made = pa.Table.from_pylist(rows, pa.schema(FIELDS))
        kept = batch.drop_columns([self._column])
        return pa.table({name: table[name] for table in (kept, made) for name in table.column_names})


def labelled(result: Any) -> dict[str, Any]:
    """What is kept of a picture: its size, and run lengths of its segments in the order of their ids."""
    if isinstance(result, UserError):
        return {"error": result.what}
    height, width = result.labels.shape
    runs = mask.encode(np.asfortranarray(np.moveaxis(result.masks(), 0, -1), dtype=np.uint8))
    return {"height": height, "width": width, "counts": [each["counts"].decode("ascii") for each in runs]}


def main(arguments: list[str] | None = None) -> None:
    """Read, segment, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", help="parquet files (a folder, a pattern) or WebDataset shards ('*.tar')")
    parser.add_argument("output", help="folder of the parquet files that are written")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as after `diffcut-bench segment`")
    parser.add_argument(
        "--column", default="image", help="that holds the pictures; of WebDataset the suffix, such as jpg"
    )
    parser.add_argument("--actors", type=int, default=2, help="processes that segment; 0: this one does, without Ray")
    parser.add_argument("--gpus", type=float, default=0, help="of each actor; 0.5: two share one")
    parser.add_argument("--batch-size", type=int, default=8, help="pictures that go through the backbone together")
    options = parser.parse_intermixed_args(arguments)

    began = time.perf_counter()
    (by_ray if options.actors else in_a_loop)(options)
    number, took = pq.read_table(options.output, columns=["error"]).num_rows, time.perf_counter() - began
    print(f"{number} pictures in {took:.1f} s, {number / took:.2f} a second")  # noqa: T201


def by_ray(options: argparse.Namespace) -> None:
    """Read, segment and write at once, in as many processes as there are CPUs and actors."""
    import ray

    paths = files_of(options.pictures)
    if paths[0].endswith(".tar"):
        pictures = ray.data.read_webdataset(paths, decoder=None)  # bytes: they are decoded where they are segmented
    else:
        pictures = ray.data.read_parquet(paths)
    # A file is one block, and a block is one actor's: smaller ones keep all of them at work to the end.
    pictures = pictures.repartition(target_num_rows_per_block=2 * options.batch_size)
    pictures.map_batches(
        Labeller,
        fn_constructor_args=[options.overrides, options.column],
        batch_size=options.batch_size,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=options.actors),
        num_cpus=0 if options.gpus else 0.5,  # what is left of the CPUs reads and writes; with none left, nothing runs
        num_gpus=options.gpus,
    ).write_parquet(options.output)


def in_a_loop(options: argparse.Namespace) -> None:
    """The same of parquet files, batch after batch: to try a config, and to compare with."""
    labeller = Labeller(options.overrides, options.column)
    batches = ds.dataset(files_of(options.pictures)).to_batches(batch_size=options.batch_size)
    made = pa.concat_tables(labeller(pa.Table.from_batches([batch])) for batch in batches)
    pq.write_to_dataset(made, options.output)


def files_of(pattern: str) -> list[str]:
    """The files of a pattern; a name without one is itself."""
    return sorted(glob(pattern)) or [pattern]  # noqa: PTH207 - of a whole path


if __name__ == "__main__":
    main()
