"""Requests out of pictures that energyql saved, and what other pictures say."""

import io
import json

import pytest
from PIL import Image, PngImagePlugin

from energyql import edit, generate
from energyql.auditing.publish import publish
from energyql.sampling import SAMPLERS, DescentSampler
from energyql.sampling.registry import describe_sampler
from energyql.studio.restoring import _sampler
from studio.test_photographs import encoded


def ask(client, data, kind="image/png"):
    return client.request("POST", "/api/provenance", data, {"content-type": kind})


def picture_of(client, path, position, **body):
    job = client.draw(path, **body)
    assert job["state"] == "done", job["problem"]
    return job, client.get(f"/api/jobs/{job['id']}/pictures/{position}.png").body


def saying(text):
    info = PngImagePlugin.PngInfo()
    info.add_itxt("energyql", text)
    return encoded(Image.new("RGB", (4, 4)), pnginfo=info)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"semantics": "product", "sampler": "ode", "strength": 3.0, "truncation": 0.9, "seed": 7, "noise": "random"},
        {"sampler": "published-langevin", "seed": 2},
        {"strength": 2.5},
    ],
)
def test_a_drawing_is_drawn_again(studio, settings):
    job, data = picture_of(studio, "/api/jobs", 1, query="smile OR beard", n=3, **settings)
    restored = ask(studio, data).json()
    assert (restored["path"], restored["index"], restored["notes"]) == ("/api/jobs", 1, [])
    assert {name: restored["request"][name] for name in settings} == settings
    again = studio.draw(restored["path"], **restored["request"] | {"n": 3})
    assert again["pictures"] == [
        picture | {"position": position} for position, picture in enumerate(job["pictures"])
    ]  # fmt: skip


def test_an_edit_is_edited_again(studio):
    body = {"query": "smile", "seed": 4, "indices": [2, 3], "steps": ["beard", "NOT smile"], "keep": ["hair"]}
    job, data = picture_of(studio, "/api/edits", 3, **body)  # the second picture after the first step
    restored = ask(studio, data).json()
    assert (restored["path"], restored["index"], restored["notes"]) == ("/api/edits", 3, [])
    assert restored["request"]["steps"] == ["beard"]
    again = studio.draw(restored["path"], **restored["request"])
    assert again["pictures"][1]["image"] == job["pictures"][3]["image"]


@pytest.mark.parametrize("verify", ["off", "sure"])
def test_how_a_drawing_was_verified_is_restored(studio, tiny, tmp_path, verify):
    """A request that does not say it would be verified by a model with a verifier."""
    result = generate("smile", 1, model=tiny, verify=verify, attempts=2, progress=False)  # its judge accepts none
    result.save(tmp_path / "one")
    edit(result, ["beard"], model=tiny, progress=False).save(tmp_path / "edit")
    for picture in ("one/00000.png", "edit/1/00000.png"):
        assert ask(studio, (tmp_path / picture).read_bytes()).json()["request"]["verify"] == verify


def test_files_of_the_library_are_understood(studio, tiny, tmp_path):
    result = generate("smile", 3, model=tiny, seed=9, device="cpu", progress=False)
    result[[2, 0]].save(tmp_path / "some")
    edit(result[1], ["beard"], model=tiny, device="cpu", progress=False).save(tmp_path / "edit")
    restored = ask(studio, (tmp_path / "some" / "00000.png").read_bytes()).json()
    assert (restored["path"], restored["index"], restored["request"]["seed"]) == ("/api/jobs", 2, 9)
    restored = ask(studio, (tmp_path / "edit" / "1" / "00000.png").read_bytes()).json()
    assert (restored["path"], restored["index"], restored["request"]["index"]) == ("/api/edits", 1, 1)
    grid = ask(studio, (tmp_path / "some" / "grid.png").read_bytes()).json()
    assert (grid["path"], grid["index"]) == ("/api/jobs", None)


def test_the_grid_of_an_audited_result_says_so(studio, tiny, tmp_path):
    from auditing.test_audit import faces, run, session_of

    generate("smile", 4, model=tiny, seed=9, device="cpu", progress=False).save(tmp_path / "run")
    session = session_of(tmp_path / "run")
    audited = run(session, faces)
    publish(session.subject, audited)
    restored = ask(studio, (tmp_path / "run" / "grid.png").read_bytes()).json()
    assert (restored["path"], restored["notes"]) == ("/api/jobs", [f"audited: {audited}"])


