"""Files that try to run something, take all memory or never end: nothing is run, and all end as ModelError."""

from __future__ import annotations

import copyreg
import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from energyql.errors import ModelError
from energyql.generators.load import load_generator
from generators.checkpoints.writer import PERSISTENT, Call, Named, dumps, official

LEGACY_HEAD = (
    pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    + pickle.dumps(1001, 2)
    + pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {}}, 2)
)


class Evil:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[Path]:
    """A file that must not exist after the test."""
    path = tmp_path / "ran"
    yield path
    assert not path.exists(), "something in the file was run"


@pytest.fixture
def refused(tmp_path: Path) -> Any:
    """Writes bytes to a file, loads it and gives the error."""

    def check(content: bytes, name: str = "model.pkl") -> ModelError:
        path = tmp_path / name
        path.write_bytes(content)
        tracemalloc.start()
        try:
            with pytest.raises(ModelError) as caught:
                load_generator(path)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 100e6 + 10 * len(content)
        assert str(path) in caught.value.message
        return caught.value

    return check


def torch_zip(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", content)
    return stream.getvalue()


def text(value: str) -> bytes:
    return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()


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
    assert "os.system" in error.message or "subprocess.Popen" in error.message


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


FLOAT = Call(Named("numpy", "dtype"), ("f4",))


@pytest.mark.parametrize(
    "value",
    [
        Call(Named(*PERSISTENT), ()),
        Call(Named(*PERSISTENT), ({"type": "meta", "class_name": "x", "state": {}},)),
        Call(Named(*PERSISTENT), ("text",), {"__class__": "x"}),
        Call(Named(*PERSISTENT), ("text",), ["no", "dict"]),
        Call(Named("collections", "OrderedDict"), (3,)),
        Call(Named("collections", "OrderedDict"), ([("a",)],)),
        Call(Named("numpy", "dtype"), ("O8", False, True)),
        Call(Named("numpy", "dtype"), ("f4",), (3, "x")),
        Call(Named("numpy", "ndarray"), ((10**9,),)),
        Call(
            Named("numpy.core.multiarray", "_reconstruct"),
            (),
            (1, (2,), Call(Named("numpy", "dtype"), ("f4",)), 0, [1]),
        ),
        Call(Named("numpy.core.multiarray", "scalar"), (FLOAT, b"too long")),
        Call(Named("torch", "FloatStorage"), (10**12,)),
        Call(Named("torch._utils", "_rebuild_tensor_v2"), ("no storage", 0, (1,), (1,), False, {})),
        Call(Named("torch._utils", "_rebuild_parameter"), ()),
        Call(Named("_codecs", "encode"), ("x", "rot13")),
        Call(Call(Named("collections", "OrderedDict")), ()),
        {(1, 2): 3},
        {1.5: 3},
        {2**60: 3},
        10**60,
        Call(Named("builtins", "set"), ([[1]],)),
    ],
)
def test_known_names_with_wrong_arguments(refused: Any, value: Any) -> None:
    refused(dumps({"G_ema": value}))


@pytest.mark.parametrize(
    "body",
    [
        b"\x8e" + (2**40).to_bytes(8, "little"),  # BINBYTES8
        b"\x8e" + (2**64 - 1).to_bytes(8, "little"),
        b"\x96" + (2**40).to_bytes(8, "little"),  # BYTEARRAY8
        b"\x8d" + (2**40).to_bytes(8, "little"),  # BINUNICODE8
        b"X" + (2**31).to_bytes(4, "little"),
        b"\x8b" + (2**31 - 1).to_bytes(4, "little"),  # LONG4
        b"\x8b\xff\xff\xff\xff",
        b"\x8a\xff" + b"\x01" * 255,  # LONG1
        b"\x95" + (2**40).to_bytes(8, "little"),  # FRAME
        b"j\xff\xff\xff\xff",
        b"R",
        b"t",
        b"\x87",
        b"0",
        b"s",
        b"Ne",
        b"N(NNu",
        b"}(Nu",
        b"N(N\x90",
        b"Q",
        b"PX\n",
        b"2",
        b"\x97",
        b"I1\n",
        b"L1\n",
        b"S'x'\n",
        b"cwithout end",
    ],
)
def test_damaged_operations(refused: Any, body: bytes) -> None:
    refused(b"\x80\x04" + body + b".")
    refused(b"\x80\x04" + body)


def test_memo_index_takes_no_memory(refused: Any) -> None:
    refused(b"\x80\x04Nr\xff\xff\xff\x7f.")


def test_operations_are_capped(refused: Any) -> None:
    assert "operations" in refused(b"\x80\x04" + b"}" * 1_000_000 + b".").message


def test_deep_nesting(refused: Any) -> None:
    for opening in (b"\x85", b"]\x94", b"ctorch\nSize\n\x85"):
        refused(b"\x80\x04N" + opening * 20_000 + b".")
    refused(b"\x80\x04}N" + b"\x85" * 100_000 + b"Ns.")  # as a key, whose hash would run deep
    refused(LEGACY_HEAD + b"\x80\x02N.\x80\x02]N" + b"\x85" * 100_000 + b"a.", "model.pt")
    refused(b"\x80\x02" + b"(" * 100_000 + b".")


@pytest.mark.parametrize("name", [("torch", "Size"), ("builtins", "set"), ("collections", "OrderedDict")])
def test_the_same_argument_copied_again_and_again(refused: Any, name: tuple[str, str]) -> None:
    numbers = b"](" + b"N" * 100_000 + b"eq\x00"
    again = b"".join(b"c%s\n%s\nh\x00\x85R" % (name[0].encode(), name[1].encode()) for _ in range(1000))
    refused(b"\x80\x02" + numbers + again + b".")


def test_text_encoded_again_and_again(refused: Any) -> None:
    again = b"c_codecs\nencode\nh\x00h\x01\x86R" * 5000
    error = refused(b"\x80\x02" + text("x" * 100_000) + b"q\x00" + text("latin1") + b"q\x01" + again + b".")
    assert "again and again" in error.message


def test_shared_modules_do_not_multiply(refused: Any) -> None:
    network: Any = official({})
    for _ in range(30):
        state = {"_parameters": {}, "_buffers": {}, "_modules": {"a": network, "b": network}}
        network = Call(Named(*PERSISTENT), ({"type": "class", "class_name": "Generator", "state": state},))
    error = refused(dumps({"G_ema": network}))
    assert "without end" in error.message


def test_shared_settings_do_not_multiply(refused: Any) -> None:
    settings: Any = []
    for _ in range(9):
        settings = [settings] * 10
    refused(dumps({"G_ema": official({}, init_kwargs={"x": settings})}))
    refused(dumps(settings))
    refused(dumps({"G_ema": Call(Named("numpy", "dtype"), (settings,))}))


def test_endless_settings(refused: Any) -> None:
    settings: dict[str, Any] = {}
    settings["self"] = settings
    assert "without end" in refused(dumps({"G_ema": official({}, init_kwargs=settings)})).message


def test_shared_tensors_do_not_multiply(refused: Any) -> None:
    tensor = torch.zeros(100_000)
    tensors = {f"t{i}": tensor for i in range(1000)}
    assert "larger than the file" in refused(dumps({"G_ema": official(tensors)})).message
    stream = io.BytesIO()
    torch.save({"g_ema": {"input.input": tensor} | {f"convs.0.{i}": tensor for i in range(1000)}}, stream)
    refused(stream.getvalue(), "model.pt")


def test_arrays_in_settings_do_not_multiply(refused: Any) -> None:
    dtype = Call(Named("numpy", "dtype"), ("u1",))
    array = Call(Named("numpy.core.multiarray", "_reconstruct"), (), (1, (4096,), dtype, False, b"x" * 4096))
    error = refused(dumps({"G_ema": official({}, init_kwargs={"x": [array] * 9000})}))
    assert "without end" in error.message


def test_a_zip_of_countless_entries(refused: Any) -> None:
    entry = struct.pack("<4s24xH16x", b"PK\x01\x02", 1) + b"x"
    directory = entry * 1_000_000
    end = struct.pack("<4s4xHHLLH", b"PK\x05\x06", 65535, 65535, len(directory), 4, 0)
    assert "entries" in refused(b"PK\x03\x04" + directory + end, "model.pt").message


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
        assert "it calls a Ignored, not a function" in refused(dumps(Call(function, (f"touch {sentinel}",)))).message

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
