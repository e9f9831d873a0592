"""The networks of the flow, all of them classes of diffusers and transformers."""

from __future__ import annotations

import torch
from diffusers import AutoencoderDC, SanaTransformer2DModel
from transformers import T5Config, T5EncoderModel

SIDE = 64
"""Width and height of the pictures in pixels."""
LATENT = (4, 8, 8)
WIDTH, LAYERS, HEAD = 192, 8, 32
TEXT_WIDTH = 128
CHANNELS = (32, 32, 64, 128)
"""Of the autoencoder, from the pictures to the latents."""
STEPS = 4
"""Steps of the distilled flow."""


def autoencoder() -> AutoencoderDC:
    """Return the network between pictures in [-1, 1] and latents `LATENT`. None of its layers has 64 x 64 pixels."""
    return AutoencoderDC(
        latent_channels=LATENT[0],
        encoder_block_out_channels=CHANNELS,
        decoder_block_out_channels=CHANNELS,
        encoder_layers_per_block=(0, 1, 1, 1),
        decoder_layers_per_block=(0, 1, 2, 2),
        encoder_qkv_multiscales=((), (), (), ()),
        decoder_qkv_multiscales=((), (), (), ()),
    ).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def transformer() -> SanaTransformer2DModel:
    """Return the network that gives the velocity of a latent at a time, with the states of a caption."""
    return SanaTransformer2DModel(
        in_channels=LATENT[0],
        out_channels=LATENT[0],
        num_attention_heads=WIDTH // HEAD,
        attention_head_dim=HEAD,
        num_layers=LAYERS,
        num_cross_attention_heads=WIDTH // HEAD,
        cross_attention_head_dim=HEAD,
        cross_attention_dim=WIDTH,
        caption_channels=TEXT_WIDTH,
        sample_size=LATENT[1],
        patch_size=2,
        interpolation_scale=1.0,  # with positions
    )


def text_encoder(words: int) -> T5EncoderModel:
    """Return the network that reads captions of a vocabulary of `words` tokens."""
    return T5EncoderModel(
        T5Config(
            vocab_size=words,
            d_model=TEXT_WIDTH,
            d_kv=32,
            d_ff=256,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            pad_token_id=0,
        )
    )
