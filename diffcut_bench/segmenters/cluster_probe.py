"""Trained heads on a frozen backbone: patches are projected, and go to the class centroid of greatest cosine."""

import difflib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import interpolate, linear, normalize, relu, silu

from diffcut_bench.errors import UserError, did_you_mean
from diffcut_bench.ncut.arguments import as_nodes, check_choice
from diffcut_bench.segmenters.tensor_file import read_tensors

Projection = Literal["nonlinear", "linear", "none"]
_ACTIVATIONS = {"relu": relu, "silu": silu}
_SHOWN = 6  # names of a file in a message


@dataclass(frozen=True)
class Layout:
    """Where a kind of checkpoint keeps its head.

    Attributes:
        linear: module of the linear projection; its tensors are NAME.weight and, where it has one, NAME.bias.
        hidden, output: modules of the two layers that are added to it.
        clusters: tensor of the class centroids.
        activation: between the two layers, ``relu`` or ``silu``.
    """

    linear: str
    hidden: str
    output: str
    clusters: str
    activation: str = "relu"


_STEGO = Layout("net.cluster1.0", "net.cluster2.0", "net.cluster2.2", "cluster_probe.clusters")
LAYOUTS = {
    "stego": _STEGO,  # DepthG's, too
    "eagle": _STEGO,
    "hp": Layout(
        "net_model_state_dict.cluster1.0",
        "net_model_state_dict.cluster2.0",
        "net_model_state_dict.cluster2.2",
        "cluster_model_state_dict.clusters",
    ),
    "smooseg": Layout(
        "projection.cluster1.0",
        "projection.cluster2.0",
        "projection.cluster2.2",
        "prediction.global_clusters",
        activation="silu",
    ),
    "cause": Layout("head_ema.f1", "head_ema.f2.0", "head_ema.f2.2", "cluster_probe"),
}
_KEYS = tuple(one.name for one in fields(Layout) if one.name != "activation")


