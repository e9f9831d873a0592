import dataclasses
import errno
import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from evaluation.lively import known_model, silent
from PIL import Image
from toys import CONFIG, VOCABULARY, pixels, random_generator, random_heads

import energyql.pipeline.stream as module
from energyql import Result, generate, stream
from energyql.attributes.bank import FittedUnder
from energyql.attributes.heads import AttributeBank
from energyql.errors import ArgumentError, DataError
from energyql.files import LOCK
from energyql.generators.families import save_model
from energyql.pipeline import run as run_module
from energyql.pipeline.model import load_model
from energyql.sampling import SampleResult, make_sampler
from energyql.sampling.registry import describe_sampler

QUERY = "smile OR glasses"


@pytest.fixture
def draw(tiny, monkeypatch):
    """`stream` on the tiny model, in batches of 4 and parts of 8 samples; returns the results."""
    monkeypatch.setattr(run_module, "STREAM_BATCH", 4)
    monkeypatch.setattr(module, "PART", 8)
    monkeypatch.setattr(module, "MOST_PICTURES", 6)

    def call(n, folder=None, query=QUERY, **settings):
        defaults = {"model": tiny, "device": "cpu", "progress": False, "sampler": "descent"}
        return stream(query, n, out=folder, **(defaults | settings))

    return call


@pytest.fixture
def whole(tiny):
    """The same samples in one call."""

    def call(n, first=0):
        return generate(QUERY, n, model=tiny, device="cpu", progress=False, sampler="descent", first=first)

    return call


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def same(left, right):
    assert left.index.tolist() == right.index.tolist()
    assert torch.allclose(left.z, right.z, atol=1e-5)
    assert left.satisfied.tolist() == right.satisfied.tolist()
    assert len(left.images) == len(right.images) == len(left)
    apart = [np.abs(np.subtract(a, b, dtype=np.int16)).max() for a, b in zip(left.images, right.images, strict=True)]
    assert max(apart) <= 1


class Still:
    """A sampler of one's own without a `repr`, which leaves latents where they are."""

    def __init__(self, pace):
        self.pace = pace

    def sample(self, energy, z0, *, noise, progress):
        none = torch.zeros(len(z0), dtype=torch.int64)
        return SampleResult(z0, none, none, none)


def test_an_own_sampler_continues_its_run_and_no_other(draw, tmp_path):
    list(draw(4, tmp_path / "own", sampler=Still(1)))
    assert sum(map(len, draw(6, tmp_path / "own", sampler=Still(1)))) == 2  # those that were missing
    with pytest.raises(DataError, match=r"another sampler"):
        draw(6, tmp_path / "own", sampler=Still(2))


def test_batches_are_the_samples_of_one_run(draw, whole):
    parts = list(draw(10))
    assert [len(part) for part in parts] == [4, 4, 2]
    same(Result.join(parts), whole(10))
    assert [part.index[0] for part in draw(6, first=3)] == [3, 7]


def test_a_folder_is_read_back_equal(draw, tmp_path):
    parts = list(draw(19, tmp_path / "run"))
    joined, loaded = Result.join(parts), Result.load(tmp_path / "run")
    assert pixels(loaded.images) == pixels(joined.images)
    for name in ("z", "w"):
        assert torch.equal(getattr(loaded, name), getattr(joined, name))
    assert np.array_equal(loaded.energy, joined.energy)
    assert str(loaded.probabilities) == str(joined.probabilities)
    assert loaded.provenance == joined.provenance
    assert loaded.statistics == pytest.approx(joined.statistics)
    assert [path for path in files(tmp_path / "run") if "png" not in path] == [
        "00008/latents.safetensors", "00008/result.json", "00016/latents.safetensors", "00016/result.json",
        "latents.safetensors", "result.json",
    ]  # fmt: skip
    assert [path for path in files(tmp_path / "run") if path.startswith("00016/0")] == [
        "00016/00016.png", "00016/00017.png", "00016/00018.png",
    ]  # fmt: skip
    same(Result.load(tmp_path / "run" / "00008"), joined[8:16])


