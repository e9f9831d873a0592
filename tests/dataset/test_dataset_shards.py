"""Shards are pure functions, and nothing is mixed or padded."""

import importlib
import io
import json
import os
import sys
import tarfile
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from evaluation.lively import known_model, lively_model, read_plain
from PIL import Image
from toys import tiny_model

from dataset.kinds import KINDS, plan_of
from dataset.plans import ALWAYS, TOML, files, known_plan, samples, with_classes, write
from energyql import DatasetClass, DatasetPlan, generate
from energyql.dataset.manifest import Index
from energyql.dataset.plan import Job, PlanSource
from energyql.dataset.run import DatasetRun
from energyql.dataset.settings import DatasetSettings
from energyql.dataset.shard import PreparedPlan
from energyql.errors import ArgumentError, DataError, IncompleteError
from energyql.pipeline.model import load_model


class TestContent:
    def test_the_files(self, whole):
        out, written = whole
        shards = [f"shards/{shard:06d}.tar" for shard in range(4)]
        assert list(files(out)) == ["README.md", "index.parquet", "manifest.jsonl", "plan.json", *shards]
        lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
        assert [line["file"] for line in lines] == [*shards, "plan.json", "index.parquet", "README.md"]
        assert [line["sha256"] for line in lines] == [files(out)[line["file"]] for line in lines]
        assert [line["size"] for line in lines] == [(out / line["file"]).stat().st_size for line in lines]
        assert sum(line["rows"] for line in lines[:4]) == 35
        assert sum(line["classes"]["b"]["rows"] for line in lines[:4]) == 23
        assert (written.missing, written.kept, len(written.shards)) == ({}, 0, 4)
        assert written.summary().startswith("35 pictures in 4 shards")

    def test_an_infinite_energy_is_a_number_in_the_index(self):
        index = Index.__new__(Index)
        row = index._row("shards/000000.tar", {"energy": "Infinity", "probabilities": {"n": (1.0, 2.0)}, "judged": {}})
        assert row["energy"] == float("inf")
        assert (row["heads.n.mean"], row["heads.n.std"]) == (1.0, 2.0)

    def test_archives_have_nothing_that_differs_from_run_to_run(self, whole):
        with tarfile.open(whole[0] / "shards" / "000001.tar") as archive:
            members = archive.getmembers()
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}
        assert [m.name for m in members[:3]] == ["000001-00000.png", "000001-00000.json", "000001-00000.cls"]

    def test_samples_are_those_of_generate(self, whole):
        plan = known_plan()
        for picture, known, number in samples(whole[0]).values():
            one = plan.classes[number]
            assert (known["class"], known["seed"]) == (one.name, plan.seed_of(one))
            alone = generate(
                known["query"], 1, model=one.model, seed=known["seed"], first=known["index"], progress=False
            )
            assert np.abs(np.asarray(picture, int) - np.asarray(alone.images[0], int)).max() <= 1
            assert known["energy"] == pytest.approx(alone.energy[0], abs=1e-3)
            assert known["probabilities"]["a"] == pytest.approx(alone.probabilities["a"][0], abs=1e-3)
            assert known["judged"]["b"] == alone.judged["b"][0]
            assert known["judge"] == alone.provenance["judge"]

    def test_classes_are_mixed_in_every_shard(self, whole):
        numbers = [number for _, _, number in samples(whole[0]).values()]
        assert 8 < sum(one != other for one, other in pairwise(numbers)) < 34

    def test_the_index_says_what_the_samples_say(self, whole):
        rows = {row["key"]: row for row in pq.read_table(whole[0] / "index.parquet").to_pylist()}
        found = samples(whole[0])
        assert list(rows) == list(found)
        for key, (_, known, number) in found.items():
            row = rows[key]
            assert row["shard"] == f"shards/{key[:6]}.tar"
            assert (row["class"], row["class_number"], row["index"]) == (known["class"], number, known["index"])
            assert (row["heads.a"], row["judged.n"]) == (known["probabilities"]["a"], known["judged"]["n"])
            assert [row["heads.n.mean"], row["heads.n.std"]] == known["probabilities"]["n"]
            assert (row["satisfied"], row["energy"]) == (True, known["energy"])

    def test_the_card_has_the_numbers(self, whole):
        text = (whole[0] / "README.md").read_text(encoding="utf-8")
        assert text.startswith("---\nconfigs:\n- config_name: default\n  data_files: shards/*.tar\n")
        assert "| `b` | 0 | `b AND c` | 23 | 23 |" in text
        assert "| `a \\| rest` | 1 | `NOT a` | 12 | 12 |" in text
        assert "incomplete" not in text

    @pytest.mark.parametrize(("kind", "name"), [("png", "PNG"), ("jpg", "JPEG"), ("webp", "WEBP")])
    def test_formats(self, tmp_path, kind, name):
        write(known_plan(format=kind), tmp_path)
        with tarfile.open(tmp_path / "shards" / "000000.tar") as archive:
            first = archive.getmembers()[0]
            assert first.name == f"000000-00000.{kind}"
            assert Image.open(archive.extractfile(first)).format == name

    def test_quality_is_a_part_of_the_plan(self, tmp_path):
        for quality in (10, 90):
            write(known_plan(format="jpg", quality=quality), tmp_path / str(quality))
        assert files(tmp_path / "10")["shards/000000.tar"] != files(tmp_path / "90")["shards/000000.tar"]

    def test_models_with_other_attributes_share_an_index(self, tmp_path, tiny):
        known = known_plan().classes[0]
        other = DatasetClass(name="tiny", query="glasses", count=3, model=tiny, settings={"truncation": 0.6})
        write(DatasetPlan(classes=[known, other], shard_size=50), tmp_path)
        table = pq.read_table(tmp_path / "index.parquet").to_pylist()
        assert {row["heads.hair=black"] is None for row in table if row["class"] == "b"} == {True}
        assert {row["judged.hair"] in ("black", "brown", "dark red") for row in table if row["class"] == "tiny"} == {
            True
        }


