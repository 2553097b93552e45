"""Backbones: images -> feature map, one file a family."""

from diffcut_bench.backbones.base import Backbone
from diffcut_bench.backbones.efficientnet import EfficientNetLite0

__all__ = ["Backbone", "EfficientNetLite0"]
