import pytest
import torch

from benchmarks.emulated import DEVICE, MISSING, emulated
from energyql.numerics.pool import to_cpu


def test_tensors_on_the_cpu_are_not_copied():
    tensors = [torch.ones(3), torch.zeros(2, dtype=torch.int64)]
    assert all(moved is tensor for moved, tensor in zip(to_cpu(tensors), tensors, strict=True))


@pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
def test_tensors_of_a_device_are_moved_by_one_transfer():
    tensors = [
        torch.rand(3, 5)[:, 1], torch.rand(1, 5)[:, 2], torch.tensor(True), torch.arange(7), torch.rand(2, 3).t(),
        torch.zeros(0, 4), torch.rand(3).double(), torch.rand(5).bfloat16(),
    ]  # fmt: skip
    with emulated() as log:
        there = [tensor.to(DEVICE) for tensor in tensors]
        moved = to_cpu(there)
        assert log.waits == 1
    for one, tensor in zip(moved, tensors, strict=True):
        assert one.dtype == tensor.dtype
        assert torch.equal(one, tensor)


@pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
def test_tensors_of_several_devices():
    with emulated():
        one, two = to_cpu([torch.ones(3).to(DEVICE), torch.zeros(2)])
    assert (one.device.type, two.device.type) == ("cpu", "cpu")
    assert torch.equal(one, torch.ones(3))
