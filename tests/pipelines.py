"""Small pipelines of diffusers with random weights."""

from __future__ import annotations

import torch
from needed import needed

diffusers, transformers = needed("diffusers"), needed("transformers")
WORDS = ("<pad>", "<s>", "</s>", "<unk>", "a", "red", "blue", "hill", "house")
SIDE = 16


def unconditional(kind="DDIM"):
    """A pipeline of pixels, which takes no `latents`."""
    scheduler = getattr(diffusers, f"{kind}Scheduler")()
    return getattr(diffusers, f"{kind}Pipeline")(pixels(), scheduler)


def classes():
    """A consistency model of ten classes."""
    return diffusers.ConsistencyModelPipeline(pixels(num_class_embeds=10), diffusers.CMStochasticIterativeScheduler())


def pixels(**settings):
    torch.manual_seed(0)
    return diffusers.UNet2DModel(
        sample_size=SIDE, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, attention_head_dim=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"), **settings,
    )  # fmt: skip


def latent(scheduler="LCM"):
    """A latent diffusion model of texts, of the kind of Stable Diffusion."""
    torch.manual_seed(0)
    network = diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
    )  # fmt: skip
    return diffusers.StableDiffusionPipeline(
        decoder(4), text_encoder(), tokenizer(), network, getattr(diffusers, f"{scheduler}Scheduler")(),
        None, None, requires_safety_checker=False,
    )  # fmt: skip


def flow():
    """A flow-matching transformer whose latents are packed into sequences, of the kind of FLUX."""
    torch.manual_seed(0)
    network = diffusers.FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=16, pooled_projection_dim=16, axes_dims_rope=(2, 2, 4),
    )  # fmt: skip
    t5 = transformers.T5Config(
        vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, feed_forward_proj="gated-gelu"
    )
    return diffusers.FluxPipeline(
        diffusers.FlowMatchEulerDiscreteScheduler(), decoder(4), text_encoder(), tokenizer(),
        transformers.T5EncoderModel(t5), tokenizer(), network,
    )  # fmt: skip


def decoder(channels):
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, latent_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        scaling_factor=0.2, shift_factor=0.1,
    )  # fmt: skip


def text_encoder():
    return transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=len(WORDS),
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=8,
            projection_dim=16,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )
    )


def tokenizer():
    tokenizers = needed("tokenizers")
    words = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>")
    )
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.post_processor = tokenizers.processors.TemplateProcessing(
        "<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, model_max_length=8, pad_token="<pad>", unk_token="<unk>", bos_token="<s>",
        eos_token="</s>",
    )  # fmt: skip