class TestAgain:
    def test_an_interrupted_run_is_continued(self, draw, whole, tmp_path):
        running = draw(13, tmp_path)
        next(running), next(running)
        running.close()
        assert len(Result.load(tmp_path)) == 8
        before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("0*.png")}
        assert [part.index.tolist() for part in draw(13, tmp_path)] == [[8, 9, 10, 11], [12]]
        assert {path: path.stat().st_mtime_ns for path in before} == before
        same(Result.load(tmp_path), whole(13))
        assert list(draw(13, tmp_path)) == []

    def test_an_exception_of_progress_keeps_what_is_there(self, draw, tmp_path):
        def stop(stage, fraction):
            if fraction > 0.6:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            list(draw(13, tmp_path, progress=stop))
        assert len(Result.load(tmp_path)) == 4
        assert sum(map(len, draw(13, tmp_path))) == 9

    def test_more_samples_or_the_next_ones_continue(self, draw, whole, tmp_path):
        list(draw(3, tmp_path, first=5))
        list(draw(5, tmp_path, first=5))
        list(draw(7, tmp_path, first=10))
        same(Result.load(tmp_path), whole(12, first=5))
        with pytest.raises(
            DataError, match=r"holds samples 5 to 16 of this run, which 7 does not continue\nbegin with first=17"
        ):
            draw(7, tmp_path, first=7)

    @pytest.mark.parametrize("fewer", [3, 8, 10])
    def test_fewer_samples_leave_no_stale_file(self, draw, whole, tmp_path, fewer):
        (tmp_path / "notes.txt").write_text("mine")
        list(draw(19, tmp_path))
        assert list(draw(fewer, tmp_path)) == []
        same(Result.load(tmp_path), whole(fewer))
        pictures = [path for path in files(tmp_path) if path.endswith(".png")]
        assert len(pictures) == fewer + 1  # and the grid
        assert (tmp_path / "notes.txt").read_text() == "mine"
        list(draw(19, tmp_path))
        same(Result.load(tmp_path), whole(19))

    def test_pictures_of_an_interrupted_batch_are_overwritten_or_removed(self, draw, tmp_path):
        list(draw(4, tmp_path))
        shutil.copy(tmp_path / "00003.png", tmp_path / "00004.png")
        assert list(draw(4, tmp_path)) == []
        assert not (tmp_path / "00004.png").exists()

    @pytest.mark.parametrize("name", ["00004.png", "00020.png", "0020240.png"])
    def test_pictures_of_others_stay(self, draw, tmp_path, name):
        list(draw(4, tmp_path))
        Image.new("RGB", (4, 4)).save(tmp_path / name)
        foreign = (tmp_path / name).read_bytes()
        for n in (4, 2, 3):
            list(draw(n, tmp_path))
        assert (tmp_path / name).read_bytes() == foreign

    @pytest.mark.parametrize("name", ["00002.png", "0000002.png", "grid.png"])
    def test_pictures_of_others_are_not_written_over(self, draw, whole, tmp_path, name):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
        foreign = (tmp_path / name).read_bytes()
        for save in (lambda: list(draw(4, tmp_path)), lambda: whole(4).save(tmp_path)):
            with pytest.raises(ArgumentError, match=f"{name} is not of this library"):
                save()
        assert files(tmp_path) == [name]
        assert (tmp_path / name).read_bytes() == foreign

    def test_pictures_of_others_among_parts(self, draw, tmp_path):
        list(draw(4, tmp_path))
        (tmp_path / "00004").mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / "00004" / "00005.png")
        with pytest.raises(ArgumentError, match="00005.png is not of this library"):
            draw(8, tmp_path)

    def test_pictures_that_were_packed_again(self, draw, whole, tmp_path):
        list(draw(3, tmp_path))
        with Image.open(tmp_path / "00001.png") as picture:
            picture.copy().save(tmp_path / "00001.png")
        assert len(list(draw(5, tmp_path))) == 1
        Result.load(tmp_path).save(tmp_path)
        same(Result.load(tmp_path), whole(5))

    @pytest.mark.parametrize(("name", "what"), [("edit.json", "an edit"), ("pictures.json", "pictures to label")])
    def test_folders_of_others(self, draw, whole, tmp_path, name, what):
        (tmp_path / name).write_text("{}")
        for save in (lambda: list(draw(4, tmp_path)), lambda: whole(4).save(tmp_path)):
            with pytest.raises(ArgumentError, match=f"holds {what}"):
                save()
        assert files(tmp_path) == [name]

    def test_a_full_disk_leaves_whole_results(self, draw, tmp_path, monkeypatch):
        list(draw(4, tmp_path))

        def full(*arguments):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(module, "write_pictures", full)
        with pytest.raises(ArgumentError, match="cannot write .*: No space left"):
            list(draw(8, tmp_path))
        assert len(Result.load(tmp_path)) == 4


