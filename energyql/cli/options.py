"""Arguments, options and consoles that several commands share. Imports no torch, so that help is printed at once."""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from glob import escape, glob
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape as markup
from rich.text import Text

from energyql.errors import ArgumentError
from energyql.models import packaged_models
from energyql.pipeline import settings

if TYPE_CHECKING:
    import torch

    from energyql.attributes.labels import ImageLabeller
    from energyql.pipeline.model import Model as Loaded
    from energyql.studio.serving import Listening
    from energyql.training.labels import LabelTable

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}
_CONTROLS |= {0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)}  # bytes of a path that are not valid text


class Terminal(Console):
    """A console that prints control characters as codes, so that no text, such as a name, controls the terminal."""

    def render_str(self, text: str, **settings: Any) -> Text:
        """Return text with its control characters as codes; the arguments are those of rich."""
        return super().render_str(text.translate(_CONTROLS), **settings)


out = Terminal(highlight=False, soft_wrap=True, emoji=False)
err = Terminal(stderr=True, highlight=False, soft_wrap=True, emoji=False)
STANDARD = "-"
"""Path that means standard input or output."""

Generator = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The generator, if the folder does not hold it: module:factory, or a plugin."),
]
Judge = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="A judge instead of the folder's: module:function, a plugin, or none."),
]
AllowPlugins = Annotated[
    bool, typer.Option("--allow-plugins", help="Import the generator and the judge that the model folder names.")
]


def _read_query(text: str) -> str:
    return sys.stdin.read() if text == STANDARD else refuse_files([text])[0]


def refuse_files(texts: list[str]) -> list[str]:
    """Return queries, checked to be no paths; a query has a dot only in a number or in quotes.

    Raises:
        ArgumentError: a text is the path of a file.
    """
    for text in texts:
        if Path(text).suffix and os.path.isfile(text):
            hint = "energyql dataset PLAN.toml reads a plan, and energyql gallery QUERIES.txt a file of queries"
            raise ArgumentError(f"{text} is a file, and this command takes a query", hint=hint)
    return texts


def _complete_model(incomplete: str) -> list[str]:
    folders = [f"{path}{os.sep}" for path in glob(f"{escape(incomplete)}*") if os.path.isdir(path)]
    return [name for name in packaged_models() if name.startswith(incomplete)] + sorted(folders)


Query = Annotated[
    str,
    typer.Argument(
        help='A query, such as "smile AND NOT (glasses OR beard)"; - reads it from standard input.',
        callback=_read_query,
    ),
]
Model = Annotated[
    str,
    typer.Option("--model", "-m", help="A packaged model, or a model folder.", autocompletion=_complete_model),
]
SOURCE_HELP = "A checkpoint, a model folder, a packaged model, or a generator: module:factory, or a plugin."
ModelArgument = Annotated[str, typer.Argument(help=SOURCE_HELP)]
Semantics = Annotated[settings.Semantics, typer.Option(help=settings.SETTINGS["semantics"].help)]
Truncation = Annotated[float | None, typer.Option(help=settings.SETTINGS["truncation"].help)]
Label = Annotated[str | None, typer.Option(help=settings.SETTINGS["label"].help)]
Seed = Annotated[int, typer.Option(help=settings.SETTINGS["seed"].help)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help=settings.SETTINGS["batch_size"].help)]
Host = Annotated[str, typer.Option(help="Address to listen on. By default only this machine can reach it.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0 chooses a free port.")]
AllowHost = Annotated[list[str] | None, typer.Option(help="Another allowed host name; repeat for more.")]
Token = Annotated[
    str | None,
    typer.Option(
        envvar="ENERGYQL_TOKEN",
        help="Token that visitors need; by default a new one if other machines can reach the page, empty for none.",
    ),
]
OpenPage = Annotated[bool, typer.Option("--open", help="Open the page in a browser.")]
AllowWeak = Annotated[str, typer.Option(metavar="NAMES", help=settings.SETTINGS["allow_weak"].help)]
Anyway = Annotated[bool, typer.Option("--anyway", help="Continue with a photograph that the generator cannot draw.")]
Labels = Annotated[Path | None, typer.Option(help="CSV or Parquet: one column per attribute.")]
Labeller = Annotated[str | None, typer.Option(help="module:function that labels pictures, or a plugin.")]
Prompts = Annotated[Path | None, typer.Option(help="JSON: attribute -> prompts for CLIP.")]
ClipModel = Annotated[str, typer.Option(help="A model of open_clip.")]
ClipWeights = Annotated[str, typer.Option(help="The weights of the CLIP model: a name, or a file.")]
ClipMargin = Annotated[float, typer.Option(min=0, help="Least lead of the best prompt over the next, in logits.")]
CLIP_MODEL, CLIP_WEIGHTS = "ViT-B-32", "laion2b_s34b_b79k"
Only = Annotated[str | None, typer.Option(help="Attributes to train, separated by commas.")]
SourceSeed = Annotated[int | None, typer.Option(help="Seed of the samples, or of the pictures in --labels.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output, and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress bar and no report.")]


def open_model(model: str, generator: str | None, judge: str | None, allow_plugins: bool, device: str) -> str | Loaded:
    """Return the value of an argument `model`.

    Returns:
        The loaded model if a generator or judge is named, or plugins are allowed; else the name `model`.

    Raises:
        EnergyQLError: the model cannot be loaded.
    """
    if generator is None and judge is None and not allow_plugins:
        return model
    from energyql.pipeline.model import choose_device, load_model

    return load_model(model, choose_device(device), generator=generator, judge=judge, allow_plugins=allow_plugins)


