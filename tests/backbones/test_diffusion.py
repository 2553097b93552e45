"""The diffusion backbone against pipelines built with diffusers' own classes, on tiny random models."""

import json
import shutil
from pathlib import Path
from typing import Any

import diffusion_checkpoints as tiny
import pytest
import torch
from diffusers import AutoencoderTiny, DDPMScheduler, UNet2DConditionModel
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffcut_bench.backbones import DiffusionEncoder
from diffcut_bench.backbones.architectures import UNETS
from diffcut_bench.backbones.diffusion_weights import keep_encoder
from diffcut_bench.errors import UserError

IMAGES = torch.rand(4, 3, 128, 96, generator=torch.Generator().manual_seed(0))
NOISE = torch.randn((1, 4, 16, 12), generator=torch.Generator().manual_seed(42))


class Model:
    """A tiny model: its pipeline in memory and its folder in the hub's layout."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.text_encoders = kind, 2 if kind == "sdxl" else 1
        self.pipeline: Any = {"sdxl": tiny.sdxl_pipeline, "sd1": tiny.sd1_pipeline}[kind](folder)
        for part in self.pipeline.components.values():
            if isinstance(part, torch.nn.Module):
                part.eval()
        self.folder = tiny.write(self.pipeline, folder / "model")

    def encoder(self, folder: Path | None = None, **options: Any) -> DiffusionEncoder:
        defaults = {"text_encoders": self.text_encoders, "weights_dtype": "float32"}
        return DiffusionEncoder(self.kind, str(folder or self.folder), **(defaults | options))

    def reference(self, images: Tensor, layer: Any, timestep: int = 50, noise: bool = True) -> Tensor:
        """Output of a layer of the whole UNet, as released, with the pipeline's own parts."""
        kept: list[Tensor] = []
        handle = layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
        with torch.no_grad():
            latents = self.pipeline.vae.encode(images * 2 - 1).latent_dist.mean
            latents = latents * self.pipeline.vae.config.scaling_factor
            if noise:
                latents = DDPMScheduler(**tiny.BETAS).add_noise(latents, NOISE, torch.tensor([timestep]))
            prompt, conditions = self.conditions(images)
            self.pipeline.unet(latents, torch.tensor(timestep), prompt, **conditions)
        handle.remove()
        rows = images.shape[2] * images.shape[3] // kept[0].shape[1]
        side = round(rows**0.5)
        return kept[0].transpose(1, 2).unflatten(2, (images.shape[2] // side, images.shape[3] // side))

    def conditions(self, images: Tensor) -> tuple[Tensor, dict[str, Any]]:
        if self.kind == "sd1":
            prompt, _ = self.pipeline.encode_prompt("", "cpu", 1, False)
            return prompt.expand(len(images), -1, -1), {}
        prompt, _, pooled, _ = self.pipeline.encode_prompt("", device="cpu", do_classifier_free_guidance=False)
        height, width = images.shape[2:]
        ids = torch.tensor([[height, width, 0, 0, height, width]], dtype=torch.float32)
        added = {"text_embeds": pooled.expand(len(images), -1), "time_ids": ids.expand(len(images), -1)}
        return prompt.expand(len(images), -1, -1), {"added_cond_kwargs": added}

    def attention(self, block: str) -> Any:
        """The last self-attention at a resolution, spelled out for each kind of UNet."""
        unet = self.pipeline.unet
        blocks = {
            "sdxl": {"E32": unet.down_blocks[2], "E64": unet.down_blocks[1], "D32": unet.up_blocks[0]},
            "sd1": {"E32": unet.down_blocks[2], "E64": unet.down_blocks[1], "D32": unet.up_blocks[1]},
        }
        blocks["sdxl"]["D64"], blocks["sd1"]["D64"] = unet.up_blocks[1], unet.up_blocks[2]
        return blocks[self.kind][block].attentions[-1].transformer_blocks[-1].attn1


@pytest.fixture(scope="module", params=["sdxl", "sd1"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(autouse=True)
def assets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An assets cache of this test's own."""
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "assets"))
    monkeypatch.setattr("huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", str(tmp_path / "assets"))
    return tmp_path / "assets"


@pytest.mark.parametrize("block", ["E32", "E64", "D32", "D64"])
def test_features_equal_the_hooked_output_of_the_whole_unet_bit_for_bit(model, block):
    encoder = model.encoder(block=block)
    features = encoder(IMAGES)
    assert torch.equal(features, model.reference(IMAGES, model.attention(block)))
    assert features.shape == (4, encoder.channels, 128 // encoder.stride, 96 // encoder.stride)
    assert encoder.stride == {"32": 32, "64": 16}[block[1:]]


def test_the_layer_is_the_one_that_the_paper_names(model):
    last = model.pipeline.unet.down_blocks[-1 if model.kind == "sdxl" else -2]
    assert model.attention("E32") is last.attentions[-1].transformer_blocks[-1].attn1


def test_only_the_encoder_is_kept(model):
    encoder = model.encoder()
    assert not list(encoder.parameters()), "weights are read at the first image, not before"
    encoder(IMAGES[:1])
    names = {name for name, _ in encoder.named_parameters()}
    assert not any(name.startswith(("unet.up_blocks", "unet.mid_block", "unet.conv_norm_out")) for name in names)
    assert not any("decoder" in name or "text" in name for name in names)
    assert any(name.startswith("unet.up_blocks") for name, _ in read(model.encoder(whole_unet=True)).named_parameters())


def read(encoder: DiffusionEncoder) -> DiffusionEncoder:
    encoder.read()
    return encoder


def test_several_blocks_are_resized_to_the_coarsest_and_concatenated(model):
    both = model.encoder(block=["E64", "E32"])(IMAGES)
    fine, coarse = model.encoder(block="E64")(IMAGES), model.encoder()(IMAGES)
    resized = torch.nn.functional.interpolate(fine, coarse.shape[2:], mode="bilinear", align_corners=False)
    assert torch.equal(both, torch.cat([resized, coarse], dim=1))


def test_an_image_does_not_depend_on_its_batch(model):
    encoder = model.encoder()
    whole = encoder(IMAGES)
    for index, image in enumerate(IMAGES):
        torch.testing.assert_close(encoder(image[None])[0], whole[index], rtol=1e-4, atol=1e-5)


def test_latents_are_noised_as_the_scheduler_does(model):
    with torch.no_grad():
        clean = model.pipeline.vae.encode(IMAGES * 2 - 1).latent_dist.mean * model.pipeline.vae.config.scaling_factor
    scheduler = DDPMScheduler(**tiny.BETAS)
    for timestep in (0, 50, 300):
        expected = scheduler.add_noise(clean, NOISE.expand_as(clean), torch.full((4,), timestep))
        torch.testing.assert_close(model.encoder(timestep=timestep).latents(IMAGES), expected)
    torch.testing.assert_close(model.encoder(noise=False).latents(IMAGES), clean)
    noised = model.encoder().latents(IMAGES)
    torch.testing.assert_close((noised - 0.97549 * clean)[0], 0.22005 * NOISE[0], rtol=0, atol=2e-5)


def test_noise_is_one_map_of_the_seed_for_every_image(model):
    encoder = model.encoder()
    added = encoder.latents(IMAGES) - 0.97549 * model.encoder(noise=False).latents(IMAGES)
    torch.testing.assert_close(added, added[:1].expand_as(added), rtol=0, atol=1e-4)
    assert not torch.equal(model.encoder(seed=1).latents(IMAGES), encoder.latents(IMAGES))
    assert torch.equal(encoder.latents(IMAGES), encoder.latents(IMAGES))


def test_the_whole_image_reaches_the_vae_in_chunks(model, monkeypatch):
    whole = model.encoder().latents(IMAGES)
    monkeypatch.setattr("diffcut_bench.backbones.diffusion._PIXELS_A_CALL", 1)
    torch.testing.assert_close(model.encoder().latents(IMAGES), whole)


def test_the_empty_prompt_is_encoded_once_and_kept(model, assets, monkeypatch):
    encoder = read(model.encoder())
    prompt, conditions = model.conditions(IMAGES[:1])
    assert torch.equal(encoder._prompt, prompt)
    if model.kind == "sdxl":
        assert torch.equal(encoder._pooled, conditions["added_cond_kwargs"]["text_embeds"])
    kept = list(assets.rglob("*.safetensors"))
    assert len(kept) == 1
    monkeypatch.setattr("transformers.CLIPTextModel.from_pretrained", None)  # must not be asked again
    assert torch.equal(read(model.encoder())._prompt, prompt)
    kept[0].write_bytes(b"damaged")
    monkeypatch.undo()
    monkeypatch.setattr("huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", str(assets))
    assert torch.equal(read(model.encoder())._prompt, prompt)


def test_the_prompt_is_encoded_in_half_precision_where_that_is_asked_for(model, assets):
    """As the released code does on CUDA. The reference is the pipeline itself in half precision."""
    exact = read(model.encoder())
    half = read(model.encoder(prompt_dtype="float16"))
    assert half._prompt.dtype == torch.float16
    encoders = [getattr(model.pipeline, name, None) for name in ("text_encoder", "text_encoder_2")]
    for encoder in filter(None, encoders):
        encoder.half()
    try:
        prompt, conditions = model.conditions(IMAGES[:1])
    finally:
        model.__init__(model.kind, model.folder.parent)
    assert torch.equal(half._prompt, prompt)
    if model.kind == "sdxl":
        assert torch.equal(half._pooled, conditions["added_cond_kwargs"]["text_embeds"])
    assert not torch.equal(half._prompt.float(), exact._prompt), "rounding is seen"
    torch.testing.assert_close(half._prompt.float(), exact._prompt, rtol=0.02, atol=0.02)
    assert len(list(assets.rglob("*.safetensors"))) == 2, "each precision is kept under a name of its own"
    assert torch.equal(read(model.encoder(prompt_dtype="float16"))._prompt, half._prompt)


def test_auto_encodes_the_prompt_as_released_on_an_accelerator(model):
    encoder = model.encoder()
    assert encoder.fingerprint()["prompt_dtype"] == "float32"
    assert encoder.to("meta").fingerprint()["prompt_dtype"] == "float16"


def test_the_unet_gets_the_stated_time_ids(model):
    encoder = read(model.encoder())
    seen: dict[str, Any] = {}
    encoder.unet.register_forward_pre_hook(lambda module, inputs, options: seen.update(options), with_kwargs=True)
    encoder(IMAGES)
    if model.kind == "sd1":
        assert "added_cond_kwargs" not in seen
    else:
        assert seen["added_cond_kwargs"]["time_ids"].tolist() == [[128, 96, 0, 0, 128, 96]] * 4


def test_weights_are_rounded_to_half_precision_first(model):
    released = model.encoder(weights_dtype="float16")(IMAGES)
    for part in (model.pipeline.vae, model.pipeline.unet, model.pipeline.text_encoder):
        part.half().float()
    second = getattr(model.pipeline, "text_encoder_2", None)
    if second is not None:
        second.half().float()
    try:
        assert torch.equal(released, model.reference(IMAGES, model.attention("E32")))
    finally:
        model.__init__(model.kind, model.folder.parent)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("autocast", [True, False])
def test_half_precision_stays_close(model, dtype, autocast):
    exact = model.encoder()(IMAGES)
    half = model.encoder(unet_dtype=dtype, vae_dtype=dtype, autocast=autocast)(IMAGES)
    assert half.dtype == getattr(torch, dtype)
    assert model.encoder(unet_dtype=dtype).feature_dtype == half.dtype
    assert torch.nn.functional.cosine_similarity(half.float(), exact, dim=1).min() > 0.99
    assert not torch.equal(half.float(), exact)


def test_channels_last_changes_no_more_than_rounding(model):
    plain, other = model.encoder()(IMAGES), model.encoder(channels_last=True)(IMAGES)
    torch.testing.assert_close(plain, other, rtol=1e-3, atol=1e-4)
    assert other.is_contiguous()


def test_self_attention_maps_are_those_of_the_layers(model):
    encoder = model.encoder(whole_unet=True)
    maps = encoder.self_attention(IMAGES[:2])
    seen: list[tuple[Any, Tensor]] = []
    for name, layer in encoder.unet.named_modules():
        if name.endswith("attn1"):
            layer.register_forward_pre_hook(
                lambda module, inputs, options: seen.append(
                    (module, inputs[0] if inputs else options["hidden_states"])
                ),
                with_kwargs=True,
            )
    encoder(IMAGES[:2])
    assert len(maps) == len(seen)
    for (layer, tokens), found in zip(seen, maps, strict=True):
        query, key = layer.head_to_batch_dim(layer.to_q(tokens)), layer.head_to_batch_dim(layer.to_k(tokens))
        expected = layer.get_attention_scores(query, key).unflatten(0, (2, layer.heads)).mean(dim=1)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(found.sum(dim=-1), torch.ones_like(found[..., 0]))
    assert len(model.encoder().self_attention(IMAGES[:1])) < len(maps)


def test_a_half_precision_variant_is_preferred_and_another_vae_taken(model, tmp_path):
    folder = tiny.write(model.pipeline, tmp_path / "model", variant="fp16")
    variant = model.encoder(folder)
    assert torch.equal(variant(IMAGES), model.encoder()(IMAGES))
    torch.manual_seed(5)
    small = AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4)
    small.save_pretrained(tmp_path / "tiny")
    encoder = model.encoder(vae=str(tmp_path / "tiny"), noise=False)
    with torch.no_grad():
        torch.testing.assert_close(encoder.latents(IMAGES), small.encode(IMAGES * 2 - 1).latents)
    assert encoder.fingerprint()["vae_sha256"] != ""
    assert encoder(IMAGES).shape == model.encoder()(IMAGES).shape


def test_a_vae_of_the_hub_can_be_pinned(model, tmp_path, monkeypatch):
    commit, other = "a" * 40, "b" * 40
    snapshot = tmp_path / "hub" / "models--someone--vae" / "snapshots" / commit
    shutil.copytree(model.folder / "vae", snapshot)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    found = model.encoder(vae=f"someone/vae@{commit}").fingerprint()
    assert (found["vae"], found["vae_revision"]) == ("someone/vae", commit)
    with pytest.raises(UserError, match=f"hf download someone/vae config.json .* --revision {other}`"):
        model.encoder(vae=f"someone/vae@{other}")
    folder = shutil.copytree(snapshot, tmp_path / "vae@home")
    assert model.encoder(vae=str(folder)).fingerprint()["vae"] == "vae@home", "a folder is a folder"


def test_attention_names_of_old_vaes_are_understood(model, tmp_path):
    folder = tiny.write(model.pipeline, tmp_path / "model")
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    names = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    old = {}
    for name, tensor in load_file(file).items():
        for new, before in names.items():
            name = name.replace(new, before)
        old[name] = tensor
    assert any(".query." in name for name in old)
    save_file(old, file)
    encoder = model.encoder(folder)
    assert torch.equal(encoder(IMAGES), model.encoder()(IMAGES))


def test_fingerprint_names_what_changes_features(model, tmp_path):
    base = model.encoder().fingerprint()
    changes: list[dict[str, Any]] = [{"timestep": 10}, {"block": "E64"}, {"seed": 1}, {"noise": False}]
    changes += [{f"{part}_dtype": "float16"} for part in ("weights", "unet", "vae", "prompt")]
    changes += [{"channels_last": True}, {"unet_dtype": "float16", "autocast": False}]
    seen = [base, *(model.encoder(**change).fingerprint() for change in changes)]
    assert len({json.dumps(found) for found in seen}) == len(seen)
    for change in ({"autocast": False}, {"variant": None}, {"whole_unet": True}):
        assert model.encoder(**change).fingerprint() == base, "changes no feature in float32"
    assert base["revision"] == "" and model.encoder(revision="a" * 40).fingerprint() == base, "a folder is of no commit"
    file = model.folder / "unet" / "diffusion_pytorch_model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        assert model.encoder().fingerprint()["weights_sha256"] != base["weights_sha256"]
    finally:
        file.write_bytes(content)


def test_a_config_of_2022_lacks_the_scaling_factor(model, tmp_path):
    folder = tiny.write(model.pipeline, tmp_path / "model")
    config = json.loads((folder / "vae" / "config.json").read_text())
    config["scaling_factor"] = 0.18215  # what the networks of that time mean by leaving it out
    (folder / "vae" / "config.json").write_text(json.dumps(config))
    written = model.encoder(folder)(IMAGES)
    del config["scaling_factor"]
    (folder / "vae" / "config.json").write_text(json.dumps(config))
    assert torch.equal(model.encoder(folder)(IMAGES), written)


def test_noise_is_drawn_on_the_device_that_computes_and_the_fingerprint_says_which(model):
    own, on_cpu = model.encoder(), model.encoder(generator="cpu")
    assert own.fingerprint() == on_cpu.fingerprint(), "the same noise, the same features"
    assert torch.equal(own.latents(IMAGES[:1]), on_cpu.latents(IMAGES[:1]))
    drawn = [encoder.to("meta").fingerprint()["noise_generator"] for encoder in (model.encoder(), on_cpu)]
    assert drawn == ["meta", "cpu"], "another device draws other noise, and must not share features"


def test_whatever_a_tokenizer_reads_is_in_the_fingerprint(model, tmp_path):
    folder = tiny.write(model.pipeline, tmp_path / "model")
    before = model.encoder(folder).fingerprint()
    (folder / "tokenizer" / "special_tokens_map.json").write_text('{"pad_token": "!"}')
    after = model.encoder(folder).fingerprint()
    assert before["weights_sha256"] != after["weights_sha256"]


def test_a_prompt_that_can_t_be_kept_only_costs_time(model, monkeypatch):
    expected = read(model.encoder())._prompt
    monkeypatch.setattr("huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", "/dev/null/x")
    assert torch.equal(read(model.encoder())._prompt, expected)


def test_a_damaged_text_encoder_is_a_user_error(model, tmp_path):
    folder = tiny.write(model.pipeline, tmp_path / "model")
    weights = folder / "text_encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(UserError, match="text encoder can't be read"):
        model.encoder(folder)(IMAGES)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"block": "E16"}, "block 'E16'"),
    ({"block": []}, "name one or several"),
    ({"unet_dtype": "half"}, "unet_dtype 'half'"),
    ({"weights_dtype": "auto"}, "weights_dtype can't be auto"),
    ({"timestep": 1000}, "timestep 1000 out of range"),
    ({"seed": -1}, "seed -1"),
    ({"generator": "nowhere"}, "no noise generator"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_options_are_user_errors(model, options, message):
    with pytest.raises(UserError, match=message):
        model.encoder(**options)


def test_a_wrong_number_of_text_encoders_is_said(model):
    if model.text_encoders == 2:
        with pytest.raises(UserError, match="does not fit a SDXL-type UNet"):
            model.encoder(text_encoders=1)
    else:
        with pytest.raises(UserError, match=r"no text_encoder_2"):
            model.encoder(text_encoders=2)


def test_missing_and_damaged_files_are_named(model, tmp_path):
    folder = tiny.write(model.pipeline, tmp_path / "model")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="weights can't be read"):
        model.encoder(folder)(IMAGES)
    weights.unlink()
    (folder / "tokenizer" / "tokenizer_config.json").unlink()
    with pytest.raises(
        UserError, match=r"unet/diffusion_pytorch_model.fp16.safetensors \(or .*\), tokenizer/tokenizer_config"
    ):
        model.encoder(folder)
    (folder / "unet" / "config.json").write_text("{")
    (folder / "tokenizer" / "tokenizer_config.json").write_text("{}")
    save_file({}, weights)
    with pytest.raises(UserError, match=r"config\.json can't be read"):
        model.encoder(folder)


