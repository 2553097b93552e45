"""The explorer: one HTML file of a picture in which a slider moves tau. Knows a picture, cuts and pixels.

A segmentation at one tau assigns each pixel to the most similar of that tau's segments, and smooths the result: one
label map for each tau, of which no two need agree along borders, and far too many for a page. So a page holds one map
of the finest regions (`diffcut_bench.refinement.assign_cut_by_cut`) and the tau at which each cut appears. The segments
at any tau are unions of these regions, and as many as ``tree.labels(tau, "exact")`` has; label codes that merge
segments (``float32``) have no tree. The price: borders are found cut by cut and not smoothed, and can differ from what
`diffcut_bench.segment` draws at that tau. The page says so.

The map is packed as runs along rows: region and length of each as base-128 numbers (low digits first), in base64.
"""

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from numpy.typing import NDArray
from PIL import Image

from diffcut_bench.escaping import counted, file_stem, one_line
from diffcut_bench.ncut import ImageTree

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, repr=False)
class Explorer:
    """The segments of one picture at every tau up to ``max_tau``.

    Attributes:
        image: RGB [height, width, 3], 0..255, of the page's size.
        tree: the cuts.
        leaves: region of each pixel [height, width]: c + 1 where its last first side is that of cut c, else 0.
        max_tau: that the tree was made at.
        tau: of the config.
    """

    image: NDArray[np.uint8]
    tree: ImageTree
    leaves: NDArray[np.int64]
    max_tau: float
    tau: float

    def __repr__(self) -> str:
        height, width = self.leaves.shape
        regions = counted(len(self.tree.parents) + 1, "region")
        return f"<Explorer of {width} × {height} pixels: {regions} up to tau {self.max_tau:g}>"

    def page(self, name: str = "picture") -> str:
        """The HTML file, see `explorer_page`."""
        return explorer_page(self.image, self.tree, self.leaves, max_tau=self.max_tau, tau=self.tau, name=name)

    def _repr_html_(self) -> str:
        """What a notebook shows: the page, in a frame of its own."""
        return f'<iframe srcdoc="{escape(self.page())}" style="width:100%;height:640px;border:0"></iframe>'


def explorer_data(leaves: NDArray[np.int64], tree: ImageTree, max_tau: float, tau: float, name: str) -> dict[str, Any]:
    """What the page's script works on.

    Args:
        leaves: region of each pixel [height, width], from `assign_cut_by_cut`.
        tree: the cuts of the picture.
        max_tau: end of the slider; the tree was made at this tau or above.
        tau: where the slider stands at first.
        name: of the picture; its stem begins the names of downloaded files.
    """
    height, width = leaves.shape
    return {
        "width": width,
        "height": height,
        "maxTau": max_tau,
        "tau": min(tau, max_tau),
        "stem": file_stem(Path(name).stem),
        "reached": tree.reached_at.float().tolist(),
        "within": tree.divided,
        "leaves": pack_runs(leaves),
    }


def explorer_page(
    image: NDArray[np.uint8],
    tree: ImageTree,
    leaves: NDArray[np.int64],
    *,
    max_tau: float,
    tau: float = 0.5,
    name: str = "picture",
) -> str:
    """One HTML file: picture, regions, style and script are in it, and nothing is fetched.

    Args:
        image: RGB [height, width, 3] of the size of ``leaves``.
        tree, leaves, max_tau, tau, name: see `explorer_data`.

    Raises:
        ValueError: picture and regions differ in size.
    """
    if image.shape[:2] != leaves.shape:
        raise ValueError(f"a picture of {image.shape[:2]} and regions of {leaves.shape}")
    environment = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    css, script = (Markup((_FOLDER / f"explorer.{suffix}").read_text(encoding="utf-8")) for suffix in ("css", "js"))
    jpeg = io.BytesIO()
    Image.fromarray(image).save(jpeg, format="JPEG", quality=88, optimize=True)
    return environment.get_template("explorer.html.j2").render(
        title=one_line(name),
        picture=f"data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode()}",
        data=explorer_data(leaves, tree, max_tau, tau, name),
        css=css,
        script=script,
    )


def pack_runs(ids: NDArray[np.int64]) -> str:
    """Runs of equal ids along the rows, as the head of this module says."""
    flat = ids.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=-1))
    lengths = np.diff(starts, append=flat.size)
    packed = bytearray()
    for value in np.stack([flat[starts], lengths], axis=1).ravel().tolist():
        while value > 127:
            packed.append(value & 127 | 128)
            value >>= 7
        packed.append(value)
    return base64.b64encode(packed).decode()
