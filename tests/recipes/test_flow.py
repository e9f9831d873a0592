import os
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch

from energyql.attributes.judge import Judge
from recipes.avatars import drawing
from recipes.avatars.vocabulary import VOCABULARY
from recipes.common import judging, loop

pytest.importorskip("transformers")
diffusers = pytest.importorskip("diffusers")

from recipes.flow import make, networks, readers, training  # noqa: E402
from recipes.flow.captions import DROPPED, MOST_NAMED, PHRASES, SUBJECT, captions, classes, stated, tokenizer  # noqa: E402
from recipes.flow.card import agreement, draw  # noqa: E402
from recipes.flow.networks import LATENT, SIDE, STEPS  # noqa: E402
from recipes.flow.readers import GUIDE, JUDGE, decoder  # noqa: E402
from recipes.flow.training import Flow, cross, render  # noqa: E402

SCALE = 1e-3
LOADING = "ignore::DeprecationWarning"


@contextmanager
def small():
    """Networks and batches that take milliseconds; the state is written after every step."""
    sizes = {
        networks: {"WIDTH": 32, "TEXT_WIDTH": 32, "LAYERS": 1, "CHANNELS": (8, 8, 8, 16)},
        drawing: {"OVERSAMPLING": 1, "_png": drawing._png.__wrapped__},  # the cached ones have all pixels
        judging: {"AT_ONCE": 16},
        training: {"BATCH": 4, "AUTOENCODER_BATCH": 2, "CHUNK": 3_000, "BANK": 9_000},
        make: {"CHUNK": 3_000},
        readers: {"BATCH": 4, "STEPS": 4_000},
        loop: {"SAVED_EVERY": 0.0},
    }
    with pytest.MonkeyPatch.context() as patch:
        for module, values in sizes.items():
            for name, value in values.items():
                patch.setattr(module, name, value)
        yield