@pytest.mark.parametrize(
    "damage",
    [{"beta_schedule": "nope"}, {"num_train_timesteps": "many"}, {"beta_start": "small"}, {"trained_betas": "none"}],
    ids=lambda damage: next(iter(damage)),
)
def test_a_damaged_scheduler_is_named_when_the_checkpoint_is_opened(model, tmp_path, damage):
    file = tiny.write(model.pipeline, tmp_path / "model") / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | damage))
    with pytest.raises(UserError, match=r"scheduler_config\.json says what can't be built") as caught:
        model.encoder(tmp_path / "model")
    assert caught.value.where == str(file)


def test_a_timestep_is_one_of_the_betas(model, tmp_path):
    file = tiny.write(model.pipeline, tmp_path / "model") / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"trained_betas": [0.1, 0.2]}))
    with pytest.raises(UserError, match="timestep 50 out of range"):
        model.encoder(tmp_path / "model")


@pytest.mark.parametrize(
    ("part", "damage"), [("unet", {"norm_num_groups": "x"}), ("vae", {"down_block_types": ["NoSuchBlock"]})]
)
def test_a_damaged_config_of_a_network_is_named(model, tmp_path, part, damage):
    file = tiny.write(model.pipeline, tmp_path / "model") / part / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | damage))
    encoder = model.encoder(tmp_path / "model")
    with pytest.raises(UserError, match=r"config\.json says what can't be built") as caught:
        encoder.read()
    assert caught.value.where == str(file)


@pytest.mark.parametrize("value", [None, 5])
@pytest.mark.parametrize(
    ("part", "key"), [("unet", "block_out_channels"), ("unet", "up_block_types"), ("vae", "down_block_types")]
)
def test_a_config_without_its_levels_is_named_when_the_checkpoint_is_opened(model, tmp_path, part, key, value):
    file = tiny.write(model.pipeline, tmp_path / "model") / part / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    with pytest.raises(UserError, match=f"config.json has no list {key}") as caught:
        model.encoder(tmp_path / "model")
    assert caught.value.where == str(file)


@pytest.mark.parametrize(("name", "parameters"), [("segmind/SSD-1B", 405.9e6), ("segmind/Segmind-Vega", 246.8e6)])
def test_full_size_encoders_have_the_counted_parameters(name, parameters):
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNETS[name])
    keep_encoder(unet, 2)
    assert sum(p.numel() for p in unet.down_blocks.parameters()) == pytest.approx(parameters, rel=2e-4)
