"""Which options of conf/ can be used on this machine."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffcut_bench.backbones import cache_only
from diffcut_bench.config import instantiate, load_config
from diffcut_bench.datasets import Benchmark, SegmentationDataset, preparation_state
from diffcut_bench.errors import UserError
from diffcut_bench.traces import CodeError, error_in_code, is_debugging


def try_option(group: str, option: str, overrides: Sequence[str]) -> tuple[str, Any]:
    """Whether a backbone or data set can be used here, in one line (``missing: …`` says what it needs), and the object
    that the option builds, None where it can't be built.

    Args:
        group: ``backbone`` or ``dataset``.
        option: of the group.
        overrides: of the user: folders count for all options, settings for the one that is chosen.
    """
    own = tuple(f"{name}=" for name in ("data_dir", "output_dir"))
    if f"{group}={option}" in overrides:
        own += (f"{group}.", "prepared=")
    built = None
    try:
        config = load_config([f"{group}={option}", *(word for word in overrides if word.startswith(own))])
        with cache_only():
            built = instantiate(group, getattr(config, group))
        if isinstance(built, Benchmark):
            return preparation_state(built, Path(config.data_dir)), built
        if isinstance(built, SegmentationDataset):
            return f"there, {len(built)} images", built
        return "there, " + ", ".join(f"{name} {value[:12]}" for name, value in built.fingerprint().items()), built
    except UserError as error:
        return f"missing: {error.what}; {error.hint}", built
    except Exception as error:  # whatever an option of the user's raises
        if is_debugging():
            raise
        told = error_in_code(error, f"{group}={option}")
        return f"missing: {told.line if isinstance(told, CodeError) else told.what}", built
