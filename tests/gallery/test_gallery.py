import numpy as np
import pytest
from markup import Document
from toys import pixels

from energyql import E, Gallery, generate, load_model, traverse, truth_table
from energyql.errors import ArgumentError, Contradiction, DataError, TautologyWarning, UnknownAttribute
from energyql.gallery import gallery as module
from energyql.gallery.page import page_path, same_queries


def make(tiny, queries=(), **settings):
    return Gallery(queries, **{"n": 2, "model": tiny, "device": "cpu", "progress": False, **settings})


class TestQueries:
    def test_pictures_are_those_of_generate(self, tiny):
        gallery = make(tiny, {"Elder": "beard AND hair = black", "": E.smile}, seed=5, semantics="product")
        assert [result.provenance["query"] for result in gallery.results] == ["beard AND hair = black", "smile"]
        alone = generate("smile", 2, model=load_model(tiny), seed=5, semantics="product", progress=False)
        assert pixels(gallery.results[1].images) == pixels(alone.images)
        assert [section.query.title for section in gallery.sections] == ["Elder", ""]

    def test_nothing_is_drawn_if_one_is_wrong(self, tiny, monkeypatch):
        monkeypatch.setattr(module, "open_session", lambda *_, **__: pytest.fail("drawn too early"))
        with pytest.raises(DataError, match="2 queries are wrong"):
            make(tiny, ["smile", "smil", "smile AND NOT smile"])

    def test_one_more(self, tiny):
        gallery = make(tiny)
        result = gallery.add("smile", "Happy")
        assert gallery.results == [result]
        assert len(result) == 2
        with pytest.raises(UnknownAttribute):
            gallery.add("smil")
        with pytest.raises(Contradiction):
            gallery.add("smile AND NOT smile")
        assert len(gallery.sections) == 1

    def test_repetitions_are_noted(self, tiny):
        gallery = make(tiny, [("A", "smile AND beard"), "beard", "beard AND smile"])
        assert [section.same_as for section in gallery.sections] == [None, None, 1]
        assert same_queries(gallery.sections) == ["query 3 (beard AND smile) means the same as query 1 (A)"]
        assert "means the same as number 1" in gallery.to_html()

    def test_summaries(self, tiny):
        assert make(tiny).summary() == "empty"
        gallery = make(tiny, ["smile OR NOT smile AND beard"])
        assert gallery.summary().startswith("1 query, 2 pictures; ")
        assert gallery.summary().endswith("says the image judge")
        assert repr(gallery) == f"<Gallery: {gallery.summary()}>"
        assert "· judged by the image judge" in gallery.to_html()

    @pytest.mark.parametrize("settings", [{"semantics": "odd"}, {"n": 0}, {"sampler": "odd"}, {"seed": -1}])
    def test_settings(self, tiny, settings):
        with pytest.raises(ArgumentError, match=next(iter(settings))):
            make(tiny, ["smile"], **settings)


class TestTruthTable:
    def test_every_combination(self, tiny):
        table = make(tiny).add_truth_table("smile", E.hair.eq("black"))
        assert table.literals == ("smile", "hair = black")
        assert [row.query for row in table.rows] == [
            "smile AND hair = black",
            "smile AND hair != black",
            "NOT smile AND hair = black",
            "NOT smile AND hair != black",
        ]
        assert [row.values for row in table.rows] == [(True, True), (True, False), (False, True), (False, False)]
        assert [len(row.result) for row in table.rows] == [2] * 4

    def test_contradictions_are_rows(self, tiny):
        table = make(tiny).add_truth_table("hair = black", "hair = brown", n=1)
        assert [row.reason for row in table.rows] == ["hair = black and hair = brown cannot both hold", "", "", ""]
        assert table.rows[0].result is None
        assert len(table.results) == 3

    def test_what_always_holds_in_one_call(self, tiny):
        with pytest.warns(TautologyWarning):
            gallery = truth_table("age >= 0", model=tiny, n=3, progress=False, seed=2)
        assert [row.result is None for row in gallery.sections[0].rows] == [False, True]
        assert len(gallery.results[0]) == 3
        assert gallery.results[0].provenance["seed"] == 2
        with pytest.raises(TypeError, match="colour"):
            truth_table("smile", colour="red")


