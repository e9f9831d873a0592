"""Runs the blocks of a Markdown page from top to bottom, as a reader would.

`python` blocks share one set of names. In `sh` blocks, lines that begin with `energyql` run in this process. A block of
any other language is written to a file if the sentence before it says so: "... into `queries.txt`:". A comment before a
block says what else there is to know: `<!-- slow -->` puts it off to the slow tests, `<!-- not run: why -->` leaves it
out.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from energyql.cli.main import app

ROOT = Path(__file__).parents[1]
_FENCE = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```[ ]*$", re.MULTILINE | re.DOTALL)
_SECTION = re.compile(r"^## (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        language: what stands after the opening fence.
        text: what is between the fences.
        line: number of its first line in the page.
        before: the paragraph before it, with its comment.
        section: the heading of the second level that it stands under.
    """

    language: str
    text: str
    line: int
    before: str
    section: str

    @property
    def slow(self) -> bool:
        return "<!-- slow -->" in self.before

    @property
    def left_out(self) -> bool:
        return "<!-- not run: " in self.before

    @property
    def file(self) -> str | None:
        """The file that the reader is told to put it into."""
        found = re.search(r"\binto\s+`([^`\s]+\.\w+)`[^`]*:\s*(<!--.*-->\s*)?$", self.before)
        return found[1] if found else None


def blocks(page: Path) -> list[Block]:
    """Every fenced block of a page, in order."""
    text = page.read_text(encoding="utf-8")
    headings = [(match.start(), match[1]) for match in _SECTION.finditer(text)]
    found = []
    for match in _FENCE.finditer(text):
        before = text[: match.start()].rstrip()
        comment = re.search(r"\n\n(<!--[^\n]*-->)$", before)
        paragraph = (before[: comment.start()] if comment else before).rsplit("\n\n", 1)[-1]
        section = next((name for start, name in reversed(headings) if start < match.start()), "")
        line = text.count("\n", 0, match.start(2)) + 1
        found.append(Block(match[1], match[2], line, f"{paragraph}\n{comment[1] if comment else ''}", section))
    return found


def texts(page: Path, language: str, section: str | None = None) -> list[str]:
    """The blocks in one language, of the page or of one of its sections."""
    return [b.text for b in blocks(page) if b.language == language and section in (None, b.section)]


def execute(block: Block, names: dict[str, Any], page: Path) -> None:
    """Run a `python` block; tracebacks show the line of the page."""
    exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), names)


def commands(text: str) -> Iterator[list[str]]:
    """The commands of an `sh` block as words; a backslash at the end of a line goes on with the next."""
    for line in text.replace("\\\n", " ").splitlines():
        if words := shlex.split(line.removeprefix("$ "), comments=True):
            yield words


def call(words: list[str]) -> str:
    """Run one `energyql` command in this process and return what it prints."""
    outcome = CliRunner().invoke(app, words[1:])
    if outcome.exception is not None and not isinstance(outcome.exception, SystemExit):
        raise outcome.exception
    assert outcome.exit_code == 0, outcome.output
    return outcome.output


def run_page(
    page: Path, *, slow: bool = False, elsewhere: Callable[[list[str]], bool] = lambda words: False
) -> dict[str, Any]:
    """Run a page in the current folder.

    Args:
        slow: run the slow blocks too.
        elsewhere: whether a command that is not `energyql` is checked by another test.

    Returns:
        The names that the Python blocks defined.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.left_out or (block.slow and not slow):
            continue
        if block.file:
            Path(block.file).write_text(block.text, encoding="utf-8")
            sys.modules.pop(Path(block.file).stem, None)  # a module of that name that another test has imported
        elif block.language == "python":
            execute(block, names, page)
        elif block.language == "sh":
            for words in commands(block.text):
                if words[0] == "energyql":
                    call(words)
                else:
                    assert elsewhere(words), f"{page.name}: nothing runs {shlex.join(words)}"
    return names
