"""The page with a tau slider: its data as Python reads it, its script in Node, and the page in a browser."""

import base64
import json
import re
import shutil
import subprocess
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from conftest import same_partition
from PIL import Image

from diffcut_bench.config import load_config
from diffcut_bench.errors import UserError
from diffcut_bench.ncut import NCutTree, ncut_tree
from diffcut_bench.reporting import Explorer
from diffcut_bench.reporting import explorer as module
from diffcut_bench.segmentation import PictureSegmenter
from diffcut_bench.segmenters import Agglomerative, DiffCut

NODE = shutil.which("node")
ROWS, COLS = 18, 22
SMALL = "protocol.image_size=256"
TAUS = [*np.linspace(0, 0.95, 60), 0.5, 0.9]


def made_tree(seed: int, nodes: int = ROWS * COLS) -> NCutTree:
    """The cuts of random features."""
    features = torch.randn(1, nodes, 5, generator=torch.Generator().manual_seed(seed))
    return ncut_tree(features, max_tau=0.95, alpha=10)


def merged_tree(seed: int) -> NCutTree:
    """The merges of random features, some of them at cosines below 0."""
    features = torch.randn(1, 5, ROWS, COLS, generator=torch.Generator().manual_seed(seed))
    return Agglomerative(min_patches=1).tree(features, 0.95)


def leaves_of(tree: NCutTree) -> np.ndarray:
    """Last region of each patch: as a map in which every patch is a pixel."""
    leaves = np.zeros(ROWS * COLS, dtype=np.int64)
    for cut, side in enumerate(tree.images[0].sides.numpy()):
        leaves[side] = cut + 1
    return leaves.reshape(ROWS, COLS)


def explorer_of(tree: NCutTree) -> Explorer:
    return Explorer(np.zeros((ROWS, COLS, 3), np.uint8), tree.images[0], leaves_of(tree), 0.95, 0.5)


def unpacked(text: str, shape: tuple[int, int]) -> np.ndarray:
    numbers, value, shift = [], 0, 0
    for byte in base64.b64decode(text):
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            numbers.append(value)
            value = shift = 0
    return np.repeat(numbers[::2], numbers[1::2]).reshape(shape)


def segments_of(data: dict, tau: float) -> np.ndarray:
    """The segments of a page's data at tau: from each region up to one whose cut is made."""
    made = [True, *(np.array(data["reached"], dtype=np.float32) < np.float32(tau))]
    within = [0, *data["within"]]
    holder = list(range(len(made)))
    for region in range(len(made)):
        while not made[holder[region]]:
            holder[region] = within[holder[region]]
    return np.array(holder)[unpacked(data["leaves"], (data["height"], data["width"]))]


@pytest.mark.parametrize("made", [made_tree, merged_tree])
@pytest.mark.parametrize("seed", range(2))
def test_the_pages_data_hold_the_segments_at_every_tau(made, seed):
    tree = made(seed)
    data = explorer_of(tree).data("a.jpg")
    taus = [*TAUS, *data["reached"], *np.nextafter(np.float32(data["reached"]), np.float32(1)).tolist()]
    counts = set()
    for tau in (tau for tau in taus if 0 <= tau <= 0.95):
        expected = tree.labels(tau)[0].numpy()
        assert same_partition(segments_of(data, tau).ravel(), expected)
        counts.add(int(expected.max()) + 1)
    assert len(counts) > 10


@pytest.mark.parametrize("largest", [1, 127, 128, 20_000])
def test_runs_are_read_back(largest):
    generator = np.random.default_rng(largest)
    ids = np.repeat(generator.integers(0, largest + 1, 40), generator.integers(1, 300, 40))
    ids = np.resize(ids, (40, 301))
    assert np.array_equal(unpacked(module.pack_runs(ids), ids.shape), ids)


def test_names_do_nothing_in_the_page_and_nothing_is_fetched():
    tree = made_tree(0)
    name = "</script><img src=x onerror=alert(1)>'\"\n.jpg"
    page = replace(explorer_of(tree), names=(name,) * (ROWS * COLS)).page(name)
    assert "<img src=x" not in page
    assert page.count("</script>") == 2
    assert not re.search(r"https?://|url\(|@import|<link|src=\"(?!data:)", page)