@dataclass(frozen=True)
class ClusterProbe:
    """The head of STEGO (Hamilton et al., ICLR 2022) and of what was built on it, from a trained checkpoint.

    A patch's code is a linear projection of its feature plus one of two layers; a pixel's code is that of the patches
    around it, bilinearly; its cluster is the centroid of greatest cosine. A cluster means the same in every image. As
    evaluated by its authors, but without the average over the image and its mirror image and without their CRF.

    Heads that are read (`LAYOUTS` has their names): STEGO and DepthG (``stego``), EAGLE, hidden positives (``hp``),
    SmooSeg and CAUSE's MLP; ``keys`` names the parts of any other. The backbone has to be the one that the head was
    trained on: a checkpoint's own copy of it is not read.

    Args:
        checkpoint: file of the head, see `diffcut_bench.segmenters.tensor_file.read_tensors`.
        layout: whose names it has.
        projection: ``nonlinear``: linear and two layers; ``linear``: the linear one alone; ``none``: centroids are of
            the features themselves.
        keys: names in the file that go before the layout's: ``linear``, ``hidden``, ``output``, ``clusters``.

    Raises:
        UserError: the file is missing, can't be read, or holds no such head.
        ValueError: an argument is out of range.
    """

    checkpoint: str | None = None
    layout: str = "stego"
    projection: Projection = "nonlinear"
    keys: Mapping[str, str | None] = field(default_factory=dict)
    head: "Head" = field(init=False, repr=False, compare=False)

    gives = "label_map"
    consistent_ids = True
    immaterial = ("checkpoint",)  # what it holds counts instead

    def __post_init__(self) -> None:
        check_choice("layout", self.layout, tuple(LAYOUTS))
        check_choice("projection", self.projection, get_args(Projection))
        _check_keys(self.keys)
        if self.checkpoint is None:
            where = f"segmenter=cluster_probe, segmenter.layout={self.layout}"
            hint = "add segmenter.checkpoint=FILE, such as STEGO's cocostuff27_vit_base_5.ckpt"
            raise UserError("segmenter.checkpoint is not set", where, hint)
        path = Path(self.checkpoint).expanduser().absolute()
        named = {name: str(key) for name, key in self.keys.items() if key is not None}
        # Kept: all images of a cell see one head, whatever becomes of the file.
        head = _read_head(path, _state(path), replace(LAYOUTS[self.layout], **named), self.projection)
        object.__setattr__(self, "head", head)

    def __call__(
        self, features: Float[Tensor, "batch channels rows cols"], scored_sizes: Sequence[tuple[int, int]]
    ) -> Int[Tensor, "batch height width"]:
        """Cluster of each pixel at the scored size, which is the same for all images of a batch.

        Raises:
            ValueError: the features hold NaN or infinity.
            UserError: they are not of the network that the head was trained on.
        """
        if features.shape[1] != self.channels:
            raise UserError(
                f"the head takes features of {self.channels} channels, and these have {features.shape[1]}",
                f"segmenter.checkpoint={Path(str(self.checkpoint)).name}",
                "name the backbone that it was trained on, such as backbone=dino_b8_320 (768) "
                "or backbone=dino_s8 backbone.image_size=320 (384)",
            )
        scores = self.head.scores(as_nodes(features).float()).mT.unflatten(2, features.shape[2:])
        # Scores are linear in the codes, so that those of enlarged codes are the enlarged scores; the length of a
        # pixel's code is the same for all its clusters.
        size = scored_sizes[0]
        enlarged = (interpolate(each[None], size, mode="bilinear", align_corners=False)[0] for each in scores)
        return torch.stack([each.argmax(dim=0) for each in enlarged])

    @property
    def channels(self) -> int:
        """Of the features that it takes."""
        return self.head.channels

    def depends_on(self, image_ids: Sequence[str]) -> dict[str, str]:
        """SHA-256 of the checkpoint, for the key of a cell."""
        return {"checkpoint_sha256": self.head.sha256}


@dataclass(frozen=True, eq=False)
class Head:
    """A trained head; weights are [outputs, inputs], in float32 on the host.

    Attributes:
        clusters: centroids [clusters, code] of length 1.
        layers: weight and bias of the linear projection, and of the two layers that are added to it; as many as it has.
        activation: between the two.
        sha256: of the file.
    """

    clusters: Float[Tensor, "clusters code"]
    layers: tuple[tuple[Tensor, Tensor | None], ...]
    activation: str
    sha256: str

    @property
    def channels(self) -> int:
        """Of the features."""
        return (self.layers[0][0] if self.layers else self.clusters).shape[1]

    @property
    def fits(self) -> bool:
        """Whether each matrix takes what the one before it gives."""
        matrices = [weight for weight, _ in self.layers]
        chains = [self.clusters, *matrices[:1]], [self.clusters, *matrices[:0:-1]]  # what takes before what gives
        joined = all(taker.shape[1] == giver.shape[0] for chain in chains for taker, giver in pairwise(chain))
        begun = all(matrix.shape[1] == self.channels for matrix in matrices[:2])
        return joined and begun and all(bias is None or bias.shape == each.shape[:1] for each, bias in self.layers)

    def scores(self, nodes: Float[Tensor, "batch nodes channels"]) -> Float[Tensor, "batch nodes clusters"]:
        """Cosine of each patch's code to each centroid, times the length of the code."""
        layers = [
            (weight.to(nodes.device), None if bias is None else bias.to(nodes.device)) for weight, bias in self.layers
        ]
        code = linear(nodes, *layers[0]) if layers else nodes
        if len(layers) > 1:
            code = code + linear(_ACTIVATIONS[self.activation](linear(nodes, *layers[1])), *layers[2])
        return linear(code, self.clusters.to(nodes.device))


