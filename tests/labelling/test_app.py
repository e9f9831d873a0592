"""The page for labels: what it answers, and whom."""

import threading

import pytest

from energyql.errors import DataError
from energyql.labelling import app
from energyql.labelling.app import AHEAD, create_app
from energyql.labelling.sheet import LabelSheet
from labelling.pages import labelling


@pytest.fixture
def sheet(folder, tmp_path):
    return LabelSheet.open(tmp_path / "labels.csv", folder, "glasses, hair=black|brown, age=0..1")


@pytest.fixture
def client(sheet):
    with labelling(sheet) as client:
        yield client


def test_pictures_are_labelled_one_after_the_other(client, sheet):
    state = client.get("/api/state").json()
    assert (state["pictures"], state["labelled"], state["next"], state["last"]) == (8, 0, [0, 1, 2], None)
    assert [field["kind"] for field in state["attributes"]] == ["yes/no", "categorical", "continuous"]
    for index in (*range(6), 1_000_005):
        assert state["next"][0] == index
        state = client.post("/api/labels", {"index": index, "labels": {"glasses": "yes", "age": 0.5}}).json()
        assert sheet.rows()[index] == {"glasses": "yes", "hair": "", "age": "0.5"}
    assert (state["labelled"], state["next"], state["last"]) == (7, [1_000_002], 1_000_005)
    state = client.request("DELETE", "/api/labels/1000005").json()
    assert (state["labelled"], state["next"], state["last"]) == (6, [1_000_005, 1_000_002], 5)
    assert AHEAD == 3


def test_a_new_start_continues(client, sheet, folder):
    client.post("/api/labels", {"index": 4, "labels": {"hair": "black"}})
    with labelling(LabelSheet.open(sheet.path, folder, None)) as again:
        assert again.get("/api/state").json()["next"] == [0, 1, 2]
        assert again.get("/api/state").json()["last"] == 4


def test_decisions_at_the_same_time_are_all_kept(client, sheet):
    threads = [
        threading.Thread(target=client.post, args=("/api/labels", {"index": k, "labels": {"glasses": "no"}}))
        for k in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sheet.rows()) == list(range(6))


def test_the_page_and_its_parts(client, folder):
    page = client.get("/")
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    for path in ("/label/label.js", "/label/label.css", "/static/dom.js", "/static/api.js", "/static/gallery.css"):
        assert path.rpartition("/")[2] in (page.body + client.get("/label/label.js").body).decode()
        assert client.get(path).status == 200
    picture = client.get("/api/pictures/1000005.png")
    assert (picture.status, picture.headers["content-type"]) == (200, "image/png")
    assert picture.body == folder.file(1_000_005).read_bytes()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"index": 9, "labels": {}}, 422),
        ({"index": 0, "labels": {"hat": "yes"}}, 422),
        ({"index": 0, "labels": {"hair": "green"}}, 422),
        ({"index": 0, "labels": {"age": 2}}, 422),
        ({"index": "x", "labels": {}}, 422),
        ({"labels": {}}, 422),
        (b"{", 422),
    ],
)
def test_wrong_labels_are_refused(client, sheet, body, status):
    answer = client.post("/api/labels", body, **{"content-type": "application/json"})
    assert answer.status == status
    assert answer.json()["message"]
    assert not sheet.path.exists()


@pytest.mark.parametrize(
    "path",
    [
        "/api/pictures/7.png",
        "/api/pictures/-1.png",
        "/api/pictures/..%2Fpictures.json.png",
        "/label/../app.py",
        "/label/..%2Fapp.py",
        "/static/%2e%2e/app.py",
        "/pictures.json",
    ],
)
def test_nothing_else_is_served(client, path):
    answer = client.get(path)
    assert answer.status in (404, 422)
    assert b"drawn" not in answer.body
    assert b"import" not in answer.body


def test_pages_of_other_sites_are_refused(client, sheet):
    for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}, {"host": "evil.example"}):
        assert client.post("/api/labels", {"index": 0, "labels": {"glasses": "yes"}}, **headers).status == 403
        assert client.request("DELETE", "/api/labels/0", headers=headers).status == 403
        assert client.get("/api/pictures/0.png", **headers).status == 403
    form = client.post("/api/labels", b"index=0", **{"content-type": "text/plain"})
    assert form.status == 415
    large = client.post("/api/labels", {"index": 0, "labels": {"glasses": "y" * app.BODY}})
    assert large.status == 413
    assert not sheet.path.exists()


@pytest.mark.parametrize(
    "text", ["not,a\ntable,of labels\n", *(f"index,{{0}}\n{number},{{1}}\n" for number in ("²", "٣", "9" * 5000))]
)
def test_a_table_that_is_damaged_meanwhile_is_not_written_over(client, sheet, text):
    """The second has a superscript for its number, which Python takes for a digit."""
    text = text.format(",".join(sheet.attributes), "," * (len(sheet.attributes) - 1))
    sheet.path.write_text(text, encoding="utf-8")
    answer = client.post("/api/labels", {"index": 0, "labels": {"glasses": "yes"}})
    assert (answer.status, answer.json()["error"]) == (422, "DataError")
    assert sheet.path.read_text(encoding="utf-8") == text


def test_a_folder_that_holds_no_pictures(sheet, folder):
    for index in folder.indices:
        folder.file(index).unlink()
    with pytest.raises(DataError, match="has no pictures yet\ndraw some with energyql sample"):
        create_app(sheet)
