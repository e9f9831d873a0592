"""Readers of words from folders of transformers and open_clip, and their calibrations."""

import json
import re
import shutil
import sys
import threading

import pytest
import torch

from energyql.attributes.pictures import PictureBank
from energyql.attributes.quality import HeadReport
from energyql.attributes.words import (
    CALIBRATIONS,
    Calibration,
    DualEncoder,
    OpenClip,
    Words,
    open_words,
    reads_words,
    with_texts,
)
from energyql.errors import ArgumentError, ModelError
from energyql.pipeline.model import judge_mark, load_model
from energyql.vocabulary import AttributeSpec, Vocabulary

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
WORDS = ["<pad>", "<unk>", "a", "picture", "person", "hat", "in"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A dual encoder of transformers with random weights: pictures of 16 x 16 pixels, texts of at most 6 words."""
    path = tmp_path_factory.mktemp("reader")
    layers = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    text = {"vocab_size": len(WORDS), "max_position_embeddings": 6, "pad_token_id": 0, "bos_token_id": None}
    config = transformers.SiglipConfig(
        text_config=layers | text | {"eos_token_id": None}, vision_config=layers | {"image_size": 16, "patch_size": 8}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.SiglipModel(config).save_pretrained(path)
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: i for i, word in enumerate(WORDS)}, "<unk>"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", unk_token="<unk>").save_pretrained(
        path
    )
    (path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    return path


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def test_a_folder_of_transformers_reads_as_its_library_does(folder):
    pictures = torch.rand(3, 3, 16, 16) * 2 - 1
    texts = ["a person in a hat", "a picture"]
    words = open_words(str(folder), judge_mark)
    network = transformers.AutoModel.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(texts, padding="max_length", max_length=6, return_tensors="pt")
    with torch.no_grad():
        expected = network(pixel_values=pictures, **tokens).logits_per_image
        torch.testing.assert_close(words.reader.read(pictures, texts), expected)
        one = words.log_odds(pictures, texts[:1])
        torch.testing.assert_close(one[:, 0], expected[:, 0] - expected[:, 1])
        torch.testing.assert_close(words.log_odds(words.reader.embed(pictures), texts[:1], embedded=True), one)
    assert words.log_odds(torch.rand(2, 1, 40, 40), texts).shape == (2, 2)


def test_a_text_that_is_too_long_for_the_network(folder):
    with pytest.raises(ArgumentError, match="longer than the 6 tokens that the reader reads"):
        open_words(folder, judge_mark).log_odds(torch.zeros(1, 3, 16, 16), ["a person in a hat in a picture"])


@pytest.mark.parametrize(("change", "message"), [
    (lambda path: (path / "model.safetensors").rename(path / "pytorch_model.bin"), "may be a pickle"),
    (lambda path: (path / "modeling.py").write_text(""), "is code, which is not run"),
    (lambda path: (path / "tokenizer.json").unlink(), "has no tokenizer"),
    (lambda path: (path / "model.safetensors").write_bytes(b"x"), "cannot read the reader"),
    (lambda path: (path / "config.json").unlink(), "has neither config.json"),
    (lambda path: _write(path / "config.json", auto_map={"AutoModel": "evil.Model"}), "names code, which is not run"),
    (lambda path: _write(path / "config.json", model_type="unheard-of"), "cannot read the reader"),
    (lambda path: transformers.BertModel(transformers.BertConfig(
        vocab_size=7, hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4,
    )).save_pretrained(path), "holds a BertModel, which does not compare pictures with texts"),
])  # fmt: skip
def test_folders_that_are_refused(copy, change, message):
    change(copy)
    with pytest.raises(ModelError, match=message):
        open_words(copy, judge_mark)


MEAN, STD, SIZE = "three numbers in [0, 1]", "three numbers above 0", "a whole number above 0, or a list of two"


@pytest.mark.parametrize(("name", "text", "place", "expected"), [
    *(("preprocessor_config.json", f'{{"image_mean": {text}}}', "image_mean", MEAN) for text in (
        "[0.5, 0.5]", '"grey"', "[0.5, 0.5, NaN]", "[0.5, 0.5, 127.5]", "[[0.5], [0.5], [0.5]]", "0", "[]",
        '{"red": 0.5}', "[true, 0.5, 0.5]",
    )),
    *(("preprocessor_config.json", f'{{"image_std": {text}}}', "image_std", STD) for text in (
        "[0.5, 0.5, 0]", "[0.5, -0.5, 0.5]", "[0.5, 0.5, Infinity]", "[NaN, NaN, NaN]", '["0.5", "0.5", "0.5"]',
    )),
    *(("config.json", f'{{"vision_config": {{"image_size": {text}}}}}', "vision_config.image_size", SIZE) for text in (
        "0", "-16", "16.5", '"large"', "[16]", "[16, 0]", "true", "[[16], 16]",
    )),
    ("config.json", '{"vision_config": [16]}', "vision_config", "an object"),
    ("preprocessor_config.json", '{"image_processor": 3}', "image_processor", "an object"),
    ("preprocessor_config.json", '{"image_processor": {"image_mean": 3}}', "image_processor.image_mean", MEAN),
    ("open_clip_config.json", '{"preprocess_cfg": {"mean": [0.5]}}', "preprocess_cfg.mean", MEAN),
    ("open_clip_config.json", '{"preprocess_cfg": {"std": [0, 0, 0]}}', "preprocess_cfg.std", STD),
    ("open_clip_config.json", '{"preprocess_cfg": []}', "preprocess_cfg", "an object"),
    ("open_clip_config.json", '{"model_cfg": {"vision_cfg": 3}}', "vision_cfg", "an object"),
    (
        "open_clip_config.json", '{"model_cfg": {"vision_cfg": {"image_size": []}}}',
        "model_cfg.vision_cfg.image_size", SIZE,
    ),
])  # fmt: skip
def test_wrong_settings_of_pictures_are_refused_by_their_file(tmp_path, name, text, place, expected):
    """The folder has no weights, so the settings are looked at first."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_text(text)
    with pytest.raises(ModelError, match=re.escape(f"{tmp_path / name}: {place} must be {expected}, not ")) as caught:
        open_words(tmp_path, judge_mark)
    assert "correct the file" in caught.value.hint


@pytest.mark.parametrize("text", ["[0.5, 0.5, 0.5]", "3", '{"image_mean": ', "[" * 100_000])
@pytest.mark.parametrize("name", ["preprocessor_config.json", "config.json", "open_clip_config.json"])
def test_a_file_of_settings_that_is_no_object_is_refused(copy, name, text):
    (copy / name).write_text(text)
    with pytest.raises(ModelError, match=re.escape(str(copy / name))):
        open_words(copy, judge_mark)


def test_settings_of_pictures_may_be_missing_or_nested(copy):
    _write(copy / "preprocessor_config.json", image_mean=None, image_std=None)
    reader = open_words(copy, judge_mark).reader
    assert (reader.mean, reader.std) == (None, None)
    (copy / "preprocessor_config.json").unlink()
    (copy / "processor_config.json").write_text('{"image_processor": {"image_mean": [0, 0.5, 1], "image_std": null}}')
    reader = open_words(copy, judge_mark).reader
    assert (reader.mean, reader.std) == ([0, 0.5, 1], None)
    assert reader.read(torch.zeros(1, 3, 16, 16), ["a hat"]).isfinite().all()


def _write(path, **entries):
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_what_is_no_reader(tmp_path):
    assert not reads_words("module:factory") and not reads_words(len) and reads_words(tmp_path)
    with pytest.raises(ArgumentError, match="there is no reader at"):
        open_words(str(tmp_path / "missing"), judge_mark)
    with pytest.raises(ArgumentError, match="no method read"):
        load_model("avatars", reader=len)
    with pytest.raises(ArgumentError, match="no method read"):
        load_model("avatars", reader="math:sqrt")


@pytest.mark.parametrize("code", ["Reader", "make_reader", "reader"])
def test_code_that_makes_or_is_a_reader(tmp_path, monkeypatch, code):
    (tmp_path / "my_words.py").write_text(
        "class Reader:\n    def read(self, pictures, texts):\n"
        "        return pictures.mean((1, 2, 3))[:, None] * len(texts[0])\n"
        "def make_reader():\n    return Reader()\nreader = Reader()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_words", raising=False)
    words = open_words(f"my_words:{code}", judge_mark)
    assert words.reader.read(torch.ones(2, 3, 4, 4), ["hat"]).tolist() == [[3.0], [3.0]]


def test_a_folder_of_open_clip(tmp_path):
    open_clip = pytest.importorskip("open_clip")
    safetensors = pytest.importorskip("safetensors.torch")
    vision = {"image_size": 32, "layers": 1, "width": 32, "patch_size": 8, "head_width": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = open_clip.CLIP(16, vision, text).eval()
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    safetensors.save_file(network.state_dict(), tmp_path / "open_clip_model.safetensors")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    words, pictures = open_words(tmp_path, judge_mark), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = OpenClip(network, open_clip.get_tokenizer("ViT-B-32")).read(pictures, ["a hat"])
        torch.testing.assert_close(words.reader.read(pictures, ["a hat"]), expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(ArgumentError, match="longer than the 77 tokens"):
        words.log_odds(pictures, ["hat " * 90])


def test_threads_may_read_different_texts():
    class Network(torch.nn.Module):
        @property
        def logit_scale(self):
            if threading.current_thread() is threading.main_thread():
                thread = threading.Thread(target=reader.score, args=(torch.ones(1, 2), ["another text"]))
                thread.start()
                thread.join()
            return torch.zeros(())

    class Ones(DualEncoder):
        def _encode(self, texts):
            return torch.ones(len(texts), 2)

    reader = Ones(Network(), None)
    assert reader.score(torch.ones(1, 2), ["a text"]).shape == (1, 1)


class Reader:
    def read(self, pictures, texts):
        return torch.ones(len(pictures), len(texts)) * torch.arange(len(texts))


def test_calibrations_are_stored_and_those_of_another_reader_refused(tmp_path):
    report = HeadReport("yes/no", 0, 30, {"no": 15, "yes": 15}, 0.9, (0.8, 1.0), {"yes": (0.9, 0.8, 1.0)}, 0.1)
    calibration = Calibration("a face", 2.0, -1.0, 30, report)
    words = Words(Reader(), "reader", "1", {"a hat": calibration})
    words.save(tmp_path)
    again = Words(Reader(), "reader", "1").stored(tmp_path)
    assert again.calibrations == words.calibrations
    uncalibrated, other = (
        Words(Reader(), "reader", "1"),
        Words(Reader(), "reader", "1", {"a hat": Calibration("a face")}),
    )
    assert uncalibrated.calibrated_mark == "1"
    assert (
        len({"1", other.calibrated_mark, words.calibrated_mark}) == 3 and again.calibrated_mark == words.calibrated_mark
    )
    assert again.log_odds(torch.zeros(1, 3, 2, 2), ["a hat"]).item() == 2 * (0 - 1) - 1
    assert str(again.calibration("a hat")).startswith("calibrated on 30 labels, balanced accuracy 0.90")
    assert str(again.calibration("a beard")) == "zero-shot"
    with pytest.raises(ModelError, match="is of another reader than reader, or the reader changed"):
        Words(Reader(), "reader", "2").stored(tmp_path)
    (tmp_path / CALIBRATIONS).write_text('{"reader": "1", "texts": {"a hat": {}}}')
    with pytest.raises(ModelError, match=CALIBRATIONS):
        Words(Reader(), "reader", "1").stored(tmp_path)


def test_a_reader_that_changed_has_another_mark(copy):
    mark = open_words(copy, judge_mark).mark
    _write(copy / "preprocessor_config.json", image_mean=[0.4] * 3)
    assert open_words(copy, judge_mark).mark != mark


def test_texts_beside_a_reader_of_pictures_leave_its_bank_as_it_is():
    bank = PictureBank(lambda pictures: {}, Vocabulary([AttributeSpec("smile", "yes/no")]))
    more = with_texts(bank, Words(object(), "reader", ""), ["a hat"], lambda: pytest.fail("no heads"))
    assert list(more.vocabulary) == ["smile", "a hat"]
    assert bank.reads_pictures and more.reads_pictures
