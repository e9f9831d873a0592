import re
from configparser import ConfigParser
from fnmatch import fnmatch
from importlib.metadata import entry_points, version
from importlib.resources import files
from pathlib import Path

import pytest
from needed import needed

import energyql
from energyql.language import lexical

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def setup():
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def on_disk():
    """Every folder of the package, by dotted name, and the grammar, which is installed into it."""
    folders = {path.parent for path in (ROOT / "energyql").rglob("__init__.py")}
    return {".".join(folder.relative_to(ROOT).parts): folder for folder in folders} | {
        "energyql.grammar": ROOT / "grammar"
    }


def test_every_folder_with_code_is_a_package():
    for path in (ROOT / "energyql").rglob("*.py"):
        assert (path.parent / "__init__.py").exists(), path


def test_every_file_that_is_no_code_is_shipped(setup):
    patterns = {
        package: [pattern.strip() for pattern in text.replace("\n", ",").split(",") if pattern.strip()]
        for package, text in setup["options.package_data"].items()
    }
    folders = on_disk()
    for package, folder in folders.items():
        for path in folder.rglob("*"):
            if not path.is_file() or path.suffix in (".py", ".pyc"):
                continue
            owner = next(p for p in sorted(folders, key=len, reverse=True) if folders[p] in path.parents)
            name = path.relative_to(folders[owner]).as_posix()
            assert any(fnmatch(name, pattern) for pattern in patterns.get(owner, [])), f"{name} of {package}"


def test_the_installed_grammar_is_this_one():
    installed = files("energyql.grammar").joinpath("query.lark").read_text(encoding="utf-8")
    assert installed == (ROOT / "grammar" / "query.lark").read_text(encoding="utf-8")


def test_python_in_a_checkout_takes_the_grammar_beside_the_package(monkeypatch):
    monkeypatch.setattr(lexical, "find_spec", lambda name: None)  # as if only another place had it installed
    assert lexical.grammar.__wrapped__() == lexical.grammar()


def test_versions_agree(setup):
    assert energyql.__version__ == version("energyql") == setup["metadata"]["version"]


def test_the_citation_is_of_this_version(setup):
    """As the format asks (citation-file-format 1.2.0): what must be there, and the paper."""
    cited = needed("yaml").safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
    assert (cited["cff-version"], cited["type"]) == ("1.2.0", "software")
    assert (str(cited["version"]), cited["license"]) == (setup["metadata"]["version"], setup["metadata"]["license"])
    (paper,) = cited["references"]
    assert paper["url"].rpartition("/")[2] in (ROOT / "README.md").read_text(encoding="utf-8")
    assert [author["family-names"] for author in paper["authors"]] == ["Nie", "Vahdat", "Anandkumar"]


def test_the_first_heading_of_the_changes_is_this_version(setup):
    heading = re.search(
        r"^## (\S+)(?: \(unreleased\)|, \d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert heading is not None
    assert heading[1] == setup["metadata"]["version"]


def test_the_command_is_installed():
    (command,) = entry_points(group="console_scripts", name="energyql")
    assert callable(command.load())


def test_hints_on_installing_work_from_a_checkout(setup):
    """A package of the name energyql may be another version, or none: hints name the missing packages themselves."""
    lists = [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
    known = re.split(r"[\n;]\s*", "\n".join(lists))
    hints = []
    for path in (ROOT / "energyql").rglob("*.py"):
        hints += re.findall(r"pip install ([^\n]*?)'?\)?$", path.read_text(encoding="utf-8"), re.MULTILINE)
    named = [name for hint in hints for name in re.findall(r'"([^"]+)"', hint)]
    assert len(named) >= 4
    assert set(named) <= set(known)
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "energyql").rglob("*.py")):
        assert "energyql[" not in path.read_text(encoding="utf-8"), path
