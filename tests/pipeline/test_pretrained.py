"""Models as folders that hubs read, and their cards."""

import io
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hub_server import NAME, same_pictures
from needed import needed
from PIL import Image
from toys import tiny_model

from energyql import ArgumentError, Model, ModelError, load_model
from energyql.attributes.quality import HeadReport, Ranking
from energyql.files import fingerprint
from energyql.models import hub as hub_module

LIBRARY, CONSTANTS = needed("huggingface_hub"), needed("huggingface_hub.constants")
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of huggingface_hub's own calls


def test_a_folder(tiny, tmp_path):
    model = load_model(tiny)
    saved = model.save_pretrained(tmp_path / "copy")
    again = Model.from_pretrained(saved)
    assert same_pictures(model, again)
    assert again.fingerprints["generator"] == model.fingerprints["generator"]  # in half precision, as it was
    assert again.bank.generator == again.fingerprints["generator"]
    assert (again.name, again.truncation, again.vocabulary) == (model.name, model.truncation, model.vocabulary)
    assert {path.suffix for path in saved.iterdir()} == {".json", ".safetensors", ".md"}


def test_weights_that_need_full_precision(tiny, tmp_path):
    model = load_model(tiny)
    model.generator.mapping.fc0.weight.add_(1e-5)
    again = Model.from_pretrained(model.save_pretrained(tmp_path / "copy"))
    assert torch.equal(again.generator.mapping.fc0.weight, model.generator.mapping.fc0.weight)
    assert same_pictures(model, again)


def test_what_was_changed_in_memory_is_saved(tiny, tmp_path):
    model = load_model(tiny)
    ranking = {"yes": Ranking((0.97, 0.9, 0.99), (0.8, 0.7, 0.9), 0.5)}
    report = HeadReport("yes/no", 900, 100, {"yes": 500, "no": 500}, 0.9, (0.85, 0.95), {}, 0.02, ranking=ranking)
    changed = replace(model, bank=model.bank.with_reports({"smile": report}), judge=None, name="other", truncation=0.6)
    again = load_model(changed.save_pretrained(tmp_path / "copy"))
    assert (again.name, again.truncation, again.judge) == ("other", 0.6, None)
    assert again.report["smile"].score == 0.9
    assert again.report["smile"].ranking == ranking
    card = (tmp_path / "copy" / "README.md").read_text()
    assert "| balanced accuracy 0.90 (0.85 to 0.95), AUC 0.97 (0.90 to 0.99), lift 1.6 (1.4 to 1.8) |" in card


def test_an_earlier_model_is_replaced_and_other_files_stay(tiny, tmp_path):
    load_model(tiny).save_pretrained(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "holiday.png").write_bytes(b"mine")
    replace(load_model(tiny), judge=None).save_pretrained(tmp_path)
    assert not (tmp_path / "judge.safetensors").exists()
    assert (tmp_path / "notes.txt").exists()
    assert (tmp_path / "holiday.png").exists()


def test_a_readme_of_something_else_is_left_alone(tiny, tmp_path):
    (tmp_path / "README.md").write_text("# My project")
    with pytest.raises(ArgumentError, match=r"README\.md is another text than the card of a model\nchoose another"):
        load_model(tiny).save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("config.json", '{"architectures": ["Bert"]}'),
        ("config.json", '{"format": 1}'),
        ("config.json", "[]"),
        ("report.json", "{}"),
        ("generator.safetensors", "mine"),
        ("card.md", "mine"),
    ],
)
def test_files_of_something_else_are_left_alone(hub, contents, tiny, tmp_path, file, text):
    (tmp_path / file).write_text(text)
    said = f"holds a {file} that is not of a model of energyql, and it would be lost\nchoose another"
    with pytest.raises(ArgumentError, match=said):
        load_model(tiny).save_pretrained(tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(file, text)]
    hub.add("me/old", {file: text.encode()})
    with pytest.raises(ArgumentError, match=f"me/old {said}"):
        load_model(tiny).push_to_hub("me/old")
    assert hub.repos["me/old"].files == {file: text.encode()}


def test_a_readme_of_something_else_on_a_hub(hub, tiny, contents, tmp_path):
    hub.add("me/old", {"README.md": b"# Mine"})
    with pytest.raises(ArgumentError, match=r"me/old/README\.md is another text than the card of a model"):
        load_model(tiny).push_to_hub("me/old")
    assert hub.repos["me/old"].files == {"README.md": b"# Mine"}
    hub.add(NAME, contents)
    (tmp_path / "README.md").write_text("# Mine")
    with pytest.raises(ArgumentError, match=r"README\.md is another text than the card of a model"):
        hub_module.download_to(tmp_path, NAME)


PICTURE = io.BytesIO()
Image.new("RGB", (4, 4)).save(PICTURE, "PNG")


