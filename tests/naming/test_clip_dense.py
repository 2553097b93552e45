import json
from typing import Any

import pytest
import text_checkpoints
import torch
from huggingface_hub import constants
from torch.nn.functional import interpolate, linear, normalize

from diffcut_bench.config import instantiate, load_config
from diffcut_bench.errors import UserError
from diffcut_bench.naming import ClipEncoder

KINDS = ("clip", "siglip")


@pytest.fixture(scope="module", params=KINDS)
def checkpoint(request, tmp_path_factory) -> tuple[str, str, Any]:
    folder = tmp_path_factory.mktemp(request.param)
    return str(folder), request.param, text_checkpoints.write_checkpoint(folder, request.param)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (24, 12)])
@torch.inference_mode()
def test_a_patch_is_its_value_where_texts_are(checkpoint, height, width):
    folder, kind, network = checkpoint
    images = torch.rand(2, 3, height, width)
    vision = network.vision_model
    whole = vision(text_checkpoints.pixels(images), interpolate_pos_encoding=True, output_hidden_states=True)
    if kind == "clip":
        block = vision.encoder.layers[-1]
        entering = whole.hidden_states[-2][:, 1:]
        values = block.self_attn.out_proj(block.self_attn.v_proj(block.layer_norm1(entering)))
        expected = network.visual_projection(vision.post_layernorm(values))
    else:
        head, width_of = vision.head, 16
        attention = head.attention
        weight, bias = attention.in_proj_weight[2 * width_of :], attention.in_proj_bias[2 * width_of :]
        values = attention.out_proj(linear(whole.last_hidden_state, weight, bias))
        expected = values + head.mlp(head.layernorm(values))
    found = ClipEncoder("tiny", folder)(images)
    assert found.shape == (2, 10 if kind == "clip" else 16, height // 4, width // 4)
    torch.testing.assert_close(found.flatten(2).transpose(1, 2), expected, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_siglip_gives_an_image_of_like_patches_its_own_embedding(tmp_path):
    network = text_checkpoints.write_checkpoint(tmp_path, "siglip")
    with torch.no_grad():
        network.vision_model.embeddings.position_embedding.weight.zero_()
    network.save_pretrained(tmp_path)
    images = torch.rand(1, 3, 1, 1).expand(1, 3, 16, 16)
    dense = ClipEncoder("tiny", str(tmp_path))(images)
    whole = network.get_image_features(text_checkpoints.pixels(images)).pooler_output
    torch.testing.assert_close(dense.flatten(2), whole[:, :, None].expand(-1, -1, 16), rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_the_network_sees_colours_as_they_are_where_asked_for(checkpoint):
    folder, images, seen = checkpoint[0], torch.rand(1, 3, 16, 16), []
    for given in ("normalised", "unit"):
        encoder = ClipEncoder("tiny", folder, input=given)
        encoder.read()
        embeddings = encoder.network.vision_model.embeddings.patch_embedding
        embeddings.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        encoder(images)
    torch.testing.assert_close(seen[0], text_checkpoints.pixels(images))
    assert torch.equal(seen[1], images)
    fingerprints = [ClipEncoder("tiny", folder, input=given).fingerprint() for given in ("normalised", "unit")]
    assert fingerprints[0] != fingerprints[1]


@pytest.mark.parametrize("value", ["raw", "true"])
def test_what_the_network_sees_is_one_of_two(checkpoint, value):
    config = load_config(["namer=clip_b16", f"namer.model={checkpoint[0]}", f"namer.input={value}"])
    with pytest.raises(UserError, match="input"):  # a check of types says it of what is no text
        instantiate("namer", config.namer)


@torch.inference_mode()
def test_batches_do_not_mix_images(checkpoint):
    encoder = ClipEncoder("tiny", checkpoint[0])
    images = torch.rand(3, 3, 16, 16)
    alone = torch.cat([encoder(image[None]) for image in images])
    torch.testing.assert_close(encoder(images), alone, rtol=1e-4, atol=1e-5)


def test_images_are_brought_to_the_networks_size(checkpoint):
    encoder = ClipEncoder("tiny", checkpoint[0], image_size=32)
    images = torch.rand(1, 3, 100, 50)
    assert torch.equal(encoder.resized(images), interpolate(images, (32, 16), mode="bilinear", antialias=True))
    assert encoder.resized(torch.rand(1, 3, 10, 100)).shape == (1, 3, 4, 32)
    # Enlarging, as the released evaluation does to 2048 pixels without antialiasing, and the size as it is.
    small = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(encoder.resized(small), interpolate(small, (32, 32), mode="bilinear"))
    whole = torch.rand(1, 3, 32, 16)
    assert torch.equal(encoder.resized(whole), whole)


def test_the_fingerprint_names_weights_and_size(tmp_path):
    text_checkpoints.write_checkpoint(tmp_path, "clip")
    first = ClipEncoder("tiny", str(tmp_path)).fingerprint()
    assert ClipEncoder("tiny", str(tmp_path)).fingerprint() == first
    assert ClipEncoder("tiny", str(tmp_path), image_size=64).fingerprint() != first
    for name in ("model.safetensors", "tokenizer.json"):
        path = tmp_path / name
        before = path.read_bytes()
        path.write_bytes(before + b" ")
        assert ClipEncoder("tiny", str(tmp_path)).fingerprint() != first
        path.write_bytes(before)


@pytest.mark.parametrize("option", ["clip_b16", "siglip_b16"])
def test_an_option_reads_a_folder_and_says_what_is_missing(option, checkpoint, tmp_path, monkeypatch):
    config = load_config([f"namer={option}", f"namer.model={checkpoint[0]}"])
    assert instantiate("namer", config.namer).encoder.name == option
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    config = load_config([f"namer={option}"])
    with pytest.raises(UserError) as caught:
        instantiate("namer", config.namer)
    assert f"hf download {config.namer['model']} config.json" in caught.value.hint
    assert "tokenizer.json" in caught.value.hint
    assert "namer.model=DIR" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "change", "what"),
    [
        ("config.json", lambda text: text.replace('_type": "clip"', '_type": "vit"'), "'vit' does not read"),
        ("model.safetensors", lambda text: "broken", "weights can't be read"),
    ],
)
def test_damaged_checkpoints_are_users_errors(tmp_path, name, change, what):
    text_checkpoints.write_checkpoint(tmp_path, "clip")
    path = tmp_path / name
    path.write_text(change(path.read_text(errors="replace")))
    with pytest.raises(UserError, match=what):
        ClipEncoder("tiny", str(tmp_path)).read()


def test_weights_that_do_not_cover_the_network_are_refused(tmp_path):
    text_checkpoints.write_checkpoint(tmp_path, "clip")
    values = json.loads((tmp_path / "config.json").read_text())
    values["vision_config"]["num_hidden_layers"] = 4
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match="weights are missing"):
        ClipEncoder("tiny", str(tmp_path)).read()


