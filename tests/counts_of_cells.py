"""The counts of every image of a dozen cells, to hold a change of the code against: they must not move.

    python tests/counts_of_cells.py write FILE      before the change
    python tests/counts_of_cells.py check FILE      after it: names each cell whose counts are others; exit code 1

The cells are of the sample that the package brings, of the pictures that the tests draw and, where ``DIFFCUT_SHARED``
is set, of real VOC pictures. Machines differ in the last digit of features, so FILE is of one machine and
not kept here.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from conftest import shapes_overrides, write_shapes
from PIL import Image

from diffcut_bench.cli import main
from diffcut_bench.store import read_result, read_rows

SAMPLE = {
    "sample": [],
    "sample, paper": ["protocol=paper"],
    "sample, strict": ["protocol=strict"],
    "sample, no refiner, nearest": ["refiner=none", "upsampler=nearest"],
    "sample, alpha 2, tau 0.7, eigh": ["segmenter.alpha=2", "segmenter.tau=0.7", "segmenter.solver=eigh"],
    "sample, coarse to fine": ["segmenter.approximation=coarse_to_fine", "segmenter.coarse_patches=64"],
    "sample, colour": ["backbone=colour"],
    "sample, kmeans annotated": ["segmenter=kmeans"],
    "sample, autosc": ["segmenter=autosc"],
    "sample, diffseg": ["segmenter=diffseg", "backbone=efficientnet_lite0", "upsampler=nearest"],
    "sample, maskcut": ["segmenter=maskcut", "backbone=efficientnet_lite0"],
    "sample, tokencut": ["segmenter=tokencut", "backbone=efficientnet_lite0"],
    "sample, slic": ["segmenter=slic", "backbone=none"],
    "sample, grid, no surplus": ["segmenter=grid", "backbone=none", "protocol.surplus=unmatched"],
}
SHAPES = {
    "precomputed": ["segmenter=precomputed"],
    "precomputed, one matching": [
        "segmenter=precomputed",
        "refiner=none",
        "protocol.matching=dataset",
        "protocol.background_rule=one_to_one",
    ],
}
VOC = {
    "voc": [],
    "voc, paper": ["protocol=paper"],
    "voc, strict": ["protocol=strict"],
    "voc, slic": ["segmenter=slic", "backbone=none"],
}


def counts(folder: Path) -> dict[str, Any]:
    """Counts of each cell's images, by the cell's name."""
    found = {name: _score(folder, words) for name, words in SAMPLE.items()}
    root = write_shapes(folder / "shapes", 8)
    (folder / "predictions").mkdir()
    for path in sorted((root / "images").glob("*.png")):
        Image.fromarray(np.asarray(Image.open(path).convert("L")) // 32).save(folder / "predictions" / path.name)
    for name, words in SHAPES.items():
        own = [f"segmenter.folder={folder / 'predictions'}", "backbone=none"]
        found[name] = _score(folder, [*shapes_overrides(root, folder / "out"), *words, *own])
    if "DIFFCUT_SHARED" in os.environ:
        voc = Path(os.environ["DIFFCUT_SHARED"]) / "samples" / "VOCdevkit"
        for name, words in VOC.items():
            found[name] = _score(folder, ["dataset=voc", f"dataset.root={voc}", "accept_labels=true", *words])
    return found


def _score(folder: Path, words: list[str]) -> Any:
    output_dir = folder / "out"
    before = set(output_dir.glob("results/*"))
    code = main(["run", "num_workers=0", f"output_dir={output_dir}", f"data_dir={folder / 'data'}", *words])
    assert code == 0, words
    (cell,) = set(output_dir.glob("results/*")) - before
    result = read_result(cell)
    rows = [[row.id, row.segments, row.pixels, row.void, row.tp, row.fp, row.fn] for row in read_rows(cell)]
    return {"key": result.key, "miou": result.metrics.miou, "interval": result.metrics.miou_ci95, "rows": rows}


if __name__ == "__main__":
    what, file = sys.argv[1:]
    with tempfile.TemporaryDirectory() as place:
        now = json.loads(json.dumps(counts(Path(place))))
    if what == "write":
        Path(file).write_text(json.dumps(now, indent=1) + "\n")
    else:
        then = json.loads(Path(file).read_text())
        moved = [name for name in then if {**then[name], "key": ""} != {**now.get(name, {}), "key": ""}]
        keys = [name for name in then if name not in moved and then[name]["key"] != now[name]["key"]]
        print(f"{len(then)} cells of {sum(len(cell['rows']) for cell in then.values())} images")
        print(f"moved: {', '.join(moved) or 'none'}; other keys: {', '.join(keys) or 'none'}")
        sys.exit(1 if moved else 0)
