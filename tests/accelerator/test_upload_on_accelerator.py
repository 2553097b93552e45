"""What travels to the device: of each batch one copy of each kind, as bytes where it is a picture, and nobody waits."""

from dataclasses import replace

import pytest
import torch
from conftest import shapes_overrides

from benchmarks.launches import Counts
from benchmarks.pretended import DEVICE, Pretended
from diffcut_bench.config import load_config
from diffcut_bench.scoring.framing import Example, Framing
from diffcut_bench.scoring.passes import run_cell
from diffcut_bench.scoring.upload import upload

IMAGES, BATCH, SIDE, SCORED, STRIDE = 8, 4, 139, 32, 32
LABELS, PIXELS, FEATURES = 8 * SCORED**2, 3 * SIDE**2, 4 * 320 * (128 // STRIDE) ** 2


def examples() -> list[Example]:
    """Three of one scored size whose crops differ; one is not looked at, one brings its features."""
    generator = torch.Generator().manual_seed(0)
    framing = Framing("center", 64, 16, "ignore", 16)
    made = [
        Example(
            number,
            str(number),
            framing,
            (40, 40 - number),
            torch.randint(-1, 5, (16, 16), generator=generator),
            torch.randint(0, 256, (3, 39 - number, 39 - number), dtype=torch.uint8, generator=generator),
        )
        for number in range(3)
    ]
    features = torch.rand(6, 4, 4, generator=generator, dtype=torch.float16)
    return [made[0], replace(made[1], pixels=None, features=(features, None)), made[2]]


def brought(example: Example) -> list[torch.Tensor | None]:
    return [example.label, example.pixels, *(example.features or (None, None))]


def test_a_batch_is_one_copy_of_each_kind_and_nobody_waits(accelerator):
    given = examples()
    there = upload(given, DEVICE)
    counts = accelerator.taken()
    assert counts.uploads.total() == 3 and not counts.crossings
    assert counts.uploaded_bytes == 3 * 8 * 16**2 + 3 * (39**2 + 37**2) + 2 * 6 * 4 * 4
    for ours, theirs in zip(there, given, strict=True):
        for copy, original in zip(brought(ours), brought(theirs), strict=True):
            assert (copy is None) == (original is None)
            if original is not None:
                assert copy.device == DEVICE and copy.dtype == original.dtype
                assert torch.equal(copy.cpu(), original)
        assert replace(ours, label=theirs.label, pixels=None, features=()) == replace(theirs, pixels=None, features=())


def test_pictures_are_resized_there_to_what_the_host_would_make(accelerator):
    for ours, theirs in zip(upload(examples(), DEVICE), examples(), strict=True):
        if theirs.pixels is not None:
            for name in ("image", "eval_image"):
                accelerator.taken()
                with torch.inference_mode():
                    made = getattr(ours, name)
                counts = accelerator.taken()
                assert counts.kernels.total() == {"image": 2, "eval_image": 3}[name] and not counts.crossings
                assert made.device == DEVICE
                assert torch.equal(made.cpu(), getattr(theirs, name))


def test_on_the_cpu_nothing_is_copied():
    given = examples()
    assert all(ours is theirs for ours, theirs in zip(upload(given, torch.device("cpu")), given, strict=True))


def test_no_example_is_no_copy(accelerator):
    assert upload([], DEVICE) == [] and not accelerator.counts.uploads


GRID = ["segmenter=grid", "backbone=none", "features=memory"]


@pytest.mark.parametrize(
    ("words", "computed", "stored"),
    [
        (["refiner=pamr"], [LABELS, PIXELS], [LABELS, PIXELS, FEATURES]),
        (["refiner=none"], [LABELS, PIXELS], [LABELS, FEATURES]),
        ([*GRID, "refiner=pamr"], [LABELS, PIXELS], [LABELS, PIXELS]),
        ([*GRID, "refiner=none"], [LABELS], [LABELS]),
    ],
)
def test_a_run_uploads_what_its_stages_look_at_and_no_more(shapes, tmp_path, monkeypatch, words, computed, stored):
    base = [*shapes_overrides(shapes, tmp_path), f"device={DEVICE.type}", f"batch_size={BATCH}", "if_exists=overwrite"]
    base.append("reference=none")  # floors and ceilings have a batch of labels of their own
    sizes: list[int] = []
    note = Counts.upload

    def noting(self, place, tensor, *, blocking):
        if place.startswith("scoring/upload.py"):
            sizes.append(tensor.nbytes)
            assert not blocking
        note(self, place, tensor, blocking=blocking)

    monkeypatch.setattr(Counts, "upload", noting)
    for kinds in (computed, stored):
        sizes.clear()
        with Pretended() as accelerator:
            cell = run_cell(load_config([*base, *words]))
        assert not cell.result.failures
        assert sizes == [kind * BATCH for kind in kinds] * (IMAGES // BATCH)
        # What is computed comes to the host once a batch, to be stored; the other waits there are for the weights.
        waits = accelerator.counts.crossings - accelerator.counts.blocking_uploads
        downloads = sum(count for place, count in waits.items() if place.startswith("scoring/features.py"))
        assert downloads == (IMAGES // BATCH if kinds is computed and "features=memory" not in words else 0)
