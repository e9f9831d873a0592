"""Audits of results, edits, galleries and data sets, by functions and by people; and what goes wrong."""

import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from auditing.painted import look, painted, truth
from energyql import Gallery, Result, audit, edit, generate, write_dataset
from energyql.auditing.answers import AnswerBook, AuditPlan
from energyql.auditing.publish import publish
from energyql.auditing.questions import QUERY as WHOLE
from energyql.auditing.questions import Question
from energyql.auditing.report import Agreement
from energyql.auditing.session import Session
from energyql.auditing.subject import open_subject
from energyql.dataset import DatasetClass, DatasetPlan
from energyql.dataset.manifest import CARD, MANIFEST
from energyql.errors import ArgumentError, DataError, TautologyWarning
from energyql.files import SAVED, fingerprint, sole_writer


def session_of(folder, by="me", **plan):
    subject = open_subject(folder)
    return Session(subject, AnswerBook.open(subject, AuditPlan(**plan) if plan else None), by)


def run(session, labeller=look):
    session.simulate(labeller)
    return session.evidence.report()


class TestQuestions:
    def test_a_query_follows_from_its_conditions(self):
        question = Question("smile AND NOT (glasses OR hair = red)")
        assert list(question.conditions) == ["smile", "glasses", "hair = red"]
        assert question.holds({"smile": True, "glasses": False, "hair = red": False}) is True
        assert question.holds({"smile": False, "glasses": None, "hair = red": None}) is False
        assert question.holds({"smile": True, "glasses": False, "hair = red": None}) is None
        assert question.holds({"smile": True}) is None
        assert question.holds({WHOLE: True, "smile": False}) is True

    def test_labels_of_every_kind(self):
        question = Question('hair IN {red, "dark brown"} AND age > 30 AND NOT hat AND age = 40 +- 5')
        columns = {"hair": ["red", "x", ""], "age": [31.0, None, 36], "hat": [1, "no", float("nan")]}
        assert question.read(columns) == {
            'hair IN {red, "dark brown"}': [True, False, None],
            "age > 30": [True, None, True],
            "hat": [True, False, None],
            "age = 40 +- 5": [False, None, True],
        }
        columns = {"hat": ["none", "cap", "", None]}
        assert Question("hat = cap").read(columns) == {"hat = cap": [False, True, None, None]}
        assert Question('hat = "none"').read(columns) == {'hat = "none"': [True, False, None, None]}
        with pytest.raises(DataError, match="'hat' is 'maybe', not 0 or 1"):
            question.read({"hat": ["maybe"]})

    def test_a_tolerance_is_that_of_the_model(self, tiny):
        condition, *_ = Question("age = 0.5", str(tiny)).read({"age": [0.5, 0.9]}).values()
        assert condition == [True, False]
        with pytest.raises(DataError, match="the tolerance of a condition in age = 0.5 is not known"):
            Question("age = 0.5", "no such model")

    def test_a_constant_query_cannot_be_asked(self):
        with pytest.raises(DataError, match="names no attribute, so there is nothing to ask"):
            Question("TRUE")