def test_a_picture_of_another_size_is_refused():
    tree = made_tree(0)
    with pytest.raises(ValueError, match="regions of"):
        Explorer(np.zeros((4, 4, 3), np.uint8), tree.images[0], leaves_of(tree), 0.9, 0.5)


@pytest.fixture(scope="module")
def coffee() -> Explorer:
    config = load_config(["protocol=strict", "backbone=efficientnet_lite0", SMALL])
    return PictureSegmenter(config)(skimage.data.coffee()).explore(max_tau=0.8)


def test_a_picture_is_explored_at_the_size_that_is_asked_for(coffee):
    assert coffee.image.shape == (400, 600, 3)
    assert coffee.leaves.shape == (400, 600)
    assert repr(coffee).startswith("<Explorer of 600 × 400 pixels: ")
    assert np.array_equal(coffee.image, skimage.data.coffee())
    assert len(np.unique(coffee.leaves)) > 10
    config = load_config(["protocol=strict", "backbone=colour", SMALL])
    smaller = PictureSegmenter(config)(skimage.data.coffee()).explore(largest=90)
    assert smaller.image.shape == (60, 90, 3)
    assert smaller.leaves.shape == (60, 90)


def test_a_picture_of_one_colour_is_one_segment():
    config = load_config(["protocol=strict", "backbone=efficientnet_lite0", SMALL])
    plain = PictureSegmenter(config)(np.full((40, 60, 3), 90, dtype=np.uint8)).explore()
    assert (plain.leaves == 0).all()
    assert '"reached": []' in plain.page("plain.png")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["segmenter=slic"], "this segmenter has no tree"),
        (["segmenter.approximation=coarse_to_fine"], "an approximated cut has no tree"),
        (["segmenter.label_codes=float32"], "merge segments"),
    ],
)
def test_without_a_tree_there_is_nothing_to_explore(words, message):
    segmenter = PictureSegmenter(load_config(["protocol=strict", "backbone=colour", SMALL, *words]))
    result = segmenter(skimage.data.coffee()[::4, ::4])
    with pytest.raises(UserError, match=message):
        result.explore()


def test_exploring_ends_at_the_time_limit(monkeypatch):
    def endless(*_):
        while True:
            time.sleep(0.01)

    monkeypatch.setattr(DiffCut, "tree", endless)
    config = load_config(["protocol=strict", "backbone=colour", SMALL, "max_seconds=2"])
    result = PictureSegmenter(config)(skimage.data.coffee()[::4, ::4])
    with pytest.raises(UserError, match="took longer than max_seconds=2"):
        result.explore()


def test_the_command_refuses_before_any_work(cli, tmp_path):
    Image.fromarray(skimage.data.coffee()[::4, ::4]).save(tmp_path / "a.png")
    done = cli("segment", tmp_path / "a.png", "--explore", "segmenter=kmeans", f"output_dir={tmp_path}", SMALL)
    assert done.code == 2
    assert "this segmenter has no tree" in done.err
    assert not (tmp_path / "segments").exists()


def test_the_command_writes_a_page_for_each_picture_and_finds_it_again(cli, tmp_path):
    Image.fromarray(skimage.data.coffee()[::4, ::4]).save(tmp_path / "a <b>.png")
    call = ["segment", tmp_path / "a <b>.png", f"output_dir={tmp_path}", SMALL]
    page = tmp_path / "segments" / "a <b>_explorer.html"
    assert cli(*call).code == 0
    assert not page.exists()
    made = cli(*call, "--explore")  # the pictures are there, and the page is not
    assert made.code == 0
    assert page.name in made.out
    assert "segmented before" not in made.out
    assert "a &lt;b&gt;.png" in page.read_text()
    assert "segmented before" in cli(*call, "--explore").out
    assert "segmented before" in cli(*call).out
    cli(*call, "segmenter.tau=0.3")
    assert not page.exists()  # it was of other settings


