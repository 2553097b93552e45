"""Backbones: images -> feature map, one file a family."""

from diffcut_bench.backbones.base import Backbone, Outline, PretrainedBackbone
from diffcut_bench.backbones.colour import Colour
from diffcut_bench.backbones.diffusion import DiffusionEncoder
from diffcut_bench.backbones.diffusion_attention import DiffusionAttention
from diffcut_bench.backbones.efficientnet import EfficientNetLite0
from diffcut_bench.backbones.fused import Fused
from diffcut_bench.backbones.layer_facets import LayerFacets
from diffcut_bench.backbones.none import NoBackbone
from diffcut_bench.backbones.pretrained import MissingWeightsError, cache_only
from diffcut_bench.backbones.vision_transformer import VisionTransformer

__all__ = [
    "Backbone",
    "Colour",
    "DiffusionAttention",
    "DiffusionEncoder",
    "EfficientNetLite0",
    "Fused",
    "LayerFacets",
    "MissingWeightsError",
    "NoBackbone",
    "Outline",
    "PretrainedBackbone",
    "VisionTransformer",
    "cache_only",
]


def __dir__() -> list[str]:
    return sorted(__all__)
