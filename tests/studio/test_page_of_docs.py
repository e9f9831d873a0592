"""What docs/studio.md and docs/studio-api.md say, done; and they leave out nothing of the API."""

import re

import pytest
from avatars import random_avatars
from markdown import ROOT, run_page

from energyql.errors import UnknownAttribute
from energyql.studio import guard
from energyql.studio import serving as module
from energyql.studio.app import create_app
from energyql.studio.limits import Limits
from energyql.studio.schemas import (
    DrawRequest,
    EditRequest,
    GalleryRequest,
    PhotographRequest,
    TraversalRequest,
    TruthTableRequest,
    VariationsRequest,
)
from energyql.studio.studio import Studio
from energyql.studio.web import CONNECTIONS
from studio.client import serving

PAGE, API = ROOT / "docs" / "studio.md", ROOT / "docs" / "studio-api.md"
TEXT = PAGE.read_text(encoding="utf-8")
API_TEXT = API.read_text(encoding="utf-8")


def test_blocks_run(tmp_path, monkeypatch, capsys):
    """The commands start nothing here, because they would not end; test_cli_studio.py starts one."""
    started = []
    monkeypatch.setattr(module, "serve", lambda models, **options: started.append((models, options)))
    run_page(PAGE, elsewhere=lambda words: words[:2] == ["pip", "install"])
    assert [options["host"] for _, options in started] == ["127.0.0.1", "127.0.0.1", "0.0.0.0"]
    assert started[1][1]["limits"].pictures == 32


def test_the_api_does_what_its_page_says(tmp_path, capsys):
    with serving([str(random_avatars(tmp_path / "avatars"))]) as client:
        page = tmp_path / "studio-api.md"
        page.write_text(API_TEXT.replace("127.0.0.1:8420", f"127.0.0.1:{client.port}"), encoding="utf-8")
        names = run_page(page)
    assert len(names["job"]["pictures"]) == 4
    assert names["filmstrip"].startswith(b"\x89PNG")
    assert "<h1" in names["html"]
    for name in ("several", "varied", "table", "path", "page", "inverted", "edited"):
        assert names[name]["state"] == "done", name
    assert names["restored"]["request"]["query"] == "smile AND NOT glasses"
    assert names["problem"]["suggestions"] == [{"span": [14, 20], "text": "glasses"}]
    output = capsys.readouterr().out
    assert "of 4 satisfy the query" in output
    assert f"422 {UnknownAttribute.__name__}" in output
    assert "^^^^^^" in output


@pytest.fixture(scope="module")
def described():
    studio = Studio({})
    yield create_app(studio).openapi()
    studio.close()


def test_every_request_is_named(described):
    methods = {"get", "post", "delete"}
    routes = {f"{m.upper()} {path}" for path, each in described["paths"].items() for m in each if m in methods}
    assert set(re.findall(r"^\| `((?:GET|POST|DELETE) \S+)` \|", API_TEXT, re.MULTILINE)) == routes


def test_every_field_of_a_request_is_named():
    requests = (DrawRequest, EditRequest, VariationsRequest, TruthTableRequest, TraversalRequest, GalleryRequest)
    for field in {name for request in (*requests, PhotographRequest) for name in request.model_fields}:
        assert f"`{field}`" in API_TEXT or f'"{field}": ' in API_TEXT or f"?{field}=" in API_TEXT, field


def test_every_answer_is_typed(described):
    for path, each in described["paths"].items():
        for method, route in each.items():
            assert route["summary"], path
            for code, answer in route["responses"].items():
                assert answer.get("content"), (method, path, code)


def test_limits_are_those_of_the_code():
    limits = Limits()
    for text in (
        f"| pictures of a request | {limits.pictures} |",
        f"| seconds that a request may run | {limits.seconds:g} |",
        f"| requests that wait | {limits.waiting},",
        f"| characters of a query | {limits.characters:,} |",
        f"| steps of an edit | {limits.steps} |",
        f"| {limits.body // 1024} KiB,",
        f"cancelled after {limits.unwatched:g} seconds",
        f"after {limits.unwatched_contended:g} while others wait",
        f"{limits.kept_bytes >> 20} MiB in total",
        f"{limits.photograph_bytes >> 20} MiB, which must arrive within {guard.UPLOAD_SECONDS:g} seconds",
        f"{limits.photograph_pixels // 1_000_000} million",
        f"| connections | {CONNECTIONS},",
    ):
        assert text in TEXT, text
    assert limits.kept_seconds == 3600
