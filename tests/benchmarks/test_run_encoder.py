"""The encoder's bench: full-size shapes by count, the tiny one end to end."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Finished, program

from benchmarks.__main__ import main
from benchmarks.encoder import (
    PRECISIONS,
    Measured,
    Row,
    Setting,
    all_settings,
    colour_fields,
    fastest_sound,
    float32_features,
    measure,
    measure_rates,
    open_encoder,
)
from benchmarks.random_weights import (
    ARCHITECTURES,
    count_flops,
    count_parameters,
    shapes_of,
    write_random_checkpoint,
)
from diffcut_bench.backbones import DiffusionEncoder
from diffcut_bench.environment import matrix_rate

CPU = torch.device("cpu")
SIZE = 64


@pytest.fixture
def bench(capsys: pytest.CaptureFixture[str]) -> Callable[..., Finished]:
    """Run `python -m benchmarks` in this process."""
    return program(main, capsys)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    written = tmp_path_factory.mktemp("bench") / "weights-tiny"
    assert write_random_checkpoint(written, ARCHITECTURES["tiny"])
    return written


@pytest.fixture(autouse=True)
def assets(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """An assets cache of these tests' own."""
    cache = str(tmp_path_factory.getbasetemp() / "assets")
    monkeypatch.setattr("huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", cache)


def run(folder: Path, settings: list[Setting]) -> list[Row]:
    images = colour_fields(max(setting.batch for setting in settings), SIZE, CPU)
    exact = float32_features(folder, {PRECISIONS[setting.precision].vae for setting in settings}, images)
    flops = dict.fromkeys(("unet", "vae", "tiny_vae"), 10**6)
    rates = dict.fromkeys(("float32", "tf32", "float16", "bfloat16"), 1e9)

    def open_setting(setting: Setting) -> DiffusionEncoder:
        return open_encoder(folder, PRECISIONS[setting.precision], CPU, channels_last=setting.channels_last)

    return list(measure(settings, open_setting, images, exact, flops, rates, repeats=1))


FULL_SIZE = {"ssd1b": (405.9e6, 1.33), "vega": (246.8e6, 0.85)}


@pytest.mark.parametrize("name", FULL_SIZE)
def test_full_size_models_cost_what_was_counted(name):
    """Known counts."""
    down_parameters, unet_flops = FULL_SIZE[name]
    architecture = ARCHITECTURES[name]
    flops = count_flops(architecture, 1024)
    assert round(flops["unet"] / 1e12, 2) == unet_flops
    assert round(flops["vae"] / 1e12, 2) == 4.88
    assert flops["tiny_vae"] < flops["vae"] / 9
    assert round(count_parameters(architecture)["vae"] / 1e6) == 34
    down = sum(each.numel() for each in shapes_of(architecture)["unet"].down_blocks.parameters())
    assert down == pytest.approx(down_parameters, rel=2e-4)


@pytest.mark.parametrize("vae", ["own", "tiny"])
def test_flops_of_the_shapes_are_those_of_the_encoder_at_work(folder, monkeypatch, vae):
    encoder = open_encoder(folder, PRECISIONS["float32" if vae == "own" else "vae_tiny"], CPU)
    encoder.read()
    counted: list[int] = []

    def count(module: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        counted.append(2 * module.weight[0].numel() * output.numel())

    for module in encoder.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(count)
    attention = torch.nn.functional.scaled_dot_product_attention

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any) -> torch.Tensor:
        output = attention(query, key, value, **options)
        counted.append(2 * key.shape[-2] * (query.numel() + output.numel()))
        return output

    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", attend)
    flops = count_flops(ARCHITECTURES["tiny"], SIZE)
    images = colour_fields(1, SIZE, CPU)
    counted.clear()
    encoder.latents(images)
    in_vae = sum(counted)
    counted.clear()
    encoder(images)
    assert in_vae == flops["vae" if vae == "own" else "tiny_vae"]
    assert sum(counted) - in_vae == flops["unet"]


def test_weights_are_seeded_and_written_once(folder, tmp_path):
    file = Path("unet") / "diffusion_pytorch_model.fp16.safetensors"
    before = (folder / file).stat().st_mtime_ns
    state = torch.get_rng_state()
    assert not write_random_checkpoint(folder, ARCHITECTURES["tiny"])
    assert (folder / file).stat().st_mtime_ns == before
    assert write_random_checkpoint(tmp_path / "same", ARCHITECTURES["tiny"])
    assert (tmp_path / "same" / file).read_bytes() == (folder / file).read_bytes()
    assert write_random_checkpoint(tmp_path / "same", ARCHITECTURES["tiny"], seed=1), "another seed is another model"
    assert (tmp_path / "same" / file).read_bytes() != (folder / file).read_bytes()
    assert torch.equal(torch.get_rng_state(), state)
    assert [path.name for path in tmp_path.iterdir()] == ["same"]


def test_every_precision_gets_a_row_that_compares_with_float32(folder):
    settings = all_settings([1, 2], list(PRECISIONS), [False], ["eager"]) + [Setting("bfloat16", 1, channels_last=True)]
    rows = run(folder, settings)
    assert [row.setting for row in rows] == settings
    for row in rows:
        measured = row.measured
        assert measured is not None, row.error
        assert measured.images_per_s > 0 and measured.vae_s > 0
        assert measured.floor_images_per_s == pytest.approx(500)
        assert measured.floor_share == pytest.approx(measured.images_per_s / 500)
        assert measured.finite == 1
        if row.setting.precision == "float32":
            assert measured.cosine_min == pytest.approx(1, abs=1e-6)
        else:
            assert 0.9 < measured.cosine_min <= measured.cosine_mean < 1 - 1e-9
    assert {row.setting for row in rows if row.setting.released} == {Setting("released", 1), Setting("released", 2)}
    by_setting = {row.setting: row.measured for row in rows}
    coarse, fine = by_setting[Setting("bfloat16", 1)], by_setting[Setting("released", 1)]
    assert coarse.centred_mean < fine.centred_mean


