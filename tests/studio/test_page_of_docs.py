"""What docs/studio.md says, done; and it leaves out nothing of the API."""

import re

import pytest
from markdown import ROOT, run_page

from energyql.errors import UnknownAttribute
from energyql.studio import serving as module
from energyql.studio.app import create_app
from energyql.studio.limits import Limits
from energyql.studio.requests import DrawRequest, EditRequest
from energyql.studio.studio import Studio
from studio.client import serving

PAGE = ROOT / "docs" / "studio.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_blocks_run(tmp_path, monkeypatch, capsys):
    """The commands start nothing here, because they would not end; test_cli_studio.py starts one."""
    started = []
    monkeypatch.setattr(module, "serve", lambda models, **options: started.append((models, options)))
    with serving(["avatars"]) as client:
        page = tmp_path / "studio.md"
        page.write_text(TEXT.replace("127.0.0.1:8420", f"127.0.0.1:{client.port}"), encoding="utf-8")
        names = run_page(page, elsewhere=lambda words: words[:2] == ["pip", "install"])
    assert [options["host"] for _, options in started] == ["127.0.0.1", "127.0.0.1", "0.0.0.0"]
    assert started[1][1]["limits"].pictures == 32
    assert len(names["job"]["pictures"]) == 4
    assert names["filmstrip"].startswith(b"\x89PNG")
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
    assert set(re.findall(r"^\| `((?:GET|POST|DELETE) \S+)` \|", TEXT, re.MULTILINE)) == routes


def test_every_field_of_a_request_is_named():
    for field in DrawRequest.model_fields | EditRequest.model_fields:
        assert f"`{field}`" in TEXT, field


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
        f"{limits.kept_bytes >> 20} MiB in total",
    ):
        assert text in TEXT, text
    assert limits.kept_seconds == 3600