class TestAnotherRun:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"query": "smile"}, "another query: smile OR glasses, not smile"),
            ({"seed": 1}, "another seed: 0, not 1"),
            ({"truncation": 0.9}, "another truncation: 0.7, not 0.9"),
            ({"semantics": "lace"}, "another semantics: exact, not lace"),
            ({"sampler": "langevin"}, "another sampler: descent\\("),
        ],
    )
    def test_is_refused_before_anything_is_drawn(self, draw, tmp_path, changes, message):
        list(draw(2, tmp_path))
        before = files(tmp_path)
        with pytest.raises(DataError, match=f"{message}.*\nname another folder, or remove this one"):
            draw(4, tmp_path, **changes)
        assert files(tmp_path) == before

    def test_settings_of_a_sampler(self, draw, tmp_path):
        list(draw(2, tmp_path))
        data = json.loads((tmp_path / "result.json").read_text())
        data["provenance"]["sampler"] = describe_sampler(make_sampler("slice"))
        (tmp_path / "result.json").write_text(json.dumps(data))
        with pytest.raises(DataError, match=r"another sampler: slice\(strength=1.0, .*, not descent\("):
            draw(4, tmp_path)

    def test_another_model(self, draw, tmp_path):
        list(draw(2, tmp_path))
        data = json.loads((tmp_path / "result.json").read_text())
        data["provenance"]["fingerprints"]["generator"] = "0"
        (tmp_path / "result.json").write_text(json.dumps(data))
        with pytest.raises(DataError, match=r"another training of the model \(changed: generator\)\n"):
            draw(2, tmp_path)

    def test_a_judge_that_changed(self, tiny, draw, tmp_path):
        def judge(value):
            return lambda images: {"smile": [value] * len(images), "glasses": [True] * len(images)}

        list(draw(2, tmp_path, model=load_model(tiny, judge=judge(True))))
        with pytest.raises(DataError, match=r"another training of the model \(changed: judge\)\n"):
            draw(4, tmp_path, model=load_model(tiny, judge=judge(False)))
        list(draw(4, tmp_path, model=load_model(tiny, judge=judge(True))))

    def test_another_judge(self, tiny, draw, tmp_path):
        def first(images):
            return {"smile": [True] * len(images), "glasses": [True] * len(images)}

        def second(images):
            return first(images)

        list(draw(2, tmp_path, model=load_model(tiny, judge=first)))
        before = files(tmp_path)
        with pytest.raises(DataError, match=r"another judge: judge .*first, not judge .*second\n"):
            draw(4, tmp_path, model=load_model(tiny, judge=second))
        assert files(tmp_path) == before

    def test_a_run_with_a_budget(self, draw, tmp_path):
        list(draw(2, tmp_path))
        data = json.loads((tmp_path / "result.json").read_text())
        data["provenance"]["wanted"] = 10
        (tmp_path / "result.json").write_text(json.dumps(data))
        with pytest.raises(DataError, match="holds a run with a budget"):
            draw(2, tmp_path)

    def test_a_missing_part(self, draw, tmp_path):
        list(draw(19, tmp_path))
        (tmp_path / "00008" / "result.json").unlink()
        with pytest.raises(DataError, match="the samples in .*00016 do not continue those before them"):
            draw(19, tmp_path)

    @pytest.mark.parametrize("path", ["run.png", "run.txt"])
    def test_no_folder(self, draw, tmp_path, path):
        with pytest.raises(ArgumentError, match=r"a run is saved to a folder|cannot be saved as \.txt"):
            draw(2, tmp_path / path)

    def test_wrong_arguments_at_the_call(self, draw, tmp_path):
        for settings in ({"n": 0}, {"n": 2, "first": -1}, {"n": 2, "query": "smile AND"}):
            with pytest.raises((ArgumentError, energyql_error())):
                draw(**settings)


def energyql_error():
    from energyql import EnergyQLError

    return EnergyQLError


