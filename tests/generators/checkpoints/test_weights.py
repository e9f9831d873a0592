import argparse

import numpy as np
import pytest
import torch
from attack import Attack

import energyql
from energyql.errors import ModelError
from energyql.generators.checkpoints.torch_file import MAX_DEPTH, read_weights


@pytest.mark.parametrize("zipped", [True, False])
def test_what_was_saved_is_read(tmp_path, zipped):
    network = torch.nn.Sequential(torch.nn.ConvTranspose2d(3, 4, 4), torch.nn.BatchNorm2d(4))
    content = {
        "netG_state_dict": network.state_dict(),
        "optimizer": {"state": {0: {"step": 7}}, "groups": [(0.9, 0.999), None, True]},
        "half": torch.arange(6.0).half().reshape(2, 3).T,
        "mean": np.arange(4.0),
        "args": argparse.Namespace(lr=0.002, name="run"),
        "device": torch.device("cpu"),
        "type": torch.float16,
    }
    path = tmp_path / "weights.tar"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    read = read_weights(str(path))
    other = torch.nn.Sequential(torch.nn.ConvTranspose2d(3, 4, 4), torch.nn.BatchNorm2d(4))
    other.load_state_dict(read["netG_state_dict"])
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in other.state_dict().items())
    assert read["optimizer"] == content["optimizer"]
    assert torch.equal(read["half"], content["half"])
    assert read["half"].dtype == torch.float16
    assert (read["mean"] == content["mean"]).all()
    assert read["args"] == {"lr": 0.002, "name": "run"}
    assert (read["device"], read["type"]) == ("torch.device(cpu)", "torch.float16")


def test_it_is_a_copy(tmp_path):
    torch.save({"a": torch.zeros(3), "b": np.zeros(3)}, tmp_path / "w.pt")
    before = (tmp_path / "w.pt").read_bytes()
    read = energyql.read_weights(tmp_path / "w.pt")
    read["a"] += 1
    read["b"] += 1
    assert (tmp_path / "w.pt").read_bytes() == before


def itself():
    content = []
    content.append(content)
    return content


def laughs():
    content = ["ha"]
    for _ in range(MAX_DEPTH - 2):
        content = [content, content]
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Attack(), r"it names .*system"),
        (torch.nn.Linear(2, 2), r"it names .*Linear"),
        (itself(), "one holds itself"),
        (laughs(), "takes more than 300000 operations"),
        (torch.zeros(1).expand(10**6), "does not fit its storage"),
        (list(torch.zeros(1, 900).expand(20, -1)), "larger than the file"),
    ],
)
def test_what_is_refused(unharmed, content, message):
    torch.save(content, "w.pt")
    with pytest.raises(ModelError, match=r"cannot read w\.pt: .*" + message):
        read_weights("w.pt")


def test_other_files(tmp_path):
    with pytest.raises(ModelError, match=r"no\.pt is missing"):
        read_weights(tmp_path / "no.pt")
    (tmp_path / "w.pt").write_text("hello")
    with pytest.raises(ModelError, match=r"w\.pt: it is not a file of torch\.save"):
        read_weights(tmp_path / "w.pt")
    torch.save({"a": torch.zeros(3000)}, tmp_path / "cut.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "cut.pt").read_bytes()[:5000])
    with pytest.raises(ModelError, match=r"cut\.pt"):
        read_weights(tmp_path / "cut.pt")
