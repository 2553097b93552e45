"""The config for pictures of the user's own."""

from collections.abc import Sequence

from diffcut_bench.config import RunConfig, load_config

# What stands before the overrides of the user; chosen by eye and by figures, docs/defaults.md.
SEGMENT_DEFAULTS = ("protocol=strict", "smallest_segment=0.002")
SEGMENT_BACKBONE = "efficientnet_lite0_blocks"  # where nothing else brings one along, as segmenter=tokencut does
_SCORING_BACKBONE = "efficientnet_lite0"  # of conf/config.yaml
_NAMER = "clip_b16"  # where classes are given and no namer is


def picture_config(overrides: Sequence[str], named: bool = False) -> RunConfig:
    """The config for pictures of the user's own: whole, at their own resolution, with the defaults of `segment` unless
    the overrides say otherwise.

    Args:
        overrides: of the user.
        named: whether segments get names; by a namer of ours where the overrides choose none.

    Raises:
        UserError: an option is unknown or out of range.
    """
    if not named and any(word.startswith("backbone=") for word in overrides):
        return load_config([*SEGMENT_DEFAULTS, *overrides])
    # An option among the overrides may choose more than itself; what they set of a part comes after the part's choice.
    # A fused backbone is not chosen without its parts.
    choosing = [
        word
        for word in overrides
        if word.startswith("backbone.of=") or not word.lstrip("+~").startswith(("namer.", "backbone."))
    ]
    config = load_config(choosing)
    chosen = []
    if config.choices["backbone"] == _SCORING_BACKBONE:
        chosen.append(f"backbone={SEGMENT_BACKBONE}")
    if named and not config.namer.get("_target_") and not any(word.startswith("namer=") for word in overrides):
        chosen.append(f"namer={_NAMER}")
    return load_config([*SEGMENT_DEFAULTS, *chosen, *overrides])
