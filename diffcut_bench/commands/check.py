"""``diffcut-bench check``: a backbone or segmenter on two small images, for whoever adds one."""

import argparse

from diffcut_bench.commands.terminal import console
from diffcut_bench.config import load_config
from diffcut_bench.reporting import Column, Table
from diffcut_bench.scoring.contract import Finding, check_backbone
from diffcut_bench.scoring.segmenter_contract import check_segmenter


def check(options: argparse.Namespace) -> int:
    """Report how the backbone, or the segmenter where only that is named, keeps its contract; 1 where it does not."""
    config = load_config(options.overrides)
    named = {word.partition("=")[0].partition(".")[0] for word in options.overrides}
    codes = []
    if "backbone" in named or "segmenter" not in named:
        codes.append(_say("backbone", check_backbone(config)))
    if "segmenter" in named:
        codes.append(_say("segmenter", check_segmenter(config)))
    return max(codes)


def _say(what: str, findings: list[Finding]) -> int:
    rows = tuple((finding.what, finding.value) for finding in findings)
    title = "Contract" if what == "backbone" else "Contract of the segmenter"
    Table(f"check-{what}", title, (Column("property"), Column("found")), rows).print(console)
    broken = [finding.what for finding in findings if not finding.fine]
    console.print(f"breaks its contract: {', '.join(broken)}" if broken else "keeps its contract")
    return 1 if broken else 0
