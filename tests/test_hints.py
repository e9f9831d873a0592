"""Messages name options of the command line and arguments of Python only where `either` chooses one of the two."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import energyql

PACKAGE = Path(energyql.__file__).parent
OPTION = re.compile(r"(?<![\w-])--[a-z]")
PYTHON = re.compile(
    r"\b(?!hair\b|age\b)[a-z_]+=(?:[\"'\[{(]|True\b|False\b|None\b|$|[,; ])"
    rf"|\b(?:{'|'.join(energyql.__all__)})\(|, in Python\b"
)
IN_BOTH = {
    "pipeline/explain_pilot.py": "the text of a pilot run, which is one text",
    "pipeline/result_words.py": "the summary of a result, which is one text",
    "teaching/outcome.py": "commands that the page of a lesson shows",
    "studio/guard.py": "shown by a browser, to the user of a command",
}
"""Modules whose texts have no two forms, and why."""
APART = ("either", "option", "Setting")
"""Calls whose texts are not looked at: those of the last two are help of commands."""


def texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of each literal of a tree outside docstrings, calls of `either`, and the help of options."""
    if isinstance(tree, ast.Constant) and isinstance(tree.value, str):
        yield tree.lineno, tree.value
    for child in ast.iter_child_nodes(tree):
        comment = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
        if not comment and not (isinstance(child, ast.Call) and ast.unparse(child.func) in APART):
            yield from texts(child)


def hints(tree: ast.AST) -> Iterator[ast.AST]:
    """Values of arguments and variables that are called `hint`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "hint":
            yield node.value
        elif isinstance(node, ast.Assign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == "hint" for target in targets):
                yield node.value


def options_in(tree: ast.AST) -> list[tuple[int, str]]:
    return [(line, text) for line, text in texts(tree) if OPTION.search(text)]


def python_in(tree: ast.AST) -> list[tuple[int, str]]:
    return [(line, text) for hint in hints(tree) for line, text in texts(hint) if PYTHON.search(text)]


def modules(*, commands: bool) -> list[Path]:
    paths = sorted(PACKAGE.rglob("*.py"))
    return [path for path in paths if (path.relative_to(PACKAGE).parts[0] == "cli") == commands]


@pytest.mark.parametrize("path", modules(commands=False), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_option_in_what_python_raises(path):
    if path.relative_to(PACKAGE).as_posix() not in IN_BOTH:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert (options_in(tree), python_in(tree)) == ([], [])


@pytest.mark.parametrize("path", modules(commands=True), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_python_in_what_a_command_prints(path):
    assert python_in(ast.parse(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("hint", "found"),
    [
        ("'give --out'", (1, 0)), ("f'{a} or judge=None'", (0, 1)), ("'load_model(folder) does'", (0, 1)),
        ("'set ' + either('out=', '--out')", (0, 0)), ("f\"{either('out=', '--out')}\"", (0, 0)),
        ("'such as hair=black|brown -- or so'", (0, 0)), ("'give out=, or nothing'", (0, 1)),
    ],
)  # fmt: skip
def test_what_is_found(hint, found):
    tree = ast.parse(f"raise Error('no', hint={hint})")
    assert (len(options_in(tree)), len(python_in(tree))) == found
