"""The case of green ticks: a head at chance must not tick its own pictures."""

import dataclasses
import warnings
from functools import partial

import numpy as np
import pytest
from brief import ADA, train
from labelled import latents_of, write_csv
from PIL import ImageColor
from toys import NeverSampler
from typer.testing import CliRunner

import energyql
from energyql import Gallery, WeakHeadError, load_model
from energyql.attributes.quality import WEAK_HELP
from energyql.cli.main import app
from energyql.errors import ArgumentError, EnergyQLError, UnknownAttribute
from energyql.generators.load import load_generator
from energyql.language import parse
from energyql.language.binder import bind
from energyql.pipeline.checks import check_heads, weak_heads
from energyql.render.pictures import NO, YES
from energyql.training.heads import HeadSettings

ROWS, SEED = 400, 7
QUERY = "dark_bg AND dominant = green"
HELP = EnergyQLError("", hint=WEAK_HELP).hint  # as Python shows it
SETTINGS = HeadSettings(steps=80, hidden=8, batch=128, lr=2e-2, weight_decay=1e-2)


@pytest.fixture(scope="module")
def look():
    """The true labelling function: which pictures are dark, and whether they have more green than most."""
    generator = load_generator(ADA)
    images = generator.synthesize(latents_of(generator, ROWS, 0.7, SEED))
    middle, dark = green(images).median(), images.mean((1, 2, 3)).median()

    def look(images):
        dominant = np.where((green(images) > middle).numpy(), "green", "red")
        return {"dark_bg": images.mean((1, 2, 3)) < dark, "dominant": dominant}

    look.images = images
    return look


