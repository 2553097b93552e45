"""Speed of the diffusion encoder with random weights, against its floor: ``make bench ARGS="--encoder NAME"``."""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.encoder import (
    MODES,
    PRECISIONS,
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
from benchmarks.random_weights import ARCHITECTURES, count_flops, count_parameters, write_random_checkpoint
from benchmarks.report import machine, print_table, write_record
from diffcut_bench.backbones import DiffusionEncoder
from diffcut_bench.commands.terminal import progress, say
from diffcut_bench.config import load_config
from diffcut_bench.environment import choose_device
from diffcut_bench.errors import UserError
from diffcut_bench.store import unwritable

QUICK = ("float32", "released", "vae_bfloat16", "bfloat16")
_PATCH = 32  # pixels of the coarsest level


def run(options: argparse.Namespace) -> None:
    """Measure every setting, print the table and write encoder.json, after each setting anew."""
    architecture = ARCHITECTURES[options.encoder]
    settings = _settings(options)
    repeats = min(options.repeats, 2) if options.quick else options.repeats
    config = load_config(options.overrides)
    size = config.protocol["image_size"]
    if size % _PATCH:
        raise UserError(f"image size {size} is no multiple of {_PATCH}", "protocol.image_size", "such as 1024")
    device = choose_device(config.device)
    path = Path(config.output_dir) / "bench" / "encoder.json"
    weights = path.parent / f"weights-{options.encoder}"
    try:
        write_random_checkpoint(weights, architecture)
    except OSError as error:
        raise unwritable(weights, error) from error

    flops, rates = count_flops(architecture, size), measure_rates(settings, device)
    images = colour_fields(max(setting.batch for setting in settings), size, device)
    exact = float32_features(weights, {PRECISIONS[setting.precision].vae for setting in settings}, images)

    def open_setting(setting: Setting) -> DiffusionEncoder:
        precision = PRECISIONS[setting.precision]
        return open_encoder(weights, precision, device, channels_last=setting.channels_last, compile=setting.compile)

    measured_on = machine(device)
    record: dict[str, Any] = {
        "schema_version": 1,
        "date": measured_on["date"],
        "machine": measured_on,
        "encoder": options.encoder,
        "weights": "random",
        "image_size": size,
        "repeats": repeats,
        "parameters": count_parameters(architecture),
        "flops": flops,
        "flops_per_s": rates,
        "sound_cosine": options.sound,
    }
    rows: list[Row] = []
    with progress(options.encoder, "settings") as report:
        for row in measure(settings, open_setting, images, exact, flops, rates, repeats):
            rows.append(row)
            best = fastest_sound(rows, options.sound)
            record["fastest_sound"] = None if best is None else _flat(best, options.sound)
            record["rows"] = [_flat(row, options.sound) for row in rows]
            write_record(path, record)
            report(len(rows), len(settings))
    print_table(
        record["rows"],
        "precision released channels_last compile batch:d images_per_s:.2f floor_share:.0% vae_s:.4f unet_s:.4f "
        "memory_bytes:,d finite:.2% cosine_mean:.6f cosine_min:.6f centred_mean:.6f sound error",
        *_notes(record),
    )
    say(f"record   {path}")


def _settings(options: argparse.Namespace) -> list[Setting]:
    precisions, modes, layouts = (QUICK, ["eager"], [False]) if options.quick else (PRECISIONS, MODES, [False, True])
    return all_settings(
        options.batches or [1, 4, 16], list(options.precisions or precisions), layouts, list(options.modes or modes)
    )


def _flat(row: Row, sound: float) -> dict[str, Any]:
    """Setting, precision and measurement of a row in one."""
    measured = {} if row.measured is None else {**asdict(row.measured), "sound": row.measured.is_sound(sound)}
    precision = asdict(PRECISIONS[row.setting.precision])
    return {**asdict(row.setting), **precision, "released": row.setting.released, "error": row.error, **measured}


def _notes(record: Mapping[str, Any]) -> Iterator[str]:
    """What a reader needs beside the figures."""
    yield (
        f"{record['machine']['device']}, {record['encoder']} with random weights, {record['image_size']}² pixels, "
        f"{record['date']}"
    )
    rates = ", ".join(f"{name} {rate / 1e12:.4g}" for name, rate in record["flops_per_s"].items())
    counts = {name: f"{count / 1e12:.4g}" for name, count in record["flops"].items()}
    yield (
        f"TFLOP an image: UNet {counts['unet']}, VAE {counts['vae']}, tiny VAE {counts['tiny_vae']}; "
        f"matrix products, TFLOP/s: {rates}"
    )
    if any(row["vae_dtype"] == "float16" for row in record["rows"]):
        yield (
            "random weights do not overflow in a float16 VAE, SDXL's own do: there, "
            "backbone.vae=madebyollin/sdxl-vae-fp16-fix"
        )
    best, fastest = record["fastest_sound"], "no setting is sound"
    if best is not None:
        fastest = (
            f"fastest sound: {best['precision']}, batch {best['batch']}: {best['images_per_s']:.4g} images/s "
            f"of at most {best['floor_images_per_s']:.4g}"
        )
    yield f"sound: the least cosine of a patch to float32 is at least {record['sound_cosine']:g}; {fastest}"