def test_links_out_of_a_folder_are_not_followed(tmp_path):
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "secret.png").write_bytes(PICTURE.getvalue())
    folder = tiny_model(tmp_path / "snapshots" / "m")
    (folder / "card.md").symlink_to(tmp_path / "secret")
    assert "secret" not in (load_model(folder).save_pretrained(tmp_path / "a") / "README.md").read_text()
    assert not (tmp_path / "a" / "card.md").exists()
    (folder / "card.md").unlink()
    (folder / "card.md").write_text("# M\n![](x.png) ![](text.png) ![](inner.png) ![](pipe.png) ![](big.png)")
    (folder / "x.png").symlink_to(tmp_path / "secret.png")
    (folder / "text.png").write_text("secret")
    (folder / "inside").mkdir()
    (folder / "inside" / "y.png").write_bytes(PICTURE.getvalue())
    (folder / "inner.png").symlink_to(Path("inside") / "y.png")
    os.mkfifo(folder / "pipe.png")
    with (folder / "big.png").open("wb") as file:
        file.write(PICTURE.getvalue())
        file.truncate((1 << 24) + 1)
    saved = load_model(folder).save_pretrained(tmp_path / "b")
    assert [path.name for path in saved.glob("*.png")] == ["inner.png"]
    assert not (saved / "inner.png").is_symlink()


def test_the_card_and_the_licence_of_a_download(hub, tiny, contents, tmp_path):
    hub.add("me/first", contents | {"card.md": b"# Mine"})
    first = Model.from_pretrained("me/first")
    first.push_to_hub("me/second", license="cc-by-nc-4.0")
    hub_module.download_to(tmp_path / "copy", "me/second")
    for again in (Model.from_pretrained("me/second"), load_model(tmp_path / "copy")):
        again.push_to_hub("me/third")
        assert 'license: "cc-by-nc-4.0"' in hub.repos["me/third"].files["README.md"].decode()
        assert hub.repos["me/third"].files["card.md"] == b"# Mine"
    again.push_to_hub("me/third", license="mit")
    assert 'license: "mit"' in hub.repos["me/third"].files["README.md"].decode()


def test_facts_of_cards():
    def card(fact, name="energyql"):
        return f"---\nlibrary_name: {name}\n{fact}\n---\n\nlicense: mit\n".encode()

    assert hub_module.card_licence(card("license: cc-by-4.0")) == "cc-by-4.0"  # as hubs write it again
    assert hub_module.card_licence(card('license: "mit"', '"energyql"')) == "mit"
    assert hub_module.card_licence(card("tags: x")) is None
    assert hub_module.card_licence(card("license: mit", "other")) is None


def test_the_origin_stays_with_the_weights(tmp_path):
    folder = tiny_model(tmp_path / "m")
    (folder / "card.md").write_text("# Mine")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"source": {"file": "a.pkl"}}))

    def saved(model, name):
        written = model.save_pretrained(tmp_path / name)
        return json.loads((written / "config.json").read_text()).get("source"), (written / "card.md").exists()

    model = load_model(folder)
    assert saved(model, "a") == ({"file": "a.pkl"}, True)
    other = load_model(folder).generator
    other.mapping.fc0.weight.add_(1)
    assert saved(replace(model, generator=other), "b") == (None, False)
    (folder / "config.json").write_text(json.dumps(config | {"source": "a.pkl"}))
    assert saved(model, "c") == (None, True)
    folder.rename(tmp_path / "elsewhere")
    assert saved(model, "d") == (None, False)
    assert load_model(tmp_path / "d").fingerprints["generator"] == model.fingerprints["generator"]


def test_the_packaged_model_with_its_card(tmp_path):
    model = load_model("postcards")
    folder = model.save_pretrained(tmp_path / "postcards", license="apache-2.0")
    assert load_model(folder).fingerprints == model.fingerprints
    assert (folder / "card.md").read_text() == (model.folder / "card.md").read_text()
    assert {path.name for path in folder.glob("*.png")} == {path.name for path in model.folder.glob("*.png")}


def test_the_card(tiny, tmp_path):
    yaml = needed("yaml")
    folder = load_model(tiny).save_pretrained(tmp_path / "m", license="cc-by-4.0")
    front, body = (folder / "README.md").read_text().removeprefix("---\n").split("\n---\n", 1)
    facts = yaml.safe_load(front)
    assert facts == {
        "library_name": "energyql",
        "license": "cc-by-4.0",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["energyql", "stylegan2", "controllable-generation", "energy-based-model"],
    }
    assert body.startswith("\n# tiny\n")
    assert "| `hair` | categorical | black, brown, dark red |  | not measured |" in body
    assert fingerprint(folder / "generator.safetensors") in body
    assert LIBRARY.ModelCard(content=(folder / "README.md").read_text()).data.library_name == "energyql"
    namespace = {}
    code = body.split("```python\n")[1].split("```")[0].replace("16", "1").replace('"owner/name"', repr(str(folder)))
    exec(code, namespace)  # the card's own example
    assert namespace["model"].name == "tiny"


@pytest.mark.parametrize("part", ["generator", "judge"])
def test_code_is_not_saved(tiny, tmp_path, part):
    class Code:
        z_dim = 8

        def encode(self, z, truncation=1.0):
            return truncation * z

        def synthesize(self, w):
            return w[:, :3, None, None]

    def look(images):
        return {"smile": torch.zeros(len(images))}

    model = replace(load_model(tiny), **{part: Code() if part == "generator" else look})
    with pytest.raises(ModelError, match="a Code cannot be written" if part == "generator" else "look is code"):
        model.save_pretrained(tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_revision_of_a_folder(tiny):
    with pytest.raises(ArgumentError, match=r"is on no hub, so it has no revision 'v1'\nleave out revision"):
        Model.from_pretrained(tiny, revision="v1")
