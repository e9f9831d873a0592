"""From a generator to pictures of a query, by a scripted person in a browser: `python -m benchmarks.teaching --help`.

The person sees the page of `energyql teach` in Chromium, and clicks once a second: marks what is wrong on each screen,
accepts it, goes on with the attribute of which fewer pictures were found, asks for both together, contradicts what is
wrong, and has it replaced while clicks are left. What a picture shows is told by a hidden function (see
`benchmarks.own_models`) that the program never gets, and a share of the person's judgements is wrong. Counted are the
seconds from the command to the last of 16 pictures, the clicks, and the share of these pictures that is right.
With `--wall` nobody looks: seconds from labels to the sorted wall are counted, and memory, with so many pictures.
With `--one-by-one` the person says of random pictures, one after the other, whether they have each of the attributes,
and then asks; no click of this person is waited for.
"""

from __future__ import annotations

import json
import random
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any
from urllib.request import Request, urlopen

import numpy as np
import torch
import typer
from playwright.sync_api import Page

from benchmarks.common import run_command
from benchmarks.own_models import Subject
from energyql.evaluation.measure import machine
from energyql.files import write_json
from energyql.teaching.lesson import SCREEN
from tests.browser import find_chromium, started

SHARES = 0.05, 0.5
"""Shares of pictures that have an attribute, of those that are taught."""
LEAST = 0.004
"""Least share of pictures that have both attributes of a pair."""
PICTURES = 2_000
"""Random pictures that tell these shares."""
KEPT = 25
"""Clicks that are kept for answers."""
PATIENCE = 120.0
"""Seconds that the person waits for pictures."""
MOST_LABELS = 900
"""Labels up to which refits are measured."""
QUIET = 0.5
"""Seconds between the screens of these."""
SEED = 0
"""Seed of the pictures of a lesson."""