def test_merges_are_explored_as_cuts_are(cli, tmp_path):
    """The page's data has the segments that the segmenter finds at each tau, and says what tau is."""
    Image.fromarray(skimage.data.coffee()[::4, ::4]).save(tmp_path / "a.png")
    own = [
        "segmenter=agglomerative",
        "segmenter.min_patches=2",
        "refiner=none",
        "upsampler=nearest",
        "backbone=efficientnet_lite0",
        SMALL,
    ]
    done = cli("segment", tmp_path / "a.png", "--explore", *own, "smallest_segment=0", f"output_dir={tmp_path}")
    assert done.code == 0, done.err
    page = (tmp_path / "segments" / "a_explorer.html").read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', page)[1])
    assert (data["tau"], data["maxTau"]) == (0.6, 1.0)
    assert "cosine of their mean features is at least tau" in page
    assert "Normalized Cut" not in page
    result = PictureSegmenter(load_config(["protocol=strict", *own]))(tmp_path / "a.png")
    counts = []
    for tau in (0.0, 0.3, 0.6, 0.9, 1.0):
        made = sum(reached < np.float32(tau) for reached in data["reached"])
        assert result.at(tau).num_segments == len(np.unique(result.hierarchy().regions(tau))) == made + 1
        counts.append(made)
    assert counts == sorted(counts) and len(set(counts)) > 2


# ---- The script in Node

RUN = """
const page = require(process.argv[1]);
const { data, taus, folder } = JSON.parse(require("fs").readFileSync(0));
const leaves = page.decodeRuns(data.leaves, data.width * data.height);
const tree = page.buildTree(data.reached, data.within);
const colours = page.coloursOf(tree);
const save = async (blob, name) =>
  require("fs").writeFileSync(`${folder}/${name}`, Buffer.from(await blob.arrayBuffer()));
const labels = taus.map((tau) => {
  const owner = page.segmentsAt(tree, tau);
  return Array.from(leaves, (leaf) => owner[tree.ofRegion[leaf]]);
});
(async () => {
  for (const [i, tau] of taus.entries()) {
    await save(await page.labelsPng(tree, leaves, colours, data.width, data.height, tau), `${i}.png`);
  }
  await save(await page.maskPng(tree, leaves, 1, data.width, data.height), "mask.png");
  console.log(JSON.stringify({
    labels, counts: taus.map((tau) => page.countSegments(tree, tau)), areas: Array.from(page.areasOf(tree, leaves)),
    colours, nodes: tree.nodes,
  }));
})();
"""


