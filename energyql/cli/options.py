"""Arguments, options and consoles that several commands share. Imports no torch, so that help is printed at once."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from glob import escape, glob
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
_CONTROLS |= {0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)}  # bytes of a path that are no text


class Terminal(Console):
    """A console that shows control characters, so that no text of a file, such as a name, commands the terminal."""

    def render_str(self, text: str, **settings: Any) -> Text:
        """Return text with its control characters as their codes; the arguments are those of rich."""
        return super().render_str(text.translate(_CONTROLS), **settings)


out = Terminal(highlight=False, soft_wrap=True, emoji=False)
err = Terminal(stderr=True, highlight=False, soft_wrap=True, emoji=False)
STANDARD = "-"
"""Stands for standard input or output."""

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
    """Return queries, and refuse a path in place of one: a query has no dot in a name, outside quotes."""
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
Semantics = Annotated[settings.Semantics, typer.Option(help="Rules of the energy; see docs/semantics.md.")]
Sampler = Annotated[settings.SamplerName, typer.Option(help="How latents are drawn; see docs/samplers.md.")]
Strength = Annotated[
    float | None, typer.Option(help="Multiplies the energy: larger values are more certain and less varied.")
]
Precision = Annotated[settings.Precision, typer.Option(help="bfloat16 is faster and less exact.")]
Truncation = Annotated[
    float | None,
    typer.Option(help="psi in 0..1: smaller is less varied, with fewer faulty pictures; by default the model's."),
]
Label = Annotated[
    str | None, typer.Option(help="Label of a conditional generator: a class, or numbers separated by commas.")
]
Noise = Annotated[
    settings.Noise,
    typer.Option(help="If the generator adds noise: const, that of the model; random, new for each picture; none."),
]
Seed = Annotated[int, typer.Option(help="The same seed gives the same pictures.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Samples computed together.")]
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
AllowWeak = Annotated[
    str, typer.Option(metavar="NAMES", help="Attributes, separated by commas, to use although their heads are weak.")
]
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
    """Return a model for `model=`: loaded where code is named or allowed, else its name, which is loaded later."""
    if generator is None and judge is None and not allow_plugins:
        return model
    from energyql.pipeline.model import choose_device, load_model

    return load_model(model, choose_device(device), generator=generator, judge=judge, allow_plugins=allow_plugins)


def out_option(help_text: str, *, standard: bool = False, suffix: str = "") -> Any:
    """Return the option --out; only with `standard` it may be `-`. With `suffix`, a path has no other one."""

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
    """Print a document for other programs."""
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.write(text.encode(errors="backslashreplace").decode() + "\n")  # a path may hold bytes that are no text


@contextmanager
def ending_interrupted(message: str = "interrupted") -> Iterator[None]:
    """End an interrupted command with code 130 and a message, by default of the interruption if it has one."""
    try:
        yield
    except KeyboardInterrupt as interruption:
        err.print(markup(str(interruption) or message))
        raise typer.Exit(130) from None


def resumable() -> AbstractContextManager[None]:
    """End an interrupted command with code 130 and a message that it can be resumed."""
    return ending_interrupted("interrupted; run the same command again to resume")


def announce(listening: Listening, open_page: bool, *, before: str, after: str) -> None:
    """Print the addresses of a page, and a warning if other machines can reach it; open the page if that is wanted.

    Args:
        listening: the page.
        open_page: whether to open it in a browser.
        before: stands before the address on this machine, as plain text.
        after: stands after it.
    """
    first, *others = listening.addresses
    out.print(f"{markup(before)} [bold]{markup(first)}[/]")  # nothing follows: a terminal would take it along
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
    """Raise an `ArgumentError` that says how to install it where the block imports a library of the studio in vain."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("energyql"):
            raise
        raise ArgumentError(
            f"{what} needs {error.name}, which is not installed", hint='pip install "fastapi>=0.115" "uvicorn>=0.30"'
        ) from None


def read_label(text: str | None) -> int | list[float] | None:
    """Parse a label: a class, or a list of numbers.

    Raises:
        ArgumentError: the text is neither.
    """
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",") if part.strip()] if "," in text or "." in text else int(text)
    except ValueError:
        raise ArgumentError(f"a label is a class, such as 3, or numbers such as 0.5,0.5, not {text!r}") from None


def read_names(text: str) -> tuple[str, ...]:
    """Parse names that are separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def check_sources(**sources: object) -> None:
    """Check that exactly one of the options `sources`, by name, is given.

    Raises:
        ArgumentError: it is not.
    """
    given = [f"--{name}" for name, value in sources.items() if value is not None]
    if len(given) != 1:
        options = ", ".join(f"--{name}" for name in sources)
        raise ArgumentError(f"labels come from {' and '.join(given) or 'nowhere'}", hint=f"give one of {options}")


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
    """Read the table, or load the labeller, that the options name; one of them is given."""
    from energyql.attributes.labels import import_labeller
    from energyql.training.clip_labels import load_clip_labeller
    from energyql.training.labels import read_label_table

    if labels is not None:
        return read_label_table(labels, latents)
    if labeller is not None:
        return import_labeller(labeller)
    assert prompts is not None
    return load_clip_labeller(prompts, model=clip_model, weights=clip_weights, margin=clip_margin, device=device)
