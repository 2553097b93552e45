"""What data says is printed, and a terminal obeys none of it."""

import pytest

from diffcut_bench.commands.terminal import console, errors, progress, say
from diffcut_bench.errors import UserError
from diffcut_bench.reporting import Column, Table

EVIL = "a\x1b]0;title\x07\x1b[2Jb\x9b31mc\rd\u202ee\ud800"


def test_no_control_character_reaches_the_terminal(capsys):
    say(f"path {EVIL}\nsecond line", style="bold")
    console.print(EVIL, markup=False)
    console.print(Table("x", EVIL, (Column(EVIL),), ((EVIL,),), (EVIL,), EVIL).to_markdown(), markup=False)
    Table("x", EVIL, (Column(EVIL),), ((EVIL,),), (EVIL,), EVIL).print(console)
    errors.print(str(UserError(EVIL, EVIL, EVIL)), markup=False, highlight=False, soft_wrap=True)
    with progress("working", "images") as report:
        report(1, 2)
        say(EVIL)
    printed = capsys.readouterr()
    for text in printed:
        assert text
        assert not set(text) & set("\x1b\x07\x9b\r\u202e\ud800")
    assert r"\x1b[2Jb\x9b31mc" in printed.out
    assert len(printed.err.splitlines()) == 3
    assert "path a" in printed.out
    assert "\nsecond line\n" in printed.out


@pytest.mark.parametrize("text", ["plain", "–│━ ├ 日本", "tab\tend"])
def test_other_text_is_left_alone(capsys, text):
    say(text)
    assert capsys.readouterr().out.expandtabs() == f"{text.expandtabs()}\n"
