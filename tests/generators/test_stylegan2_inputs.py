"""What a StyleGAN2 takes beside z: conditions, a row of w for each layer, and noise."""

import dataclasses

import pytest
import torch
from toys import random_generator

from energyql.errors import ArgumentError
from generators.formulas import SMALL, Reference, latents


class TestLabels:
    config = dataclasses.replace(SMALL, c_dim=4)

    def test_a_label_is_embedded(self):
        generator = random_generator(self.config).double()
        z, condition = latents(self.config), torch.eye(4, dtype=torch.float64)[[0, 3, 1]]
        w = generator.encode(z, 0.9, condition)
        torch.testing.assert_close(w, Reference(generator).mapping(z, 0.9, condition), rtol=0, atol=1e-9)
        assert (w - generator.encode(z, 0.9, condition.roll(1, 0))).abs().min(dim=1).values.max() > 1e-6

    def test_a_label_of_integers_is_a_label(self):
        generator = random_generator(self.config)
        z, condition = latents(self.config, dtype=torch.float32), torch.eye(4, dtype=torch.long)[[0, 3, 1]]
        assert torch.equal(generator.encode(z, condition=condition), generator.encode(z, condition=condition.float()))


class TestRows:
    def test_equal_rows_are_w(self):
        generator = random_generator(SMALL)
        w = generator.encode(latents(SMALL, dtype=torch.float32))
        rows = w[:, None].repeat(1, SMALL.num_ws, 1)
        torch.testing.assert_close(generator.synthesize(rows), generator.synthesize(w), rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("row", range(SMALL.num_ws))
    def test_a_row_drives_its_convolution_and_the_picture_layer_before_it(self, row):
        """As in the official code: row 0 is b4.conv1, row 1 is b4.torgb and b8.conv0, row 2 is b8.conv1, ..."""
        generator = random_generator(SMALL).double()
        seen = {}
        for name, module in generator.synthesis.named_modules():
            if name.endswith(("conv0", "conv1", "torgb")):
                module.register_forward_hook(
                    lambda _, inputs, __, name=name: seen.setdefault(name, []).append(inputs[1].clone())
                )
        ws = generator.encode(latents(SMALL))[:, None].repeat(1, SMALL.num_ws, 1)
        generator.synthesize(ws)
        ws[:, row] += 1
        generator.synthesize(ws)
        halves = {name: torch.cat(calls).chunk(2) for name, calls in seen.items()}  # a call may be of some samples
        changed = {name for name, (before, after) in halves.items() if not torch.equal(before, after)}
        last = SMALL.num_ws - 1
        level = 4 << (row // 2)
        if row % 2 == 0:
            assert changed == {f"b{level}.conv1"}
        else:
            assert changed == {f"b{level}.torgb"} | ({f"b{2 * level}.conv0"} if row < last else set())

    @pytest.mark.parametrize("shape", [(2, SMALL.num_ws - 1, SMALL.w_dim), (2, SMALL.w_dim + 1), (SMALL.w_dim,)])
    def test_wrong_shapes(self, shape):
        with pytest.raises(ArgumentError, match=r"w must be \(batch, 10\) or \(batch, 8, 10\), not"):
            random_generator(SMALL).synthesize(torch.zeros(shape))


class TestNoise:
    def test_constant_noise_is_added_and_can_be_left_out(self):
        generator = random_generator(SMALL).double()
        w = generator.encode(latents(SMALL))
        quiet, usual = generator.synthesize(w, "none"), generator.synthesize(w, "const")
        torch.testing.assert_close(quiet, Reference(generator).synthesis(w, noise=False), rtol=0, atol=1e-9)
        assert (quiet - usual).abs().max() > 0.01
        assert torch.equal(usual, generator.synthesize(w))

    @pytest.mark.parametrize("resolution", [8, 32])
    def test_given_noise_takes_the_place_of_the_stored(self, resolution):
        config = dataclasses.replace(SMALL, resolution=resolution)
        generator = random_generator(config).double()
        w, noise = generator.encode(latents(config, batch=9)), torch.randn(9, config.noise_size).double()
        drawn = generator.synthesize(w, noise)
        for row in (0, 4, 8):
            end = 0
            for name, stored in generator.named_buffers():
                if name.endswith("noise_const"):
                    start, end = end, end + stored.numel()
                    stored.copy_(noise[row, start:end].view_as(stored))
            assert end == config.noise_size == generator.noise_size
            torch.testing.assert_close(drawn[row], generator.synthesize(w[row : row + 1])[0], rtol=0, atol=1e-9)

    def test_a_picture_with_given_noise_does_not_depend_on_its_batch(self):
        generator = random_generator(SMALL)
        w = generator.encode(latents(SMALL, batch=9, dtype=torch.float32))
        noise = torch.randn(9, generator.noise_size)
        assert torch.equal(generator.synthesize(w, noise)[3:5], generator.synthesize(w[3:5], noise[3:5]))

    def test_noise_of_strength_zero_is_none(self):
        generator = random_generator(SMALL)
        for name, strength in generator.named_parameters():
            if name.endswith("noise_strength"):
                strength.zero_()
        assert generator.noise_size == 0

    def test_no_such_noise(self):
        w = torch.zeros(1, SMALL.w_dim)
        with pytest.raises(ArgumentError, match="not 'random'"):
            random_generator(SMALL).synthesize(w, "random")
        with pytest.raises(ArgumentError, match=r"a tensor \(1, 2704\), not \(2, 2704\)"):
            random_generator(SMALL).synthesize(w, torch.zeros(2, SMALL.noise_size))