def out_option(help_text: str, *, standard: bool = False, suffix: str = "") -> Any:
    """Return the declaration of the option --out.

    Args:
        help_text: its help.
        standard: whether it may be `-`, standard output.
        suffix: the one suffix that a path may have; empty for any.
    """

    def check(path: Any) -> Any:
        if path is None or (standard and str(path) == STANDARD):
            return path
        if str(path) == STANDARD:
            raise ArgumentError(
                "this command cannot write to standard output", hint="name a file or folder after --out"
            )
        if suffix and Path(path).suffix.lower() not in ("", suffix):
            raise ArgumentError(f"the result cannot be saved as {path}", hint=f"end the path in {suffix}")
        return path

    return typer.Option("--out", "-o", help=help_text, callback=check)


def print_json(data: Any) -> None:
    """Print one JSON document on standard output."""
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.write(text.encode(errors="backslashreplace").decode() + "\n")  # a path may hold bytes that are no text


@contextmanager
def ending_interrupted(message: str = "interrupted") -> Iterator[None]:
    """End an interrupted command with exit code 130 and the interruption's message, or `message` if it has none."""
    try:
        yield
    except KeyboardInterrupt as interruption:
        err.print(markup(str(interruption) or message))
        raise typer.Exit(130) from None


def resumable() -> AbstractContextManager[None]:
    """Return a context manager that ends an interrupted command with a message that it can be resumed."""
    return ending_interrupted("interrupted; run the same command again to resume")


def announce(listening: Listening, open_page: bool, *, before: str, after: str) -> None:
    """Print the addresses of a page, and a warning if other machines can reach it.

    Args:
        listening: the page.
        open_page: whether to open it in a browser.
        before: plain text before the address for this machine.
        after: plain text after all addresses.
    """
    first, *others = listening.addresses
    out.print(f"{markup(before)} [bold]{markup(first)}[/]")  # nothing after it, which could become a part of the link
    for address in others:
        out.print(f"From other machines: [bold]{markup(address)}[/]")
    out.print(markup(after))
    if listening.exposed:
        who = (
            "only those who have the token can use it"
            if listening.token
            else "anyone there can use it, without a token"
        )
        err.print(
            f"[yellow]Warning:[/] other machines can reach this page; {who}. Nothing is encrypted: in a network that "
            "you do not trust, leave out --host and put a proxy with encryption in front."
        )
    if open_page:
        typer.launch(first)


@contextmanager
def needing_studio(what: str) -> Iterator[None]:
    """Turn the error of a missing library, raised by an import in the block, into one that says how to install it.

    Args:
        what: what needs the library, for the message.

    Raises:
        ArgumentError: a library of the studio is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("energyql"):
            raise
        raise ArgumentError(
            f"{what} needs {error.name}, which is not installed", hint='pip install "fastapi>=0.115" "uvicorn>=0.30"'
        ) from None


def read_label(text: str | None) -> int | list[float] | None:
    """Return the label in a text: a class, or a list of numbers; `None` for `None`.

    Raises:
        ArgumentError: the text is no label.
    """
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",") if part.strip()] if "," in text or "." in text else int(text)
    except ValueError:
        raise ArgumentError(f"a label is a class, such as 3, or numbers such as 0.5,0.5, not {text!r}") from None


def read_names(text: str) -> tuple[str, ...]:
    """Return the names in a text, which are separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def with_draw_settings(command: Literal["generate", "gallery"]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that adds the options for settings of a drawing to the function of a command.

    The options up to --seed, which decide the pictures, stand after --allow-plugins, the others after --device. The
    function gets their values by its last parameter, `**settings`.
    """
    special = {"label": Label, "batch_size": BatchSize, "allow_weak": AllowWeak}
    readers = {"label": read_label, "allow_weak": read_names}
    types, names = settings.setting_types(), settings.settings_of(command)
    after = {"allow_plugins": names[: names.index("seed") + 1], "device": names[names.index("seed") + 1 :]}

    def option(name: str) -> inspect.Parameter:
        annotation = special.get(name, Annotated[types[name], typer.Option(help=settings.SETTINGS[name].help)])
        default = "" if name == "allow_weak" else settings.DEFAULTS[name]
        return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation)

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def run(**arguments: Any) -> None:
            function(**arguments | {name: read(arguments[name]) for name, read in readers.items()})

        *own, _ = inspect.signature(function, eval_str=True).parameters.values()
        parameters = [each for one in own for each in (one, *map(option, after.get(one.name, ())))]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return run

    return decorate


def check_sources(**sources: object) -> None:
    """Check that exactly one of several options is given.

    Args:
        sources: name of an option -> its value, `None` if it is not given.

    Raises:
        ArgumentError: none or several are given.
    """
    present = [f"--{name}" for name, value in sources.items() if value is not None]
    if len(present) != 1:
        options = ", ".join(f"--{name}" for name in sources)
        raise ArgumentError(f"labels come from {' and '.join(present) or 'nowhere'}", hint=f"give one of {options}")


def read_picture_labels(
    labels: Path | None,
    latents: Path | None,
    labeller: str | None,
    prompts: Path | None,
    *,
    clip_model: str,
    clip_weights: str,
    clip_margin: float,
    device: torch.device,
) -> LabelTable | ImageLabeller:
    """Return the table of labels, or the labeller, that the options name.

    Exactly one of `labels`, `labeller` and `prompts` is given.

    Raises:
        EnergyQLError: the table cannot be read, or the labeller cannot be loaded.
    """
    from energyql.attributes.labels import import_labeller
    from energyql.training.clip_labels import load_clip_labeller
    from energyql.training.labels import read_label_table

    if labels is not None:
        return read_label_table(labels, latents)
    if labeller is not None:
        return import_labeller(labeller)
    assert prompts is not None
    return load_clip_labeller(prompts, model=clip_model, weights=clip_weights, margin=clip_margin, device=device)