def test_a_label_of_several_numbers_is_continued(draw, tmp_path):
    mark = save_model(tmp_path / "m", "m", random_generator(dataclasses.replace(CONFIG, c_dim=2)))
    bank = AttributeBank(VOCABULARY, random_heads(VOCABULARY, CONFIG.w_dim), fitted=FittedUnder(generator=mark))
    bank.save(tmp_path / "m")
    settings = {"model": tmp_path / "m", "condition": [0.25, 0.75], "truncation": 1.0}
    list(draw(2, tmp_path / "run", **settings))
    list(draw(4, tmp_path / "run", **settings))
    loaded = Result.load(tmp_path / "run")
    assert (len(loaded), loaded.provenance["condition"]) == (4, (0.25, 0.75))


class TestOneWriter:
    def test_a_run_holds_its_folder_before_anything_is_drawn(self, draw, tmp_path):
        run = draw(10, tmp_path)
        assert (tmp_path / LOCK).exists()
        next(run)
        with ThreadPoolExecutor() as threads, pytest.raises(ArgumentError, match="being written by a run of another"):
            threads.submit(draw, 10, tmp_path, seed=1).result()
        list(run)
        assert not (tmp_path / LOCK).exists()

    def test_a_run_that_is_given_up_leaves_its_folder(self, draw, tmp_path):
        run = draw(10, tmp_path / "a")
        del run
        assert not (tmp_path / "a").exists()
        run = draw(10, tmp_path / "a")
        next(run)
        run.close()
        assert [path.name for path in (tmp_path / "a").glob(".*")] == []
        with pytest.raises(DataError, match="another seed"):
            draw(10, tmp_path / "a", seed=1)
        assert [path.name for path in (tmp_path / "a").glob(".*")] == []

    def test_a_run_may_be_read_in_another_thread(self, draw, tmp_path):
        run = draw(10, tmp_path)
        with ThreadPoolExecutor() as threads:
            parts = threads.submit(list, run).result()
        assert sum(map(len, parts)) == len(Result.load(tmp_path)) == 10

    def test_two_runs_in_turn_do_not_mix(self, draw, tmp_path):
        one, two = draw(10, tmp_path), draw(10, tmp_path, seed=1)
        next(one)
        with pytest.raises(DataError, match="has changed since the last batch"):
            next(two)
        list(one)
        assert Result.load(tmp_path).provenance["seed"] == 0

    def test_an_interrupted_first_batch_leaves_no_picture(self, draw, tmp_path, monkeypatch):
        def fail(*arguments, **named):
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as full:
            full.setattr(module, "write_measurements", fail)
            with pytest.raises(ArgumentError, match="No space left"):
                list(draw(10, tmp_path / "a"))
        assert not (tmp_path / "a").exists()
        list(draw(3, tmp_path / "a", seed=1))
        assert sorted(path.stem for path in (tmp_path / "a").glob("0*.png")) == ["00000", "00001", "00002"]

    def test_the_first_batch_is_small(self, draw, tmp_path, monkeypatch):
        monkeypatch.setattr(module, "OPENING", 1)
        parts = list(draw(10, tmp_path / "a"))
        assert [len(part) for part in parts] == [1, 3, 4, 2]
        list(draw(10, tmp_path / "b", batch_size=7))
        assert Result.load(tmp_path / "a").z.tolist() == Result.load(tmp_path / "b").z.tolist()


@pytest.mark.parametrize("verify", ["off", "sure", "faithful"])
def test_a_run_that_was_interrupted_has_the_same_files(tmp_path, verify):
    """Byte for byte, but for the seconds, in batches of other sizes too."""
    options = {"model": known_model(shift=-0.7, slope=0.7), "verify": verify, "progress": silent}

    def draw(folder, n, **more):
        return list(stream("a AND c", n, out=tmp_path / folder, **options, **more))

    draw("whole", 90)
    iterator = stream("a AND c", 90, out=tmp_path / "parts", **options, batch_size=25)
    next(iterator), next(iterator)
    iterator.close()
    draw("parts", 90, batch_size=7)
    pictures = sorted(path.name for path in (tmp_path / "whole").glob("*.png"))
    assert len(pictures) == 91
    for name in [*pictures, "latents.safetensors"]:
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    whole, parts = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("whole", "parts"))
    for result in (whole, parts):
        for name in ("seconds_sampling", "seconds_drawing", "generator_calls"):  # a pilot run was made twice
            result["statistics"].pop(name, None)
    assert parts == whole
