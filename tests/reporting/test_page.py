import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from diffcut_bench.evaluation import known_metrics
from diffcut_bench.reporting import Column, Table, render_page
from diffcut_bench.reporting.figures import Curve, draw_class_bars, draw_curves
from diffcut_bench.reporting.page import (
    DatasetPart,
    GalleryPicture,
    Headline,
    Page,
    ReproductionPart,
    RunDetails,
    verdict_cells,
    verdict_tone,
)
from diffcut_bench.reporting.sweeps import SweepFigure
from diffcut_bench.store import Score

MIOU = known_metrics()["miou"]
VOID = {"meta", "img", "br", "link", "hr", "input"}
EVIL = '<b>bold</b> & "q"'


class Parsed(HTMLParser):
    """Elements with their attributes, ancestors and text; fails where a tag is closed that is not open."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None], tuple[str, ...]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), tuple(self.open)))
        assert len(dict(attrs)) == len(attrs), "an attribute is given twice"
        if tag not in VOID:
            self.open.append(tag if "class" not in dict(attrs) else f"{tag}.{dict(attrs)['class']}")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), tuple(self.open)))

    def handle_endtag(self, tag):
        assert self.open.pop().split(".")[0] == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self.open[-1], data.strip()))

    def all(self, tag: str) -> list[tuple[dict[str, str | None], tuple[str, ...]]]:
        return [(attrs, above) for name, attrs, above in self.elements if name == tag]


def table(name: str, *rows: tuple[str, ...], columns: tuple[Column, ...] = (Column("a"),), title: str = "T") -> Table:
    return Table(name, title, columns, rows)


def page(name: str = "voc") -> Page:
    curves = draw_curves([Curve(name, (1, 2), (3, 4))], "tau", "mIoU (%)")
    verdicts = table(
        "table1",
        ("DiffCut", "published", "65.2", "56.5", "1"),
        ("", "verdict", "reproduced", "limited (a)", ""),
        (name, "verdict", "differs", "not run (b)", "unheard of"),
        columns=(Column("method"), Column(""), *(Column(each, numeric=True) for each in ("VOC", "Context", "x"))),
    )
    claims = table("figure4", (name, "not stated: why"), columns=(Column("the text"), Column("verdict")))
    picture = GalleryPicture("data:image/jpeg;base64,QUJD", 30, 10, f"{name} side by side", f"{name}: 30.0 %")
    return Page(
        title=name,
        lead=f"1 result on {name}",
        headlines=(
            Headline(name, MIOU, Score(0.4925, (0.431, 0.576)), f"{name}, tau=0.5", "11 images", "", anchor="cell-1"),
            Headline("one image", MIOU, Score(0.2), "diffcut", "1 of 9 images", "limited"),
        ),
        reproductions=(
            ReproductionPart(f"Table 1 {name}", (verdicts,)),
            ReproductionPart("Fig. 4", (claims,), draw_curves([Curve("x", (1,), (2,))], "tau", "mIoU (%)")),
        ),
        results=replace(table("results", (name,)), notes=(f"note {name}",), shared=f"shared {name}"),
        sweeps=(SweepFigure("curves", f"mIoU by tau: {name}", curves),),
        datasets=(
            DatasetPart(
                name,
                f"settings {name}",
                table("classes", (name,), title=name),
                draw_class_bars({name: 0.2}, {name: (0.1, 0.3)}, MIOU),
                (("Best", (picture,)), ("Worst", (picture,))),
                (f"missing {name}",),
            ),
        ),
        versions=table("versions", ("torch",)),
        details=(
            RunDetails(
                f"run {name}",
                "49.2",
                "limited",
                ((name, name),),
                (f"broken {name}",),
                name,
                "cell-1",
                (table("images", (name,)),),
            ),
        ),
    )


def test_is_one_well_formed_file_that_loads_nothing():
    text = render_page(page())
    parsed = Parsed(text)
    assert text.startswith("<!doctype html>")
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = (attrs["content"] for attrs, _ in parsed.all("meta") if "http-equiv" in attrs)
    assert policy.endswith(f"script-src 'sha256-{digest}'"), "no other script runs"
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert not parsed.all("link")
    assert "://" not in text
    assert "@import" not in text
    for tag, attrs, _ in parsed.elements:
        for name, value in attrs.items():
            if name in ("src", "srcset", "href", "xlink:href", "action", "data", "poster"):
                assert re.match(r"#|data:image/jpeg;base64,|tables/[\w-]+\.(md|tex|csv)$", value), (tag, value)
            assert not name.startswith("on"), (tag, name)
    assert not re.findall(r"url\((?!#)", text)


def test_every_link_within_the_page_leads_somewhere_and_ids_are_unique():
    parsed = Parsed(render_page(page()))
    ids = [attrs["id"] for _, attrs, _ in parsed.elements if "id" in attrs]
    assert len(set(ids)) == len(ids)
    links = {attrs["href"][1:] for attrs, _ in parsed.all("a") if attrs["href"].startswith("#")}
    assert links == {"summary", "paper", "results", "sweeps", "classes", "gallery", "runs", "cell-1"}
    ((_, above),) = [found for found in parsed.all("dl") if found[0].get("id") == "cell-1"]
    assert "details" in above, "a browser opens what a link's target is inside of"
    references = re.findall(r'(?:href="#|url\(#|labelledby=")([^")]+)', render_page(page()))
    assert set(references) <= set(ids)


def test_the_parts_stand_in_order():
    parsed = Parsed(render_page(page()))
    headings = [text for tag, text in parsed.texts if tag in ("h1", "h2")]
    parts = "voc, Summary, The paper’s tables, All results, Sweeps, Classes, Gallery, Run details"
    assert ", ".join(headings) == parts
    labels = [attrs["aria-label"] for attrs, _ in parsed.all("div") if attrs.get("class") == "scroll"]
    assert labels == ["T", "T", "T", "voc", "T", "T"]


def test_tables_scroll_in_a_box_of_their_own_and_pictures_have_words():
    parsed = Parsed(render_page(page()))
    assert len(parsed.all("table")) == 6
    assert all(above[-1] == "div.scroll" for _, above in parsed.all("table"))
    assert re.search(r"\.scroll \{[^}]*overflow: auto[^}]*max-width: 100%", render_page(page()))
    assert len(parsed.all("img")) == 2
    assert all(attrs["alt"] == "voc side by side" for attrs, _ in parsed.all("img"))
    drawings = parsed.all("svg")
    assert len(drawings) == 3
    assert all(attrs["width"] == "100%" and attrs["role"] == "img" for attrs, _ in drawings)
    assert {above[-2] for _, above in parsed.all("title") if "head" not in above} == {"figure.drawing"}


def test_every_name_is_escaped():
    text = render_page(page(EVIL))
    parsed = Parsed(text)
    assert EVIL not in text
    # The card's bar has an element of that name.
    assert [attrs for attrs, _ in parsed.all("b")] == [{"style": "left: 49.2%"}, {}]
    assert sum(EVIL in part for _, part in parsed.texts) >= 18
    assert parsed.all("img")[0][0]["alt"] == f"{EVIL} side by side"


def test_verdicts_are_badges_told_by_their_first_word():
    parsed = Parsed(render_page(page()))
    badges = [(tag.removeprefix("span.badge "), text) for tag, text in parsed.texts if tag.startswith("span.badge")]
    card, *counted, run = badges
    assert card == run == ("warn", "limited")
    told = ", ".join(f"{text}: {tone}" for tone, text in counted)
    assert told == (
        "reproduced 1: good, differs 1: bad, limited 1: warn, not run 1: idle, not stated 1: idle, unheard 1: plain, "
        "reproduced: good, limited (a): warn, differs: bad, not run (b): idle, unheard of: plain, not stated: why: idle"
    )
    assert verdict_tone("Reproduced: within") == "good"
    assert verdict_tone("") == "plain"


def test_a_table_without_verdicts_has_none():
    assert verdict_cells(table("x", ("reproduced",))) == {}
    assert verdict_cells(table("x", ("", "verdict", "a", " "), columns=(Column("a"),) * 4)) == {(0, 2): "a"}


def luminance(colour: str) -> float:
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(first: str, second: str) -> float:
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_stands_out_from_its_ground(theme):
    block = re.findall(r":root \{(.*?)\}", render_page(page()), re.DOTALL)[theme]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
    for tone in ("good", "bad", "warn", "idle"):
        assert contrast(colours[f"{tone}-ink"], colours[tone]) >= 4.5, tone
    for ground in ("page", "panel", "faint"):
        for text in ("ink", "soft", "accent"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)


def test_same_page_same_bytes():
    assert render_page(page()) == render_page(page())


def test_what_is_not_there_has_no_part():
    bare = replace(page(), reproductions=(), sweeps=(), datasets=(replace(page().datasets[0], gallery=(), notes=()),))
    parsed = Parsed(render_page(bare))
    links = [attrs["href"] for attrs, above in parsed.all("a") if "nav" in above]
    assert links == ["#summary", "#paper", "#results", "#classes", "#runs"]
    assert [attrs["id"] for attrs, _ in parsed.all("section")] == [link[1:] for link in links]
    assert ("p.hint", "None so far.") in parsed.texts
