"""``check segmenter=…`` on the pretended accelerator: it says where segments are."""

import pytest

from diffcut_bench.config import load_config
from diffcut_bench.scoring.segmenter_contract import check_segmenter


@pytest.mark.parametrize(("option", "place"), [("diffcut", "pretend"), ("tokencut", "pretend"), ("slic", "cpu")])
def test_a_segmenter_keeps_its_contract_on_an_accelerator(accelerator, option, place):
    findings = {each.what: each for each in check_segmenter(load_config([f"segmenter={option}", "device=pretend:0"]))}
    assert not [each for each in findings.values() if not each.fine]
    assert f" on {place}" in findings["segments"].value
