"""A DCGAN with the interface and the parameter names of the package `gan-face-generate`, and its file of weights.

It stands in for `gan_face_generate.models`, which not every machine has.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn


class Generator(nn.Module):
    """z (batch, nz, 1, 1) -> pictures in [-1, 1], (batch, nc, 64, 64)."""

    def __init__(self, ngpu: int, nc: int, nz: int, ngf: int) -> None:
        super().__init__()
        ngf = min(ngf, 8)  # much quicker, and as good for tests
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise([nz, 8 * ngf, 4 * ngf, 2 * ngf, ngf, nc]):
            stride, padding = (2, 1) if layers else (1, 0)
            layers += [nn.ConvTranspose2d(inputs, outputs, 4, stride, padding, bias=False)]
            layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
        self.main = nn.Sequential(*layers[:-2], nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        pictures: Tensor = self.main(z)
        return pictures


@torch.no_grad()
def write_weights(path: Path) -> None:
    """Random weights that draw smooth pictures of many colours."""
    random = torch.Generator().manual_seed(0)
    network = Generator(ngpu=0, nc=3, nz=100, ngf=64)
    for layer in network.main:
        if isinstance(layer, nn.ConvTranspose2d):
            layer.weight.copy_(torch.randn(*layer.weight.shape[:2], 1, 1, generator=random) / layer.in_channels**0.5)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # statistics are the mean of all batches, here of one
    network.main[0].weight.add_(0.1 * torch.randn(network.main[0].weight.shape, generator=random))
    network.main[-2].weight.mul_(3)  # from black to white
    network.train()(torch.randn(64, 100, 1, 1, generator=random))
    torch.save({"netG_state_dict": network.state_dict()}, path)
