import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from huggingface_hub import constants
from torch import Tensor, nn

from diffcut_bench.backbones.base import Backbone
from diffcut_bench.backbones.vision_transformer import VisionTransformer
from diffcut_bench.config import instantiate, load_config
from diffcut_bench.errors import UserError

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
PATCH, CHANNELS, DEPTH = 4, 32, 3
TOWER = {"hidden_size": CHANNELS, "num_hidden_layers": DEPTH, "num_attention_heads": 4}
TOWER |= {"image_size": 4 * PATCH, "patch_size": PATCH}
WIDE = {**TOWER, "intermediate_size": 48}
TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 64, "pad_token_id": 0}
TEXT |= {"intermediate_size": 16, "bos_token_id": 1, "eos_token_id": 2}


def _two_towers(kind: str) -> nn.Module:
    config = getattr(transformers, f"{kind}Config")(text_config=TEXT, vision_config=WIDE)
    return getattr(transformers, f"{kind}Model")(config)


FAMILIES: dict[str, Callable[[], Any]] = {
    "clip": lambda: _two_towers("CLIP"),
    "clip_vision_model": lambda: transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**WIDE)),
    "siglip": lambda: _two_towers("Siglip"),
    "siglip_vision_model": lambda: transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**WIDE)),
    "vit": lambda: transformers.ViTModel(transformers.ViTConfig(**WIDE)),
    "dinov2": lambda: transformers.Dinov2Model(transformers.Dinov2Config(**TOWER)),
    "dinov2_with_registers": lambda: transformers.Dinov2WithRegistersModel(
        transformers.Dinov2WithRegistersConfig(**TOWER, num_register_tokens=2)
    ),
    "dinov3_vit": lambda: transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**WIDE, num_register_tokens=2)),
    "dinov3_vit, gated": lambda: transformers.DINOv3ViTModel(
        transformers.DINOv3ViTConfig(**WIDE, num_register_tokens=2, use_gated_mlp=True)
    ),
}
if hasattr(transformers, "RadioModel"):
    FAMILIES["radio"] = lambda: transformers.RadioModel(
        transformers.RadioConfig(**TOWER, max_img_size=32 * PATCH, num_cls_tokens=2, num_registers=1)
    )
if hasattr(transformers, "Tipsv2Model"):
    FAMILIES["tipsv2"] = lambda: transformers.Tipsv2Model(
        transformers.Tipsv2Config(text_config={**TEXT, "hidden_size": CHANNELS}, vision_config=TOWER)
    )
    FAMILIES["tipsv2_vision_model"] = lambda: transformers.Tipsv2VisionModel(transformers.Tipsv2VisionConfig(**TOWER))
PREFIX = {"siglip": 0, "siglip_vision_model": 0, "dinov2_with_registers": 3, "dinov3_vit": 3, "dinov3_vit, gated": 3}
PREFIX |= {"radio": 3, "tipsv2": 2, "tipsv2_vision_model": 2}
PROJECTIONS = {"queries": ("q_proj", "query"), "keys": ("k_proj", "key"), "values": ("v_proj", "value")}


def write_checkpoint(folder: Path, family: str, **preprocessing: Any) -> nn.Module:
    """A tiny random network in the hub's layout; returns its vision tower, whole and in evaluation mode."""
    torch.manual_seed(0)
    network = FAMILIES[family]()
    with torch.no_grad():
        for parameter in network.parameters():  # initial norms, biases and layer scales would hide a mistake
            parameter += 0.2 * torch.randn_like(parameter)
    network.save_pretrained(folder)
    values = {"do_normalize": True, "image_mean": MEAN, "image_std": STD, "rescale_factor": 1 / 255, **preprocessing}
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    return getattr(network, "vision_model", network).eval()


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request, tmp_path_factory) -> tuple[str, str, Any]:
    """Folder, family and the reference network."""
    folder = tmp_path_factory.mktemp(request.param)
    return str(folder), request.param, write_checkpoint(folder, request.param)


@pytest.fixture
def vit(tmp_path) -> Path:
    write_checkpoint(tmp_path / "tiny-vit", "vit")
    return tmp_path / "tiny-vit"


