"""Pictures that a result lacks, drawn by scoring its images again. What the result says is data: see `trusted`."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from diffcut_bench.backbones import cache_only
from diffcut_bench.config import RunConfig, instantiate, trusted
from diffcut_bench.datasets import Benchmark, read_manifest
from diffcut_bench.errors import UserError
from diffcut_bench.paths import reopened
from diffcut_bench.reporting.exploring import explore_outcome
from diffcut_bench.reporting.pictures import draw_outcome
from diffcut_bench.scoring.cell import picture_path
from diffcut_bench.scoring.passes import open_pass, without_preparing
from diffcut_bench.store import Result, write_atomically


def draw_pictures(
    folder: Path,
    result: Result,
    indices: Collection[int],
    output_dir: Path,
    overrides: Sequence[str] = (),
    pages: Mapping[int, Path] = MappingProxyType({}),
) -> list[str]:
    """Draw images of a cell into its ``pictures/``, and write their explorers, from data and weights at hand.

    Nothing is fetched from a network and no data set is prepared. Nothing is written but pictures and pages, except
    that a backbone of more than a minute keeps its features where the output folder's features are.

    Args:
        folder: of the cell.
        result: of the cell.
        indices: of the images in the data set that are drawn.
        output_dir: that the cell lies in.
        overrides: of the user, for data, weights or options that lie elsewhere.
        pages: where the explorers of images go, by index. What lies there is removed first: what is there later was
            written here.

    Returns:
        Why not all could be drawn or written; empty where they were.
    """
    pictures, failed = folder / "pictures", "pictures can't be drawn" if indices else "there are no explorers"
    if any(place.is_symlink() for place in (pictures, *(page.parent for page in pages.values()))):
        return [f"{failed}: their folder is a link"]
    try:
        for page in pages.values():
            page.unlink(missing_ok=True)
        config = _within(trusted(reopened(result.config, output_dir), overrides), output_dir, overrides)
        with cache_only():
            opened = open_pass(config)
            cell = opened.cell(config)
            if cell.key != result.key:
                return [f"{failed}: data, weights, device or versions are not those of the result"]
            explored = pages if cell.pipeline.tree_method is not None else {}
            for outcome in cell.outcomes(sorted({*indices, *explored})):
                index, name = outcome.example.index, outcome.example.id
                if index in indices:
                    draw_outcome(outcome, opened.dataset, picture_path(pictures, name))
                if index in explored:
                    explorer = explore_outcome(outcome, cell.pipeline, opened.dataset)
                    write_atomically(pages[index], explorer.page(name))
            if pages and not explored:
                return ["there are no explorers: only the exact recursive cut has a tree of segments"]
    except UserError as error:
        return [f"{failed}: {error.what} ({error.where})"]
    except Exception as error:  # whatever an old or foreign config makes a stage raise
        return [f"{failed}: {type(error).__name__}: {error}"]
    return []


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
