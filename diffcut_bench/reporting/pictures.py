"""Pictures of segmentations: overlays, and image, label and prediction side by side."""

import colorsys
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from skimage.segmentation import find_boundaries
from torch import Tensor

from diffcut_bench.datasets import SegmentationDataset
from diffcut_bench.escaping import one_line
from diffcut_bench.evaluation import Criterion, Surplus, assign_clusters, contingency_table
from diffcut_bench.scoring.pipeline import Outcome
from diffcut_bench.store import write_atomically

_PANEL = 384  # pixels of a panel's longer side
_GAP = 8
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
    return _blend(image, palette(int(labels.max()) + 1)[labels], labels, opacity)


def with_legend(pixels: NDArray[np.uint8], legend: Sequence[tuple[str, tuple[int, ...]]]) -> NDArray[np.uint8]:
    """The picture [height, width, 3] with names and their colours beneath it."""
    height, width = pixels.shape[:2]
    font = ImageFont.load_default(size=15)
    rows = _wrap_legend(list(legend), width, font)
    sheet = Image.new("RGB", (width, height + _LINE * len(rows) + _GAP), "white")
    sheet.paste(Image.fromarray(pixels), (0, 0))
    _draw_legend(ImageDraw.Draw(sheet), rows, height + _GAP // 2, font)
    return np.array(sheet)


def encode_png(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    """PNG of an RGB [h, w, 3], 8-bit or 16-bit grey [h, w] array."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def draw_outcome(outcome: Outcome, dataset: SegmentationDataset, path: Path) -> None:
    """Image | label | prediction, the prediction's segments outlined and in the colour of the class they matched.

    Segments without a class are grey, void is white. The caption counts the segments that are left after the background
    rule and refinement, of those that the cut had found. Written atomically as PNG.
    """
    image = (outcome.example.eval_image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    label, prediction = outcome.example.label.numpy(), outcome.prediction.numpy()
    colours = palette(dataset.num_classes)
    label_colours = np.where((label < 0)[..., None], _VOID_GREY, colours[np.clip(label, 0, None)]).astype(np.uint8)
    table = contingency_table(torch.from_numpy(prediction), torch.from_numpy(label), dataset.num_classes)
    matched = matched_classes(table, outcome.criterion, outcome.surplus, named=outcome.named)
    by_cluster = np.where((matched < 0)[:, None], _UNMATCHED_GREY, colours[np.clip(matched, 0, None)]).astype(np.uint8)
    panels = [
        _enlarge(image),
        _blend(_enlarge(image), _enlarge(label_colours, smooth=False), _enlarge_ids(label), 0.6),
        _blend(_enlarge(image), _enlarge(by_cluster[prediction], smooth=False), _enlarge_ids(prediction), 0.6),
    ]
    present = np.flatnonzero(table.sum(dim=1).numpy())
    legend = [(dataset.class_names[i], tuple(colours[i])) for i in present]
    shown = len(np.unique(prediction))
    merged = f" of {outcome.segments}" if shown < outcome.segments else ""
    segments = f"{shown}{merged} segment{'' if shown == 1 and not merged else 's'}"
    captions = (f"{outcome.example.id}: image", "label", f"prediction, {segments}")
    write_atomically(path, encode_png(_compose(panels, captions, legend)))


def matched_classes(table: Tensor, criterion: Criterion, surplus: Surplus, *, named: bool = False) -> NDArray[np.int64]:
    """Class that each cluster matched, or that it is.

    Args:
        table: contingency table [classes, clusters].
        criterion, surplus: of the matching.
        named: clusters are classes.

    Returns:
        Class ids [clusters]; −1 for a cluster that no class was given, or only one without a pixel in the table.
    """
    if named:
        return np.arange(table.shape[1], dtype=np.int64)
    classes = np.full(table.shape[1], -1, dtype=np.int64)
    present = table.sum(dim=1) > 0
    for index, cluster in enumerate(assign_clusters(table, criterion, surplus).tolist()):
        if present[index] and cluster >= 0:
            classes[cluster] = index
    return classes


def _blend(
    image: NDArray[np.uint8], colours: NDArray[np.uint8], ids: NDArray[np.int64], opacity: float
) -> NDArray[np.uint8]:
    mixed = (1 - opacity) * image + opacity * colours
    mixed[find_boundaries(ids, mode="inner", background=ids.min() - 1)] = 255
    return mixed.astype(np.uint8)


def _enlarged_size(height: int, width: int) -> tuple[int, int]:
    scale = _PANEL / max(height, width)
    return max(round(width * scale), 1), max(round(height * scale), 1)


def _enlarge(pixels: NDArray[np.uint8], *, smooth: bool = True) -> NDArray[np.uint8]:
    method = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    return np.array(Image.fromarray(pixels).resize(_enlarged_size(*pixels.shape[:2]), method))


def _enlarge_ids(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    size = _enlarged_size(*ids.shape)
    return np.array(Image.fromarray(ids.astype(np.int32)).resize(size, Image.Resampling.NEAREST)).astype(np.int64)


def _compose(
    panels: list[NDArray[np.uint8]], captions: tuple[str, str, str], legend: list[tuple[str, tuple[int, ...]]]
) -> NDArray[np.uint8]:
    height, width = panels[0].shape[:2]
    font = ImageFont.load_default(size=15)
    total = width * 3 + _GAP * 4
    rows = _wrap_legend(legend, total, font)
    sheet = Image.new("RGB", (total, height + _LINE * (1 + len(rows)) + 2 * _GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for place, (panel, caption) in enumerate(zip(panels, captions, strict=True)):
        left = _GAP + place * (width + _GAP)
        pen.text((left, _GAP // 2), one_line(caption), fill="black", font=font)
        sheet.paste(Image.fromarray(panel), (left, _LINE + _GAP // 2))
    _draw_legend(pen, rows, height + _LINE + _GAP, font)
    return np.array(sheet)


def _draw_legend(
    pen: ImageDraw.ImageDraw,
    rows: list[list[tuple[int, str, tuple[int, ...]]]],
    top: int,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    for row, entries in enumerate(rows):
        for left, name, colour in entries:
            place = top + _LINE * row
            pen.rectangle((left, place + 3, left + 13, place + 16), fill=colour)
            pen.text((left + 19, place), name, fill="black", font=font)


def _wrap_legend(
    legend: list[tuple[str, tuple[int, ...]]], total: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> list[list[tuple[int, str, tuple[int, ...]]]]:
    rows: list[list[tuple[int, str, tuple[int, ...]]]] = [[]]
    left = _GAP
    for name, colour in ((one_line(name), colour) for name, colour in legend):
        needed = 19 + int(font.getlength(name)) + 18
        if left + needed > total and rows[-1]:
            rows.append([])
            left = _GAP
        rows[-1].append((left, name, colour))
        left += needed
    return rows