class TestPurity:
    def test_the_same_plan_gives_the_same_bytes(self, whole, tmp_path):
        write(known_plan(**ALWAYS), tmp_path)
        assert files(tmp_path) == files(whole[0])

    @pytest.mark.parametrize(
        "change", [{"seed": 6}, {"shard_size": 11}, {"budget": 9}, {"only_satisfied": False}, {"format": "webp"}]
    )
    def test_another_plan_is_refused(self, copy, change):
        before = files(copy)
        name = next(iter(change))
        with pytest.raises(DataError, match=f"holds a data set of another plan: .*{name} "):
            write(known_plan(**(ALWAYS | change)), copy)
        assert files(copy) == before

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"query": "b OR c"}, "the query of class 'b' was b AND c, not b OR c"),
            ({"count": 24}, "the count of class 'b' was 23, not 24"),
            ({"name": "c"}, "classes b, a | rest, not c, a | rest"),
            ({"settings": {"sampler": "descent"}}, "the sampler of class 'b' was "),
            ({"settings": {"batch_size": 3}}, "the batch_size of class 'b' was None, not 3"),
        ],
    )
    def test_another_class_is_refused(self, copy, change, message):
        before = files(copy)
        with pytest.raises(DataError) as caught:
            write(with_classes(known_plan(**ALWAYS), **change), copy)
        assert message in str(caught.value)
        assert files(copy) == before

    def test_another_training_of_the_model_is_refused(self, tmp_path):
        folder = tiny_model(tmp_path / "model")
        (tmp_path / "plan.toml").write_text(TOML.replace("MODEL", str(folder)))
        write(tmp_path / "plan.toml", tmp_path / "out")
        before = files(tmp_path / "out")
        judge = load_model(folder).judge
        judge.head.bias += 0.25
        judge.save(folder)
        with pytest.raises(DataError, match="class 'with' was drawn by another training of model 'tiny'"):
            write(tmp_path / "plan.toml", tmp_path / "out")
        assert files(tmp_path / "out") == before

    def test_another_source_of_a_judge_is_refused(self, tmp_path, monkeypatch):
        code, plan, settings = tmp_path / "edited_judge.py", tmp_path / "plan.toml", {"judge": "edited_judge:read"}
        text = "def read(images):\n    return {'glasses': images[:, 0, 0, 0] > 0, 'beard': images[:, 0, 0, 1] > 0}\n"
        code.write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        plan.write_text(TOML.replace("MODEL", str(tiny_model(tmp_path / "model"))))
        write(plan, tmp_path / "out", **settings)
        assert write(plan, tmp_path / "out", **settings).kept == 4
        code.write_text(text.replace("> 0", "> 0.25"))
        importlib.reload(sys.modules["edited_judge"])
        with pytest.raises(DataError, match=r"another training of model 'tiny' \(changed: judge\)"):
            write(plan, tmp_path / "out", **settings)

    def test_other_files_are_refused(self, tmp_path):
        (tmp_path / "mine.txt").write_text("mine")
        with pytest.raises(DataError, match=r"holds other files, such as mine\.txt"):
            write(known_plan(), tmp_path)
        assert list(files(tmp_path)) == ["mine.txt"]

    def test_a_damaged_plan_is_refused_where_nothing_shows_whose_it_was(self, copy):
        (copy / "plan.json").write_text("[1")
        (copy / "manifest.jsonl").unlink()
        with pytest.raises(DataError, match=r"plan\.json in .* is damaged"):
            write(known_plan(**ALWAYS), copy)


