"""Arguments, options and consoles that several commands use. Imports no torch, so that help is printed at once."""

from __future__ import annotations

import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from dataclasses import dataclass
from functools import wraps
from glob import escape, glob
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

import typer
from rich.console import Console
from rich.markup import escape as markup
from rich.text import Text

from energyql.errors import ArgumentError
from energyql.models import DEFAULT_MODEL, packaged_models
from energyql.pipeline import settings
from energyql.plugins import import_optional

if TYPE_CHECKING:
    import torch

    from energyql.attributes.labels import ImageLabeller
    from energyql.pipeline.model import Model as Loaded
    from energyql.studio.web import Listening
    from energyql.training.labels import LabelTable

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}
_CONTROLS |= {0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)}  # bytes of a path that are not valid text


class Terminal(Console):
    """A console that prints control characters as codes, so that no text can move the cursor.

    Such a text may be the name of a file or of an attribute.
    """

    def render_str(self, text: str, **settings: Any) -> Text:
        """Return `text` as a `Text` of rich, with codes in place of control characters.

        Args:
            text: the text, with or without markup of rich.
            settings: further arguments of `Console.render_str`, which this method extends.
        """
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
    """Return queries unchanged, after a check that no query is the path of an existing file.

    Only a text with a suffix, such as `queries.txt`, is checked. So the query `smile` is allowed although there is a
    file called `smile`.

    Raises:
        ArgumentError: a text is the path of an existing file.
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


@dataclass(frozen=True)
class Source:
    """The values of the options --model, --generator, --judge and --allow-plugins of a command."""

    model: Model = DEFAULT_MODEL
    generator: Generator = None
    judge: Judge = None
    allow_plugins: AllowPlugins = False

    def open(self, device: str) -> str | Loaded:
        """Return the model that the options name, for the argument `model` of functions such as `energyql.generate`.

        Args:
            device: device of the model, such as "cpu", or "auto".

        Returns:
            The loaded model if a generator or judge is named, or plugins are allowed. Else the name of the model or the
            path of its folder, and nothing is loaded.

        Raises:
            EnergyQLError: the model cannot be loaded.
        """
        if (self.generator, self.judge, self.allow_plugins) == (None, None, False):
            return self.model
        from energyql.pipeline.model import choose_device, load_model

        code: dict[str, Any] = {name: value for name, value in vars(self).items() if name != "model"}
        return load_model(self.model, choose_device(device), **code)


@dataclass(frozen=True)
class JudgedSource(Source):
    """A `Source` for commands that need a model with a judge, which the help text of --model tells."""

    model: Annotated[str, typer.Option("--model", "-m", help="A packaged model, or a model folder, with a judge.")] = (
        DEFAULT_MODEL
    )


def out_option(help: str | None = None, *, standard: bool = False, suffix: str = "") -> Any:
    """Return the declaration of the option --out.

    Args:
        help: help text; `None` if `with_options` reads it from the docstring of the command.
        standard: whether the value may be `-`, which means standard output.
        suffix: the only suffix that a path may have, such as ".csv"; "" if all are allowed.
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

    return typer.Option("--out", "-o", help=help, callback=check)


