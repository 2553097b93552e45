"""Every segmenter on the pretended accelerator: its segments are the CPU's, and are where the features are."""

import re

import numpy as np
import pytest
import torch
from conftest import blobs
from device_runs import compare, computed_there, renumbered, uploaded
from PIL import Image
from scipy.io import savemat

from diffcut_bench import segmenters
from diffcut_bench.config import conf_dir
from diffcut_bench.scoring.framing import Framing, prepare_prediction
from diffcut_bench.segmenters import Inputs, as_segmenter

SIDE, CHANNELS = 12, 16


def maps(images: int = 3, positive: bool = False) -> torch.Tensor:
    """Feature maps of images that differ, with structure: [images, channels, SIDE, SIDE]."""
    nodes = torch.cat([blobs(6, SIDE**2 // 6, CHANNELS, noise=0.15, seed=seed)[0] for seed in range(images)])
    made = nodes.mT.unflatten(2, (SIDE, SIDE)).contiguous()
    return made.abs() if positive else made


def attention(images: int = 2, side: int = 8) -> torch.Tensor:
    """For each patch a distribution over as many keys, with structure."""
    nodes = torch.cat([blobs(4, side**2 // 4, CHANNELS, seed=seed)[0] for seed in range(images)])
    return (nodes @ nodes.mT / 0.3).softmax(dim=2).mT.unflatten(2, (side, side)).contiguous()


# What is decided on the device; the others fetch their patches' matrix or features, by design.
ON_DEVICE = {
    "diffcut": (segmenters.DiffCut(tau=0.7, alpha=6), maps()),
    "coarse": (segmenters.DiffCut(tau=0.7, alpha=6, approximation="coarse_to_fine", coarse_patches=36), maps()),
    "diffseg of features": (segmenters.DiffSeg(anchors=4, resolution=32), maps()),
    "diffseg of attention": (segmenters.DiffSeg(anchors=4, resolution=32, threshold=0.5), attention()),
    "found": (segmenters.Found(), maps()),
    "found by attention": (segmenters.Found(attention_channels=4), maps(positive=True)),
    "lost": (segmenters.Lost(expansion=20), maps()),
    "patches": (segmenters.Patches(), maps()),
    "tokencut": (segmenters.TokenCut(), maps()),
    "tokencut by quantile": (segmenters.TokenCut(tau_quantile=0.7), maps()),
}
WITH_HOST = {
    "agglomerative": (segmenters.Agglomerative(tau=0.7), maps()),
    "autosc": (segmenters.AutoSC(alphas=(1, 5)), maps()),
    "clasp": (segmenters.Clasp(max_clusters=4, seeds=2), maps()),
    "falcon": (segmenters.Falcon(alpha=4), maps()),
    "falcon_v1": (segmenters.FalconV1(clusters=4, diagonal=0.1), maps()),
    "falcon_v1, spectral": (segmenters.FalconV1(clusters=4, start="spectral"), maps()),
    "falcon_v1, random": (segmenters.FalconV1(clusters=4, start="random"), maps()),
    "kmeans": (segmenters.KMeans(clusters=4, seeds=3), maps()),
    "spherical kmeans": (segmenters.KMeans(clusters=4, seeds=3, spherical=True), maps()),
    "kway_ncut": (segmenters.KWayNCut(alpha=4), maps()),
    "kway_ncut, linear": (segmenters.KWayNCut(alpha=4, volume="linear"), maps()),
    "maskcut by lanczos": (segmenters.MaskCut(eigenvector_sign="peak", fill_holes=True), maps()),
    "maskcut by lapack": (segmenters.MaskCut(), maps()),
    "maskcut by quantile": (segmenters.MaskCut(eigenvector_sign="peak", tau_quantile=0.7), maps()),
    "spectral": (segmenters.Spectral(clusters=4, alpha=4), maps()),
    "spectral by kmeans": (segmenters.Spectral(clusters=4, alpha=4, discretisation="kmeans", seeds=3), maps()),
}


@pytest.mark.parametrize("what", [*ON_DEVICE, *WITH_HOST])
def test_segments_are_the_hosts(accelerator, what):
    method, features = (ON_DEVICE | WITH_HOST)[what]
    counts = compare(accelerator, renumbered(method), features)
    assert counts.kernels.total() > 0
    if what in ON_DEVICE:
        assert what == "patches" or method(features).amax() > 0
        assert computed_there(counts, features)


TOGETHER = ("found", "found by attention", "lost", "patches", "tokencut", "tokencut by quantile")
TOGETHER += ("kmeans", "spherical kmeans", "maskcut by lanczos", "maskcut by lapack", "maskcut by quantile")


@pytest.mark.parametrize("what", TOGETHER)
def test_copies_of_an_image_ask_for_no_more_than_one(accelerator, what):
    method, features = (ON_DEVICE | WITH_HOST)[what]
    one, three = (compare(accelerator, method, features[:1].repeat(images, 1, 1, 1)) for images in (1, 3))
    assert three.kernels.total() == one.kernels.total()
    assert three.crossings.total() == one.crossings.total()


def test_what_has_an_own_number_of_proposals_is_waited_for_as_often(accelerator):
    method, features = ON_DEVICE["diffseg of features"]
    one, three = (compare(accelerator, method, features[:images]) for images in (1, 3))
    assert three.crossings.total() == one.crossings.total() < 5


def test_counts_of_annotated_classes_are_taken(accelerator):
    for method in (segmenters.KMeans(seeds=2), segmenters.Spectral(clusters="annotated", alpha=4)):
        compare(accelerator, lambda features, method=method: method(features, [2, 4, 3]), maps())


OF_PICTURES = {
    "grid": segmenters.UniformGrid(2, 3),
    "one_segment": segmenters.OneSegment(),
    "slic": segmenters.Slic(segments=5),
    "felzenszwalb": segmenters.Felzenszwalb(scale=20, min_size=8),
}


@pytest.mark.parametrize("what", OF_PICTURES)
def test_segmenters_of_pictures_take_those_of_the_device(accelerator, what):
    images = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    segmenter = as_segmenter(OF_PICTURES[what])
    sizes = [(24, 32)] * 2
    found, expected = (segmenter(Inputs(images=given, scored_sizes=sizes)) for given in (uploaded(images), images))
    assert [each.tolist() for each in found] == [each.tolist() for each in expected]


def test_an_oracle_works_where_the_labels_are(accelerator):
    labels = torch.randint(-1, 5, (3, 24, 32), generator=torch.Generator().manual_seed(0))
    one, three = (
        compare(accelerator, lambda given: segmenters.Oracle(5, 7)(given, [(3, 4)]), labels[:images])
        for images in (1, 3)
    )
    assert three.kernels.total() == one.kernels.total()
    assert three.crossings.total() == one.crossings.total() == 1


@pytest.mark.parametrize("projection", ["nonlinear", "none"])
def test_a_trained_head_computes_where_the_features_are(accelerator, tmp_path, projection):
    generator = torch.Generator().manual_seed(0)
    shapes = {"net.cluster1.0": (4, 16), "net.cluster2.0": (16, 16), "net.cluster2.2": (4, 16)}
    state = {f"{name}.weight": torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    state |= {f"{name}.bias": torch.randn(shape[0], generator=generator) for name, shape in shapes.items()}
    state["cluster_probe.clusters"] = torch.randn(5, 4 if projection == "nonlinear" else CHANNELS, generator=generator)
    torch.save(state, tmp_path / "head.pth")
    method = segmenters.ClusterProbe(str(tmp_path / "head.pth"), projection=projection)
    counts = compare(accelerator, lambda features: method(features, [(30, 40)] * len(features)), maps())
    assert computed_there(counts, maps())


@pytest.mark.parametrize(("kind", "ids"), [(segmenters.Precomputed, [3]), (segmenters.Ucm, [0])])
def test_segments_of_files_need_no_device(accelerator, tmp_path, kind, ids):
    Image.new("L", (20, 10), 3).save(tmp_path / "a.png")
    savemat(tmp_path / "a.mat", {"ucm2": np.zeros((21, 41))})
    framing = Framing("none", 32, 16, "ignore", 4)

    def rescale(ids, covers="image"):
        return prepare_prediction(ids, (10, 20), framing, covers=covers)

    segments = kind(str(tmp_path))("a", rescale)
    assert segments.device.type == "cpu" and segments.unique().tolist() == ids


def test_every_option_is_tried_here():
    methods = [*(method for method, _ in (ON_DEVICE | WITH_HOST).values()), *OF_PICTURES.values()]
    tried = {type(method).__name__ for method in methods} | {"ClusterProbe", "Oracle", "Precomputed", "Ucm"}
    for path in (conf_dir() / "segmenter").glob("*.yaml"):
        (target,) = re.findall(r"_target_: diffcut_bench\.segmenters\.(\w+)", path.read_text())
        assert target in tried, path.stem