class TestShares:
    def test_a_function_answers(self, tiny):
        result = painted(tiny, 200)
        audited = audit(result, look, clicks=60)
        assert audited.share.low <= truth(result).mean() <= audited.share.high
        assert (audited.decided, audited.looked, audited.anytime) == (60, 60, False)
        assert audited.accepted == result.satisfied.sum()
        wrong = result.satisfied & ~truth(result)
        assert audited.false_yes.low <= wrong.sum() / result.satisfied.sum() <= audited.false_yes.high
        missed = ~result.satisfied & truth(result)
        assert audited.false_no.low <= missed.sum() / (~result.satisfied).sum() <= audited.false_no.high
        assert audited.frequencies == {}
        assert audit(result, "auditing.painted:look", clicks=60) == audited

    def test_frequencies_of_conditions(self, tiny):
        result = painted(tiny, 200)
        audited = audit(result, look, attributes=True)
        shown = look(
            torch.stack([torch.tensor(image.getpixel((0, 0)))[:, None, None] for image in result.images]) / 127.5 - 1
        )
        for name in ("smile", "glasses"):
            frequency = audited.frequencies[name]
            assert frequency.share.low <= sum(shown[name]) / 200 <= frequency.share.high
            assert frequency.judged == result.judged[name].mean()
        assert audited.share.low <= truth(result).mean() <= audited.share.high
        assert "smile: " in audited.summary()

    def test_all_pictures(self, folder):
        audited = audit(folder, look, clicks=1000)
        share = truth(Result.load(folder)).mean()
        assert audited.decided == 40
        assert (audited.share.share, audited.share.low, audited.share.high) == pytest.approx((share,) * 3)

    def test_until_a_width(self, tiny):
        audited = audit(painted(tiny, 200), look, width=0.3)
        assert audited.anytime
        assert audited.share.width <= 0.3
        assert 20 < audited.decided < 200
        assert "valid whenever the audit ends" in audited.summary()

    def test_without_a_judge(self, tiny):
        result = painted(tiny, 100)
        result = replace(result, satisfied=None, judged={}, provenance=result.provenance | {"judge": None})
        audited = audit(result, look, clicks=40)
        assert audited.share.low <= truth(result).mean() <= audited.share.high
        assert (audited.accepted, audited.false_yes, audited.false_no) == (None, None, None)
        assert "no judge read the pictures" in audited.summary()

    def test_a_labeller_must_know_the_attributes(self, folder):
        with pytest.raises(DataError, match="the labeller does not return 'glasses'"):
            audit(folder, lambda images: {"smile": [True] * len(images)})
        with pytest.raises(ArgumentError, match="width is between 0 and 1, not 5"):
            audit(folder, look, width=5)
        with pytest.raises(ArgumentError, match="clicks"):
            audit(folder, look, clicks=0)


class TestPeople:
    def test_answers_by_name_and_by_position(self, folder):
        one = audit(folder, {"00000.png": True, "00001.png": False, 2: None})
        assert (one.looked, one.decided) == (3, 2)
        assert "1 could not be told" in one.summary()

    def test_agreement(self, folder):
        ann = {number: number % 2 == 0 for number in range(20)}
        bob = ann | {0: False, 1: True, 25: True}
        audited = audit(folder, {"ann": ann, "bob": bob})
        (agreement,) = audited.agreements
        assert (agreement.people, agreement.pictures, agreement.share) == (("ann", "bob"), 20, 0.9)
        assert agreement.kappa == pytest.approx(0.8)
        assert "ann and bob agree on 90 % of 20 pictures, kappa 0.80; the 2 others count half" in audited.summary()
        low, high = (audit(folder, bob | {0: value, 1: value}).share for value in (False, True))
        assert (audited.share.low, audited.share.high) == (low.low, high.high)
        assert audited.share.share == pytest.approx((low.share + high.share) / 2)
        assert audit(folder, [ann, bob]).agreements[0].kappa == agreement.kappa

    def test_kappa_is_unknown_if_chance_agrees_always(self):
        assert Agreement.of(("a", {1: True}), ("b", {1: True})).kappa is None
        assert Agreement.of(("a", {1: True}), ("b", {2: True})) is None

    def test_wrong_answers(self, folder):
        for answers, kind, message in (
            ({"x.png": True}, DataError, "has no picture 'x.png'"),
            ({40: True}, DataError, "has no picture 40"),
            ({0: "yes"}, DataError, "is 'yes', not True, False or None"),
            ({0: {"smiel": True}}, DataError, "no condition 'smiel'"),
            ({0: True, "00000.png": False}, DataError, "two answers are about 00000.png"),
            (5, ArgumentError, "int are no answers"),
            ({0: None, 1: None}, DataError, "of 2 pictures nobody could tell"),
            ({}, DataError, "there are no answers yet"),
        ):
            with pytest.raises(kind, match=message):
                audit(folder, answers)

    def test_a_second_person_looks_at_the_same_pictures(self, folder):
        run(session_of(folder, "ann", clicks=12))
        bob = session_of(folder, "bob")
        assert [picture.key for picture in bob.next(3)] == list(bob.book.people["ann"])[:3]
        audited = run(bob)
        assert (audited.people, audited.decided, audited.agreements[0].share) == (["ann", "bob"], 12, 1.0)
        assert list(bob.book.people["ann"]) == list(bob.book.people["bob"])


