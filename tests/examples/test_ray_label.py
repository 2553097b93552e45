"""examples/ray_label.py: a small parquet file and a shard through two actors, run for run as the plain loop."""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import skimage.data
from PIL import Image

import diffcut_bench

ROOT = Path(__file__).parents[2]
FAST = ["backbone=colour", "protocol.image_size=128", "refiner=none"]


@pytest.fixture
def pictures():
    """Bytes of pictures by key, one of them broken."""
    made = {}
    for number, name in enumerate(["coffee", "chelsea", "rocket", "astronaut"]):
        buffer = io.BytesIO()
        Image.fromarray(getattr(skimage.data, name)()[::6, ::6]).save(buffer, "PNG")
        made[f"{number}"] = buffer.getvalue()
    return made | {"broken": b"no picture"}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "actors"), [("parquet", 2), ("tar", 1), ("parquet", 0)])
def test_the_run_lengths_are_those_of_the_segments(pictures, tmp_path, kind, actors):
    pytest.importorskip("ray.data", reason="runs the pipeline; pip install 'ray[data]'")
    mask = pytest.importorskip("pycocotools.mask", reason="run lengths; pip install pycocotools")
    source = tmp_path / f"pictures.{kind}"
    if kind == "parquet":
        cells = [{"bytes": data, "path": None} for data in pictures.values()]
        pq.write_table(pa.table({"key": list(pictures), "image": cells}), source)
    else:
        with tarfile.open(source, "w") as tar:
            for key, data in pictures.items():
                member = tarfile.TarInfo(f"{key}.png")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    command = [sys.executable, ROOT / "examples" / "ray_label.py", source, tmp_path / "labels", *FAST]
    command += ["--batch-size", "2", "--actors", str(actors), *(["--column", "png"] if kind == "tar" else [])]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    subprocess.run(command, check=True, cwd=tmp_path, env=environment, timeout=500)
    rows = {
        row["key" if kind == "parquet" else "__key__"]: row for row in pq.read_table(tmp_path / "labels").to_pylist()
    }
    assert set(rows) == set(pictures)
    assert "picture" in rows["broken"]["error"]
    assert rows["broken"]["counts"] is None
    segmenter = diffcut_bench.PictureSegmenter(FAST)
    for key, data in pictures.items():
        if key == "broken":
            continue
        row, result = rows[key], segmenter(data)
        assert row["error"] is None
        assert (row["height"], row["width"]) == result.labels.shape
        for segment, counts in enumerate(row["counts"]):
            runs = {"size": list(result.labels.shape), "counts": counts}
            assert np.array_equal(mask.decode(runs), result.labels == segment)
        assert len(row["counts"]) == result.num_segments
