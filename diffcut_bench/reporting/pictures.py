"""Pictures of segmentations: overlays, and image, label and prediction side by side."""

import colorsys
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from skimage.segmentation import find_boundaries
from torch import Tensor

from diffcut_bench.datasets import SegmentationDataset
from diffcut_bench.escaping import one_line
from diffcut_bench.evaluation import assign_clusters, contingency_table
from diffcut_bench.reporting.inlined import jpeg_uri
from diffcut_bench.scoring.pipeline import Outcome
from diffcut_bench.store import write_atomically

_PANEL = 384  # pixels of a panel's longer side
_WIDEST = 1100  # pixels inside a page: the captions of a drawing of 1184 stay readable
_GAP = 8
_ROWS = 256  # of a picture that are drawn at once
_BOTTOM = "panels end at row"  # name of a text in a PNG
_LINE = 22  # height of a line of text
_GOLDEN_RATIO = 0.6180339887498949
_VOID_GREY = 235
_UNMATCHED_GREY = 140


def palette(count: int) -> NDArray[np.uint8]:
    """``count`` colours [count, 3] that differ from their neighbours: hues a golden-ratio turn apart."""
    colours = [
        colorsys.hsv_to_rgb(i * _GOLDEN_RATIO % 1, 0.55 + 0.4 * (i % 2), 0.95 - 0.25 * (i % 3) / 2)
        for i in range(count)
    ]
    return (np.array(colours).reshape(-1, 3) * 255).astype(np.uint8)


def overlay(image: NDArray[np.uint8], labels: NDArray[np.int64], opacity: float = 0.45) -> NDArray[np.uint8]:
    """Segments in colours over the image, with white boundaries.

    Args:
        image: RGB [height, width, 3].
        labels: segment ids [height, width].
        opacity: of the colours, 0 to 1.
    """
    colours, shown = palette(int(labels.max()) + 1), np.empty_like(image)
    for first in range(0, len(labels), _ROWS):  # a large picture has no room for copies
        # One more row above and below, for boundaries.
        top, bottom = max(first - 1, 0), min(first + _ROWS + 1, len(labels))
        ids = labels[top:bottom]
        own = slice(first, first + _ROWS)
        shown[own] = _blend(image[top:bottom], colours[ids], ids, opacity)[first - top :][:_ROWS]
    return shown


