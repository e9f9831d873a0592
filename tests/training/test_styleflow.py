import pickle
from contextlib import suppress

import numpy as np
import pytest
import torch
from attack import Attack
from labelled import COLUMNS, answers, write_styleflow

from energyql.attributes.labels import encode_column
from energyql.errors import DataError, ModelError
from energyql.training.foreign import read_styleflow


def latents(count=40, size=6):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("numpy_cells", [False, True])
def test_every_protocol(tmp_path, protocol, numpy_cells):
    w = latents()
    table = read_styleflow(write_styleflow(tmp_path, w, protocol=protocol, numpy_cells=numpy_cells))
    assert torch.equal(table.latents, w)
    assert table.test == 4
    assert list(table.columns) == COLUMNS
    for name, expected in answers(w).items():
        encoded = encode_column(table.columns[name], table.vocabulary[name])
        missing = (torch.arange(40) + COLUMNS.index(name)) % 10 == 0
        assert torch.equal(encoded.isnan(), missing)
        torch.testing.assert_close(encoded[~missing], torch.tensor(expected).float()[~missing])


def test_kinds(tmp_path):
    vocabulary = read_styleflow(write_styleflow(tmp_path, latents())).vocabulary
    assert {name for name, spec in vocabulary.items() if spec.kind == "yes/no"} == {
        "smile",
        "gender",
        "beard",
        "glasses",
    }
    assert vocabulary["haircolor"].values == ("0", "1", "2", "3", "4")
    assert (vocabulary["age"].kind, vocabulary["age"].low, vocabulary["age"].high) == ("continuous", 0, 1)


def test_some_attributes(tmp_path):
    folder = write_styleflow(tmp_path, latents())
    assert list(read_styleflow(folder, ["age", "glasses"]).columns) == ["age", "glasses"]
    with pytest.raises(DataError, match="no labels for 'hat'.*\n.*glasses"):
        read_styleflow(folder, ["hat"])


def rewritten(folder, **content):
    write_styleflow(folder, latents())
    for name, value in content.items():
        (folder / f"{name}.pickle").write_bytes(value if isinstance(value, bytes) else pickle.dumps(value))
    return folder


def objects(*rows):
    table = np.empty((len(rows), 21), dtype=object)
    for i, row in enumerate(rows):
        for j in range(21):
            table[i, j] = row
    return table


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"all_latents": Attack()}, r"all_latents\.pickle: it names .*system"),
        ({"att_light": {"att_light": [Attack()]}}, r"att_light\.pickle: it names .*system"),
        ({"att_light": {"att_light": [objects(*[[1]] * 40)]}}, "a label of 'width' is a list"),
        ({"all_latents": {"latent": 1}}, "it has no Latent"),
        ({"all_latents": {"Latent": objects(1, 2)}}, "not an array of numbers"),
        ({"all_latents": {"Latent": 3}}, "not an array of numbers"),
        ({"att_light": {"att_light": [np.zeros((40, 20))]}}, "not a table of 21 columns"),
        ({"att_light": {"att_light": []}}, "not a table of 21 columns"),
        ({"att_light": {"att_light": [objects(1, 2)]}}, "40 latents, but labels for 2"),
        ({"att_light": b""}, "it is empty"),
        ({"att_light": b"\x80\x04."}, "damaged"),
        ({"att_light": pickle.dumps({"att_light": [objects(1, 2, 3)]})[:-40]}, r"att_light\.pickle"),
    ],
)
def test_what_is_refused(unharmed, tmp_path, content, message):
    with pytest.raises((ModelError, DataError), match=message):
        read_styleflow(rewritten(tmp_path, **content))


def test_damage_anywhere_is_an_error_of_ours(tmp_path):
    data = (write_styleflow(tmp_path, latents(20)) / "att_light.pickle").read_bytes()
    for at in range(0, 400, 3):
        spoiled = bytearray(data)
        spoiled[at] ^= 0x41
        (tmp_path / "att_light.pickle").write_bytes(bytes(spoiled))
        with suppress(ModelError, DataError):
            read_styleflow(tmp_path)


def test_a_missing_file(tmp_path):
    with pytest.raises(ModelError, match=r"all_latents\.pickle is missing"):
        read_styleflow(tmp_path)


def test_layers_that_differ(tmp_path):
    folder = write_styleflow(tmp_path, latents())
    wplus = np.random.default_rng(0).random((40, 1, 6, 6))
    (folder / "all_latents.pickle").write_bytes(pickle.dumps({"Latent": wplus}))
    with pytest.raises((ModelError, DataError), match=r"differ from layer to layer \(W\+\)"):
        read_styleflow(folder)


def test_numbers_in_another_order_of_memory(tmp_path):
    folder = write_styleflow(tmp_path, latents())
    w = np.asfortranarray(np.repeat(latents().double().numpy()[:, None, None], 3, axis=2))
    (folder / "all_latents.pickle").write_bytes(pickle.dumps({"Latent": w}))
    table = pickle.loads((folder / "att_light.pickle").read_bytes())["att_light"][0]
    (folder / "att_light.pickle").write_bytes(pickle.dumps({"att_light": [np.asfortranarray(table)]}))
    again = read_styleflow(folder)
    assert torch.equal(again.latents, latents())
    assert again.columns["age"][0] == table[0, COLUMNS.index("age")]


def test_scores_of_yes_are_rounded(tmp_path):
    folder = write_styleflow(tmp_path, latents())
    table = pickle.loads((folder / "att_light.pickle").read_bytes())["att_light"][0]
    table[:4, COLUMNS.index("smile")] = [0.2, 0.9, 1.0, None]
    (folder / "att_light.pickle").write_bytes(pickle.dumps({"att_light": [table]}))
    assert read_styleflow(folder).columns["smile"][:4] == [False, True, 1.0, None]