def print_json(data: Any) -> None:
    """Print JSON values as one indented document on standard output.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.write(text.encode(errors="backslashreplace").decode() + "\n")  # a path may hold bytes that are no text


@contextmanager
def ending_interrupted(message: str = "interrupted") -> Iterator[None]:
    """End the command with exit code 130 if the block is interrupted by Ctrl-C, and print why.

    Args:
        message: text to print if the `KeyboardInterrupt` has none.
    """
    try:
        yield
    except KeyboardInterrupt as interruption:
        err.print(markup(str(interruption) or message))
        raise typer.Exit(130) from None


def resumable() -> AbstractContextManager[None]:
    """Return the context manager `ending_interrupted`, with a message that the same command resumes the work.

    If the block is interrupted by Ctrl-C, it prints the message and ends the command with exit code 130.
    """
    return ending_interrupted("interrupted; run the same command again to resume")


def announce(listening: Listening, open_page: bool, *, before: str, after: str) -> None:
    """Print the addresses of a page, and a warning if other machines can reach it.

    Args:
        listening: addresses of the page, whether other machines can reach it, and whether visitors need a token.
        open_page: whether to open the page in a browser.
        before: plain text before the address for this machine.
        after: plain text after all addresses.
    """
    first, *others = listening.addresses
    out.print(f"{markup(before)} [bold]{markup(first)}[/]")  # nothing after it, which could become a part of the link
    for address in others:
        out.print(f"From other machines: [bold]{markup(address)}[/]")
    out.print(markup(after))
    if listening.exposed:
        who = "only those who have the token" if listening.token else "anyone there, without a token,"
        err.print(
            f"[yellow]Warning:[/] other machines can reach this page; {who} can use it. Nothing is encrypted: in a "
            "network that you do not trust, leave out --host and put a proxy with encryption in front."
        )
    if open_page:
        typer.launch(first)


def check_studio(what: str) -> None:
    """Check that the libraries of the studio are installed.

    Args:
        what: what needs the libraries, such as "the studio", for the message.

    Raises:
        ArgumentError: fastapi or uvicorn is not installed.
    """
    for library in ("fastapi", "uvicorn"):
        import_optional(library, f"{what} needs {library}", 'pip install "fastapi>=0.115" "uvicorn>=0.30"')


def read_label(text: str | None) -> int | list[float] | None:
    """Return the label that a text gives for a generator: 3 for "3" (a class), or [0.5, 0.5] for "0.5,0.5".

    For `None` (the option is not given), return `None`.

    Raises:
        ArgumentError: the text has another form.
    """
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",") if part.strip()] if "," in text or "." in text else int(text)
    except ValueError:
        raise ArgumentError(f"a label is a class, such as 3, or numbers such as 0.5,0.5, not {text!r}") from None


def read_names(text: str) -> tuple[str, ...]:
    """Return the names in a text such as "smile, hat", without blanks around them; empty names are left out."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def with_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that adds help texts and options to a command, a function that typer calls.

    - The help texts of options are read from the section "Args" of the docstring. The help of the command is the
      docstring without this section.
    - A parameter called `source`, of the class `Source`, becomes several options, one for each field of `Source`.
    - Each of `names` becomes an option. The help lists the settings up to --seed before the option --device, and the
      other settings after --device. For a command without --device, they are listed around --json in the same way. For
      a command without both, all settings come last.

    Args:
        names: names of settings of a drawing, such as "semantics", in the order of `pipeline.settings.SETTINGS`. The
            command gets the values as `**settings`.
    """
    special = {"label": Label, "batch_size": BatchSize, "allow_weak": AllowWeak}
    readers = {name: read for name, read in (("label", read_label), ("allow_weak", read_names)) if name in names}
    types, order = settings.setting_types(), list(settings.SETTINGS)
    early = sum(order.index(name) <= order.index("seed") for name in names)

    def option(name: str, annotation: Any, default: Any) -> inspect.Parameter:
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)

    def setting(name: str) -> inspect.Parameter:
        annotation = special.get(name, Annotated[types[name], typer.Option(help=settings.SETTINGS[name].help)])
        return option(name, annotation, "" if name == "allow_weak" else settings.DEFAULTS[name])

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(function, eval_str=True).parameters
        source = own["source"].annotation if "source" in own else None
        fields = get_type_hints(source, include_extras=True) if source else {}
        text, helps = _read_docstring(function)

        @wraps(function)
        def run(**values: Any) -> None:
            values |= {name: read(values[name]) for name, read in readers.items()}
            if source:
                values["source"] = source(**{name: values.pop(name) for name in fields})
            function(**values)

        options: list[inspect.Parameter] = []
        for name, parameter in own.items():
            if name == "source":
                options += [option(field, hint, getattr(source, field)) for field, hint in fields.items()]
            elif name != "settings":
                options.append(option(name, _described(parameter, helps.get(name)), parameter.default))
        at = next((i for i, each in enumerate(options) if each.name in ("device", "as_json")), len(options))
        added = list(map(setting, names))
        options = [*options[:at], *added[:early], *options[at : at + 1], *added[early:], *options[at + 1 :]]
        run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
        run.__doc__ = text
        return run

    return decorate


def _read_docstring(function: Callable[..., None]) -> tuple[str, dict[str, str]]:
    """Return two values: the docstring of a function without the section "Args", and the texts of this section.

    The texts are a dict: name of an argument -> its text.
    """
    text, _, section = (inspect.getdoc(function) or "").partition("\n\nArgs:\n")
    entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
    return text, {name: " ".join(words.split()) for name, words in entries}


def _described(parameter: inspect.Parameter, text: str | None) -> Any:
    """Return the annotation of a parameter of a command, with a help text added for typer.

    Args:
        parameter: the parameter.
        text: the help text; if it is `None`, the annotation is returned unchanged.
    """
    if text is None:
        return parameter.annotation
    inner, declaration = (
        parameter.annotation,
        typer.Argument() if parameter.default is parameter.empty else typer.Option(),
    )
    if get_origin(inner) is Annotated:
        inner, declaration = get_args(inner)
    declaration = copy(declaration)
    declaration.help = text
    return Annotated[inner, declaration]


def check_sources(**sources: object) -> None:
    """Check that a command was called with exactly one of several options for the source of labels.

    Args:
        sources: name of an option without dashes -> its value, `None` if the command was called without the option.

    Raises:
        ArgumentError: the command was called without these options, or with several of them.
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
    """Return the source of labels for pictures: a table of labels, or a labeller (a function that labels pictures).

    Exactly one of `labels`, `labeller` and `prompts` must be different from `None`: the first gives a table, and the
    others give a labeller.

    Args:
        labels: file with a table of labels, with a row for each picture.
        latents: with `labels`, file with the latents of the rows of the table; `None` if there is no such file.
        labeller: name of a labeller: `module:function`, or a plugin.
        prompts: file with texts for each attribute, which the model CLIP compares with pictures.
        clip_model: with `prompts`, name of the CLIP model.
        clip_weights: with `prompts`, name of the weights of the CLIP model, or a file with them.
        clip_margin: with `prompts`, smallest difference, in logits, between the two best texts of an attribute; if the
            difference is smaller, the picture gets no label for the attribute.
        device: with `prompts`, device of CLIP.

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