def reference(network: Any, family: str, images: Tensor) -> Any:
    """Output of the whole network, by transformers' own way."""
    pixels = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    asked = {"interpolate_pos_encoding": True} if family.startswith(("clip", "siglip", "vit")) else {}
    return network(pixels, output_hidden_states=True, **asked)


def as_map(tokens: Tensor, family: str, rows: int, cols: int) -> Tensor:
    patches = tokens[:, PREFIX.get(family, 1) :]
    assert patches.shape[1] == rows * cols
    return patches.reshape(len(patches), rows, cols, -1).permute(0, 3, 1, 2)


SIZES = [(16, 16), (24, 24), (16, 28), (32, 8)]


@pytest.mark.parametrize(("height", "width"), SIZES)
@torch.inference_mode()
def test_last_tokens_are_the_normalised_ones_of_the_whole_network(checkpoint, height, width):
    folder, family, network = checkpoint
    backbone = VisionTransformer("tiny", folder)
    images = torch.rand(2, 3, height, width)
    features = backbone(images)
    expected = reference(network, family, images).last_hidden_state
    if family.startswith("clip"):
        expected = network.post_layernorm(expected)
    rows, cols = height // PATCH, width // PATCH
    assert (backbone.stride, backbone.channels, backbone.image_size) == (PATCH, CHANNELS, 32 * PATCH)
    assert features.shape == (2, CHANNELS, rows, cols)
    assert features.is_contiguous()
    torch.testing.assert_close(features, as_map(expected, family, rows, cols), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", range(-DEPTH, DEPTH))
@torch.inference_mode()
def test_tokens_of_a_layer_are_its_hidden_states(checkpoint, layer):
    folder, family, network = checkpoint
    backbone = VisionTransformer("tiny", folder, layer=layer)
    outputs: list[Tensor] = []
    layers = next(module for module in network.modules() if isinstance(module, nn.ModuleList))
    hook = layers[layer].register_forward_hook(lambda _, __, output: outputs.append(output))
    images = torch.rand(2, 3, 16, 20)
    whole = reference(network, family, images)
    hook.remove()
    features = backbone(images)
    torch.testing.assert_close(features, as_map(outputs[0], family, 4, 5), rtol=1e-4, atol=1e-5)
    if layer % DEPTH < DEPTH - 1:
        hidden = whole.hidden_states[layer % DEPTH + 1]  # the first are the embeddings
        torch.testing.assert_close(features, as_map(hidden, family, 4, 5), rtol=1e-4, atol=1e-5)
    kept = next(module for module in backbone.network.modules() if isinstance(module, nn.ModuleList))
    assert len(kept) == layer % DEPTH + 1


@pytest.mark.parametrize("layer", ["last", 1])
@pytest.mark.parametrize("facet", PROJECTIONS)
@torch.inference_mode()
def test_facets_are_the_outputs_of_the_projections(checkpoint, facet, layer):
    folder, family, network = checkpoint
    outputs: list[Tensor] = []
    layers = next(module for module in network.modules() if isinstance(module, nn.ModuleList))
    block = layers[-1 if layer == "last" else layer]
    projection = next(part for name, part in block.named_modules() if name.rpartition(".")[2] in PROJECTIONS[facet])
    hook = projection.register_forward_hook(lambda _, __, output: outputs.append(output))
    images = torch.rand(2, 3, 20, 16)
    reference(network, family, images)
    hook.remove()
    features = VisionTransformer("tiny", folder, layer=layer, facet=facet)(images)
    torch.testing.assert_close(features, as_map(outputs[0], family, 5, 4), rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_an_image_does_not_depend_on_its_batch(checkpoint):
    backbone = VisionTransformer("tiny", checkpoint[0])
    images = torch.rand(4, 3, 24, 16)
    apart = torch.cat([backbone(image[None]) for image in images])
    torch.testing.assert_close(backbone(images), apart, rtol=1e-4, atol=1e-5)


def test_weights_are_read_at_the_first_image(checkpoint):
    backbone = VisionTransformer("tiny", checkpoint[0]).to("cpu")
    assert isinstance(backbone, Backbone)
    assert not list(backbone.parameters())
    said = backbone.fingerprint()
    assert not backbone(torch.rand(1, 3, 16, 16)).requires_grad
    assert backbone.fingerprint() == said
    assert list(backbone.parameters())
    assert not any(part.training for part in backbone.modules())


def test_what_is_not_run_is_not_kept(checkpoint):
    """No text tower, no pooling head, nothing of the last layer but the keys' way."""
    folder, _, network = checkpoint
    backbone = VisionTransformer("tiny", folder, facet="keys", layer=1)
    backbone.read()
    kept = sum(parameter.numel() for parameter in backbone.parameters())
    assert kept < 0.75 * sum(parameter.numel() for parameter in network.parameters())
    assert not [name for name, _ in backbone.named_modules() if "text" in name or "head" in name or "pooler" in name]


@pytest.mark.parametrize(
    ("family", "prefix"), [("vit", "vit."), ("clip_vision_model", "vision_model."), ("dinov2", "dinov2.")]
)
@torch.inference_mode()
def test_names_of_older_checkpoints_and_of_classifiers_are_read_too(tmp_path, family, prefix):
    from safetensors.torch import load_file, save_file

    write_checkpoint(tmp_path, family)
    images = torch.rand(1, 3, 16, 16)
    expected = VisionTransformer("tiny", str(tmp_path))(images)
    weights = load_file(tmp_path / "model.safetensors")
    renamed = {prefix + name: weight for name, weight in weights.items()}
    save_file({**renamed, "classifier.weight": torch.rand(5, CHANNELS)}, tmp_path / "model.safetensors")
    assert torch.equal(VisionTransformer("tiny", str(tmp_path))(images), expected)


@pytest.mark.skipif("radio" not in FAMILIES, reason="this transformers has no RADIO")
@torch.inference_mode()
def test_c_radio_needs_no_layer_scales(tmp_path):
    """The published weights have none."""
    from safetensors.torch import load_file, save_file

    network: Any = write_checkpoint(tmp_path, "radio", do_normalize=False)
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "layer_scale" not in name}
    assert len(kept) == len(weights) - 2 * DEPTH
    assert "radio_model.model.blocks.0.attn.qkv.weight" in kept, "written as the published ones are named"
    save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    for layer in network.encoder.layer:
        layer.layer_scale1.lambda1.fill_(1)
        layer.layer_scale2.lambda1.fill_(1)
    images = torch.rand(1, 3, 16, 24)
    features = VisionTransformer("tiny", str(tmp_path))(images)
    torch.testing.assert_close(features, as_map(network(images).last_hidden_state, "radio", 4, 6), rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_old_weights_in_pickle_are_read_too(vit):
    images = torch.rand(1, 3, 16, 16)
    expected = VisionTransformer("tiny", str(vit))(images)
    from safetensors.torch import load_file

    torch.save(load_file(vit / "model.safetensors"), vit / "pytorch_model.bin")
    (vit / "model.safetensors").unlink()
    assert torch.equal(VisionTransformer("tiny", str(vit))(images), expected)


@pytest.mark.parametrize(
    ("values", "change"),
    [
        ({"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}, lambda x: x),
        ({"do_normalize": False}, lambda x: x),
        ({"do_rescale": False, "do_normalize": False}, lambda x: 255 * x),
        ({"rescale_factor": 1 / 127.5, "image_mean": [1, 1, 1], "image_std": [1, 1, 1]}, lambda x: 2 * x - 1),
    ],
)
@torch.inference_mode()
def test_pixels_are_normalised_as_the_checkpoint_says(tmp_path, values, change):
    network: Any = write_checkpoint(tmp_path, "vit", **values)
    images = torch.rand(1, 3, 16, 16)
    expected = as_map(network(change(images)).last_hidden_state, "vit", 4, 4)
    torch.testing.assert_close(VisionTransformer("tiny", str(tmp_path))(images), expected, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_files_older_than_rescaling_mean_colours_from_0_to_1(vit):
    images = torch.rand(1, 3, 16, 16)
    expected = VisionTransformer("tiny", str(vit))(images)
    (vit / "preprocessor_config.json").write_text(json.dumps({"image_mean": MEAN, "image_std": STD}))
    torch.testing.assert_close(VisionTransformer("tiny", str(vit))(images), expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@torch.inference_mode()
def test_half_precision_is_near_and_said(checkpoint, dtype):
    images = torch.rand(1, 3, 24, 16)
    half = VisionTransformer("tiny", checkpoint[0], dtype=dtype)
    features = half(images)
    assert features.dtype == getattr(torch, dtype) == half.feature_dtype
    assert half.fingerprint()["dtype"] == dtype
    exact = VisionTransformer("tiny", checkpoint[0], dtype="float32")(images)
    assert torch.nn.functional.cosine_similarity(features.float(), exact, dim=1).min() > 0.99


def test_auto_precision_follows_the_device_and_the_family(checkpoint):
    folder, family, _ = checkpoint
    backbone = VisionTransformer("tiny", folder)
    assert backbone.fingerprint()["dtype"] == "float32"
    backbone.to("meta")
    single = family.startswith(("dinov3_vit", "radio", "tipsv2"))
    assert backbone.fingerprint()["dtype"] == ("float32" if single else "float16")


def test_the_fingerprint_names_what_can_change_the_features(vit):
    def say(**options: Any) -> dict[str, str]:
        return VisionTransformer("tiny", str(vit), **options).fingerprint()

    first = say()
    assert first["model"] == "tiny"
    assert first["checkpoint"] == "tiny-vit"
    assert first["transformers"] == transformers.__version__
    assert all(isinstance(value, str) for value in first.values())
    assert say() == first
    changes = [say(layer=2), say(layer=1), say(facet="keys"), say(facet="values"), say(dtype="bfloat16")]
    changes.append(say(compile=True))
    for name in ("model.safetensors", "preprocessor_config.json"):
        path = vit / name
        before = path.read_bytes()
        path.write_bytes(before + b" ")
        changes.append(say())
        path.write_bytes(before)
    assert len({json.dumps(said) for said in [first, *changes]}) == 1 + len(changes)
    assert say(layer=-1) == say(layer=2)
    assert say(layer="last", facet="keys") == say(layer=2, facet="keys")


def test_image_size_is_the_users_if_given(vit):
    assert VisionTransformer("tiny", str(vit), image_size=480).image_size == 480
    for size in (0, 30, -4):
        with pytest.raises(UserError, match="multiple of the patch size 4"):
            VisionTransformer("tiny", str(vit), image_size=size)


def test_images_that_are_no_multiple_of_the_patch_are_refused(vit):
    with pytest.raises(ValueError, match="not multiples of 4"):
        VisionTransformer("tiny", str(vit))(torch.rand(1, 3, 18, 16))


@pytest.mark.parametrize(
    ("options", "what", "hint"),
    [
        ({"layer": DEPTH}, "no layer 3", f"0 to {DEPTH - 1}, or -1 to -{DEPTH}"),
        ({"layer": -DEPTH - 1}, "no layer -4", "backbone.layer=last"),
        ({"layer": "first"}, "no layer first", "backbone.layer=last"),
        ({"layer": True}, "no layer True", "backbone.layer=last"),
        ({"facet": "key"}, "facet 'key' is unknown", "did you mean keys?"),
        ({"dtype": "fp16"}, "dtype 'fp16' is unknown", "float16"),
    ],
)
def test_arguments_out_of_range_are_explained(vit, options, what, hint):
    with pytest.raises(UserError) as caught:
        VisionTransformer("tiny", str(vit), **options)
    assert what in caught.value.what
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("name", "text", "what", "hint"),
    [
        ("config.json", '{"model_type": "vitt"}', "'vitt'", "did you mean vit?"),
        ("config.json", "{}", "None", "dinov3_vit"),
        ("config.json", '{"model_type": "siglip2"}', "NaFlex", "google/siglip2-base-patch16-512"),
        ("config.json", '{"model_type": "vit", ', "can't be read as JSON", "fetch"),
        ("config.json", "[]", "no object", "fetch"),
        ("config.json", '{"model_type": "vit", "hidden_size": "wide"}', "can't be used", "fetch"),
        ("config.json", '{"model_type": "vit", "patch_size": [4, 8]}', "not square", "patch_size"),
        ("preprocessor_config.json", "{", "can't be read as JSON", "fetch"),
        ("preprocessor_config.json", '{"image_mean": [0.5, 0.5, 0.5]}', "image_mean and image_std", "values"),
        ("preprocessor_config.json", '{"image_mean": [0.5], "image_std": [1]}', "image_mean and", "values"),
    ],
)
def test_damaged_files_are_named(vit, name, text, what, hint):
    (vit / name).write_text(text)
    with pytest.raises(UserError) as caught:
        VisionTransformer("tiny", str(vit))
    assert what in caught.value.what
    assert caught.value.where.endswith(name)
    assert hint in caught.value.hint


def test_a_family_that_the_installed_transformers_lacks_is_named(vit, monkeypatch):
    monkeypatch.delitem(transformers.CONFIG_MAPPING._mapping, "vit")
    with pytest.raises(
        UserError, match=f"transformers {transformers.__version__} is older than model_type 'vit'"
    ) as at:
        VisionTransformer("tiny", str(vit))
    assert at.value.hint == "pip install --upgrade transformers"


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_missing_files_are_named(vit, name):
    (vit / name).unlink()
    with pytest.raises(UserError, match=f"no {name}.* in this folder"):
        VisionTransformer("tiny", str(vit))


def test_damaged_weights_are_a_users_error(vit):
    path = vit / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="can't be read") as caught:
        VisionTransformer("tiny", str(vit)).read()
    assert caught.value.where == str(path)
    assert "backbone.model" in caught.value.hint


def test_weights_that_do_not_cover_the_network_are_refused(vit):
    from safetensors.torch import load_file, save_file

    weights = load_file(vit / "model.safetensors")
    save_file({name: w for name, w in weights.items() if "key" not in name}, vit / "model.safetensors")
    with pytest.raises(UserError, match=f"{2 * DEPTH} weights are missing"):
        VisionTransformer("tiny", str(vit)).read()


def test_weights_of_another_shape_are_refused(vit):
    values = json.loads((vit / "config.json").read_text())
    (vit / "config.json").write_text(json.dumps({**values, "intermediate_size": 64}))
    with pytest.raises(UserError, match=f"{3 * DEPTH} weights are missing or of another shape"):
        VisionTransformer("tiny", str(vit)).read()


def test_reading_is_silent_and_leaves_the_librarys_logging_alone(checkpoint, capfd, caplog):
    level = transformers.utils.logging.get_verbosity()
    with caplog.at_level(logging.WARNING):
        VisionTransformer("tiny", checkpoint[0], layer=0).read()
    captured = capfd.readouterr()
    assert not captured.out + captured.err
    assert transformers.utils.logging.get_verbosity() == level
    assert transformers.utils.logging.is_progress_bar_enabled()


def test_importing_the_family_does_not_import_transformers():
    code = "import sys, diffcut_bench.backbones.vision_transformer; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


OPTIONS = ["clip_b16", "clip_l14", "siglip_b16", "siglip_l16", "dino_b16", "dino_s16", "dino_b8", "dino_s8"]
OPTIONS += [
    "dinov2_b14",
    "dinov2_l14",
    "dinov2_s14_registers",
    "dinov2_b14_registers",
    "siglip2_b16",
    "cradiov4_h16",
    "tipsv2_b14",
]
OPTIONS += ["dinov3_s16", "dinov3_s16plus", "dinov3_b16", "dinov3_l16", "dinov3_h16plus"]


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_without_weights_says_how_to_get_them(option, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    config = load_config([f"backbone={option}"])
    assert config.backbone["name"] == option
    with pytest.raises(UserError) as caught:
        instantiate("backbone", config.backbone)
    model, revision = config.backbone["model"], config.backbone["revision"]
    at = "" if revision == "main" else f" --revision {revision}"
    files = "config.json preprocessor_config.json model.safetensors pytorch_model.bin"
    assert f"`hf download {model} {files}{at}`" in caught.value.hint
    assert "HF_HUB_OFFLINE" in caught.value.where


@pytest.mark.parametrize("option", OPTIONS)
@torch.inference_mode()
def test_an_option_reads_a_folder(option, vit):
    config = load_config([f"backbone={option}", f"backbone.model={vit}"])
    backbone = instantiate("backbone", config.backbone)
    assert backbone(torch.rand(1, 3, 16, 16)).shape == (1, CHANNELS, 4, 4)
    assert backbone.fingerprint()["model"] == option


@pytest.mark.slow
@torch.inference_mode()
def test_a_compiled_network_gives_the_same_features(vit):
    images = torch.rand(2, 3, 24, 16)
    compiled = VisionTransformer("tiny", str(vit), compile=True)(images)
    torch.testing.assert_close(compiled, VisionTransformer("tiny", str(vit))(images), rtol=1e-4, atol=1e-5)
