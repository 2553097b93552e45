"""``make bench ARGS="--encoder NAME"``: speed of the diffusion encoder with random weights, against its floor."""

import argparse
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from benchmarks.ceiling import count_flops, count_parameters
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
from benchmarks.random_weights import ARCHITECTURES, shapes_of, write_random_checkpoint
from diffcut_bench.commands.terminal import console, progress, say
from diffcut_bench.config import load_config
from diffcut_bench.environment import choose_device, device_name, installed_packages
from diffcut_bench.errors import UserError, did_you_mean
from diffcut_bench.store import unwritable, write_atomically

_PATCH = 32  # pixels of the coarsest level
_QUICK = ("float32", "released", "vae_bfloat16", "bfloat16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``--encoder``; ``device``, ``protocol.image_size`` and ``output_dir`` are overrides."""
    group = parser.add_argument_group("the diffusion encoder alone, with random weights")
    group.add_argument("--encoder", metavar="NAME", help=f"{' | '.join(ARCHITECTURES)}: measure this instead")
    group.add_argument("--batches", help="images at a time (default 1,4,16; without --encoder --images)")
    group.add_argument("--precisions", help=f"some of {','.join(PRECISIONS)} (default all)")
    group.add_argument("--modes", help="eager, compiled or both (default eager,compiled)")
    group.add_argument("--repeats", type=int, default=5, help="timed calls of each setting (default 5)")
    group.add_argument(
        "--sound", type=float, default=0.999, help="least cosine of a patch to float32 to be called sound (0.999)"
    )
    group.add_argument("--quick", action="store_true", help=f"{', '.join(_QUICK)} only, eager, one layout, two repeats")


def run(options: argparse.Namespace) -> None:
    """Measure every setting, print the table and write encoder.json, after each setting anew."""
    architecture = ARCHITECTURES.get(options.encoder)
    if architecture is None:
        raise UserError(f"no encoder {options.encoder!r}", "--encoder", did_you_mean(options.encoder, ARCHITECTURES))
    settings = _settings(options)
    repeats = min(options.repeats, 2) if options.quick else options.repeats
    config = load_config(options.overrides)
    size = config.protocol["image_size"]
    if size % _PATCH:
        raise UserError(f"image size {size} is no multiple of {_PATCH}", "protocol.image_size", "such as 1024")
    device = choose_device(config.device)
    place = Path(config.output_dir) / "bench"
    folder = place / f"weights-{options.encoder}"
    try:
        write_random_checkpoint(folder, architecture)
    except OSError as error:
        raise unwritable(folder, error) from error

    networks = shapes_of(architecture)
    flops, rates = count_flops(networks, size), measure_rates(settings, device)
    images = colour_fields(max(setting.batch for setting in settings), size, device)
    exact = float32_features(folder, {PRECISIONS[setting.precision].vae for setting in settings}, images)

    def open_setting(setting: Setting) -> Any:
        layout = {"channels_last": setting.channels_last, "compile": setting.compile}
        return open_encoder(folder, PRECISIONS[setting.precision], device, **layout)

    record: dict[str, Any] = {
        "schema_version": 1,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            **{"device": device_name(device), "threads": torch.get_num_threads()},
            "packages": installed_packages(),
        },
        **{"encoder": options.encoder, "weights": "random", "image_size": size, "repeats": repeats},
        **{"parameters": count_parameters(networks), "flops": flops, "flops_per_s": rates},
        "sound_cosine": options.sound,
    }
    rows: list[Row] = []
    with progress(options.encoder, "settings") as report:
        for row in measure(settings, open_setting, images, exact, flops, rates, repeats):
            rows.append(row)
            _write(place / "encoder.json", record, rows, options.sound)
            report(len(rows), len(settings))
    console.print(_table(rows, options.sound))
    for line in _notes(record, rows):
        say(line, style="dim")
    say(f"record   {place / 'encoder.json'}")


def _settings(options: argparse.Namespace) -> list[Setting]:
    if options.repeats < 1:
        raise UserError(f"--repeats must be at least 1, not {options.repeats}", "--repeats", "--repeats 5")
    batches = whole_numbers("--batches", options.batches or "1,4,16", "batch size")
    precisions, modes = (list(_QUICK), ["eager"]) if options.quick else (list(PRECISIONS), list(MODES))
    if options.precisions is not None:
        precisions = words_of("--precisions", options.precisions, PRECISIONS)
    if options.modes is not None:
        modes = words_of("--modes", options.modes, MODES)
    return all_settings(batches, precisions, [False] if options.quick else [False, True], modes)