def with_legend(pixels: NDArray[np.uint8], legend: Sequence[tuple[str, tuple[int, ...]]]) -> NDArray[np.uint8]:
    """The picture [height, width, 3] with names and their colours beneath it."""
    height, width = pixels.shape[:2]
    font = ImageFont.load_default(size=15)
    entries: list[tuple[int, int, str, tuple[int, ...]]] = []
    left, row = _GAP, 0
    for name, colour in ((one_line(name), colour) for name, colour in legend):
        needed = 19 + int(font.getlength(name)) + 18
        if left + needed > width and left > _GAP:
            left, row = _GAP, row + 1
        entries.append((left, height + _GAP // 2 + _LINE * row, name, colour))
        left += needed
    sheet = Image.new("RGB", (width, height + _LINE * (row + 1) + _GAP), "white")
    sheet.paste(Image.fromarray(pixels), (0, 0))
    pen = ImageDraw.Draw(sheet)
    for x, y, name, colour in entries:
        pen.rectangle((x, y + 3, x + 13, y + 16), fill=colour)
        pen.text((x + 19, y), name, fill="black", font=font)
    return np.array(sheet)


def encode_png(
    pixels: NDArray[np.uint8] | NDArray[np.uint16],
    colours: NDArray[np.uint8] | None = None,
    notes: Mapping[str, str] | None = None,
) -> bytes:
    """PNG of an RGB(A) [h, w, 3 or 4], 8-bit or 16-bit grey [h, w] array.

    Args:
        pixels: the array.
        colours: RGB [values, 3] in which the values of an 8-bit grey array are shown; the values themselves are stored.
        notes: texts that the file holds, by name.
    """
    written = PngInfo()
    for name, text in (notes or {}).items():
        written.add_text(name, text)
    buffer, picture = io.BytesIO(), Image.fromarray(pixels)
    if colours is not None:
        picture.putpalette(colours.tobytes())
    picture.save(buffer, format="PNG", pnginfo=written)
    return buffer.getvalue()


def embed_picture(path: Path, *, prediction_only: bool = False) -> tuple[str, int, int]:
    """A picture of `draw_outcome` as the ``data:`` URI of a JPEG of at most 1100 pixels' width; its width and height.

    Args:
        path: of the PNG.
        prediction_only: without image, label and legend, at the scale that the whole picture has.

    Raises:
        OSError: it can't be read.
        ValueError: it does not say where the prediction ends; older versions did not.
    """
    with Image.open(path, formats=("PNG",)) as opened:
        picture, noted = opened.convert("RGB"), opened.info.get(_BOTTOM, "")
    scale = min(_WIDEST / picture.width, 1)
    if prediction_only:
        if not (isinstance(noted, str) and noted.isdecimal() and 0 < int(noted) <= picture.height):
            raise ValueError("drawn by an older version")
        picture = picture.crop(((2 * picture.width + _GAP) // 3, 0, picture.width, int(noted)))
    if scale < 1:
        width, height = (max(round(side * scale), 1) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    # Without subsampling, since coloured text on colour would blur.
    return jpeg_uri(picture, quality=82, subsampling=0), *picture.size


def draw_outcome(outcome: Outcome, dataset: SegmentationDataset, path: Path) -> None:
    """Image | label | prediction, the prediction's segments outlined and in the colour of the class they matched.

    Segments without a class are grey, void is white. Where the label is of annotators, it is the first one's, and
    segments have the colour of the annotated one that they share most pixels with. The caption counts the segments
    that are left after the background rule and refinement, of those that the cut had found. Written atomically as PNG.
    """
    image = (outcome.example.eval_image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    label, prediction = outcome.example.label.numpy(), outcome.prediction.numpy()
    table, matched = match_outcome(outcome, dataset)
    colours = palette(len(table))
    # A negative id picks the last colour.
    of_label = np.vstack([colours, np.full(3, _VOID_GREY, np.uint8)])
    of_cluster = np.vstack([colours, np.full(3, _UNMATCHED_GREY, np.uint8)])[matched]
    panels = [_enlarge(image, Image.Resampling.BICUBIC)]
    for ids, by_id in ((label, of_label), (prediction, of_cluster)):
        large = _enlarge(ids.astype(np.int32), Image.Resampling.NEAREST)
        panels.append(_blend(panels[0], by_id[large], large, 0.6))
    present = np.flatnonzero(table.sum(dim=1).numpy()[: dataset.num_classes])
    legend = [(dataset.class_names[i], tuple(colours[i])) for i in present]
    shown = len(np.unique(prediction))
    merged = f" of {outcome.segments}" if shown < outcome.segments else ""
    segments = f"{shown}{merged} segment{'' if shown == 1 and not merged else 's'}"
    captions = (f"{outcome.example.id}: image", "label", f"prediction, {segments}")
    composed = _compose(panels, captions)
    margin = ((0, _GAP // 2), (0, 0), (0, 0))
    drawing = np.pad(with_legend(composed, legend), margin, constant_values=255)
    write_atomically(path, encode_png(drawing, notes={_BOTTOM: str(len(composed))}))


def match_outcome(outcome: Outcome, dataset: SegmentationDataset) -> tuple[Tensor, NDArray[np.int64]]:
    """Pixels of each class and cluster of the prediction [classes, clusters], and the class that each cluster matched;
    −1 for none. Of annotators, the first one's segments are the classes, and a cluster goes with the one that it shares
    most pixels with."""
    label = outcome.example.label
    classes = max(int(label.max()) + 1, 1) if dataset.annotators else dataset.num_classes
    table = contingency_table(outcome.prediction, label, classes)
    if dataset.annotators:
        return table, np.where(table.any(dim=0).numpy(), table.argmax(dim=0).numpy(), -1)
    return table, matched_classes(table, outcome.assignment, named=outcome.named)


def matched_classes(table: Tensor, assignment: Mapping[str, Any], *, named: bool = False) -> NDArray[np.int64]:
    """Class that each cluster matched, or that it is.

    Args:
        table: contingency table [classes, clusters].
        assignment: choices of the matching, see `Protocol.assignment`.
        named: clusters are classes.

    Returns:
        Class ids [clusters]; −1 for a cluster that no class was given, or only one without a pixel in the table.
    """
    if named:
        return np.arange(table.shape[1], dtype=np.int64)
    classes = np.full(table.shape[1], -1, dtype=np.int64)
    present = table.sum(dim=1) > 0
    for index, cluster in enumerate(assign_clusters(table, **assignment).tolist()):
        if present[index] and cluster >= 0:
            classes[cluster] = index
    return classes


def _blend(
    image: NDArray[np.uint8], colours: NDArray[np.uint8], ids: NDArray[Any], opacity: float
) -> NDArray[np.uint8]:
    mixed = (1 - opacity) * image + opacity * colours
    mixed[find_boundaries(ids, mode="inner", background=ids.min() - 1)] = 255
    return mixed.astype(np.uint8)


def _enlarge(pixels: NDArray[Any], method: Image.Resampling) -> NDArray[Any]:
    picture = Image.fromarray(pixels)
    scale = _PANEL / max(picture.size)
    return np.array(
        picture.resize((max(round(picture.width * scale), 1), max(round(picture.height * scale), 1)), method)
    )


def _compose(panels: list[NDArray[np.uint8]], captions: tuple[str, str, str]) -> NDArray[np.uint8]:
    """Panels of one size side by side, a caption above each."""
    height, width = panels[0].shape[:2]
    sheet = Image.new("RGB", (width * 3 + _GAP * 4, height + _LINE + _GAP // 2), "white")
    pen = ImageDraw.Draw(sheet)
    for column, (panel, caption) in enumerate(zip(panels, captions, strict=True)):
        left = _GAP + column * (width + _GAP)
        pen.text((left, _GAP // 2), one_line(caption), fill="black", font=ImageFont.load_default(size=15))
        sheet.paste(Image.fromarray(panel), (left, _LINE + _GAP // 2))
    return np.array(sheet)
