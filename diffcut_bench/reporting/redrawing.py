"""Pictures that a result lacks, drawn by scoring its images again. What the result says is data: see `trusted`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from diffcut_bench.backbones import cache_only
from diffcut_bench.config import RunConfig, instantiate, trusted
from diffcut_bench.datasets import Benchmark, read_manifest
from diffcut_bench.errors import UserError
from diffcut_bench.paths import reopened
from diffcut_bench.reporting.pictures import draw_outcome
from diffcut_bench.scoring.cell import picture_path
from diffcut_bench.scoring.passes import open_pass, without_preparing
from diffcut_bench.store import Result


def draw_pictures(
    folder: Path, result: Result, indices: Sequence[int], output_dir: Path, overrides: Sequence[str] = ()
) -> str:
    """Draw images of a cell into its ``pictures/``, from data and weights at hand.

    Nothing is fetched from a network and no data set is prepared. Nothing is written but the pictures, except that a
    backbone of more than a minute keeps its features where the output folder's features are.

    Args:
        folder: of the cell.
        result: of the cell.
        indices: of the images in the data set.
        output_dir: that the cell lies in.
        overrides: of the user, for data, weights or options that lie elsewhere.

    Returns:
        Why not all could be drawn; empty where they were.
    """
    pictures = folder / "pictures"
    if pictures.is_symlink():
        return "pictures can't be drawn: their folder is a link"
    try:
        config = _within(trusted(reopened(result.config, output_dir), overrides), output_dir, overrides)
        with cache_only():
            opened = open_pass(config)
            cell = opened.cell(config)
            if cell.key != result.key:
                return "pictures can't be drawn: data, weights, device or versions are not those of the result"
            for outcome in cell.outcomes(indices):
                draw_outcome(outcome, opened.dataset, picture_path(pictures, outcome.example.id))
    except UserError as error:
        return f"pictures can't be drawn: {error.what} ({error.where})"
    except Exception as error:  # whatever an old or foreign config makes a stage raise
        return f"pictures can't be drawn: {type(error).__name__}: {error}"
    return ""


def _within(config: RunConfig, output_dir: Path, overrides: Sequence[str]) -> RunConfig:
    """The config with folders of this output folder, without what only costs memory or processes, and with prepared
    data that are on this disk, or the originals, which are not prepared for a few pictures.

    Raises:
        UserError: its data are to be fetched, and the user has not said so.
    """
    named = {word.partition("=")[0] for word in overrides}
    features = dict(config.features)
    if features.get("_target_") and "features.folder" not in named:
        features = {**features, "folder": str(output_dir / "features"), "shard_mib": 256}
    config = replace(config, output_dir=str(output_dir), features=features, batch_size=1, num_workers=0, num_proc=1)
    if "prepared" in named:
        return config
    config = without_preparing(config)
    if config.prepared == "never" or not isinstance(instantiate("dataset", config.dataset), Benchmark):
        return config
    folder = str(Path(config.prepared).expanduser().absolute())
    if "://" in config.prepared or "::" in folder or read_manifest(Path(folder)) is None:
        raise UserError("its prepared data are not on this disk", "prepared", "name them again: prepared=FOLDER|URL")
    return replace(config, prepared=folder)
