"""Random requests to the studio and damaged share links: a documented answer, never an error 500, and it lives on."""

import http.client
import io
import json
from urllib.parse import quote, urlencode

import pytest
from PIL import Image
from studio.client import serving

from energyql.studio.problems import REFUSALS
from fuzz.cases import VALUES, damage, damage_json, fuzz

BODIES = [
    ("/api/check", {"query": "smile AND NOT glasses", "semantics": "exact", "model": None}),
    ("/api/jobs", {"query": "smile", "n": 1, "seed": 3, "truncation": 0.7, "noise": "const", "allow_weak": []}),
    ("/api/edits", {"query": "smile", "index": 2, "steps": ["glasses"], "strength": 2.0, "sampler": "descent"}),
    ("/api/edits", {"query": "smile", "indices": [0, 1], "steps": ["hat"], "keep": ["hair"], "layers": [0, 1]}),
    ("/api/variations", {"query": "smile", "indices": [1, 3], "amount": 0.3, "n": 2, "variation_seed": 4}),
    ("/api/truth-tables", {"literals": ["smile", "hair = black"], "n": 1, "seed": 2}),
    ("/api/traversals", {"start": "smile", "end": "beard", "steps": 3, "n": 1}),
    ("/api/galleries", {"queries": ["smile", "beard OR glasses"], "n": 1, "title": "Faces"}),
]
KINDS = {kind: status for kind, (status, _) in REFUSALS.items() if status != 500}
LINK = {"q": "smile AND NOT glasses", "n": "2", "seed": "3", "truncation": "0.7", "edit": "1", "step": "glasses"}


@pytest.fixture(scope="module")
def small(tiny):
    """A client of a studio with a tiny model."""
    with serving([str(tiny)]) as client:
        yield client


def check(answer, place):
    """An answer has a documented status; from 400 on its body is a problem."""
    assert answer.status < 500 or answer.status == 503, (place, answer.status, answer.body)
    if answer.status >= 400 and place.startswith("/api/"):
        problem = answer.json()
        assert problem.get("message"), (place, answer.status, problem)
        assert answer.status in (404, 405, 422, KINDS.get(problem["error"])), (place, answer.status, problem)


def test_bodies(small):
    def work(random):
        place, body = random.choice(BODIES)
        if random.random() < 0.2:
            data = damage(random, json.dumps(body).encode())
        else:
            found = damage_json(random, dict(body))
            if isinstance(found, dict) and random.random() < 0.7:
                found[random.choice(list(body))] = random.choice((*VALUES, *body.values()))
            data = json.dumps(found).encode()
        answer = small.request("POST", place, data, {"content-type": "application/json"})
        check(answer, place)
        if answer.status == 202:
            check(small.request("DELETE", f"/api/jobs/{answer.json()['id']}"), "/api/jobs/id")

    fuzz(work, 60, 0.3)
    assert small.get("/api/info").status == 200


def test_uploads(small):
    """Damaged pictures, as photographs and for their provenance, with damaged parameters."""
    place = small.start("/api/jobs", query="smile", n=1)
    small.finish(place)
    own = small.get(f"/api/jobs/{place}/pictures/0.png").body
    plain = io.BytesIO()
    Image.new("RGB", (16, 16)).save(plain, "JPEG")

    def work(random):
        path = random.choice(("/api/provenance", "/api/photographs"))
        data, kind = random.choice(((own, "image/png"), (plain.getvalue(), "image/jpeg"), (own, "image/webp")))
        words = urlencode({name: random.choice(VALUES) for name in ("model", "truncation") if random.random() < 0.1})
        answer = small.request("POST", f"{path}?{words}", damage(random, data), {"content-type": kind})
        check(answer, path)
        if answer.status == 202:
            check(small.request("DELETE", f"/api/jobs/{answer.json()['id']}"), "/api/jobs/id")

    fuzz(work, 40, 0.2)
    assert small.get("/api/info").status == 200


def test_addresses(small):
    pictures = ["/api/jobs/x/grid.png", "/api/jobs/x/pictures/0.png", "/api/jobs/x/result.zip"]
    places = ["/", "/api/info", "/api/jobs/x", "/docs", "/static/a", *pictures]

    def work(random):
        place = quote(damage(random, random.choice(places).encode()), safe="/?&=%.")
        method = random.choice(("GET", "GET", "DELETE", "HEAD", "PUT", "OPTIONS"))
        after = random.choice(("", "?after=" + "9" * 400, "?after=-1"))
        try:
            answer = small.request(method, "/" + place.lstrip("/") + after)
        except http.client.HTTPException:  # the server ended the connection
            return
        assert answer.status < 500, (method, place, answer.body)

    fuzz(work, 40, 0.3)
    assert small.get("/api/info").status == 200


@pytest.mark.slow
@pytest.mark.browser
def test_share_links(small, chromium):
    from studio.page import visiting  # Playwright takes seconds to import

    with visiting(chromium, small.url, ready="#query") as visitor:

        def work(random):
            changed = {name: random.choice(VALUES) for name in LINK if random.random() < 0.2}
            fields = [(name, str(value)) for name, value in (LINK | changed).items() if random.random() > 0.1]
            link = urlencode(fields + [("step", "hair = black")] * random.randrange(3))
            if random.random() < 0.4:
                link = quote(damage(random, link.encode()), safe="&=%+")
            visitor.page.goto("about:blank")
            page = visitor.open("#" + link)
            page.locator("#query textarea").wait_for()

        fuzz(work, 4, 0.02)
        # The browser itself writes a line about every answer that is a refusal.
        visitor.faults[:] = [fault for fault in visitor.faults if "status of 422" not in fault]
