import importlib.util
import json
import sys
import types

import pytest
import torch

from diffcut_bench.config import instantiate, load_config
from diffcut_bench.errors import UserError
from diffcut_bench.naming import OpenClipEncoder, open_clip_dense
from diffcut_bench.naming.namer import pool_segments


@pytest.mark.skipif(importlib.util.find_spec("open_clip") is not None, reason="open_clip is installed")
def test_without_the_extra_the_message_says_how_to_get_it():
    with pytest.raises(UserError) as caught:
        instantiate("namer", load_config(["namer=convnext_l"]).namer)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert "open_clip can't be imported" in lines[0]
    assert "pip install 'diffcut_bench[openvocab]'" in lines[2]


def test_it_is_imported_only_when_asked_for():
    import diffcut_bench.naming  # noqa: F401

    assert "open_clip" not in sys.modules


class _Trunk(torch.nn.Module):
    """In timm's shape: a map of features, and a head that averages over it before it does anything else."""

    def forward_features(self, images):
        return torch.nn.functional.avg_pool2d(images, 32)

    def forward_head(self, features):
        return features.mean(dim=(2, 3)).square()  # not linear: pooling before and behind it differ


def test_segments_are_pooled_before_the_head(tmp_path, monkeypatch):
    """A stand-in for the library shows the order of steps; that the library has this shape it can't show."""
    visual = torch.nn.Module()
    visual.trunk, visual.head = _Trunk(), torch.nn.Linear(3, 2)
    network = torch.nn.Module()
    network.visual = visual
    network.encode_text = lambda tokens: tokens
    asked = []
    library = types.SimpleNamespace(
        OPENAI_DATASET_MEAN=(0.5, 0.5, 0.5),
        OPENAI_DATASET_STD=(0.25, 0.25, 0.5),
        create_model=lambda name, pretrained: asked.append((name, pretrained)) or network,
        get_tokenizer=lambda name: lambda texts: torch.ones(len(texts), 2),
    )
    monkeypatch.setitem(sys.modules, "open_clip", library)
    (tmp_path / "open_clip_pytorch_model.bin").write_text("weights")
    encoder = OpenClipEncoder("tiny", str(tmp_path), "convnext", image_size=64)
    images = torch.rand(1, 3, 64, 64)
    dense = encoder(images)
    expected = (torch.nn.functional.avg_pool2d(images, 32) - 0.5) / torch.tensor([0.25, 0.25, 0.5]).view(3, 1, 1)
    torch.testing.assert_close(dense, expected)
    pooled = pool_segments(dense, torch.zeros(1, 64, 64, dtype=torch.long))[0]
    torch.testing.assert_close(encoder.project(pooled), visual.head(dense.mean(dim=(2, 3)).square()))
    assert asked == [("convnext", str(tmp_path / "open_clip_pytorch_model.bin"))]
    plain = OpenClipEncoder("tiny", str(tmp_path), "convnext", image_size=64, input="unit")
    torch.testing.assert_close(plain(images), torch.nn.functional.avg_pool2d(images, 32))
    assert encoder.text(["a", "b"]).shape == (2, 2)


@pytest.fixture
def small_network(tmp_path):
    """open_clip, the name of a network there that is `convnext_large_d` in small, and one of it with random weights."""
    try:
        library = open_clip_dense._open_clip()
    except UserError:
        pytest.skip("open_clip can't be imported here")
    config = library.get_model_config("convnext_large_d")
    config["embed_dim"] = 64
    config["vision_cfg"]["timm_model_name"] = "convnext_atto"
    config["text_cfg"] |= {"width": 64, "heads": 2, "layers": 1}
    (tmp_path / "convnext_tiny_d.json").write_text(json.dumps(config))
    library.add_model_config(tmp_path / "convnext_tiny_d.json")
    torch.manual_seed(0)
    return library, "convnext_tiny_d", library.create_model("convnext_tiny_d").eval()


@torch.no_grad()
def test_a_segment_of_the_whole_image_is_what_the_library_makes_of_the_image(small_network, tmp_path):
    """With the library itself, where it can be imported."""
    library, name, network = small_network
    torch.save(network.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    images = torch.rand(2, 3, 128, 64)
    mean, deviation = (
        torch.tensor(three).view(3, 1, 1) for three in (library.OPENAI_DATASET_MEAN, library.OPENAI_DATASET_STD)
    )
    for given, seen in (("normalised", (images - mean) / deviation), ("unit", images)):
        encoder = OpenClipEncoder("real", str(tmp_path), name, image_size=128, input=given)
        dense = encoder(encoder.resized(images))
        assert dense.shape[2:] == (4, 2)
        pooled = pool_segments(dense, torch.zeros(2, 128, 64, dtype=torch.long))[:, 0]
        torch.testing.assert_close(encoder.project(pooled), network.encode_image(seen), rtol=1e-5, atol=1e-5)
    texts = ["a photo of a cat.", "the sofa"]
    found = network.encode_text(library.get_tokenizer(name)(texts))
    torch.testing.assert_close(encoder.text(texts), found, rtol=1e-5, atol=1e-5)
