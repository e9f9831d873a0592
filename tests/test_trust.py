"""Code that a model folder names needs permission once: what the record of it allows, and what it does not."""

import importlib
import json
import os
import py_compile
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from toys import tiny_model

from energyql import load_model
from energyql.errors import ModelError
from energyql.files import state_folder
from energyql.pipeline.model import record_judge
from energyql.plugins import GENERATORS, JUDGES, check_allowed, load_plugin
from energyql.trust import RECORD, code_files

LOOK = "import own_helper\n\ndef look(images):\n    return {'bright': images.mean((1, 2, 3)) > own_helper.BOUND}\n"


@pytest.fixture(autouse=True)
def desk(tmp_path, monkeypatch):
    """A working directory with a module and one that it imports, a model folder, and a record of its own."""
    desk = tmp_path / "desk"
    (desk / "model").mkdir(parents=True)
    (desk / "own_looks.py").write_text(LOOK)
    (desk / "own_helper.py").write_text("BOUND = 0\n")
    monkeypatch.chdir(desk)
    monkeypatch.setenv("ENERGYQL_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(sys, "argv", ["/usr/bin/energyql", "generate", "--token", "secret"])
    forget()
    yield desk
    forget()


def forget() -> None:
    """As in a new process."""
    for name in ("own_looks", "own_helper", "colorsys", "packed", "packed.inner", "packed.other"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()


def allow(folder: str = "model", name: str = "own_looks:look") -> None:
    check_allowed(name, "judge", Path(folder), True)


def ask(folder: str = "model", name: str = "own_looks:look") -> str:
    return check_allowed(name, "judge", Path(folder), False)


def refusal(folder: str = "model", name: str = "own_looks:look") -> str:
    with pytest.raises(ModelError, match="not run without permission") as caught:
        ask(folder, name)
    return caught.value.message.partition("without permission")[2]


def record(tmp_path: Path) -> Path:
    return tmp_path / "state" / RECORD


def test_asked_once(tmp_path):
    assert refusal() == ""
    assert not (tmp_path / "state").exists()
    allow()
    assert ask() == "own_looks:look"
    ((kind, entry),) = json.loads(record(tmp_path).read_text())[os.path.realpath("model")].items()
    assert (kind, entry["code"], entry["command"]) == ("judge", "own_looks:look", "energyql generate")
    assert [Path(path).name for path in sorted(entry["files"])] == ["own_helper.py", "own_looks.py"]
    assert "secret" not in record(tmp_path).read_text()
    before = record(tmp_path).stat().st_mtime_ns
    allow()
    assert record(tmp_path).stat().st_mtime_ns == before


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are otherwise there")
def test_it_is_private(tmp_path):
    os.umask(before := os.umask(0o002))
    allow()
    assert record(tmp_path).stat().st_mode & 0o777 == 0o600
    assert record(tmp_path).parent.stat().st_mode & 0o777 == 0o700
    assert before == os.umask(before)


def test_a_model_is_loaded_from_python(tmp_path):
    folder = tiny_model(tmp_path / "tiny", judge=True)
    record_judge(folder, "own_looks:look")
    with pytest.raises(ModelError, match="judge='own_looks:look'"):
        load_model(folder)
    load_model(folder, allow_plugins=True)
    assert load_model(folder).judge.__name__ == "look"
    Path("own_looks.py").write_text(LOOK + "open('mark', 'w')\n")
    forget()
    with pytest.raises(ModelError, match=r"permission: the file .*own_looks\.py changed since you allowed it"):
        load_model(folder)
    assert not Path("mark").exists()


def test_what_people_see_of_a_picture(tmp_path):
    folder = tiny_model(tmp_path / "tiny")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"render": "own_looks:look"}))
    for options, drawn in (({}, False), ({"allow_plugins": True}, True), ({}, True)):
        assert hasattr(load_model(folder, **options).generator, "render") == drawn
    Path("own_looks.py").write_text(LOOK + "open('mark', 'w')\n")
    forget()
    assert not hasattr(load_model(folder).generator, "render")
    assert not Path("mark").exists()


