"""``diffcut-bench check``: a backbone on two small images, for whoever adds one."""

import argparse

from diffcut_bench.commands.terminal import console
from diffcut_bench.config import load_config
from diffcut_bench.reporting import Column, Table
from diffcut_bench.scoring.contract import check_backbone


def check(options: argparse.Namespace) -> int:
    """Report shape, type, determinism, batch invariance and key; 1 where a backbone breaks its contract."""
    findings = check_backbone(load_config(options.overrides))
    rows = tuple((finding.what, finding.value) for finding in findings)
    Table("check", "Contract", (Column("property"), Column("found")), rows).print(console)
    broken = [finding.what for finding in findings if not finding.fine]
    console.print(f"breaks its contract: {', '.join(broken)}" if broken else "keeps its contract")
    return 1 if broken else 0
