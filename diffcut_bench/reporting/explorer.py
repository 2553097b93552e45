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
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import escape
from numpy.typing import NDArray
from PIL import Image

from diffcut_bench.escaping import counted, file_stem, one_line
from diffcut_bench.ncut import ImageTree
from diffcut_bench.reporting.inlined import content_policy, inlined, jpeg_uri


@dataclass(frozen=True, repr=False)
class Explorer:
    """The segments of one picture at every tau up to ``max_tau``.

    Attributes:
        image: RGB [height, width, 3], 0..255.
        tree: the cuts.
        leaves: region of each pixel [height, width]: c + 1 where its last first side is that of cut c, else 0.
        max_tau: end of the slider; the tree was made at this tau or above.
        tau: where the slider stands at first.
        names: of each region, by its number in ``leaves``, what the segment at ``tau`` that it lies in is called; ""
            for one without a name. Empty where segments have no names.
        tau_meaning: what tau is, in a sentence without a full stop; the page says it.
    """

    image: NDArray[np.uint8]
    tree: ImageTree
    leaves: NDArray[np.int64]
    max_tau: float
    tau: float
    names: tuple[str, ...] = ()
    tau_meaning: str = ""

    def __post_init__(self) -> None:
        if self.image.shape[:2] != self.leaves.shape:
            raise ValueError(f"a picture of {self.image.shape[:2]} and regions of {self.leaves.shape}")

    def __repr__(self) -> str:
        height, width = self.leaves.shape
        most = counted(len(self.tree.parents) + 1, "segment")
        return f"<Explorer of {width} × {height} pixels: up to {most}, at tau {self.max_tau:g}>"

    def named(self, labels: NDArray[np.int64], names: Sequence[str]) -> "Explorer":
        """With the names of segments at its tau.

        Borders of other maps of these segments differ by some pixels: one here is called what most of its pixels are.

        Args:
            labels: segment of each pixel at ``tau`` [rows, cols] of the same picture, at any size.
            names: of each segment, by its number in ``labels``.
        """
        owner = np.arange(len(self.tree.divided) + 1)
        for cut, (divided, reached) in enumerate(zip(self.tree.divided, self.tree.reached_at.tolist(), strict=True), 1):
            if not reached < np.float32(self.tau):
                owner[cut] = owner[divided]
        # The pixel in which the middle of each pixel here lies.
        sizes = zip(self.leaves.shape, labels.shape, strict=True)
        rows, cols = ((2 * np.arange(own) + 1) * given // (2 * own) for own, given in sizes)
        shared = np.zeros((len(owner), len(names)), dtype=np.int64)
        np.add.at(shared, (owner[self.leaves], labels[rows[:, None], cols]), 1)
        called = [names[own.argmax()] if own.any() else "" for own in shared[owner]]
        return replace(self, names=tuple(called))

    def page(self, name: str = "picture") -> str:
        """One HTML file: picture, regions, style and script are in it, and nothing is fetched.

        Args:
            name: of the picture: the title; its stem begins the names of files that are downloaded.
        """
        loader = FileSystemLoader(Path(__file__).parent)
        environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
        script = inlined("explorer.js")
        return environment.get_template("explorer.html.j2").render(
            title=one_line(name),
            picture=jpeg_uri(Image.fromarray(self.image), quality=88),
            data=self.data(name),
            tau_meaning=self.tau_meaning,
            css=inlined("explorer.css"),
            script=script,
            policy=content_policy(script),
        )

    def data(self, name: str) -> dict[str, Any]:
        """What the page's script works on."""
        height, width = self.leaves.shape
        return {
            "width": width,
            "height": height,
            "maxTau": self.max_tau,
            "tau": min(self.tau, self.max_tau),
            "stem": file_stem(Path(name).stem),
            "reached": self.tree.reached_at.float().tolist(),
            "within": self.tree.divided,
            "leaves": pack_runs(self.leaves),
            "names": [one_line(each) for each in self.names],
        }

    def _repr_html_(self) -> str:
        """What a notebook shows: the page, in a frame of its own."""
        return f'<iframe srcdoc="{escape(self.page())}" style="width:100%;height:640px;border:0"></iframe>'


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