class TestAnswers:
    def test_an_audit_is_continued(self, folder):
        first = session_of(folder, clicks=10)
        for _ in range(4):
            first.answer(first.next(1)[0].key, {WHOLE: True})
        expected = [picture.key for picture in first.next(3)]
        again = session_of(folder)
        assert [picture.key for picture in again.next(3)] == expected
        assert list(again.answers) == list(first.answers)
        again.undo()
        assert len(session_of(folder).answers) == 3
        assert again.evidence.report().anytime  # an early end is none that was planned
        assert not run(again).anytime
        lines = (folder / "audit" / "answers.jsonl").read_text().splitlines()
        assert [min(json.loads(line)) for line in lines] == ["digest", *["answers"] * 4, "by", *["answers"] * 7]

    def test_another_number_of_pictures_later(self, folder):
        run(session_of(folder, clicks=5))
        more = run(session_of(folder, clicks=9))
        assert (more.decided, more.anytime) == (9, True)

    def test_cannot_tell(self, folder):
        session = session_of(folder, clicks=3)
        for answer in (None, True, None, False, True):
            session.answer(session.next(1)[0].key, {WHOLE: answer})
        assert session.next(1) == []
        report = session.evidence.report()
        assert (report.looked, report.decided, report.anytime) == (5, 3, False)

    def test_only_the_picture_that_is_asked(self, folder):
        session = session_of(folder)
        one, two = session.next(2)
        with pytest.raises(DataError, match=f"'{two.key}' is not the picture that is asked now"):
            session.answer(two.key, {WHOLE: True})
        with pytest.raises(DataError, match="is asked for query, not for 'smile'"):
            session.answer(one.key, {"smile": True})
        session.answer(one.key, {WHOLE: True})
        session.undo()
        with pytest.raises(DataError, match="there is no answer to take back"):
            session.undo()

    @pytest.mark.parametrize("end", [b'{"picture": "000', b'{"undo": "00000.png", "by": "me"}', b"\xff"])
    def test_an_interrupted_line_is_removed(self, folder, end):
        session = session_of(folder)
        session.answer(session.next(1)[0].key, {WHOLE: True})
        path = folder / "audit" / "answers.jsonl"
        whole = path.read_bytes()
        path.write_bytes(whole + end)
        assert session_of(folder).answers == session.answers
        assert path.read_bytes() == whole

    def test_a_crash_at_any_byte_loses_one_answer_at_most(self, folder):
        session = session_of(folder)
        for answer in (True, False, None, True):
            session.answer(session.next(1)[0].key, {WHOLE: answer})
        path = folder / "audit" / "answers.jsonl"
        whole = path.read_bytes()
        for end in range(whole.index(b"\n") + 1, len(whole) + 1, 37):
            path.write_bytes(whole[:end])
            expected = dict(list(session.answers.items())[: whole[:end].count(b"\n") - 1])
            assert session_of(folder).answers == expected

    def test_an_interrupted_beginning(self, folder):
        session_of(folder)
        path = folder / "audit" / "answers.jsonl"
        path.write_bytes(path.read_bytes()[:20])
        assert session_of(folder).answers == {}
        assert path.read_bytes().count(b"\n") == 1

    @pytest.mark.parametrize(
        "line", ["{", "[]", '{"picture": 1}', '{"picture": "a", "by": "b", "sha256": "", "answers": {"query": 3}}']
    )
    def test_a_damaged_line(self, folder, line):
        session_of(folder)
        path = folder / "audit" / "answers.jsonl"
        path.write_text(f"{path.read_text()}{line}\n")
        with pytest.raises(DataError, match=r"answers.jsonl, line 2, is damaged"):
            session_of(folder)

    def test_a_picture_that_changed(self, folder):
        session = session_of(folder)
        picture = session.next(1)[0]
        session.answer(picture.key, {WHOLE: True})
        Image.new("RGB", (16, 16)).save(folder / picture.key)
        with pytest.raises(DataError, match=f"1 pictures with answers have changed since, such as {picture.key}"):
            session_of(folder)

    def test_a_result_that_changed(self, folder, tiny):
        session_of(folder)
        painted(tiny, 30).save(folder)
        with pytest.raises(DataError, match="has changed since its audit began: 40 pictures, now 30"):
            session_of(folder)

    def test_a_disk_that_is_full(self, folder, monkeypatch):
        session = session_of(folder)
        key, path = session.next(1)[0].key, folder / "audit" / "answers.jsonl"
        before = path.read_bytes()

        def full(descriptor):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("energyql.auditing.answers.os.fsync", full)
        with pytest.raises(ArgumentError, match=r"cannot write .*answers.jsonl: No space left"):
            session.answer(key, {WHOLE: True})
        assert (path.read_bytes(), session.answers) == (before, {})

    def test_answers_of_the_folder(self, folder):
        with pytest.raises(DataError, match="has no answers yet"):
            audit(folder)
        expected = run(session_of(folder, clicks=8))
        assert audit(folder) == expected
        with sole_writer(folder / "audit", "an audit"):
            assert audit(folder) == expected  # of the same thread