def test_a_failing_setting_is_reported_and_the_others_go_on(folder, monkeypatch):
    original = DiffusionEncoder._posterior_mean

    def fails(self: DiffusionEncoder, images: torch.Tensor) -> torch.Tensor:
        if images.dtype == torch.bfloat16:
            raise torch.OutOfMemoryError("no memory\nfor this")
        return original(self, images)

    monkeypatch.setattr(DiffusionEncoder, "_posterior_mean", fails)
    before = torch.backends.cudnn.allow_tf32
    rows = run(folder, all_settings([1], ["bfloat16", "float32", "vae_bfloat16"], [False], ["eager"]))
    assert [row.error for row in rows] == ["OutOfMemoryError: no memory", None, "OutOfMemoryError: no memory"]
    assert rows[0].measured is None and rows[1].measured is not None
    assert torch.backends.cudnn.allow_tf32 == before


def test_features_that_are_not_finite_are_said_and_never_sound(folder, monkeypatch):
    original = DiffusionEncoder._posterior_mean

    def overflows(self: DiffusionEncoder, images: torch.Tensor) -> torch.Tensor:
        mean = original(self, images)
        return mean / 0 if images.dtype == torch.bfloat16 else mean

    monkeypatch.setattr(DiffusionEncoder, "_posterior_mean", overflows)
    (row,) = run(folder, [Setting("vae_bfloat16", 1)])
    assert row.measured is not None
    assert row.measured.finite < 1
    assert row.measured.cosine_mean is row.measured.cosine_min is None
    assert not row.measured.is_sound(-1)
    assert fastest_sound([row], -1) is None


def row_of(precision: str, images_per_s: float, cosine: float) -> Row:
    return Row(Setting(precision, 1), Measured(images_per_s, 0.1, 0.1, None, 9.0, 0.5, 1.0, cosine, cosine, cosine))


def test_the_fastest_sound_setting_is_of_the_models_own_vae():
    rows = [
        row_of("released", 1, 1.0),
        row_of("vae_float16", 2, 0.9995),
        row_of("bfloat16", 3, 0.99),
        row_of("vae_tiny", 4, 1.0),
        Row(Setting("float16_pure", 1), None, "failed"),
    ]
    assert fastest_sound(rows, 0.999) is rows[1]
    assert fastest_sound(rows, 0.9) is rows[2]
    assert fastest_sound(rows, 1.0) is rows[0]


def test_matrix_rates_are_measured_for_the_arithmetic_in_use():
    rates = measure_rates([Setting("released", 1), Setting("bfloat16", 1)], CPU)
    assert set(rates) == {"float16", "tf32", "bfloat16"}
    assert all(rate > 0 for rate in rates.values())
    assert torch.get_float32_matmul_precision() == "highest"
    assert 1e6 < matrix_rate(torch.float32, CPU) < 1e15


def test_the_command_writes_a_row_for_each_setting(bench, tmp_path):
    options = ("device=cpu", f"protocol.image_size={SIZE}", f"output_dir={tmp_path}")
    done = bench("--encoder", "tiny", "--batches", "1,2", "--quick", *options)
    assert done.code == 0, done.err
    assert "released" in done.out and "fastest sound" in done.out and "at least 0.999" in done.out
    record: dict[str, Any] = json.loads((tmp_path / "bench" / "encoder.json").read_text())
    assert {(row["precision"], row["batch"]) for row in record["rows"]} == {
        (precision, batch) for precision in ("float32", "released", "vae_bfloat16", "bfloat16") for batch in (1, 2)
    }
    assert record["fastest_sound"]["cosine_min"] >= record["sound_cosine"]
    assert record["machine"]["device"].startswith("cpu") and record["date"][:2] == "20"
    for row in record["rows"]:
        rates = record["flops_per_s"]
        vae = rates["tf32" if row["precision"] == "released" else row["vae_dtype"]]
        floor_s = record["flops"]["vae"] / vae + record["flops"]["unet"] / rates[row["unet_dtype"]]
        assert row["floor_images_per_s"] == pytest.approx(1 / floor_s)
        assert row["released"] == (row["precision"] == "released")
    assert (tmp_path / "bench" / "weights-tiny" / "unet" / "config.json").is_file()


MISTAKES: list[tuple[tuple[str, ...], str]] = [
    (("--encoder", "ssd1"), "did you mean ssd1b"),
    (("--encoder", "tiny", "--batches", "1,x"), "'x' is no whole number"),
    (("--encoder", "tiny", "--batches", ","), "nothing named"),
    (("--encoder", "tiny", "--precisions", "bfloat"), "did you mean bfloat16"),
    (("--encoder", "tiny", "--modes", "fast"), "available: compiled, eager"),
    (("--encoder", "tiny", "--repeats", "0"), "--repeats: '0' is no whole number of at least 1"),
    (("--encoder", "tiny", "protocol.image_size=100"), "no multiple of 32"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_mistakes_are_said(bench, tmp_path, arguments, message):
    done = bench(*arguments, f"output_dir={tmp_path}")
    assert done.code == 2
    assert message in done.err
