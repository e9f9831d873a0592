import torch

from energyql.generators.convolution import upsample
from energyql.generators.stylegan2 import StyleGAN2Config, SynthesisNetwork
from recipes.common.muon import Muon, orthogonalized
from recipes.common.training_pass import LARGE, _upsample, draw


def network():
    torch.manual_seed(0)
    made = SynthesisNetwork(StyleGAN2Config(2 * LARGE, z_dim=4, w_dim=8, channel_base=1024, channel_max=16))
    for parameter in made.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.3 * torch.randn(parameter.shape)
    return made


def test_pictures_and_gradients_are_those_of_the_network():
    made = network()
    w = torch.randn(3, 8)
    drawn, expected = draw(made, w), made(w, "none")
    assert ((drawn - expected).norm() / expected.norm()) < 0.02
    kernels = [parameter for parameter in made.parameters() if parameter.ndim == 4]
    weights = torch.randn(drawn.shape)
    found, wanted = (torch.autograd.grad((pictures * weights).sum(), kernels) for pictures in (drawn, expected))
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).norm() < 0.12 * other.norm()


def test_the_small_picture_is_upsampled_as_by_the_network():
    lowpass = network().resample_filter
    image = torch.randn(2, 3, 8, 8)
    assert torch.allclose(_upsample(image, 4 * lowpass), upsample(image, lowpass), atol=1e-5)


def test_orthogonalized_directions_have_about_equal_length_in_all_directions():
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalized(torch.randn(8, 30)))
    assert 0.6 < values.min() <= values.max() < 1.3


def test_the_optimizer_goes_on_from_its_state():
    def trained(states):
        made = network()
        optimizer = Muon(made, 1e-2)
        w = torch.randn(2, 8, generator=torch.Generator().manual_seed(1))
        for step in range(4):
            if step == 2 and states:
                again = Muon(made, 1e-2)
                again.load_state_dict(optimizer.state_dict())
                optimizer = again
            optimizer.zero_grad()
            made(w, "none").square().mean().backward()
            optimizer.step()
        return [parameter.detach().clone() for parameter in made.parameters()]

    for straight, resumed in zip(trained(False), trained(True), strict=True):
        assert torch.equal(straight, resumed)


def test_a_step_lowers_the_loss():
    made, w = network(), torch.randn(4, 8)
    target = torch.zeros(4, 3, 2 * LARGE, 2 * LARGE)
    optimizer = Muon(made, 1e-2)
    losses = []
    for _ in range(6):
        loss = (draw(made, w) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