class TestOnlySatisfied:
    def test_the_first_accepted_candidates_of_each_shard_are_taken(self, whole):
        plan = known_plan(**ALWAYS)
        judged = {}
        for one in plan.classes:
            drawn = generate(
                one.query, 8 * one.count, model=one.model, seed=plan.seed_of(one), progress=False, batch_size=64
            )
            judged[one.name] = drawn.satisfied
        assert 0.1 < judged["b"].mean() < 0.9
        found = {}
        for key, (_, known, _) in samples(whole[0]).items():
            found.setdefault((known["class"], int(key[:6])), []).append(known["index"])
        for one in plan.classes:
            for shard in range(plan.shards):
                numbers = np.array(plan.candidates(one, shard))
                good = numbers[judged[one.name][numbers]]
                assert sorted(found[one.name, shard]) == good[: len(plan.positions(one, shard))].tolist()

    def test_what_is_missing_is_said_and_not_padded(self, tmp_path):
        written = write(known_plan(only_satisfied=True, budget=1), tmp_path)
        assert 0 < written.missing["b"] < 23
        kept = [known for _, known, _ in samples(tmp_path).values()]
        assert len([known for known in kept if known["class"] == "b"]) == 23 - written.missing["b"]
        assert {known["satisfied"] for known in kept} == {True}
        assert written.classes["b"].drawn == 23
        assert f"- `b` has {23 - written.missing['b']} of 23 pictures" in (tmp_path / "README.md").read_text()
        with pytest.raises(IncompleteError, match=f"'b' lacks {written.missing['b']} of 23"):
            written.check_complete()
        again = write(known_plan(only_satisfied=True, budget=1), tmp_path)
        assert (again.kept, again.missing) == (4, written.missing)

    def test_a_class_that_nothing_satisfies_leaves_empty_shards(self, tmp_path):
        plan = known_plan(only_satisfied=True, budget=1)
        impossible = replace(plan.classes[0], model=known_never(), query="b")
        written = write(replace(plan, classes=[impossible]), tmp_path)
        assert written.missing == {"b": 23}
        assert samples(tmp_path) == {}
        assert pq.read_table(tmp_path / "index.parquet").num_rows == 0
        assert write(replace(plan, classes=[impossible]), tmp_path).kept == 3

    def test_without_a_judge_it_is_refused(self, tmp_path):
        plan = known_plan(only_satisfied=True)
        mute = replace(plan.classes[0].model, judge=None)
        with pytest.raises(DataError, match="cannot be counted: the model has no judge"):
            write(with_classes(plan, model=mute), tmp_path / "out")
        written = write(with_classes(known_plan(), model=mute), tmp_path / "out")
        assert written.classes["b"].satisfied is None
        assert "| not judged |" in (tmp_path / "out" / "README.md").read_text()

    def test_a_budget_alone_is_refused(self, tmp_path):
        with pytest.raises(ArgumentError, match="a budget is for pictures that are drawn again"):
            write(known_plan(), tmp_path / "out", budget=3)

    def test_arguments_take_the_place_of_the_plan(self, whole, tmp_path):
        write(known_plan(), tmp_path, **ALWAYS)
        assert files(tmp_path) == files(whole[0])


def known_never():
    """The model whose judge sees no b at all."""
    model = known_plan().classes[0].model
    return replace(model, judge=lambda images: model.judge(images) | {"b": model.judge(images)["b"] & False})


def test_a_folder_model_with_verdicts_of_both_kinds(tmp_path):
    folder = lively_model(tmp_path / "model")
    (tmp_path / "plan.toml").write_text(TOML.replace("MODEL", str(folder)))
    written = write(tmp_path / "plan.toml", tmp_path / "out", only_satisfied=True, budget=50)
    assert written.missing == {}
    assert {known["satisfied"] for _, known, _ in samples(tmp_path / "out").values()} == {True}
    assert written.classes["with"].drawn > written.classes["with"].rows


def test_progress_goes_up_to_the_end_of_each_class(tmp_path):
    told = {}
    write(known_plan(), tmp_path, progress=lambda name, fraction: told.setdefault(name, []).append(fraction))
    assert {name: values[-1] for name, values in told.items()} == {"b": 1.0, "a | rest": 1.0}
    for values in told.values():
        assert values == sorted(values)
        assert len(values) > 4


def test_a_function_that_raises_ends_the_run_and_leaves_whole_shards(whole, tmp_path):
    def cancel(name, fraction):
        if fraction > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(known_plan(**ALWAYS), tmp_path, progress=cancel)
    assert [name for name in files(tmp_path) if "/." in name or name.startswith(".")] == []
    assert write(known_plan(**ALWAYS), tmp_path).kept > 0
    assert files(tmp_path) == files(whole[0])