def green(images):
    return images[:, 1].mean((1, 2)) - images[:, 0].mean((1, 2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, look):
    """A model trained on a table of 400 rows, whose column `dark_bg` is independent of the pictures."""
    base = tmp_path_factory.mktemp("weak")
    random = np.random.default_rng(0)
    columns = {
        "index": list(range(ROWS)),
        "file": [f"{i:05d}.png" for i in range(ROWS)],
        "dark_bg": random.choice(["yes", "no"], ROWS).tolist(),
        "dominant": look(look.images)["dominant"].tolist(),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return train(
            ADA, write_csv(base / "labels.csv", columns), base / "model", seed=SEED, truncation=0.7, settings=SETTINGS
        ).folder


def draw(model, n=16, query=QUERY, **options):
    return energyql.generate(query, n, model=model, device="cpu", progress=False, **options)


def test_the_report_says_it(folder):
    report = load_model(folder).report
    assert list(report) == ["dark_bg", "dominant"]
    assert (report["dark_bg"].fitted, report["dark_bg"].held_out) == (320, 80)
    low, high = report["dark_bg"].interval
    assert low < 0.5 < high
    assert "is not clearly above chance, 0.50" in report["dark_bg"].weak
    assert report["dark_bg"].ranking["yes"].auc[1] < 0.5 < report["dark_bg"].ranking["yes"].auc[2]
    assert list(report["dominant"].ranking) == ["green", "red"]
    assert report["dominant"].weak is None


def test_queries_refuse_it(folder):
    auc = f"AUC {load_model(folder).report['dark_bg'].auc[0]:.2f} ("
    for call in (draw, energyql.edit):
        arguments = (folder,) if call is draw else (0, QUERY)
        with pytest.raises(WeakHeadError) as refused:
            call(*arguments, **({} if call is draw else {"model": folder, "device": "cpu", "progress": False}))
        assert refused.value.message.startswith(f"the head of 'dark_bg' is too weak for queries: {auc}")
        assert refused.value.query[slice(*refused.value.span)] == "dark_bg"
        give = "if a function defines it, give it: load_model(..., judge=look); " if call is draw else ""
        assert refused.value.hint == (
            f"{give}it was fitted to 320 labels and measured on 80 others. What helps: {HELP}; or allow it by name: "
            "allow_weak=['dark_bg']"
        )
        assert ("give it: --judge module:function; it" in refused.value.for_command_line()) == (call is draw)
        assert refused.value.for_command_line().endswith("allow it by name: --allow-weak dark_bg")
    assert len(draw(folder, 1, "dominant = green")) == 1


def test_where_a_reader_decides_nothing_is_refused(folder, look):
    judged = dataclasses.replace(load_model(folder), judge=look)
    with pytest.raises(WeakHeadError) as refused:
        draw(judged)
    assert refused.value.hint.startswith('let a reader of the pictures decide: verify="sure"; it')
    for call in (partial(draw, judged, verify="off"), partial(energyql.edit, 0, QUERY, model=judged, device="cpu")):
        with pytest.raises(WeakHeadError) as refused:  # an edit has no such setting
            call()
        assert refused.value.hint.startswith("it was fitted to 320 labels")
    result = draw(judged, 4, verify="sure")
    assert result.satisfied.all()
    expr, weak = bind(parse(QUERY), judged.vocabulary), weak_heads(["dark_bg"], judged.report, ())
    assert list(weak) == ["dark_bg"] and not weak_heads(["dark_bg"], judged.report, ["dark_bg"])
    for reads, hint in ((None, "it was fitted to 320 labels"), (["dominant"], "if a function defines it, give it: ")):
        with pytest.raises(WeakHeadError) as refused:
            check_heads(expr, weak, QUERY, reads)
        assert refused.value.hint.startswith(hint)


def test_galleries_refuse_it_before_they_draw(folder):
    for options in ({}, {"allow_weak": ["dominant"]}):
        with pytest.raises(WeakHeadError):
            Gallery(["dominant = green", QUERY], model=folder, sampler=NeverSampler(), progress=False, **options)
    with pytest.raises(WeakHeadError):
        Gallery(model=folder, sampler=NeverSampler(), progress=False).add_traversal("dominant = green", "dark_bg")
    allowed = Gallery([QUERY], n=1, model=folder, allow_weak=["dark_bg"], progress=False)
    assert allowed.summary() == "1 query, 1 picture; not judged: the model has no judge"


def test_relations_pull_it_in(folder):
    model = load_model(folder)
    vocabulary = type(model.vocabulary)(model.vocabulary.values(), relations=["dark_bg IMPLIES dominant = green"])
    bank = model.bank.with_reports(model.bank.reports)
    bank.vocabulary = vocabulary
    related = dataclasses.replace(model, bank=bank)
    assert len(draw(model, 1, "dominant = green")) == 1
    with pytest.raises(WeakHeadError, match="'dark_bg'"):
        draw(related, 1, "dominant = green")


def test_allowed_by_name_it_gets_no_tick(folder):
    result = draw(folder, allow_weak=("dark_bg",))
    numbers = load_model(folder).report["dark_bg"]
    assert result.satisfied is None
    assert result.probability.mean() > 0.5  # what looked like "16 of 16 satisfy"
    assert result.summary().startswith("not judged: the model has no judge; mean P 0.")
    assert f"(dark_bg: {numbers}, dominant: balanced accuracy " in result.summary()
    assert not {colour for _, colour in result.grid().getcolors(1 << 20)} & set(map(ImageColor.getrgb, (YES, NO)))


def test_a_judge_tells_the_truth(folder, look):
    judged = dataclasses.replace(load_model(folder), judge=look)
    result = draw(judged, allow_weak=("dark_bg",))
    drawn = look(judged.generator.synthesize(result.w))
    truth = drawn["dark_bg"].numpy() & (drawn["dominant"] == "green")
    assert result.satisfied.tolist() == truth.tolist()
    assert result.summary().startswith(f"{truth.sum()} of 16 satisfy the query, says the judge ")
    assert truth.sum() < 14


def test_names_that_are_wrong(folder):
    with pytest.raises(UnknownAttribute, match="'dark_gb' in allow_weak is not an attribute of this model\ndid you"):
        draw(folder, allow_weak=["dark_gb"])
    for wrong in ("dark_bg", [1]):
        with pytest.raises(ArgumentError, match="allow_weak is a list of attributes"):
            draw(folder, allow_weak=wrong)


def test_the_command_line(folder, tmp_path):
    def run(*words):
        return CliRunner().invoke(app, [str(word) for word in words])

    arguments = ("generate", QUERY, "-n", 1, "-m", folder, "-o", tmp_path / "a.png", "--device", "cpu")
    assert isinstance(run(*arguments).exception, WeakHeadError)
    assert "not judged: the model has no judge" in run(*arguments, "--allow-weak", "dark_bg").output
    counted = run(*arguments, "--allow-weak", "dark_bg", "--only-satisfied").exception
    assert counted.message == "samples that satisfy the query cannot be counted: the model has no judge"
    (listed,) = (line for line in run("attributes", "-m", folder).output.splitlines() if line.startswith("dark_bg"))
    assert listed.split()[2] == "weak"