def weights(folder):
    """All files that a run has made, but not its states."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and make.STATES not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


class Stop(Exception):
    pass


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flow")
    with small():
        make.make(folder, scale=SCALE)
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings(LOADING)
def test_an_interrupted_run_continues_to_the_same_files(made, tmp_path, monkeypatch, capsys):
    """Each run is stopped in the middle of another stage."""
    said = make.Log.__call__
    stages = ["autoencoder", "latents", "flow", "student", "guide", "judge"]
    parts = tmp_path / "parts"
    for stop in stages:

        def call(log, stage, fraction, loss, stop=stop):
            said(log, stage, fraction, loss)
            if stage == stop and 0.3 < fraction < 1:
                raise Stop

        monkeypatch.setattr(make.Log, "__call__", call)
        with small(), pytest.raises(Stop):
            make.make(parts, scale=SCALE)
    monkeypatch.setattr(make.Log, "__call__", said)
    capsys.readouterr()
    with small():
        make.make(parts, scale=SCALE)
    assert weights(parts) == weights(made)
    lines = capsys.readouterr().out.splitlines()
    assert {line.partition(":")[0] for line in lines} == set(stages)
    assert next(line for line in lines if line.startswith("judge")).startswith("judge: 75.0%")  # 2 of 4 were there


@pytest.mark.filterwarnings(LOADING)
def test_diffusers_loads_the_folder_and_draws_what_we_measure(made):
    pipe = diffusers.DiffusionPipeline.from_pretrained(made / make.FLOW)
    pipe.set_progress_bar_config(disable=True)
    texts = ["a person with glasses, red hair", ""]
    noise = torch.randn(2, *LATENT, generator=torch.Generator().manual_seed(1))

    def pictures(texts, noise, **settings):
        call = {"guidance_scale": 1.0, "height": SIDE, "width": SIDE, "use_resolution_binning": False} | settings
        drawn = pipe(
            texts, latents=noise, num_inference_steps=STEPS, complex_human_instruction=None, output_type="pt", **call
        )
        return drawn.images * 2 - 1

    drawn = pictures(texts, noise)
    flow = Flow(pipe.transformer, pipe.text_encoder, pipe.tokenizer)
    torch.testing.assert_close(drawn, draw(flow, pipe.vae, noise, texts, steps=0), atol=1e-5, rtol=0)
    torch.testing.assert_close(drawn[:1], pictures(texts[:1], noise[:1], max_sequence_length=20), atol=1e-5, rtol=0)
    assert pipe.scheduler.sigmas.tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert not torch.equal(drawn[1:], pictures(["a hat"], noise[1:]))
    assert pictures(["a hat"], noise[1:], guidance_scale=2.0, negative_prompt="glasses").shape == (1, 3, SIDE, SIDE)
    size = sum(path.stat().st_size for path in (made / make.FLOW).rglob("*.safetensors"))
    assert size < 20e6


@pytest.mark.filterwarnings(LOADING)
def test_the_guide_and_the_judge_are_two_networks(made):
    guide, judge = (Judge.load(made, reader.name) for reader in (GUIDE, JUDGE))
    assert list(guide.vocabulary) == list(judge.vocabulary) == list(VOCABULARY)
    assert guide.body.channels != judge.body.channels
    assert GUIDE.seed != JUDGE.seed
    pictures = torch.zeros(2, 3, SIDE, SIDE)
    assert not torch.equal(guide(pictures)["hat"].logit, judge(pictures)["hat"].logit)
    card = (made / "card.md").read_text()
    assert all(f"| {name} | " in card for name in VOCABULARY)


@pytest.mark.slow
def test_another_process_knows_the_states_of_this_one(capfd):
    """Sets of strings have another order in every process, and some settings of diffusers come from one."""
    code = "from recipes.flow import training; training.train = lambda *rest, identity, **more: print(identity)\n"
    code += "training.train_autoencoder(training.Path(), 1.0, print)"
    for seed in "12":
        subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, check=True)
    first, second = capfd.readouterr().out.split()
    assert first == second
    assert len(first) == 64


def test_sizes_of_the_networks():
    flow = training.new_flow()
    parts = [flow.transformer, flow.text_encoder, networks.autoencoder()]
    assert sum(part.num_parameters() for part in parts) * 2 < 20e6


def test_captions_agree_with_the_factors():
    _, labels = render(600, torch.Generator().manual_seed(3))
    facts = classes(labels)
    texts = captions(facts, torch.Generator().manual_seed(4))
    named, absent, present = [], 0, 0
    for i, text in enumerate(texts):
        for name, place in stated(text).items():
            value = labels[name][i].item()
            if VOCABULARY[name].kind == "continuous":
                assert place / 3 <= value <= (place + 1) / 3
            else:
                assert place == value
            present += VOCABULARY[name].kind == "yes/no" and place == 1
            absent += VOCABULARY[name].kind == "yes/no" and place == 0
        named.append(len(stated(text)))
    assert 0.5 * DROPPED < texts.count("") / 600 < 2 * DROPPED
    assert SUBJECT in texts
    assert max(named) <= len(PHRASES)
    assert 0.5 < sum(named) / 600 / (len(PHRASES) * MOST_NAMED / 2) < 1
    yes_no = [name for name in PHRASES if VOCABULARY[name].kind == "yes/no"]
    rate = present / sum(labels[name].sum().item() for name in yes_no)
    assert absent / sum((1 - labels[name]).sum().item() for name in yes_no) < 0.6 * rate
    phrases = {phrase for text in texts for phrase in text.partition(" with ")[2].split(", ")} - {""}
    assert phrases == {phrase for options in PHRASES.values() for phrase in options}


def test_every_attribute_and_class_has_a_phrase():
    assert set(PHRASES) == set(VOCABULARY)
    for name, phrases in PHRASES.items():
        spec = VOCABULARY[name]
        assert len(phrases) == {"yes/no": 2, "continuous": 3}.get(spec.kind, len(spec.values or ()))
    everything = [phrase for phrases in PHRASES.values() for phrase in phrases]
    assert len(set(everything)) == len(everything)


def test_the_tokenizer_knows_all_words_of_captions():
    words = tokenizer()
    facts = classes(render(100, torch.Generator().manual_seed(3))[1])
    texts = captions(facts, torch.Generator().manual_seed(4))
    tokens = words(texts, padding=True)["input_ids"]
    assert all(words.unk_token_id not in row for row in tokens)
    assert len(tokens[0]) <= words.model_max_length
    longest = f"{SUBJECT} with {', '.join(max(phrases, key=len) for phrases in PHRASES.values())}"
    assert len(words(longest)["input_ids"]) <= words.model_max_length
    assert words("A Person, with glasses!")["input_ids"] == words("a person with glasses")["input_ids"]
    assert words("")["input_ids"] == [words.bos_token_id]
    assert words("a spaceship")["input_ids"][2] == words.unk_token_id


class Straight:
    """A flow whose velocity is known: the same everywhere, and twice as large with a caption."""

    def read(self, texts):
        return torch.tensor([[[2.0 if text else 1.0]] for text in texts]), torch.ones(len(texts), 1)

    def velocity(self, x, sigma, states, mask):
        return x / x * states[:, :, :, None] * 2 * sigma[:, None, None, None]


def test_guidance_applies_to_captioned_rows_only():
    x, one = torch.rand(2, *LATENT) + 10, torch.ones(2)
    end = cross(Straight(), x, one, 0 * one, ["a hat", ""], 3, 1.5)
    torch.testing.assert_close(x[0] - end[0], torch.full(LATENT, 2.5))  # 1 + 1.5 (2 - 1)
    torch.testing.assert_close(x[1] - end[1], torch.ones(LATENT))
    half = cross(Straight(), x, one, one / 2, ["a hat", ""], 1, 1.0)
    torch.testing.assert_close(x[0] - half[0], torch.full(LATENT, 1.5))


def test_readers_are_asked_about_stated_facts_only():
    class Sure:
        def __call__(self, pictures):
            numbers = {name: torch.zeros(2) for name in VOCABULARY} | {"hat": torch.ones(2)}
            return {name: type("Read", (), {"number": lambda self, x=x: x})() for name, x in numbers.items()}

    facts, whole = agreement(Sure(), torch.zeros(2, 3, 8, 8), ["a person with a hat, glasses", "a person"])
    assert (facts, whole) == (0.5, 0.5)


def test_decoded_latents_have_the_labels_of_their_row():
    bank = training.Bank(
        torch.arange(5.0)[:, None, None, None].expand(-1, *LATENT),
        {name: torch.arange(5.0) for name in VOCABULARY},
    )

    class Plain:
        config = type("Config", (), {"scaling_factor": 5.0})()

        def decode(self, latents, return_dict):
            return (latents[:, :3],)

    pictures, labels = decoder(Plain(), bank, 0.0)(12, torch.Generator().manual_seed(0))
    torch.testing.assert_close(pictures[:, 0, 0, 0] * 5, labels["hat"])
    first, others = bank.split(2)
    assert torch.equal(torch.cat([first.latents, others.latents]), bank.latents)
    assert others.labels["hat"].tolist() == [2.0, 3.0, 4.0]
