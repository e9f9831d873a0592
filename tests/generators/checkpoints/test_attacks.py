"""Files that try to run something: nothing is run, and all end as ModelError."""

from __future__ import annotations

import copyreg
import io
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from generators.checkpoints.writer import LEGACY_HEAD, Call, Named, dumps, official, text, torch_zip


class Evil:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", range(6))
def test_os_system_in_every_protocol(sentinel: Path, refused: Any, protocol: int) -> None:
    content = pickle.dumps({"G_ema": Evil(f"touch {sentinel}")}, protocol)
    error = refused(content)
    if protocol >= 2:
        assert f"{os.system.__module__}.system" in error.message
        assert error.hint is not None
        assert "nothing was run" in error.hint


@pytest.mark.parametrize(
    "template",
    [
        b"\x80\x02cos\nsystem\n(%stR.",  # GLOBAL, REDUCE
        b"\x80\x04X\x02\x00\x00\x00osX\x06\x00\x00\x00system\x93%s\x85R.",  # STACK_GLOBAL
        b"\x80\x02(%sios\nsystem\n.",  # INST
        b"\x80\x02(cos\nsystem\n%so.",  # OBJ
        b"\x80\x02csubprocess\nPopen\n%s\x85\x81.",  # NEWOBJ
        b"\x80\x04csubprocess\nPopen\n%s\x85}\x92.",  # NEWOBJ_EX
        b"\x80\x02}cos\nsystem\n%s\x85Rb.",  # BUILD state
        b"\x80\x02ccollections\nOrderedDict\n)Rcos\nsystem\n%s\x85Rb.",
        b"\x80\x02(cos\nsystem\n%s\x85Rt0N.",  # thrown away
        b"\x80\x02N0cos\nsystem\n%s\x85R.",
    ],
)
def test_raw_operations(sentinel: Path, refused: Any, template: bytes) -> None:
    error = refused(template % text(f"touch {sentinel}"))
    assert any(name in error.message for name in ("os.system", "subprocess.Popen", "operation INST"))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"),
        ("builtins", "exec"),
        ("builtins", "getattr"),
        ("builtins", "__import__"),
        ("__builtin__", "eval"),
        ("copyreg", "_reconstructor"),
        ("copyreg", "__newobj__"),
        ("functools", "partial"),
        ("operator", "attrgetter"),
        ("numpy", "load"),
        ("numpy.testing._private.utils", "runstring"),
        ("torch", "load"),
        ("torch.hub", "load"),
        ("torch", "serialization.os.system"),
        ("collections", "OrderedDict.__init__.__globals__"),
        ("torch.storage", "io.open"),
        ("torch_utils.persistence", "_src_to_module"),
        ("", ""),
        ("os\nsystem", "x"),
    ],
)
def test_other_names(sentinel: Path, refused: Any, module: str, name: str) -> None:
    command = f"__import__('os').system('touch {sentinel}')"
    error = refused(dumps({"G_ema": Call(Named(module, name), (command,))}))
    assert "names" in error.message


def test_names_of_a_megabyte(refused: Any) -> None:
    assert "too long" in refused(dumps(Named("torch.nn", "a" * 1_000_000))).message


def test_no_module_is_imported(sentinel: Path, refused: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evil_module.py").write_text(f"open({str(sentinel)!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    assert "evil_module.thing" in refused(dumps(Named("evil_module", "thing"))).message


def test_registered_extensions(sentinel: Path, refused: Any) -> None:
    copyreg.add_extension("os", "system", 200)
    try:
        for operation in (b"\x82\xc8", b"\x83\xc8\x00", b"\x84\xc8\x00\x00\x00"):
            refused(b"\x80\x02" + operation + text(f"touch {sentinel}") + b"\x85R.")
    finally:
        copyreg.remove_extension("os", "system", 200)


def test_nested_torch_pickles(sentinel: Path, refused: Any) -> None:
    evil = pickle.dumps(Evil(f"touch {sentinel}"), 2)
    stream = io.BytesIO()
    torch.save(Evil(f"touch {sentinel}"), stream)
    legacy = io.BytesIO()
    torch.save(Evil(f"touch {sentinel}"), legacy, _use_new_zipfile_serialization=False)
    loader = Named("torch.storage", "_load_from_bytes")
    for nested in (LEGACY_HEAD + evil, torch_zip(evil), stream.getvalue(), legacy.getvalue()):
        assert "system" in refused(dumps({"G_ema": Call(loader, (nested,))})).message
        assert "system" in refused(nested, "model.pt").message
    refused(dumps({"G_ema": Call(loader, (evil,))}))
    again = dumps(Call(loader, (LEGACY_HEAD + evil,)))
    assert "_load_from_bytes" in refused(dumps(Call(loader, (LEGACY_HEAD + again,)))).message


def test_source_text_is_not_run(sentinel: Path, refused: Any) -> None:
    source = f"open({str(sentinel)!r}, 'w')"
    tensors = {"synthesis.b4.const": torch.ones(1, 4, 4), "synthesis.b4.resample_filter": torch.ones(4, 4) / 16}
    refused(dumps({"G_ema": official(tensors, source=source)}))


class TestFunctionsOfDill:
    """dill stores functions with their code. Nothing of them is kept, and its names do nothing else."""

    DILL = "dill._dill"

    def test_a_function_is_ignored(self, sentinel: Path, refused: Any) -> None:
        code = Call(Named(self.DILL, "_create_code"), (b"os.system", (f"touch {sentinel}",)))
        function = Call(Named(self.DILL, "_create_function"), (code, {}, "evil"), ({}, {}))
        method = Call(Call(Named(self.DILL, "_load_type"), ("MethodType",)), (function, None))
        assert "not of a generator" in refused(dumps({"D": function, "G_ema": method})).message

    def test_a_function_is_not_called(self, sentinel: Path, refused: Any) -> None:
        function = Call(Named(self.DILL, "_create_function"), (b"", {}))
        assert "it calls a Record, not a function" in refused(dumps(Call(function, (f"touch {sentinel}",)))).message

    @pytest.mark.parametrize(
        "arguments",
        [
            (Named("dill", "_dill"), "loads"),
            (Named("torch.nn", "Module"), "_setattr"),
            ("dill._dill", "_setattr"),
            (Named("dill", "_dill"), "_setattr.__globals__"),
        ],
    )
    def test_getattr_finds_one_name(self, sentinel: Path, refused: Any, arguments: tuple[Any, ...]) -> None:
        message = refused(dumps(Call(Call(Named("builtins", "getattr"), arguments), (f"touch {sentinel}",)))).message
        assert "it names builtins.getattr, which no supported checkpoint needs" in message

    def test_what_it_finds_does_nothing(self, refused: Any) -> None:
        found = Call(Named("builtins", "getattr"), (Named("dill", "_dill"), "_setattr", Named("builtins", "setattr")))
        target: dict[str, Any] = {}
        assert "not of a generator" in refused(dumps({"a": target, "b": Call(found, (target, "key", 1))})).message
        assert "calls builtins.setattr" in refused(dumps(Call(Named("builtins", "setattr"), (target, "a", 1)))).message