def test_a_changed_file_of_the_module_or_of_what_it_imports():
    allow()
    Path("own_helper.py").write_text("BOUND = 1\n")
    assert refusal().endswith("own_helper.py changed since you allowed it")
    allow()
    assert ask()
    Path("own_helper.py").unlink()
    forget()
    assert "own_helper.py, which you allowed, is not found from" in refusal()


def test_a_changed_configuration():
    allow()
    Path("own_other.py").write_text(LOOK)
    assert refusal(name="own_other:look") == ": you allowed own_looks:look there, and now it names own_other:look"
    assert refusal(name="own_looks:more") == ": you allowed own_looks:look there, and now it names own_looks:more"
    with pytest.raises(ModelError):
        check_allowed("own_looks:look", "generator", Path("model"), False)


def test_another_folder_asks_again(tmp_path):
    allow()
    shutil.copytree("model", "download")
    assert refusal("download") == ""
    Path("link").symlink_to("model")
    assert ask("link")  # the same folder
    shutil.rmtree("model")
    Path("model").symlink_to("download")
    assert refusal("model") == ""


def test_a_folder_brings_no_record_of_its_own(tmp_path, monkeypatch):
    allow()
    text = record(tmp_path).read_text().replace(os.path.realpath("model"), os.path.realpath("download"))
    for place in ("download", "download/.local/state/energyql", "download/state"):
        Path(place).mkdir(parents=True, exist_ok=True)
        Path(place, RECORD).write_text(text)
        Path(place, RECORD).chmod(0o600)
    assert refusal("download") == ""
    monkeypatch.chdir("download")
    monkeypatch.setenv("ENERGYQL_STATE", "state")  # which would be that of the folder
    assert state_folder() is None
    assert refusal(".") == ""


def test_modules_that_shadow(tmp_path, desk, monkeypatch):
    """A working directory that comes with a download holds modules of the same names, or of the standard library's."""
    allow()
    download = tmp_path / "download"
    download.mkdir()
    (download / "own_looks.py").write_text("open('mark', 'w')\n")
    monkeypatch.chdir(download)
    assert "download/own_looks.py would run too, or in place of another" in refusal(str(desk / "model"))
    (download / "own_looks.py").unlink()
    forget()
    assert "own_helper.py, which you allowed, is not found from" in refusal(str(desk / "model"))
    monkeypatch.syspath_prepend(str(desk))
    forget()
    assert ask(str(desk / "model"))
    (download / "own_helper.py").write_text("open('mark', 'w')\n")
    forget()
    assert "download/own_helper.py would run too" in refusal(str(desk / "model"))
    (download / "own_helper.py").unlink()
    (desk / "own_looks.py").write_text(f"import colorsys\n{LOOK}")
    forget()
    allow(str(desk / "model"))
    (download / "colorsys.py").write_text("open('mark', 'w')\n")
    forget()
    assert "download/colorsys.py would run too" in refusal(str(desk / "model"))
    assert not (download / "mark").exists()