def test_every_sampler_has_its_name_again():
    for name, make in SAMPLERS.items():
        assert _sampler(describe_sampler(make()))["sampler"] == name
        assert _sampler(describe_sampler(make(strength=3.5))) == {"sampler": name, "strength": 3.5}
    assert _sampler({"name": "Mine", "settings": {}}) == {}


@pytest.mark.parametrize("older", [{"sampler": "ODESolver(strength=2.5)"}, {"label": None}])
@pytest.mark.parametrize("edited", [False, True])
def test_a_picture_of_before_the_first_release_is_refused(studio, older, edited):
    _, data = picture_of(studio, "/api/jobs", 0, query="smile", n=1)
    with Image.open(io.BytesIO(data)) as picture:
        known = json.loads(picture.text["energyql"])
    known |= {"edit": {"start": known | older}} if edited else older
    problem = ask(studio, saying(json.dumps(known))).json()
    assert problem["message"] == "the picture was written by an earlier, unreleased version of energyql"
    assert problem["hint"] == "write the query again, and draw it"


def test_other_models_weights_and_versions_are_named(studio):
    _, data = picture_of(studio, "/api/jobs", 0, query="smile", n=1)
    with Image.open(io.BytesIO(data)) as picture:
        known = json.loads(picture.text["energyql"])
    other = ask(studio, saying(json.dumps(known | {"model": "other"}))).json()
    assert other["path"] is None
    assert "does not have the model 'other'" in other["notes"][0]
    weights = ask(studio, saying(json.dumps(known | {"fingerprints": {}, "versions": {"energyql": "0.0"}}))).json()
    assert weights["path"] == "/api/jobs"
    assert [len(weights["notes"]), "other weights" in weights["notes"][0], "0.0" in weights["notes"][1]] == [
        2,
        True,
        True,
    ]


def test_settings_of_a_sampler_that_no_request_has_are_named(studio, tiny, tmp_path):
    generate("smile", 1, model=tiny, sampler=DescentSampler(enough=0.3), device="cpu", progress=False).save(tmp_path)
    restored = ask(studio, (tmp_path / "00000.png").read_bytes()).json()
    assert "sampler" not in restored["request"]
    assert "enough=0.3" in restored["notes"][0]


def test_a_sampler_that_was_removed_is_named(studio, tiny):
    _, data = picture_of(studio, "/api/jobs", 0, query="smile", n=1)
    with Image.open(io.BytesIO(data)) as picture:
        provenance = json.loads(picture.text["energyql"])
    record = {"name": "crank-nicolson", "settings": {"step": 0.5, "strength": 1.0}}
    restored = ask(studio, saying(json.dumps(provenance | {"sampler": record}))).json()
    assert restored["path"] == "/api/jobs" and "sampler" not in restored["request"]
    assert "no request has its sampler, crank-nicolson(step=0.5" in restored["notes"][0]


def test_a_variation_says_that_it_cannot(studio):
    _, data = picture_of(studio, "/api/variations", 0, query="smile", n=1)
    restored = ask(studio, data).json()
    assert restored["path"] is None
    assert "variation" in restored["notes"][0]


GOOD = {
    "query": "smile",
    "model": "tiny",
    "seed": 1,
    "semantics": "exact",
    "truncation": 0.7,
    "noise": "const",
    "sampler": {"name": "x", "settings": {}},
}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "cannot be read"),
        (encoded(Image.new("RGB", (4, 4))), "says nothing of its making"),
        (saying(""), "says nothing of its making"),
        (saying("no json"), "damaged"),
        (saying("[" * 100_000), "damaged"),
        (saying("[]"), "damaged"),
        (saying("{}"), "damaged"),
        (saying(json.dumps(GOOD | {"query": 5})), "damaged"),
        (saying(json.dumps(GOOD | {"seed": "x"})), "damaged"),
        (saying(json.dumps(GOOD | {"sampler": 3})), "damaged"),
        (saying(json.dumps(GOOD | {"semantics": "magic"})), "damaged"),
        (saying(json.dumps(GOOD | {"edit": []})), "damaged"),
        (saying(json.dumps(GOOD | {"edit": {"start": GOOD, "queries": "x", "step": 1}})), "damaged"),
        (saying('{"query": "smile", "model": "tiny", "seed": 1e999}'), "damaged"),
        (saying(json.dumps(GOOD | {"sampler": {"name": "slice", "settings": {"strength": -1}}})), "damaged"),
    ],
)
def test_what_anyone_may_have_written(studio, data, words):
    answer = ask(studio, data)
    assert answer.status == 422
    assert words in answer.json()["message"]


def test_only_png(studio):
    assert ask(studio, b"x", "image/jpeg").status == 415
