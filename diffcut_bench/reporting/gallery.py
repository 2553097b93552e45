"""Pictures of a page: which images of a cell to show, and their drawings inside the page."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from diffcut_bench.reporting.details import ranked_images
from diffcut_bench.store import ImageRow

_WIDEST = 1100  # pixels; a drawing of 1184 keeps its captions readable
_QUALITY = 82


def choose_images(rows: Sequence[ImageRow], each: int) -> list[tuple[str, list[tuple[ImageRow, float]]]]:
    """The best, the median and the worst images with their scores, best first; none twice, none without a score.

    Args:
        rows: of a cell.
        each: how many of each kind, as far as there are so many.
    """
    ranked = ranked_images(rows)
    best, rest = ranked[:each], ranked[each:]
    left = max(len(rest) - each, 0)
    worst, rest = rest[left:], rest[:left]
    first = max(left - each + 1, 0) // 2
    median = rest[first : first + each]
    return [(kind, images) for kind, images in (("best", best), ("median", median), ("worst", worst)) if images]


def embed_picture(path: Path) -> tuple[str, int, int]:
    """A picture as the ``data:`` URI of a JPEG of at most 1100 pixels' width; its width and height.

    Raises:
        OSError: it can't be read.
    """
    with Image.open(path, formats=("PNG",)) as opened:
        picture = opened.convert("RGB")
    if picture.width > _WIDEST:
        size = (_WIDEST, max(round(picture.height * _WIDEST / picture.width), 1))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    # Without subsampling, since coloured text on colour would blur.
    picture.save(buffer, format="JPEG", quality=_QUALITY, subsampling=0, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}", *picture.size