def test_a_compiled_file_is_not_taken_for_its_source(tmp_path):
    allow()
    Path("evil.py").write_text("open('mark', 'w')\nlook = print\n")
    compiled = importlib.util.cache_from_source("own_looks.py")
    py_compile.compile("evil.py", compiled, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    assert load_plugin(ask(), JUDGES).__name__ == "look"
    assert not Path("mark").exists()
    assert sys.pycache_prefix is None


def test_names_of_installed_code(tmp_path, monkeypatch):
    site = tmp_path / "site"
    points = site / "packed-1.0.dist-info"
    points.mkdir(parents=True)
    (points / "METADATA").write_text("Metadata-Version: 2.1\nName: packed\nVersion: 1.0\n")
    (points / "entry_points.txt").write_text(f"[{JUDGES}]\nseer = packed.inner:see\n[{GENERATORS}]\n")
    (site / "packed").mkdir()
    (site / "packed" / "__init__.py").write_text("")
    (site / "packed" / "inner.py").write_text("from . import other\nfrom ..beyond import no\nsee = other.see\n")
    (site / "packed" / "other.py").write_text("def see(images):\n    return {}\n")
    monkeypatch.syspath_prepend(str(site))
    allow(name="seer")
    assert ask(name="seer") == "seer"
    found = code_files("packed.inner", here=False)
    assert [Path(path).name for path in sorted(found)] == ["__init__.py", "inner.py", "other.py"]
    Path("packed").mkdir()  # not looked for here
    Path("packed/__init__.py").write_text("open('mark', 'w')\n")
    assert ask(name="seer")
    (points / "entry_points.txt").write_text(f"[{JUDGES}]\nseer = os:system\n")
    assert refusal(name="seer") == ": you allowed packed.inner:see there, and now it names os:system"
    assert refusal(name="not_installed") == ""


def test_only_ones_own_files_are_followed():
    Path("own_looks.py").write_text("import torch, json, energyql.errors\nfrom no_such import thing\n")
    assert [Path(path).name for path in code_files("own_looks", here=True)] == ["own_looks.py"]
    assert [Path(path).name for path in code_files("json.decoder", here=True)] == ["__init__.py", "decoder.py"]
    assert code_files("sys", here=True) == {}
    assert code_files("no_such.module", here=True) == {}
    Path("own_looks.py").write_text("def (:")
    assert len(code_files("own_looks", here=True)) == 1


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"a": 1}', '{"a": {"judge": {}}}', '{"a": {"judge": 7}}', "\xff", "[" * 10**5]
)
def test_a_damaged_record_is_ignored(tmp_path, text):
    allow()
    record(tmp_path).write_text(text, encoding="latin-1")
    assert refusal().endswith("trusted.json, which records what you allowed, is ignored: it cannot be read")
    allow()
    assert ask()


def test_a_record_whose_entry_has_other_fields_is_ignored(tmp_path):
    allow()
    entries = json.loads(record(tmp_path).read_text())
    entries[os.path.realpath("model")]["judge"]["files"] = ["own_looks.py"]
    record(tmp_path).write_text(json.dumps(entries))
    assert "is ignored" in refusal()


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are otherwise there")
@pytest.mark.parametrize(("file", "mode"), [(True, 0o602), (True, 0o660), (False, 0o777), (False, 0o720)])
def test_a_record_that_others_can_write_is_ignored(tmp_path, file, mode):
    allow()
    (record(tmp_path) if file else record(tmp_path).parent).chmod(mode)
    assert refusal().endswith("which records what you allowed, is ignored: other users can write it")
    allow()
    if file:
        assert ask()
    else:  # it stays as it is, and so does the question
        assert "is ignored" in refusal()
        load_plugin("own_looks:look", JUDGES)
        assert not (tmp_path / "state" / "bytecode").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are otherwise there")
def test_a_record_of_another_user_a_link_or_a_pipe_is_ignored(tmp_path, monkeypatch):
    allow()
    record(tmp_path).rename(tmp_path / "elsewhere")
    record(tmp_path).symlink_to(tmp_path / "elsewhere")
    assert "is ignored" in refusal()
    record(tmp_path).unlink()
    os.mkfifo(record(tmp_path), 0o600)
    assert refusal().endswith("it is no regular file")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert refusal().endswith("it belongs to another user")


def test_a_place_that_cannot_be_written_asks_each_time(tmp_path, monkeypatch):
    (tmp_path / "state").write_text("a file")
    allow()
    assert refusal() == ""
    monkeypatch.setenv("ENERGYQL_STATE", "")
    allow()
    assert refusal() == ""


def test_two_processes_at_once(tmp_path):
    code = (
        "import sys; from pathlib import Path; from energyql.plugins import check_allowed\n"
        "for i in range(15):\n"
        "    folder = Path(f'model-{sys.argv[1]}-{i}'); folder.mkdir()\n"
        "    check_allowed('own_looks:look', 'judge', folder, True)\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(number)]) for number in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert len(json.loads(record(tmp_path).read_text())) == 45
    assert all(ask(f"model-{number}-{i}") for number in range(3) for i in range(15))
    shutil.rmtree("model-0-0")
    allow()
    assert len(json.loads(record(tmp_path).read_text())) == 45  # one more, and without the folder that is gone


def test_where(monkeypatch, tmp_path):
    monkeypatch.delenv("ENERGYQL_STATE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state_folder() == tmp_path / "energyql"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert state_folder() is None
    monkeypatch.delenv("XDG_STATE_HOME")
    assert state_folder() == Path.home() / ".local" / "state" / "energyql"