def whole_numbers(flag: str, text: str, meaning: str) -> list[int]:
    """The numbers of a comma list, each at least 1."""
    words = words_of(flag, text)
    wrong = [word for word in words if not word.isdecimal() or int(word) < 1]
    if wrong:
        raise UserError(f"{wrong[0]!r} is no {meaning}", flag, f"such as {flag} 1,4,16")
    return [int(word) for word in words]


def words_of(flag: str, text: str, known: Collection[str] | None = None) -> list[str]:
    """The words of a comma list, each once."""
    words = list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if not words:
        raise UserError("nothing named", flag, f"{flag} A,B, or leave it out")
    for word in words:
        if known is not None and word not in known:
            raise UserError(f"{word!r} is unknown", flag, did_you_mean(word, known))
    return words


def _write(path: Path, record: dict[str, Any], rows: Sequence[Row], sound: float) -> None:
    best = fastest_sound(rows, sound)
    content = {**record, "fastest_sound": None if best is None else _flat(best, sound)}
    write_atomically(path, json.dumps({**content, "rows": [_flat(row, sound) for row in rows]}, indent=1) + "\n")


def _flat(row: Row, sound: float) -> dict[str, Any]:
    measured = {} if row.measured is None else {**asdict(row.measured), "sound": row.measured.is_sound(sound)}
    return {
        **asdict(row.setting),
        **asdict(PRECISIONS[row.setting.precision]),
        **{"released": row.setting.released, "error": row.error},
        **measured,
    }


def _table(rows: Sequence[Row], sound: float) -> Table:
    table = Table(header_style="bold", show_edge=False, pad_edge=False)
    best = fastest_sound(rows, sound)
    texts = ("precision", "layout", "mode")
    for name in (
        *(*texts, "batch", "images/s", "of floor", "VAE ms", "UNet ms", "VAE share", "GB"),
        *("cosine mean", "least", "centred", "note"),
    ):
        table.add_column(name, justify="left" if name in {*texts, "note"} else "right")
    for row in rows:
        setting, measured = row.setting, row.measured
        start = (
            *(setting.precision, "NHWC" if setting.channels_last else "NCHW"),
            *("compiled" if setting.compile else "eager", str(setting.batch)),
        )
        if measured is None:
            table.add_row(*start, *[""] * 9, f"failed: {row.error}")
            continue
        notes = ["released"] * setting.released + ["fastest sound"] * (row is best)
        notes += ["not sound"] * (not measured.is_sound(sound))
        notes += [f"{100 * (1 - measured.finite):.2g} % not finite"] * (measured.finite < 1)
        share = measured.vae_s / (measured.vae_s + measured.unet_s)
        table.add_row(
            *(*start, f"{measured.images_per_s:.2f}", f"{100 * measured.floor_share:.0f} %"),
            *(f"{1000 * measured.vae_s:.1f}", f"{1000 * measured.unet_s:.1f}", f"{100 * share:.0f} %"),
            "" if measured.memory_bytes is None else f"{measured.memory_bytes / 1e9:.1f}",
            *(_cosine(value) for value in (measured.cosine_mean, measured.cosine_min, measured.centred_mean)),
            ", ".join(notes),
        )
    return table


def _cosine(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _notes(record: dict[str, Any], rows: Sequence[Row]) -> list[str]:
    """What a reader needs beside the figures."""
    rates = ", ".join(f"{name} {rate / 1e12:.4g}" for name, rate in record["flops_per_s"].items())
    counts = {name: f"{count / 1e12:.4g}" for name, count in record["flops"].items()}
    best = fastest_sound(rows, record["sound_cosine"])
    fastest = "no setting is sound"
    if best is not None and best.measured is not None:
        setting, measured = best.setting, best.measured
        fastest = (
            f"fastest sound: {setting.precision}, batch {setting.batch}: {measured.images_per_s:.4g} images/s "
            f"of at most {measured.floor_images_per_s:.4g}"
        )
    in_half = any(PRECISIONS[row.setting.precision].vae_dtype == "float16" for row in rows)
    return [
        f"{record['machine']['device']}, {record['encoder']} with random weights, {record['image_size']}² pixels, "
        f"{record['date']}",
        f"TFLOP an image: UNet {counts['unet']}, VAE {counts['vae']}, tiny VAE {counts['tiny_vae']}; "
        f"matrix products, TFLOP/s: {rates}",
        *in_half
        * [
            "random weights do not overflow in a float16 VAE, SDXL's own do: there, "
            "backbone.vae=madebyollin/sdxl-vae-fp16-fix"
        ],
        f"sound: the least cosine of a patch to float32 is at least {record['sound_cosine']:g}; {fastest}",
    ]
