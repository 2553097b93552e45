"""Tiny randomly initialised diffusion models in the hub's layout, written by the real libraries."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
# Latents of 1/8 of the image, as in the real models: a 64-pixel image is 8×8 latents, 4×4 at E64, 2×2 at E32.
VAE = {
    "block_out_channels": (8, 8, 8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "layers_per_block": 1,
    "sample_size": 64,
    "scaling_factor": 0.13025,
}


def tokenizer(folder: Path, pad: str = "<|endoftext|>") -> CLIPTokenizer:
    folder.mkdir(parents=True, exist_ok=True)
    words = ["l", "o", "w</w>", "lo", "low</w>", "!</w>", "!", "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\nl o\nlo w</w>\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16, pad_token=pad)


def text_config(hidden: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=9,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        projection_dim=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=7,
        eos_token_id=8,
        pad_token_id=8,
    )


def sdxl_pipeline(scratch: Path) -> StableDiffusionXLPipeline:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        norm_num_groups=4,
        layers_per_block=2,
        block_out_channels=(8, 16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 3),
        attention_head_dim=(2, 2, 4),
        cross_attention_dim=40,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24 + 6 * 8,
    )
    return StableDiffusionXLPipeline(
        vae=AutoencoderKL(**VAE, force_upcast=True),
        unet=unet,
        text_encoder=CLIPTextModel(text_config(16)),
        text_encoder_2=CLIPTextModelWithProjection(text_config(24)),
        tokenizer=tokenizer(scratch / "one"),
        tokenizer_2=tokenizer(scratch / "two", pad="!"),
        scheduler=EulerDiscreteScheduler(**BETAS),
    )


def sd1_pipeline(scratch: Path) -> StableDiffusionPipeline:
    torch.manual_seed(1)
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        norm_num_groups=4,
        layers_per_block=2,
        block_out_channels=(8, 16, 16, 32),
        down_block_types=(*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
        up_block_types=("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
        attention_head_dim=2,
        cross_attention_dim=16,
    )
    return StableDiffusionPipeline(
        vae=AutoencoderKL(**VAE),
        unet=unet,
        text_encoder=CLIPTextModel(text_config(16)),
        tokenizer=tokenizer(scratch / "one"),
        scheduler=PNDMScheduler(**BETAS, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def write(pipeline: Any, folder: Path, variant: str | None = None) -> Path:
    """The pipeline as a folder in the hub's layout."""
    pipeline.save_pretrained(folder, variant=variant)
    return folder
