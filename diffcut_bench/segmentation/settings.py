"""The config for pictures of the user's own."""

from collections.abc import Sequence

from diffcut_bench.config import RunConfig, load_config

_NAMER = "clip_b16"  # where classes are given and no namer is


def picture_config(overrides: Sequence[str], named: bool = False) -> RunConfig:
    """The config for pictures of the user's own: whole, at their own resolution, unless the overrides say otherwise.

    Args:
        overrides: of the user.
        named: whether segments get names; by a namer of ours where the overrides choose none.

    Raises:
        UserError: an option is unknown or out of range.
    """
    chosen = []
    if named and not any(word.startswith("namer=") for word in overrides):
        # An option among the overrides may choose one; what they set of a namer comes after that.
        config = load_config([word for word in overrides if not word.startswith("namer.")])
        chosen = [] if config.namer.get("_target_") else [f"namer={_NAMER}"]
    return load_config(["protocol=strict", *chosen, *overrides])