class Person:
    """A person in front of the page.

    Args:
        page: the page.
        look: what pictures show: numbers of pictures -> attribute -> values.
        wrong: share of judgements that are wrong.
        pause: seconds from one action to the next.
    """

    def __init__(self, page: Page, look: Any, wrong: float, pause: float, seed: str) -> None:
        self.page, self.look, self.wrong, self.pause = page, look, wrong, pause
        self.random, self.clicks, self.labelled, self.accepted = random.Random(seed), 0, 0, set[int]()
        self._next = time.monotonic()

    def act(self, action: Any) -> None:
        """Do one thing, once a second."""
        time.sleep(max(0.0, self._next - time.monotonic()))
        self._next = max(self._next, time.monotonic()) + self.pause
        action()
        self.clicks += 1

    def teach(self, name: str) -> None:
        """Name an attribute."""
        self.page.locator("#new").fill(name)
        self.act(lambda: self.page.locator("#add button").click())
        self.settled(name)

    def settled(self, name: str = "") -> None:
        """Wait for the pictures to look at."""
        self.page.locator(f"#task:has-text('{name}')").wait_for()
        self.page.wait_for_timeout(50)
        self.page.locator("#screen[aria-busy='false']").wait_for()

    def turn_to(self, name: str) -> None:
        """Go on with another attribute."""
        chosen = self.page.locator(f"#attributes button:has(strong:text-is('{name}'))")
        if chosen.get_attribute("aria-pressed") != "true":
            self.act(chosen.click)
            self.settled(name)

    def look_through(self, name: str, left: int) -> bool:
        """Correct the marks of a screen and accept it; whether that takes at most `left` clicks."""
        self.page.locator("#screen .cell").nth(SCREEN - 1).wait_for()
        self.settled(name)
        cells = self.page.locator("#screen .cell").evaluate_all(
            "nodes => nodes.map((node) => [Number(node.dataset.number), node.getAttribute('aria-pressed') === 'true'])"
        )
        shown = self.look([number for number, _ in cells])[name]
        seen = [bool(value) != (self.random.random() < self.wrong) for value in shown]
        odd = [number for (number, marked), has in zip(cells, seen, strict=True) if marked != has]
        if len(odd) + 1 > left:
            return False
        for number in odd:
            self.act(self.page.locator(f"#screen [data-number='{number}']").click)
        version = self.version()
        self.act(lambda: self.page.keyboard.press("Enter"))
        while self.version() <= version:
            time.sleep(0.02)
        self.settled()
        self.labelled += len(cells)
        return True

    def version(self) -> int:
        """Number of actions that the lesson has taken."""
        return int(self.page.evaluate("fetch('/api/lesson').then((a) => a.json()).then(({ version }) => version)"))

    def counts(self, name: str) -> int:
        """Number of labels of the rarer answer, as the meter says."""
        text = self.page.locator(f"#attributes button:has(strong:text-is('{name}'))").inner_text()
        return min(int(number) for number in re.findall(r"(\d+) (?:yes|no)", text))

    def label(self, pair: tuple[str, str], clicks: int) -> None:
        """Say of random pictures, one after the other, whether they have two attributes."""
        numbers, drawn = range(clicks // 2), "fetch('/api/lesson').then((a) => a.json()).then(({ drawn }) => drawn)"
        while self.page.evaluate(drawn) < 4 * len(numbers):  # a quarter are random
            time.sleep(0.2)
        shown = self.look(list(numbers))
        self._post("writer", {"page": "label"})
        for name in pair:
            seen = [bool(value) != (self.random.random() < self.wrong) for value in shown[name]]
            labels = {str(number): "yes" if has else "no" for number, has in zip(numbers, seen, strict=True)}
            self._post("labels", {"page": "label", "labels": {name: labels}})
        self.clicks += 2 * len(numbers)
        self.labelled += 2 * len(numbers)

    def _post(self, path: str, body: Any) -> None:
        script = (
            "([path, body]) => fetch(`/api/${path}`, {method: 'POST', headers: {'content-type': 'application/json'}, "
            "body: JSON.stringify(body)}).then(({ ok }) => ok)"
        )
        assert self.page.evaluate(script, [path, body]), f"{path} was refused"

    def ask(self, query: str) -> list[int]:
        """Ask, wait, and return the numbers of the pictures."""
        self.page.locator("#query textarea").fill(query)
        self.act(lambda: self.page.locator("#query textarea").press("Enter"))
        return self.wait()

    def wait(self) -> list[int]:
        """Wait until an answer is finished, and return the numbers of its pictures."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            answer = self.page.evaluate("fetch('/api/questions').then((a) => a.json())")
            if answer.get("finished"):
                break
            time.sleep(0.2)
        self.page.wait_for_timeout(400)
        sources = self.page.locator("#answer img").evaluate_all("nodes => nodes.map((node) => node.src)")
        return [int(re.search(r"(\d+)\.png", source)[1]) for source in sources]  # type: ignore[index]

    def correct(self, numbers: list[int], pair: tuple[str, str], left: int) -> bool:
        """Have what is wrong in an answer replaced, if anything is and it takes at most `left` clicks."""
        odd, shown = [], self.look(numbers)
        for name in pair:
            for number, value in zip(numbers, shown[name], strict=True):
                if number in self.accepted:
                    continue
                chip = self.page.locator(f"#answer figure:has(img[src$='/{number}.png']) .chip:has-text('{name}:')")
                seen = bool(value) != (self.random.random() < self.wrong)
                if chip.inner_text() != f"{name}: {'yes' if seen else 'no'}":
                    odd.append(chip)
        if not odd or len(odd) + 1 > left:
            return False
        for chip in odd:
            said = self.page.locator("#answer .chip.said").count()
            self.act(chip.click)
            self.page.locator("#answer .chip.said").nth(said).wait_for()
        self.act(self.page.locator("#answer-rest").click)
        self.page.locator("#answer .chip.said").first.wait_for(state="detached")
        self.labelled += 2 * len(set(numbers) - self.accepted)
        self.accepted |= set(numbers)
        return True


def lesson(
    subject: Subject,
    pair: tuple[str, str],
    clicks: int,
    wrong: float,
    pause: float,
    shots: Path | None,
    one_by_one: bool,
) -> dict[str, Any]:
    """Teach two attributes, ask for both, and count."""
    prior, known = subject.prior(SEED), dict[int, dict[str, Any]]()

    def look(numbers: list[int]) -> dict[str, list[Any]]:
        if new := [number for number in numbers if number not in known]:
            values = subject.read(prior.w(torch.tensor(new)), lambda done: None)
            known.update({number: {name: each[k] for name, each in values.items()} for k, number in enumerate(new)})
        return {name: [known[number][name] for number in numbers] for name in pair}

    browser_path = find_chromium()
    assert browser_path, "there is no Chromium"
    with TemporaryDirectory() as folder, started(browser_path) as browser:
        begun = time.monotonic()
        command = ["energyql", "teach", subject.generator, "--out", f"{folder}/model", "--port", "0"]
        server = subprocess.Popen([sys.executable, "-m", *command], stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            address = re.search(r"http://\S+", server.stdout.readline())
            assert address, "the server did not start"
            tab = browser.new_page(viewport={"width": 1200, "height": 1000})
            tab.goto(address[0])
            person = Person(tab, look, wrong, pause, " AND ".join(pair))
            for name in pair:
                person.teach(name)
            stuck: set[str] = set()
            if one_by_one:
                person.label(pair, clicks - person.clicks - 1)
                stuck.update(pair)
            while len(stuck) < 2:
                name = min((each for each in pair if each not in stuck), key=person.counts)
                person.turn_to(name)
                if not person.look_through(name, clicks - KEPT - person.clicks - 2):
                    stuck.add(name)
            taught = time.monotonic() - begun
            numbers = person.ask(" AND ".join(pair))
            while not one_by_one and person.correct(numbers, pair, clicks - person.clicks):
                numbers = person.wait()
            seconds = time.monotonic() - begun
            words = tab.locator("#answer-words").inner_text()
            if shots is not None:
                tab.screenshot(path=shots / f"{'-'.join(pair)}.png", full_page=True)
        finally:
            server.terminate()
            server.communicate(timeout=30)
    shown = look(numbers)
    right = [all(map(bool, values)) for values in zip(*shown.values(), strict=True)]
    return {
        "pair": list(pair), "true": statistics.fmean(right) if right else 0.0, "pictures": len(numbers),
        "clicks": person.clicks, "labels": person.labelled, "taught": taught, "seconds": seconds, "words": words,
    }  # fmt: skip


def refits(subject: Subject, pair: tuple[str, str], size: int) -> list[dict[str, Any]]:
    """Seconds from the labels of a screen to the sorted wall, and memory, with many pictures and more labels."""
    with TemporaryDirectory() as folder:
        command = ["energyql", "teach", subject.generator, "--out", f"{folder}/model", "--port", "0", "-n", str(size)]
        server = subprocess.Popen([sys.executable, "-m", *command], stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            address = re.search(r"http://\S+/", server.stdout.readline())
            assert address, "the server did not start"

            def ask(path: str, body: Any = None) -> Any:
                data = None if body is None else json.dumps({"page": "a"} | body).encode()
                headers = {} if data is None else {"content-type": "application/json"}
                with urlopen(Request(f"{address[0]}api/{path}", data, headers)) as answer:
                    return json.load(answer)

            ask("attributes", {"text": ", ".join(pair)})
            while ask("lesson")["drawn"] < size:
                time.sleep(1)
            records, labels = [], 0
            while labels < MOST_LABELS:
                seconds = []
                for name in pair * 4:
                    numbers = [cell["number"] for cell in ask(f"wall?attribute={name}")["screen"]]
                    values = subject.read(subject.prior(SEED).w(torch.tensor(numbers)), lambda done: None)[name]
                    said = {str(n): "yes" if value else "no" for n, value in zip(numbers, values, strict=True)}
                    begun = time.monotonic()
                    ask("labels", {"labels": {name: said}})
                    ask(f"wall?attribute={name}")
                    seconds.append(time.monotonic() - begun)
                    labels += len(said)
                    time.sleep(QUIET)
                status = Path(f"/proc/{server.pid}/status").read_text()
                memory, most = (int(re.search(rf"{key}:\s+(\d+)", status)[1]) / 1024 for key in ("VmRSS", "VmHWM"))  # type: ignore[index]
                records.append(
                    {"pictures": size, "labels": labels, "seconds": max(seconds), "MB": memory, "most MB": most}
                )
            return records
        finally:
            server.terminate()
            server.communicate(timeout=30)


def pairs_of(subject: Subject, count: int, seed: int) -> list[tuple[str, str]]:
    """Draw pairs of yes/no attributes whose shares are between `SHARES`."""
    values = subject.read(subject.prior(SEED + 1).w(torch.arange(PICTURES)), lambda done: None)
    columns = {name: np.asarray(each) for name, each in values.items()}
    flags = {name: each.astype(bool) for name, each in columns.items() if each.dtype.kind in "bi"}
    names = [name for name, each in flags.items() if SHARES[0] <= each.mean() <= SHARES[1]]
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :] if (flags[a] & flags[b]).mean() >= LEAST]
    return random.Random(seed).sample(pairs, min(count, len(pairs)))


def main(
    out: Annotated[Path, typer.Option(help="Folder of the results.")],
    generator: Annotated[str, typer.Option(help="module:factory.")] = "examples.faces.generator:Faces",
    hidden: Annotated[str, typer.Option(help="As of benchmarks.own_models.")] = "benchmarks.hidden_looks:faces",
    count: Annotated[int, typer.Option(min=1, help="Pairs of attributes.")] = 10,
    clicks: Annotated[int, typer.Option(min=10)] = 100,
    wrong: Annotated[float, typer.Option(min=0, max=0.5, help="Share of wrong judgements.")] = 0.05,
    pause: Annotated[float, typer.Option(min=0, help="Seconds from one action to the next.")] = 1.0,
    seed: int = 2026,
    shots: Annotated[bool, typer.Option(help="Keep pictures of the page.")] = False,
    one_by_one: Annotated[bool, typer.Option(help="Label random pictures one after the other.")] = False,
    wall: Annotated[int | None, typer.Option(min=300, help="Measure refits with so many pictures.")] = None,
) -> None:
    """Let a scripted person teach pairs of attributes, and count clicks, seconds and right pictures."""
    out.mkdir(parents=True, exist_ok=True)
    subject = Subject(generator, hidden, None, PICTURES, out)
    if wall is not None:
        for record in refits(subject, pairs_of(subject, 1, seed)[0], wall):
            print({name: round(each, 2) for name, each in record.items()}, flush=True)
        return
    records = []
    for pair in pairs_of(subject, count, seed):
        record = lesson(subject, pair, clicks, wrong, pause, out if shots else None, one_by_one)
        records.append(record)
        print({name: round(each, 3) if isinstance(each, float) else each for name, each in record.items()}, flush=True)
    true, seconds = ([record[name] for record in records] for name in ("true", "seconds"))
    print(f"true {statistics.fmean(true):.3f}, worst {min(true):.3f}, seconds at most {max(seconds):.0f}")
    settings = {
        "generator": generator,
        "hidden": hidden,
        "clicks": clicks,
        "wrong": wrong,
        "pause": pause,
        "seed": seed,
        "one by one": one_by_one,
    }
    write_json(out / "results.json", {"machine": machine(), "settings": settings, "records": records})


if __name__ == "__main__":
    run_command(main)