@pytest.fixture(scope="module", params=[made_tree, merged_tree])
def in_node(request, tmp_path_factory):
    """What the page's script makes of a tree: segments at each tau, and PNG files."""
    if NODE is None:
        pytest.skip("Node is not installed")
    folder, tree = tmp_path_factory.mktemp("node"), request.param(1)
    data = explorer_of(tree).data("a.jpg")
    script = folder / "explorer.js"
    shutil.copy(Path(module.__file__).with_suffix(".js"), script)
    given = json.dumps({"data": data, "taus": TAUS, "folder": str(folder)})
    done = subprocess.run([NODE, "-e", RUN, str(script)], input=given, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return tree, folder, json.loads(done.stdout)


def test_the_script_finds_the_trees_segments(in_node):
    tree, _, found = in_node
    for tau, labels, count in zip(TAUS, found["labels"], found["counts"], strict=True):
        expected = tree.labels(tau)[0].numpy()
        assert count == expected.max() + 1
        assert same_partition(np.array(labels), expected)


def test_label_pictures_hold_the_segments(in_node):
    tree, folder, found = in_node
    modes = set()
    for i, tau in enumerate(TAUS):
        with Image.open(folder / f"{i}.png") as picture:
            modes.add(picture.mode)
            labels = np.array(picture).astype(np.int64)
        expected = tree.labels(tau)[0].numpy()
        assert same_partition(labels.ravel(), expected)
        assert labels.max() + 1 == found["counts"][i]
    assert modes == {"P", "I;16"}
    with Image.open(folder / "mask.png") as picture:
        assert picture.mode == "L"
        assert np.array_equal(np.array(picture).ravel() == 255, tree.images[0].sides[0].numpy())


def test_a_part_lies_in_its_whole(in_node):
    _, _, found = in_node
    for node, area in zip(found["nodes"], found["areas"], strict=True):
        if node["parts"]:
            assert area == sum(found["areas"][part] for part in node["parts"])
            assert all(found["nodes"][part]["appears"] == node["divides"] for part in node["parts"])
    assert len({tuple(colour) for colour in found["colours"]}) > len(found["nodes"]) / 2


# ---- The page in a browser


@pytest.fixture
def opened(browser, coffee, tmp_path):
    """The page of the coffee picture, just opened in a window of 1280 × 900."""
    (tmp_path / "page.html").write_text(coffee.page("coffee.jpg"), encoding="utf-8")
    browser.resize(1280, 900)
    browser.open(tmp_path / "page.html")
    yield browser
    assert browser.errors() == []


def text(browser, name):
    return browser.run("return document.getElementById(arguments[0]).textContent", name)


def number(coffee, tau):
    return str(int(NCutTree([coffee.tree], coffee.max_tau).labels(tau).max()) + 1)


def share(chosen: str) -> float:
    """Per cent of the picture, of the description of what is selected."""
    return 100.0 if chosen.startswith("The whole") else float(chosen.split(" % ")[0])


RIGHT, LEFT, UP, DOWN, ENTER, ESCAPE = "\ue014", "\ue012", "\ue013", "\ue015", "\ue007", "\ue00c"


def test_the_slider_shows_the_trees_number_of_segments(opened, coffee):
    assert text(opened, "count") == number(coffee, coffee.tau)
    seen = set()
    for tau in np.arange(0, 0.805, 0.05).round(2).tolist():
        opened.run(
            "const t = document.getElementById('tau'); t.value = arguments[0]; t.dispatchEvent(new Event('input'))", tau
        )
        assert text(opened, "tau-now") == f"{tau:.2f}"
        assert text(opened, "count") == number(coffee, tau)
        seen.add(text(opened, "count"))
    assert len(seen) > 8


def test_the_slider_moves_by_keys(opened, coffee):
    opened.run("document.getElementById('tau').focus()")
    start = round(coffee.tau, 2)
    opened.press(RIGHT, RIGHT, RIGHT)
    assert text(opened, "count") == number(coffee, start + 0.03)
    opened.press(*[LEFT] * 13)
    assert text(opened, "tau-now") == f"{start - 0.1:.2f}"
    assert text(opened, "count") == number(coffee, start - 0.1)


def test_more_and_fewer_go_through_all_numbers_of_segments(opened, coffee):
    reached = np.sort(coffee.tree.reached_at.numpy())
    numbers = [1, *(int((reached <= one).sum()) + 1 for one in np.unique(reached[reached < np.float32(0.8)]))]
    clicks = """
      explorer.setTau(arguments[1]);
      const seen = [Number(document.getElementById("count").textContent)];
      for (const button = document.getElementById(arguments[0]); !button.disabled; ) {
        button.click();
        seen.push(Number(document.getElementById("count").textContent));
      }
      return seen;
    """
    assert opened.run(clicks, "more", 0) == numbers
    assert opened.run(clicks, "fewer", 0.8) == numbers[::-1]


def test_fewer_ends_where_no_smaller_tau_has_fewer_segments(opened, tmp_path):
    tree = merged_tree(3)
    assert tree.images[0].reached_at.min() < 0, "merges that are made at no tau"
    (tmp_path / "merged.html").write_text(explorer_of(tree).page("merged.jpg"), encoding="utf-8")
    opened.open(tmp_path / "merged.html")
    clicks = """
      const fewer = document.getElementById("fewer");
      let clicks = 0;
      while (!fewer.disabled && clicks++ < 1000) fewer.click();
      return [Number(document.getElementById("count").textContent), clicks];
    """
    count, clicks = opened.run(clicks)
    assert count == int(tree.labels(0).max()) + 1 > 1
    assert 0 < clicks < 1000


def test_the_canvas_has_the_colours_of_the_segments(opened, coffee):
    """Pixels of one segment have one colour; so many colours as segments that have pixels."""
    pixels = """
      document.getElementById("outlines").checked = false;
      document.getElementById("opacity").value = 100;
      explorer.setTau(arguments[0]);
      explorer.paintSegments();
      const image = document.getElementById("segments").getContext("2d").getImageData(0, 0, 600, 400);
      return Array.from(new Uint32Array(image.data.buffer));
    """
    data = coffee.data("coffee.jpg")
    for tau in (0.3, 0.5):
        shown = np.array(opened.run(pixels, tau)).reshape(400, 600)
        assert same_partition(shown, segments_of(data, tau))


def test_a_click_selects_and_keys_walk(opened):
    box = opened.run(
        "const b = document.getElementById('stage').getBoundingClientRect(); return [b.left, b.top, b.width]"
    )
    x, y = int(box[0] + box[2] / 2), int(box[1] + box[2] / 4)
    drawn = """
      const context = document.getElementById("marks").getContext("2d");
      return new Uint32Array(context.getImageData(0, 0, 600, 400).data.buffer).filter(Boolean).length;
    """
    assert opened.run(drawn) == 0
    opened.point(x, y)
    opened.resize(1280, 900)  # waits for a frame
    assert opened.run(drawn) > 0  # the outline under the pointer
    opened.point(x, y, click=True)
    first = text(opened, "chosen")
    assert "% of the picture: a segment at tau" in first
    opened.press(UP)
    parent = text(opened, "chosen")
    assert parent != first
    assert share(parent) > share(first)
    opened.press(DOWN)
    assert text(opened, "chosen") == first
    opened.press("o")
    assert text(opened, "chosen") != first
    opened.press("o")
    opened.scroll(x, y, -120)
    assert text(opened, "chosen") == parent
    opened.scroll(x, y, 120)
    assert text(opened, "chosen") == first
    opened.press(ESCAPE)
    assert text(opened, "chosen").startswith("None.")
    opened.press(ENTER)
    sizes = []
    for _ in range(3):
        sizes.append(share(text(opened, "chosen")))
        opened.press(RIGHT)
    assert all(a >= b for a, b in pairwise(sizes))


def test_a_finger_selects(opened):
    opened.devtools("Emulation.setTouchEmulationEnabled", enabled=True)
    try:
        place = "const b = document.getElementById('stage').getBoundingClientRect(); return [b.left + 40, b.top + 40]"
        x, y = opened.run(place)
        opened.devtools("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        opened.devtools("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        opened.resize(1280, 900)
        assert "% of the picture" in text(opened, "chosen")
    finally:
        opened.devtools("Emulation.setTouchEmulationEnabled", enabled=False)


def test_downloads_are_what_is_shown(opened, coffee, tmp_path):
    opened.devtools("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    opened.run("explorer.setTau(0.4); document.getElementById('stage').focus()")
    opened.press(ENTER)
    opened.run("document.getElementById('labels').click()")
    opened.run("document.getElementById('mask').click()")
    files = [tmp_path / f"coffee_tau0.40_{kind}.png" for kind in ("labels", "mask")]
    for _ in range(100):
        if all(file.is_file() for file in files):
            break
        time.sleep(0.1)
    labels, mask = (np.array(Image.open(file)) for file in files)
    data = coffee.data("coffee.jpg")
    assert same_partition(labels, segments_of(data, 0.4))
    assert set(np.unique(mask)) == {0, 255}
    assert len(np.unique(labels[mask == 255])) == 1
    assert (mask == 255).sum() == np.bincount(labels.ravel()).max()  # Enter selects the largest


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone_and_both_schemes(opened, scheme):
    opened.resize(400, 800, scheme)
    assert opened.run("return document.documentElement.scrollWidth") == 400
    background = opened.run("return getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", background)[0]) > 128) == (scheme == "light")
    bottom = opened.run("return document.getElementById('tau').getBoundingClientRect().bottom")
    assert bottom < 800  # picture and slider are seen together


def test_everything_that_can_be_used_has_a_name_and_takes_the_focus(opened):
    unnamed = """
      const all = [...document.querySelectorAll("button, input, [tabindex]")];
      return all.filter((each) => each.checkVisibility()).filter((each) => {
        each.disabled = false;
        each.focus();
        const name = each.getAttribute("aria-label") || each.textContent || (each.labels && each.labels[0].textContent);
        return !name.trim() || document.activeElement !== each;
      }).map((each) => each.id);
    """
    assert opened.run(unnamed) == []


@pytest.fixture(scope="module")
def large_page(tmp_path_factory):
    """1024 × 1024 with hundreds of regions, the picture as noisy as a JPEG can be."""
    tree = made_tree(2, nodes=1024).images[0]
    leaves = np.zeros(1024, dtype=np.int64)
    for cut, side in enumerate(tree.sides.numpy()):
        leaves[side] = cut + 1
    leaves = leaves.reshape(32, 32).repeat(32, axis=0).repeat(32, axis=1)
    photo = np.array(Image.fromarray(skimage.data.astronaut()).resize((1024, 1024)))
    page = tmp_path_factory.mktemp("large") / "large.html"
    page.write_text(Explorer(photo, tree, leaves, 0.95, 0.5).page("large.jpg"), encoding="utf-8")
    return page


def test_a_large_picture_is_a_small_file(large_page):
    assert large_page.stat().st_size < 2_000_000


def test_a_large_picture_is_painted_in_less_than_a_frame(opened, large_page):
    opened.open(large_page)
    seconds = """
      explorer.select(1);
      return Array.from({ length: 21 }, (_, i) => {
        const start = performance.now();
        explorer.setTau(0.3 + i * 0.03);
        explorer.paintSegments();
        explorer.paintMarks();
        return performance.now() - start;
      });
    """
    assert np.median(opened.run(seconds)) < 1000 / 30


def test_the_slider_moves_at_thirty_frames_a_second(opened, large_page):
    """Over frames that the browser really shows, each with another tau; half of that on a machine that is busy."""
    opened.open(large_page)
    moving = """
      const slider = document.getElementById("tau"), drawn = document.getElementById("segments").getContext("2d");
      const put = drawn.putImageData.bind(drawn);
      let painted = 0;
      drawn.putImageData = (...given) => { painted++; put(...given); };
      return new Promise((done) => {
        let first, frames = 0;
        const frame = (now) => {
          first ??= now;
          if (now - first >= 1000) return done([frames, painted]);
          slider.value = 0.2 + 0.6 * Math.abs(((frames++ / 50) % 2) - 1);
          slider.dispatchEvent(new Event("input"));
          requestAnimationFrame(frame);
        };
        requestAnimationFrame(frame);
      });
    """
    frames, painted = opened.run(moving)
    assert painted >= frames - 1
    assert frames >= 15


# ---- Names


def test_a_segment_is_called_what_most_of_its_pixels_are():
    tree = made_tree(3)
    explorer, tau = explorer_of(tree), 0.6
    labels = tree.labels(tau)[0].numpy().reshape(ROWS, COLS)
    names = [f"thing {i}" for i in range(labels.max() + 1)]
    moved = labels.repeat(3, axis=0).repeat(3, axis=1)
    moved[:, 1:] = moved[:, :-1].copy()  # borders a little elsewhere, at another size
    called = replace(explorer, tau=tau).named(moved, names)
    assert len(names) > 10
    assert [called.names[leaf] for leaf in explorer.leaves.ravel()] == [names[i] for i in labels.ravel()]


def test_a_segmentation_at_another_tau_is_explored_from_there():
    result = PictureSegmenter(["backbone=colour", SMALL])(skimage.data.coffee()[::4, ::4]).at(0.3)
    names = tuple((f"thing {i}", 0.5) for i in range(result.num_segments))
    explorer = replace(result, names=names).explore()
    assert explorer.tau == 0.3
    assert len(set(explorer.names)) > len(names) / 2  # a segment may win no pixel
    assert result.explore().names == ()


def test_named_segments_show_their_names_at_the_tau_that_they_have_them(browser, coffee, tmp_path):
    data = coffee.data("coffee.jpg")
    labels = np.unique(segments_of(data, coffee.tau), return_inverse=True)[1].reshape(400, 600)
    names = ["<b>table</b>" if i % 2 else "cup" for i in range(labels.max() + 1)]
    (tmp_path / "named.html").write_text(coffee.named(labels, names).page("coffee.jpg"), encoding="utf-8")
    browser.resize(1280, 900)
    browser.open(tmp_path / "named.html")
    words = "return [...document.querySelectorAll('#words span')].map((each) => each.textContent)"
    assert set(browser.run(words)) == {"cup", "<b>table</b>"}
    overlaps = """
      const boxes = [...document.querySelectorAll("#words span")].map((each) => each.getBoundingClientRect());
      const apart = (a, b) => a.right <= b.left + 1 || a.bottom <= b.top + 1;
      return boxes.filter((a, i) => boxes.some((b, j) => i < j && !apart(a, b) && !apart(b, a))).length;
    """
    assert browser.run(overlaps) == 0
    browser.run("document.getElementById('stage').focus()")
    browser.press(ENTER)
    largest = names[np.bincount(labels.ravel()).argmax()]
    assert text(browser, "chosen").startswith(f"{largest}. ")
    browser.press(DOWN)
    assert text(browser, "chosen").startswith(f"part of {largest}. ")
    browser.run("explorer.select(0)")
    assert text(browser, "chosen").startswith("<b>table</b>, cup. The whole picture")
    browser.run("document.getElementById('names').click()")
    assert browser.run(words) == []
    assert browser.errors() == []


def test_without_names_there_is_no_box_to_tick(opened):
    assert opened.run("return document.getElementById('named').checkVisibility()") is False
