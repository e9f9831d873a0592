"""Two nodes for ComfyUI: a query becomes the noise with which it starts, and a second network judges the pictures.

Copy this folder into `custom_nodes` of ComfyUI.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from energyql import Model, generate
from energyql.attributes.judge import Judge
from energyql.attributes.pictures import PictureBank
from energyql.attributes.predictions import decide
from energyql.language import as_query, bind
from energyql.logic.satisfiability import satisfied

CATEGORY = "energyql"
QUERY = ("STRING", {"default": "smile AND NOT glasses", "multiline": True})
READERS = (
    "STRING",
    {"default": "", "tooltip": "Folder with guide.safetensors, guide.json, judge.safetensors, judge.json"},
)


class SampledPictures:
    """The rest of a workflow as a generator of energyql: from noise to pictures, by its guider and its VAE.

    Args:
        guider, sampler, sigmas: inputs of the node SamplerCustomAdvanced.
        latent: the empty latent of one picture, (1, channels, height, width).
        vae: the VAE, which decodes latents.
        seed: seed of the noise that samplers add in their steps; it is the same for all pictures.
    """

    differentiable = False

    def __init__(self, guider: Any, sampler: Any, sigmas: Any, latent: Tensor, vae: Any, seed: int) -> None:
        self.guider, self.sampler, self.sigmas, self.vae, self.seed = guider, sampler, sigmas, vae, seed
        self.latent = latent
        self.z_shape = tuple(latent.shape[1:])
        self.z_dim = math.prod(self.z_shape)

    def encode(self, z: Tensor, truncation: float = 1.0) -> Tensor:
        """Return the noise, (batch, z_dim)."""
        return truncation * z

    def synthesize(self, w: Tensor) -> Tensor:
        """Return the pictures in [-1, 1], (batch, 3, height, width), one by one, so that none depends on its batch."""
        return torch.cat([self._picture(one.view(1, *self.z_shape)) for one in w])

    def _picture(self, noise: Tensor) -> Tensor:
        samples = self.guider.sample(
            noise, self.latent, self.sampler, self.sigmas,
            denoise_mask=None, callback=None, disable_pbar=True, seed=self.seed,
        )  # fmt: skip
        return to_pictures(self.vae.decode(samples))


def to_pictures(images: Tensor) -> Tensor:
    """Return pictures of ComfyUI, (batch, height, width, 3) in [0, 1], as (batch, 3, height, width) in [-1, 1]."""
    return (2 * images.float().cpu() - 1).movedim(-1, 1)


class QueryNoise:
    """A NOISE of ComfyUI: for each picture of a batch, noise whose picture satisfies a query.

    Args:
        query: the query.
        model: generator and guide.
        seed: the seed; picture i depends on the seed and i alone.
    """

    def __init__(self, query: str, model: Model, seed: int) -> None:
        self.query, self.model, self.seed = query, model, seed

    def generate_noise(self, input_latent: dict[str, Any]) -> Tensor:
        """Return the noise, of the shape of `input_latent["samples"]`."""
        samples = input_latent["samples"]
        result = generate(self.query, len(samples), model=self.model, seed=self.seed, progress=False)
        return result.noise.reshape(samples.shape).to(samples.dtype)


class EnergyQLNoise:
    """Node: a query in, NOISE out, for SamplerCustomAdvanced with the same guider, sampler and sigmas."""

    CATEGORY = CATEGORY
    RETURN_TYPES = ("NOISE",)
    FUNCTION = "noise"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Return the inputs, as ComfyUI asks for them."""
        seed = ("INT", {"default": 0, "min": 0, "max": 2**64 - 1})
        types = {"guider": "GUIDER", "sampler": "SAMPLER", "sigmas": "SIGMAS", "latent_image": "LATENT", "vae": "VAE"}
        wires = {name: (kind,) for name, kind in types.items()}
        return {"required": wires | {"query": QUERY, "readers": READERS, "seed": seed}}

    def noise(
        self, guider: Any, sampler: Any, sigmas: Any, latent_image: dict[str, Any], vae: Any, query: str, readers: str,
        seed: int,
    ) -> tuple[QueryNoise]:  # fmt: skip
        """Check the query, and return the noise, which is searched when it is needed."""
        generator = SampledPictures(guider, sampler, sigmas, latent_image["samples"][:1], vae, seed)
        guide, judge = (Judge.load(Path(readers), name) for name in ("guide", "judge"))
        bind(as_query(query)[0], guide.vocabulary, query=query)
        return (QueryNoise(query, Model("comfyui", generator, PictureBank(guide), judge), seed),)


class EnergyQLJudge:
    """Node: pictures and a query in, verdicts of the judge out: a text, and the pictures that satisfy the query."""

    CATEGORY = CATEGORY
    RETURN_TYPES = ("STRING", "IMAGE")
    RETURN_NAMES: ClassVar = ("verdicts", "satisfying")
    FUNCTION = "judge"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Return the inputs, as ComfyUI asks for them."""
        return {"required": {"images": ("IMAGE",), "query": QUERY, "readers": READERS}}

    def judge(self, images: Tensor, query: str, readers: str) -> tuple[str, Tensor]:
        """Return what the judge reads, and whether each picture satisfies the query, as JSON; and those that do."""
        judge = Judge.load(Path(readers), "judge")
        expr = bind(as_query(query)[0], judge.vocabulary, query=query)
        with torch.inference_mode():
            values = decide(judge(to_pictures(images)))
        holds = [bool(one) for one in satisfied(expr, values, judge.vocabulary)]
        rows = [{name: column[i].item() for name, column in values.items()} for i in range(len(holds))]
        verdicts = [{"satisfied": good} | row for good, row in zip(holds, rows, strict=True)]
        return json.dumps(verdicts), images[torch.tensor(holds, device=images.device)]


NODE_CLASS_MAPPINGS = {"EnergyQLNoise": EnergyQLNoise, "EnergyQLJudge": EnergyQLJudge}
NODE_DISPLAY_NAME_MAPPINGS = {"EnergyQLNoise": "Noise of a query", "EnergyQLJudge": "Judge a query"}
