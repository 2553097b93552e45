"""The pretended accelerator itself: what it refuses, what it counts, and where."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d, one_hot, scaled_dot_product_attention

from benchmarks.launches import CROSSING_S, KERNEL_S, Counts
from benchmarks.pretended import DEVICE, Pretended
from diffcut_bench.evaluation import matching, number_by_first_pixel
from diffcut_bench.ncut import cosine_matrix
from diffcut_bench.refinement import median_filter


@pytest.fixture
def square(accelerator):
    made = torch.arange(16.0).view(4, 4).to(DEVICE)
    accelerator.taken()
    return made


MIXED = {
    "add": lambda x: x + torch.ones(4, 4),
    "add, the other way round": lambda x: torch.ones(4, 4) + x,
    "one element is not zero dimensions": lambda x: x * torch.ones(1),
    "in place": lambda x: x.add_(torch.ones(4, 4)),
    "in place on the host": lambda x: torch.ones(4).add_(x[0]),
    "in place on the host by a scalar": lambda x: torch.ones(4).add_(x[0, 0]),
    "product": lambda x: x @ torch.ones(4, 4),
    "cat": lambda x: torch.cat([x, torch.ones(4, 4)]),
    "stack of scalars": lambda x: torch.stack([x[0, 0], torch.tensor(1.0)]),
    "where": lambda x: torch.where(torch.ones(4, 4) > 0, x, x),
    "gather": lambda x: x.gather(1, torch.zeros(4, 1, dtype=torch.int64)),
    "index_select": lambda x: x.index_select(0, torch.tensor([1])),
    "scatter": lambda x: x.scatter_(1, torch.zeros(4, 1, dtype=torch.int64), 1.0),
    "host tensor by a device index": lambda x: torch.ones(4)[x[0].long()],
    "values put by an index": lambda x: x.__setitem__(torch.tensor([0]), torch.ones(1, 4)),
    "mul": lambda x: torch.ones(4).mul(x[0]),
    "out": lambda x: torch.mm(x, x, out=torch.empty(4, 4)),
    "module on the host": lambda x: torch.nn.Linear(4, 4)(x),
    "equal": lambda x: torch.equal(x, torch.ones(4, 4)),
    "searchsorted": lambda x: torch.searchsorted(torch.arange(4.0), x),
}


@pytest.mark.parametrize("what", MIXED)
def test_devices_do_not_mix(square, what):
    with pytest.raises(RuntimeError, match="same device"):
        MIXED[what](square)


def test_the_host_draws_no_numbers_for_the_device(accelerator):
    with pytest.raises(RuntimeError, match="'pretend' device type for generator but found 'cpu'"):
        torch.rand(3, device=DEVICE, generator=torch.Generator().manual_seed(0))
    own = torch.rand(3, device=DEVICE, generator=torch.Generator(DEVICE).manual_seed(0))
    assert torch.equal(own.cpu(), torch.rand(3, generator=torch.Generator().manual_seed(0)))


def test_numpy_does_not_see_the_device(square):
    for see in (lambda: square.numpy(), lambda: np.asarray(square)):
        with pytest.raises(TypeError, match="to numpy"):
            see()


def test_what_is_legal_between_devices(square):
    host = torch.arange(16.0).view(4, 4)
    assert torch.equal((square + torch.tensor(2.0)).cpu(), host + 2)
    assert torch.equal(square[torch.tensor([2, 0])].cpu(), host[[2, 0]])
    assert torch.equal(square[[2, 0]].cpu(), host[[2, 0]])
    assert torch.equal(torch.empty(4, 4).copy_(square), host)
    assert torch.equal(torch.zeros_like(square).copy_(host).cpu(), host)
    square[torch.tensor([0])] = torch.tensor(7.0)
    assert square[0].tolist() == [7.0] * 4


def test_what_is_made_and_computed_there_stays_there(square):
    made = [
        torch.zeros(2, device="pretend"),
        torch.arange(3, device=DEVICE),
        torch.full((2,), 1.5, device=DEVICE),
        torch.tensor([1, 2], device=DEVICE),
        torch.as_tensor(np.ones(2), device=DEVICE),
        square.new_ones(3),
        torch.zeros_like(square),
        square[:, None] > 3,
        square.T @ square,
        *square.max(dim=1),
        torch.nn.Linear(4, 2).to(DEVICE)(square),
        conv2d(square[None, None], square[None, None, :3, :3]),
        scaled_dot_product_attention(square[None, None], square[None, None], square[None, None]),
    ]
    assert {tensor.device for tensor in made} == {DEVICE}
    assert torch.zeros_like(square, device="cpu").device.type == "cpu"
    assert not isinstance(torch.zeros(3), type(square))


def test_changes_in_place_reach_views_and_the_original(square):
    row = square[1]
    assert row.zero_() is row
    assert square[1].tolist() == [0.0] * 4
    square.fill_(3)
    assert row.tolist() == [3.0] * 4


def test_a_module_can_change_its_precision_and_layout_there(square):
    module = torch.nn.Conv2d(1, 2, 3)
    there = torch.nn.Conv2d(1, 2, 3).to(DEVICE)
    there.load_state_dict(module.state_dict())
    there.to(memory_format=torch.channels_last)
    images = square[None, None]
    torch.testing.assert_close(there(images).cpu(), module(images.cpu()))
    found = there.half()(images.half())
    assert found.dtype == torch.float16 and found.cpu().dtype == torch.float16


def test_shapes_that_change_in_place_are_refused(square):
    for change in (square.t_, lambda: square[:2].squeeze_().unsqueeze_(0)):
        with pytest.raises(NotImplementedError, match="in place"):
            change()


def test_it_is_there_inside_with_alone():
    assert not torch.accelerator.is_available()
    with Pretended():
        assert torch.accelerator.is_available()
        assert torch.accelerator.current_accelerator().type == DEVICE.type
        with pytest.raises(RuntimeError, match="one pretended accelerator"), Pretended():
            pass
    assert not torch.accelerator.is_available()
    assert torch.Generator("cpu").device.type == "cpu"


def launches(accelerator):
    return accelerator.taken().kernels.total()


def test_kernels_bytes_and_operations_of_a_known_sequence(accelerator, square):
    square + 1  # 64 bytes in, 64 out
    counts = accelerator.taken()
    assert (counts.kernels.total(), counts.bytes, counts.flops) == (1, 128, 0)
    assert counts.work_s == 128 / 3e12
    square.T[1:].unsqueeze(0).expand(5, -1, -1)
    torch.empty(9, device=DEVICE)
    assert launches(accelerator) == 0
    square[:1].expand(4, 4) + square
    assert accelerator.taken().bytes == 16 + 64 + 64
    square @ square
    counts = accelerator.taken()
    assert (counts.kernels.total(), counts.bytes, counts.flops) == (1, 3 * 64, 2 * 4**3)
    assert counts.work_s == max(128 / 50e12, 192 / 3e12)
    square.zero_()
    assert accelerator.taken().bytes == 64
    square.index_select(0, torch.tensor([1], device=DEVICE))
    assert accelerator.taken().bytes == 8 + (16 + 8 + 16)  # the upload; a row, its number, the copy of the row
    torch.mm(square, square, out=torch.empty(4, 4, device=DEVICE))
    assert accelerator.taken().bytes == 3 * 64
    conv2d(torch.zeros(1, 2, 5, 5, device=DEVICE), torch.zeros(3, 2, 3, 3, device=DEVICE))
    assert accelerator.taken().flops == 2 * (3 * 3 * 3) * (2 * 3 * 3)
    scaled_dot_product_attention(*torch.zeros(3, 1, 2, 5, 4, device=DEVICE))
    assert accelerator.taken().flops == 2 * 2 * (2 * 5 * 5 * 4)


WAITS = {
    "item": lambda x: x[0, 0].item(),
    "float": lambda x: float(x.sum()),
    "bool": lambda x: bool((x > 0).any()),
    "if": lambda x: 1 if x.sum() > 0 else 0,
    "tolist": lambda x: x.tolist(),
    "cpu": lambda x: x.cpu(),
    "equal": lambda x: torch.equal(x, x),
    "nonzero": lambda x: x.nonzero(),
    "unique": lambda x: x.unique(),
    "mask as an index": lambda x: x[x > 3],
    "mask as an index, written": lambda x: x.__setitem__(x > 3, torch.zeros((), device=DEVICE)),
    "repeat_interleave": lambda x: x.repeat_interleave(x[0].long(), dim=1),
    "one_hot without the number of classes": lambda x: one_hot(x.long()),
    "eigh": lambda x: torch.linalg.eigh(x @ x.T),
    "inv": lambda x: torch.linalg.inv(x + 40 * torch.eye(4, device=DEVICE)),
    "cholesky": lambda x: torch.linalg.cholesky(x @ x.T + torch.eye(4, device=DEVICE)),
    "solve": lambda x: torch.linalg.solve(x + 40 * torch.eye(4, device=DEVICE), x),
    "synchronize": lambda x: torch.accelerator.synchronize(DEVICE),
    "list as an index": lambda x: x[[0, 1]],
    "tensor of numbers": lambda x: torch.tensor([0, 1], device=DEVICE),
    "upload": lambda x: torch.ones(3).to(DEVICE),
    "large upload from pageable memory": lambda x: torch.ones(1 << 15).to(DEVICE, non_blocking=True),
    "upload from pinned memory, waited for": lambda x: torch.ones(3).pin_memory().to(DEVICE),
}
WAITS_NOT = {
    "arithmetic": lambda x: (x * 2).sum(dim=1).argmax(),
    "mask as numbers": lambda x: x.where(x > 3, 0.0).masked_fill(x > 5, 1.0),
    "device index": lambda x: x[torch.arange(2, device=DEVICE)],
    "repeat_interleave of a known size": lambda x: x[0].repeat_interleave(x[0].long(), output_size=6),
    "one_hot": lambda x: one_hot(x.long(), 16),
    "cholesky_ex": lambda x: torch.linalg.cholesky_ex(x @ x.T),
    "scalar from the host": lambda x: x + torch.tensor(1.0),
    "small upload": lambda x: torch.ones(3).to(DEVICE, non_blocking=True),
    "upload from pinned memory": lambda x: torch.ones(1 << 15).pin_memory()[1:].to(DEVICE, non_blocking=True),
    "copy to the host that is fetched later": lambda x: x.to("cpu", non_blocking=True),
    "host alone": lambda x: torch.ones(3).sum().item(),
}


@pytest.mark.parametrize("what", WAITS)
def test_the_host_waits(accelerator, square, what):
    WAITS[what](square)
    assert accelerator.counts.crossings.total() == 1
    assert accelerator.counts.modelled_s >= CROSSING_S


@pytest.mark.parametrize("what", WAITS_NOT)
def test_the_host_does_not_wait(accelerator, square, what):
    WAITS_NOT[what](square)
    assert accelerator.counts.crossings.total() == 0


READS = {
    "tolist": lambda soon: soon.tolist(),
    "numpy": lambda soon: soon.numpy(),
    "asarray": np.asarray,
    "item": lambda soon: soon[0, 0].item(),
    "sum": lambda soon: soon.sum(),
    "upload": lambda soon: soon.to(DEVICE),
}


@pytest.mark.parametrize("pinned", [True, False])
@pytest.mark.parametrize("what", READS)
def test_host_memory_is_not_read_before_it_is_there(square, what, pinned):
    if pinned:
        soon = torch.empty(4, 4).pin_memory().copy_(square, non_blocking=True)
    else:
        soon = square.to("cpu", non_blocking=True)
    row = soon[1]  # a view reads nothing
    with pytest.raises(RuntimeError, match="before pretend:0 has written it"):
        READS[what](soon)
    assert square.max().item() == 15  # for which the host waits
    assert row.tolist() == [4, 5, 6, 7]
    READS[what](soon)


def test_uploads_are_told_apart(accelerator):
    torch.ones(10).to(DEVICE)
    torch.ones(10).pin_memory().to(DEVICE, non_blocking=True)
    counts = accelerator.counts
    assert (counts.uploads.total(), counts.blocking_uploads.total(), counts.uploaded_bytes) == (2, 1, 80)
    assert (counts.kernels.total(), counts.bytes) == (2, 80)


def test_what_is_pinned_is_known():
    with Pretended():
        plain = torch.ones(3)
        pinned = plain.pin_memory()
        assert torch.empty(3, pin_memory=True).is_pinned() and not torch.empty(3).is_pinned()
        assert pinned.is_pinned() and pinned[1:].is_pinned() and pinned.pin_memory() is pinned
        assert not plain.is_pinned() and not pinned.clone().is_pinned()
        with pytest.raises(RuntimeError, match="cannot pin"):
            plain.to(DEVICE).pin_memory()


def test_a_crossing_is_put_down_to_its_line(accelerator):
    labels = torch.tensor([[[2, 2], [0, 1]]]).to(DEVICE)
    accelerator.taken()
    number_by_first_pixel(labels)
    counts = accelerator.taken()
    (place,) = counts.crossings
    file, _, line = place.partition(":")
    assert file == "evaluation/matching.py"
    source = Path(matching.__file__).read_text().splitlines()
    assert "int(flat.max())" in source[int(line) - 1]
    assert set(counts.kernels) != {place} and all(each.startswith(file) for each in counts.kernels)
    labels.sum().item()
    assert list(accelerator.counts.crossings) == ["elsewhere"]


def test_a_dense_solver_is_many_kernels_an_item(accelerator):
    large, small = torch.eye(40).expand(3, 40, 40).to(DEVICE), torch.eye(8).expand(3, 8, 8).to(DEVICE)
    accelerator.taken()
    torch.linalg.eigh(small)
    few = launches(accelerator)
    torch.linalg.eigh(large)
    assert few < 10
    assert launches(accelerator) == 3 * 300


def test_counts_add_up():
    counts = Counts()
    counts.kernel("a:1", 2, 3 * 10**12, 0)
    counts.kernel("a:1", 1, 0, 50 * 10**12)
    counts.upload("a:2", torch.zeros(0), blocking=True)
    assert counts.modelled_s == pytest.approx(2 + 4 * KERNEL_S + CROSSING_S)
    assert counts.kernels == {"a:1": 3, "a:2": 1}


def test_results_are_those_of_the_host(accelerator):
    features = torch.rand(2, 30, 8)
    assert torch.equal(cosine_matrix(features.to(DEVICE)).cpu(), cosine_matrix(features))
    labels = torch.randint(0, 5, (2, 12, 12))
    assert torch.equal(median_filter(labels.to(DEVICE)).cpu(), median_filter(labels))


def test_autocast_has_cudas_precisions(accelerator):
    x = torch.rand(2, 4, device=DEVICE)
    with torch.autocast(DEVICE.type, torch.float16):
        product = x @ x.T
        assert product.dtype == torch.float16
        assert product.softmax(dim=1).dtype == torch.float32
        assert torch.nn.functional.layer_norm(product, (2,)).dtype == torch.float32
        assert (product + product).dtype == torch.float16
    assert (x @ x.T).dtype == torch.float32