@lru_cache(maxsize=4)
def _read_head(path: Path, state: tuple[int, int], layout: Layout, projection: Projection) -> Head:
    """Once for all settings that use it; ``state`` tells a changed file."""
    tensors = read_tensors(path)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    named = asdict(layout)
    parts = {"nonlinear": ("linear", "hidden", "output"), "linear": ("linear",), "none": ()}[projection]
    weights = {f"{named[part]}.weight": _matrix(tensors, f"{named[part]}.weight", path) for part in parts}
    biases = [_vector(tensors, f"{named[part]}.bias", path) for part in parts]
    clusters = _matrix(tensors, layout.clusters, path)
    layers = tuple(zip(weights.values(), biases, strict=True))
    head = Head(normalize(clusters, dim=1), layers, layout.activation, sha256)
    if not head.fits:
        matrices = {**weights, layout.clusters: clusters}
        told = ", ".join(f"{name} {list(matrix.shape)}" for name, matrix in matrices.items())
        hint = "segmenter.projection=linear or none, another segmenter.layout, or segmenter.keys.NAME=KEY"
        raise UserError(f"these are no parts of one head: {told}", str(path), hint)
    return head


def _matrix(tensors: Mapping[str, Tensor], name: str, path: Path) -> Tensor:
    """A tensor [outputs, inputs], of a 1×1 convolution or a linear layer.

    Raises:
        UserError: there is none.
    """
    if name not in tensors:
        near = difflib.get_close_matches(name, tensors, n=_SHOWN, cutoff=0)
        there = f"of {len(tensors)} tensors the most alike are {', '.join(near)}" if near else "it has no tensors"
        hint = f"{there}; segmenter.layout={'|'.join(LAYOUTS)}, segmenter.projection, or segmenter.keys.NAME=KEY"
        raise UserError(f"there is no {name} in this checkpoint", str(path), hint)
    tensor = tensors[name]
    if tensor.ndim == 4 and tensor.shape[2:] == (1, 1):
        tensor = tensor[:, :, 0, 0]
    if tensor.ndim != 2 or not tensor.numel():
        what = f"{name} has the shape {list(tensor.shape)}, and a matrix or a 1×1 convolution is due"
        raise UserError(what, str(path), "name another tensor: segmenter.keys.NAME=KEY")
    return _numbers(tensor, name, path)


def _vector(tensors: Mapping[str, Tensor], name: str, path: Path) -> Tensor | None:
    """A bias, where the layer has one."""
    return _numbers(tensors[name], name, path) if name in tensors else None


def _numbers(tensor: Tensor, name: str, path: Path) -> Tensor:
    """A copy in float32, so that the file may change.

    Raises:
        UserError: these are no finite numbers.
    """
    plain = tensor.is_floating_point() and tensor.layout == torch.strided and tensor.device.type == "cpu"
    # A few values may claim to be a matrix of any size.
    if plain and tensor.nelement() <= tensor.untyped_storage().nbytes() // tensor.element_size():
        copy = tensor.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        if copy.isfinite().all():
            return copy
    raise UserError(f"{name} holds no finite numbers", str(path), "fetch the file again")


def _check_keys(keys: object) -> None:
    """Raise a ValueError that names what is no name in ``keys``."""
    if not isinstance(keys, Mapping):
        raise ValueError(f"keys must name parts, such as keys.linear, and is {keys!r}")
    for name, key in keys.items():
        if name not in _KEYS:
            raise ValueError(f"keys has no {name!r}; {did_you_mean(str(name), _KEYS)}")
        if key is not None and (not isinstance(key, (str, int)) or isinstance(key, bool) or key == ""):
            raise ValueError(f"keys.{name} must be a name, not {key!r}")  # the command line reads 0 as a number


def _state(path: Path) -> tuple[int, int]:
    """Size and time of change of a file; of none zeros."""
    try:
        state = path.stat()
    except OSError:
        return 0, 0
    return state.st_size, state.st_mtime_ns