class TestPlaces:
    def test_a_result_shows_it(self, folder, tiny):
        session = session_of(folder, clicks=20)
        audited = run(session)
        publish(session.subject, audited)
        loaded = Result.load(folder)
        assert loaded.audited == str(audited)
        assert loaded.summary().endswith(f". Audited: {audited}")
        assert loaded[:5].audited == Result.join([loaded, loaded]).audited == ""
        with Image.open(folder / "grid.png") as grid:
            assert json.loads(grid.text["energyql"])["audited"] == str(audited)
        loaded.save(folder)  # the same result, written again
        assert "audited" not in (folder / "result.json").read_text()
        painted(tiny, 30).save(folder)
        assert Result.load(folder).audited == ""

    def test_a_run_shows_it(self, tiny, tmp_path):
        out = tmp_path / "run"
        generate("smile", 6, model=tiny, progress=False).save(out)
        publish(
            (session := session_of(out)).subject, session.evidence.report() if session.answers else run(session, faces)
        )
        assert ". Audited: " in Result.load(out).summary()

    def test_an_edit(self, tiny, tmp_path):
        edit([1, 2], ["smile", "glasses"], model=tiny, progress=False).save(tmp_path / "edit")
        subject = open_subject(tmp_path / "edit")
        assert [picture.key for picture in subject.pictures] == [
            "1/00000.png",
            "1/00001.png",
            "2/00000.png",
            "2/00001.png",
        ]
        session = session_of(tmp_path / "edit")
        audited = run(session, faces)
        publish(session.subject, audited)
        assert audited.decided == 4
        assert json.loads((tmp_path / "edit" / "audit" / "audit.json").read_text())["text"] == str(audited)

    @pytest.mark.parametrize("place", ["site", "page.html"])
    def test_a_gallery(self, tiny, tmp_path, place):
        gallery = Gallery({"A": "smile", "B": "beard"}, n=3, model=tiny, progress=False)
        gallery.add_truth_table("smile", n=1)
        gallery.add_traversal("smile", "beard", 3, n=1)
        page = gallery.save(tmp_path / place)
        before = page.read_text()
        subject = open_subject(tmp_path / place)
        queries = [picture.query for picture in subject.pictures]
        assert queries == [*["smile"] * 3, *["beard"] * 3, "smile", "NOT smile"]  # paths have two queries
        assert [picture.verdict for picture in subject.pictures[:3]] == gallery.results[0].satisfied.tolist()
        for _ in range(2):
            session = session_of(tmp_path / place)
            audited = run(session, faces) if not session.answers else session.evidence.report()
            publish(session.subject, audited)
            line = f'<p class="audited">audited: {audited}</p>\n'
            assert page.read_text().replace(line, "") == before
        assert (tmp_path / ("site/audit" if place == "site" else "page.audit") / "audit.json").is_file()

    def test_a_gallery_that_is_being_drawn(self, tiny, tmp_path):
        Gallery({"A": "smile"}, n=3, model=tiny, progress=False).save(tmp_path / "site")
        session = session_of(tmp_path / "site")
        audited = run(session, faces)
        refusals = []

        def publish_beside():
            try:
                publish(session.subject, audited)
            except ArgumentError as error:
                refusals.append(error.message)

        with sole_writer(tmp_path / "site", "a gallery"):
            thread = threading.Thread(target=publish_beside)
            thread.start()
            thread.join()
        assert refusals and "is being written by a gallery" in refusals[0]

    def test_a_data_set(self, tiny, tmp_path):
        out = tmp_path / "set"
        plan = DatasetPlan(classes=[DatasetClass(name="a", query="smile", count=7, model=str(tiny))], shard_size=4)
        write_dataset(plan, out, progress=False)
        session = session_of(out)
        assert [picture.key for picture in session.subject.pictures][:2] == ["000000-00000", "000000-00001"]
        assert session.subject.pictures[6].open().size == (16, 16)
        for _ in range(2):
            audited = session.evidence.report() if session.answers else run(session, faces)
            publish(session.subject, audited)
            card = (out / "README.md").read_text()
            assert card.count(f"Audited: {audited} of the pictures satisfy their query, by 7 pictures") == 1
        lines = [json.loads(line) for line in (out / MANIFEST).read_text().splitlines()]
        assert [line["sha256"] for line in lines] == [fingerprint(out / line["file"]) for line in lines]
        kept = write_dataset(plan, out, progress=False)
        assert (kept.kept, (out / "README.md").read_text()) == (len(kept.shards), card)
        for name in (CARD, MANIFEST):
            (out / name).unlink()
            with pytest.raises(DataError, match=f"is not finished: it has no {name}"):
                open_subject(out)

    @pytest.mark.parametrize("name", [SAVED, CARD, MANIFEST])
    @pytest.mark.parametrize("next_command", ["audit", "dataset"])
    def test_a_card_whose_audit_is_interrupted_at_any_move(self, tiny, tmp_path, monkeypatch, name, next_command):
        out = tmp_path / "set"
        plan = DatasetPlan(classes=[DatasetClass(name="a", query="smile", count=7, model=str(tiny))], shard_size=4)
        write_dataset(plan, out, progress=False)
        session = session_of(out)
        audited = run(session, faces)

        def moved_unless(move):
            def moved(path, target):
                if Path(target) == out / name:
                    raise KeyboardInterrupt
                return move(path, target)

            return moved

        with monkeypatch.context() as patch:
            for move in ("replace", "rename"):
                patch.setattr(Path, move, moved_unless(getattr(Path, move)))
            with pytest.raises(KeyboardInterrupt):
                publish(session.subject, audited)
        if next_command == "audit":
            open_subject(out)
        else:
            kept = write_dataset(plan, out, progress=False)
            assert kept.kept == len(kept.shards)
        lines = [json.loads(line) for line in (out / MANIFEST).read_text().splitlines()]
        assert [line["sha256"] for line in lines] == [fingerprint(out / line["file"]) for line in lines]
        assert (f"Audited: {audited}" in (out / CARD).read_text()) == (name != SAVED)

    def test_a_data_set_of_another_plan(self, tiny, tmp_path):
        for name, seed in (("set", 1), ("other", 2)):
            plan = DatasetPlan(classes=[DatasetClass(name="a", query="smile", count=5, model=str(tiny))], seed=seed)
            write_dataset(plan, tmp_path / name, progress=False)
        run(session_of(tmp_path / "set"), faces)
        shutil.copytree(tmp_path / "other", tmp_path / "set", dirs_exist_ok=True)
        with pytest.raises(DataError, match="changed since"):
            session_of(tmp_path / "set")

    def test_nothing_to_audit(self, tmp_path):
        (tmp_path / "empty").mkdir()
        (tmp_path / "page.html").write_text("<p>nothing</p>")
        (tmp_path / "odd").mkdir()
        (tmp_path / "odd" / "result.json").write_text('{"provenance": {}, "samples": [{}]}')
        for name, message in (
            ("none", "there is no"), ("empty", "holds no pictures to audit: there is no result.json"),
            ("page.html", "holds no pictures"), ("odd", "holds no pictures to audit: 'picture' is missing"),
        ):  # fmt: skip
            with pytest.raises(DataError, match=message):
                open_subject(tmp_path / name)

    def test_a_query_without_attributes(self, tiny, tmp_path):
        with pytest.warns(TautologyWarning):
            generate("TRUE", 2, model=tiny, progress=False).save(tmp_path / "run")
        with pytest.raises(DataError, match="names no attribute"):
            audit(tmp_path / "run", look)


def faces(images):
    """A labeller of the tiny model's pictures: by their brightness."""
    bright = (images.mean((1, 2, 3)) > 0).tolist()
    return {"smile": bright, "beard": bright, "glasses": bright}