def test_gpus_are_shares_of_workers_of_ray(tmp_path):
    with pytest.raises(ArgumentError, match="gpus are shares of the workers of Ray"):
        write(known_plan(), tmp_path / "out", gpus=0.5)
    assert not list(tmp_path.iterdir())


def test_without_pyarrow_nothing_is_begun(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ArgumentError, match="needs pyarrow") as caught:
        write(known_plan(), tmp_path / "out")
    assert caught.value.hint == 'pip install "pyarrow>=14"'
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_models_of_every_kind(tmp_path, monkeypatch, tiny, kind):
    monkeypatch.chdir(tmp_path)
    plan, settings = plan_of(kind, tmp_path, tiny)
    for out in ("out", "again"):
        assert write(plan, out, **settings).missing == {}
    assert files("again") == files("out")
    assert [known["model"] for _, known, _ in samples("out").values()] == 20 * ["tiny" if kind == "stylegan" else kind]
    if kind == "reader":  # which is right about what it reads
        assert all(known["satisfied"] for _, known, _ in samples("out").values())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no limit of the size of files")
def test_a_disk_that_ends_leaves_a_folder_that_the_same_call_completes(whole, tmp_path):
    import resource

    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, most[1]))
    try:
        with pytest.raises(ArgumentError, match=r"cannot write .*000000\.tar: File too large") as caught:
            write(known_plan(**ALWAYS), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert "see to the space" in caught.value.hint
    assert list(files(tmp_path)) == ["plan.json"]
    write(known_plan(**ALWAYS), tmp_path)
    assert files(tmp_path) == files(whole[0])


def test_the_estimate_changes_nothing_that_is_written(whole, tmp_path):
    """It draws samples of the same queries, whose energies keep what is computed once."""
    run = DatasetRun(Job(plan=known_plan(**ALWAYS), out=tmp_path, settings=DatasetSettings(device="cpu")), PlanSource())
    cost = run.estimate()
    assert (cost.pictures, cost.shards) == (35, 4)
    assert 0.5 < cost.bytes / sum(each.size for each in whole[1].shards) < 2
    run.write(progress=False)
    assert files(tmp_path) == files(whole[0])


def test_the_pilot_of_many_classes_ends_at_one(tmp_path):
    first = known_plan().classes[0]
    plan = DatasetPlan(classes=[replace(first, name=f"class {k}", count=1) for k in range(9)])
    told = []
    run = DatasetRun(Job(plan=plan, out=tmp_path / "out", settings=DatasetSettings(device="cpu")), PlanSource())
    run.estimate(lambda stage, fraction: told.append(fraction))
    assert (told, told[-1]) == (sorted(told), 1.0)


def test_a_gpu_draws_the_next_batch_before_pictures_are_taken():
    plan, events = known_plan(), []
    query = SimpleNamespace(device=SimpleNamespace(type="cuda"))

    def batches():
        for number in range(3):
            events.append(f"draw {number}")
            yield SimpleNamespace(images=[Image.new("RGB", (4, 4), (number, 0, 0))]), number

    for result, number, pictures in PreparedPlan(plan, [])._compressed(batches(), query):
        events.append(f"take {number}")
        assert [Image.open(io.BytesIO(picture)).tobytes() for picture in pictures] == [result.images[0].tobytes()]
    assert events == ["draw 0", "draw 1", "take 0", "draw 2", "take 1", "take 2"]


@pytest.mark.parametrize("only_satisfied", [True, False])
def test_samples_of_which_no_picture_was_accepted_are_no_members_of_their_class(tmp_path, only_satisfied):
    """The judge, which reads b alone, would count some of them."""

    def strict(images):
        values = read_plain(images)
        return values | {"b": np.asarray(values["b"], bool) & (images[:, 0, 0, 3] > 0).numpy()}

    model = replace(known_model(), verifier=strict)
    one = DatasetClass(name="b", query="b", count=20, model=model, settings={"verify": "sure", "attempts": 1})
    written = write(DatasetPlan(classes=[one], only_satisfied=only_satisfied), tmp_path)
    rows = [known for _, known, _ in samples(tmp_path).values()]
    refused = [row for row in rows if row["status"] == "NOT_ACCEPTED"]
    record = written.classes["b"]
    assert (record.rows, len(refused) > 0) == (20, not only_satisfied)
    assert {row["satisfied"] for row in refused} <= {False}
    assert any(row["judged"]["b"] for row in refused) != only_satisfied
    assert record.satisfied == sum(row["satisfied"] for row in rows) == 20 - len(refused)
    assert pq.read_table(tmp_path / "index.parquet")["satisfied"].to_pylist().count(True) == record.satisfied
