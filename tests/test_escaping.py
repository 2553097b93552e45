import csv
import io

import pytest

from diffcut_bench.escaping import (
    csv_cell,
    figure_text,
    file_stem,
    latex_text,
    markdown_cell,
    markdown_text,
    one_line,
    visible,
)
from diffcut_bench.reporting import Column, Table


def test_control_characters_are_written_out():
    assert visible("a\x1b[31m\x9b\x00\u202e\ud800") == r"a\x1b[31m\x9b\x00\u202e\ud800"
    assert visible("a\nb\tc\r", kept="\n\t") == "a\nb\tc\\r"
    assert visible("Straße 🐈 日本 é – −") == "Straße 🐈 日本 é – −"
    assert one_line("a\r\nb\tc\u2028d\x1b") == r"a b c d\x1b"


@pytest.mark.parametrize("text", ["=1+1", "@x", "+x", "-x", " =1", "\uff1d1", "-1+1"])
def test_a_cell_of_csv_is_never_a_formula(text):
    assert csv_cell(text) == f"'{text}"


def test_numbers_and_other_text_stay_in_csv():
    for text in ("-3.5", "+1", "-1e-05", "1 – 2", "a,b", ""):
        assert csv_cell(text) == text
    assert csv_cell("−3.5") == "-3.5"
    assert csv_cell("–") == ""
    assert csv_cell("a\nb") == r"a\nb"
    assert csv_cell("\t=1") == r"\t=1"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<b>x</b> &lt; a & b", "&lt;b>x&lt;/b> &amp;lt; a & b"),
        ("[a](b) ![c](d) `e`", r"\[a\](b) !\[c\](d) \`e\`"),
        ("**a** _b_ c_d ~e~", r"\*\*a\*\* \_b\_ c_d \~e\~"),
        ("# a", r"\# a"),
        ("- a", r"\- a"),
        ("1. a", r"1\. a"),
        ("> a\n# b", r"\> a # b"),
        ("back\\slash", r"back\\slash"),
        ("protocol released: a=b|c, d_e=1.5", "protocol released: a=b|c, d_e=1.5"),
    ],
)
def test_markdown_reads_as_it_is(text, shown):
    assert markdown_text(text) == shown


def test_a_cell_of_markdown_keeps_its_pipes_and_numbers():
    assert markdown_cell("a|b\nc") == r"a\|b c"
    assert markdown_cell("+1.2") == "+1.2"
    assert markdown_cell("\\|") == r"\\\|"


def test_latex_has_no_commands():
    assert latex_text("\\input{a}") == r"\textbackslash{}input\{a\}"
    assert (
        latex_text("~^_%&#$\n−<`") == r"\textasciitilde{}\textasciicircum{}\_\%\&\#\$ $-$\textless{}\textasciigrave{}"
    )


def test_a_label_of_a_figure_is_no_formula_and_not_hidden():
    assert figure_text("$a$\nb") == r"\$a\$ b"
    assert figure_text("_a") == " _a"


def test_a_name_is_a_file_in_any_folder():
    assert file_stem("classes_voc-2.b") == "classes_voc-2.b"
    odd = ["../../x", "/etc/x", "a/b", "a b", "a_b ", "", "..", ".", "-", "x" * 500, "\ud800", "a\x00", "é", "CON:"]
    stems = [file_stem(name) for name in odd]
    assert len(set(stems)) == len(odd), "two names never share a file"
    for stem in stems:
        assert stem
        assert len(stem) < 120
        assert not set(stem) & set('/\\:"*?<>| \x00')
        assert not stem.startswith((".", "-"))


def test_a_table_of_hostile_names_is_one_table_in_every_form(tmp_path):
    evil = ["\x01", "a|b\nc", "=1", "\\end{table}", "<i>"]
    table = Table("../x", "t\n%", tuple(map(Column, evil)), (tuple(evil), tuple(evil)), tuple(evil), evil[1])
    rows = [line for line in table.to_markdown().splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert len(list(csv.reader(io.StringIO(table.to_csv())))) == 3
    latex = "\n".join(line for line in table.to_latex().splitlines() if not line.startswith("%"))
    assert latex.count("\\end{table}") == 1
    assert latex.count("\\\\") == 3, "a heading and two rows"
    assert all(path.parent == tmp_path for path in table.write(tmp_path))