def test_an_image_smaller_than_a_patch_is_refused(checkpoint):
    with pytest.raises(UserError, match="less than a patch"):
        ClipEncoder("tiny", checkpoint[0], image_size=3)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_texts_are_read_as_transformers_reads_them(tmp_path, kind):
    network = text_checkpoints.write_checkpoint(tmp_path, kind)
    encoder = ClipEncoder("tiny", str(tmp_path))
    texts = ["a photo of a cat .", "Sofa", "a picture that shows the disc in the scene " * 4]
    found = encoder.text(texts)
    tokens = []
    for text in texts:
        words = [text_checkpoints.VOCABULARY.index(word) for word in text.lower().split()]
        tokens.append([1, *words[:14], 2])
    for row, ids in zip(found, tokens, strict=True):
        if kind == "siglip":
            ids = ids + [0] * (16 - len(ids))
        with torch.no_grad():
            expected = network.get_text_features(input_ids=torch.tensor([ids])).pooler_output[0]
        torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-5)
    assert (normalize(found, dim=1) @ normalize(found, dim=1).T).fill_diagonal_(0).max() < 0.9999


def test_a_damaged_tokenizer_is_a_users_error(tmp_path):
    text_checkpoints.write_checkpoint(tmp_path, "clip")
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="tokenizer can't be read"):
        ClipEncoder("tiny", str(tmp_path)).read()