class TestTraversal:
    def test_both_ends_are_samples(self, tiny):
        traversal = make(tiny, seed=3).add_traversal("smile", "beard AND NOT smile", steps=5)
        assert (traversal.paths, len(traversal.result), traversal.times) == (2, 10, [0, 0.25, 0.5, 0.75, 1])
        for query, place in (("smile", 0), ("beard AND NOT smile", 4)):
            alone = generate(query, 2, model=tiny, seed=3, progress=False)
            drawn = [traversal.result.images[way * 5 + place] for way in range(2)]
            for a, b in zip(drawn, alone.images, strict=True):
                assert np.abs(np.asarray(a, int) - np.asarray(b, int)).max() <= 1
        assert traversal.probability[0] == pytest.approx(np.exp(-traversal.result.energy), rel=1e-3)
        assert traversal.holds[0].tolist() == traversal.result.satisfied.tolist()

    def test_batches_do_not_matter(self, tiny):
        one = traverse("smile", "beard", 4, n=2, model=tiny, batch_size=3, progress=False)
        assert one.summary() == "1 traversal, 8 pictures"
        assert np.allclose(one.results[0].z, make(tiny).add_traversal("smile", "beard", 4).result.z, atol=1e-5)

    @pytest.mark.parametrize("steps", [1, 0, 65, 2.5, True])
    def test_steps(self, tiny, steps):
        with pytest.raises(ArgumentError, match="steps must be a whole number from 2 to 64"):
            make(tiny).add_traversal("smile", "beard", steps)

    def test_both_queries_are_checked(self, tiny):
        with pytest.raises(DataError, match=r"traversal: 2 queries are wrong\n\nstart: (.|\n)*end: "):
            make(tiny).add_traversal("smil", "beard AND NOT beard")


class TestSaving:
    def test_a_folder_and_a_file(self, tiny, tmp_path):
        gallery = make(tiny, ["smile"])
        assert gallery.save(tmp_path / "new" / "site") == tmp_path / "new" / "site" / "index.html"
        assert gallery.save(str(tmp_path / "page.HTML")) == tmp_path / "page.HTML"
        pages = [path.read_text(encoding="utf-8") for path in tmp_path.rglob("*") if path.is_file()]
        assert pages == [gallery.to_html()] * 2

    def test_an_empty_gallery(self, tiny, tmp_path):
        with pytest.raises(ArgumentError, match="the gallery is empty\nadd a query first"):
            make(tiny).save(tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_paths(self, tmp_path):
        (tmp_path / "file").write_text("mine")
        (tmp_path / "run.v2").mkdir()
        (tmp_path / "taken.html").mkdir()
        assert page_path(tmp_path / "run.v2") == tmp_path / "run.v2" / "index.html"
        assert page_path(tmp_path / "taken.html") == tmp_path / "taken.html" / "index.html"
        for name, message in [("a.png", "as .png"), ("file/x", "is not a folder"), ("file", "is not a folder")]:
            with pytest.raises(ArgumentError, match=message):
                page_path(tmp_path / name)
        (tmp_path / "run.v2" / "index.html").mkdir()
        with pytest.raises(ArgumentError, match="it is a folder"):
            page_path(tmp_path / "run.v2")

    def test_a_failure_leaves_the_old_page(self, tiny, tmp_path, monkeypatch):
        path = tmp_path / "index.html"
        path.write_text("old")
        gallery = make(tiny, ["smile"])

        def full(target, text):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(module, "write_text", full)
        with pytest.raises(ArgumentError, match=r"cannot write .*index\.html: No space left on device"):
            gallery.save(tmp_path)
        assert path.read_text() == "old"

    def test_an_interruption_writes_nothing(self, tiny, tmp_path, monkeypatch):
        drawn, module_pipeline = [], module.open_session

        def interrupted(*arguments, **settings):
            if drawn:
                raise KeyboardInterrupt
            drawn.append(module_pipeline(*arguments, **settings))
            return drawn[0]

        monkeypatch.setattr(module, "open_session", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make(tiny, ["smile", "beard"]).save(tmp_path / "site")
        assert list(tmp_path.iterdir()) == []


def test_a_notebook_shows_the_page(tiny):
    html = make(tiny, ["smile"])._repr_html_()
    (frame,) = Document(html).all("iframe")
    assert Document(frame["srcdoc"]).all("img", None)
    assert "empty" in make(tiny)._repr_html_()


def test_progress(tiny, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # so that it counts as a terminal
    make(tiny, ["smile", "beard"], progress=True).add_truth_table("smile", n=1)
    errors = capsys.readouterr().err
    assert "gallery" in errors
    assert "table" in errors
