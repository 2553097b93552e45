"""The worked example of docs/reports.md, run from nothing as a reader would."""

from pathlib import Path

import pytest
from test_guides import COMMAND_LINES, PYTHON, Block, blocks, commands, run

PAGE = Path(__file__).parents[2] / "docs" / "reports.md"
FIRST, LAST = "diffcut-bench run -m backbone=colour", "hf upload"


def example() -> list[Block]:
    found = blocks(PAGE)
    first, last = (next(i for i, block in enumerate(found) if block.text.startswith(text)) for text in (FIRST, LAST))
    return found[first : last + 1]


@pytest.mark.slow
def test_the_example_runs_as_printed(tmp_path, monkeypatch, cli, capsys):
    pytest.importorskip("datasets")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    parts, names, printed = example(), {}, ""
    assert [block.language for block in parts] == ["bash", PYTHON, PYTHON, "bash"]
    for block in parts[:-1]:
        if block.language in COMMAND_LINES:
            for words in commands(block.text):
                run(words, cli)
        else:
            capsys.readouterr()
            exec(compile(block.text, PAGE.name, "exec"), names)
            printed += capsys.readouterr().out
    assert (
        printed.count("{'segmenter': ") == 3
        and "{'segmenter': 'kmeans', 'segmenter.tau': None, 'miou': 0.371" in printed
    )
    assert len(names["cells"]) == 3 and len(names["images"]) == 33
    (told,) = commands(parts[-1].text)
    assert told == ["hf", "upload", "OWNER/NAME", "my_results", "--repo-type", "dataset"]
    assert " ".join(told) in cli("export", "my_results", "--license", "cc-by-4.0").out
