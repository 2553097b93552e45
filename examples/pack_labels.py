"""Pack a folder that `diffcut-bench segment` wrote: WebDataset shards, or a data set of Hugging Face.

    diffcut-bench segment photos --recursive -o labels          # may be killed and called again; shard=i/n
    python examples/pack_labels.py labels shards --to webdataset      # pip install webdataset
    python examples/pack_labels.py labels photos_labels --to datasets # datasets.load_from_disk("photos_labels")

A sample is the picture's file as it is, its label picture (the values are segment ids), and what segments.json says of
its segments.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diffcut_bench.paths import reopened


def samples(folder: Path) -> Iterator[dict[str, Any]]:
    """Of each entry of segments.json: name, path of the picture, path of its labels, and its segments."""
    record = json.loads((folder / "segments.json").read_text(encoding="utf-8"))
    for entry in record["images"]:
        yield {
            "name": entry["labels"].removesuffix("_labels.png"),
            "image": Path(reopened(entry, folder)["image"]),
            "labels": folder / entry["labels"],
            "segments": entry["segments"],
        }


def write_webdataset(folder: Path, output: Path, pictures_a_shard: int) -> None:
    """Shards ``000000.tar`` …: of each sample ``NAME.jpg``, ``NAME.labels.png`` and ``NAME.json``."""
    import webdataset

    output.mkdir(parents=True, exist_ok=True)
    with webdataset.ShardWriter(f"{output}/%06d.tar", maxcount=pictures_a_shard, verbose=0) as writer:
        for sample in samples(folder):
            writer.write(
                {
                    "__key__": sample["name"].replace(".", "_"),  # what follows a dot is the kind of a file
                    sample["image"].suffix.lower().removeprefix("."): sample["image"].read_bytes(),
                    "labels.png": sample["labels"].read_bytes(),
                    "json": sample["segments"],
                }
            )


def write_datasets(folder: Path, output: Path, pictures_a_shard: int) -> None:
    """Arrow files with the columns name, image, labels (pictures) and segments (JSON)."""
    import datasets

    def rows() -> Iterator[dict[str, Any]]:
        for sample in samples(folder):
            pictures = {
                kind: {"path": sample[kind].name, "bytes": sample[kind].read_bytes()} for kind in ("image", "labels")
            }
            yield {"name": sample["name"], **pictures, "segments": json.dumps(sample["segments"])}

    features = datasets.Features(
        name=datasets.Value("string"),
        image=datasets.Image(),
        labels=datasets.Image(),
        segments=datasets.Value("string"),
    )
    with tempfile.TemporaryDirectory() as cache:  # not in memory as a whole
        dataset = datasets.Dataset.from_generator(rows, features=features, cache_dir=cache)
        dataset.save_to_disk(str(output), num_shards=-(-len(dataset) // pictures_a_shard))


def main(arguments: list[str] | None = None) -> None:
    """Pack one folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="that -o of `diffcut-bench segment` named")
    parser.add_argument("output", type=Path, help="folder of the shards")
    parser.add_argument("--to", choices=("webdataset", "datasets"), default="webdataset")
    parser.add_argument("--pictures-a-shard", type=int, default=1000, metavar="N")
    options = parser.parse_args(arguments)
    write = write_webdataset if options.to == "webdataset" else write_datasets
    write(options.folder, options.output, options.pictures_a_shard)


if __name__ == "__main__":
    main()
