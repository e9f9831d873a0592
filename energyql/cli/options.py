"""Arguments, options and consoles that several commands use. Imports no torch, so that help is printed at once."""

from __future__ import annotations

import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from functools import wraps
from glob import escape, glob
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args, get_origin, get_type_hints

import typer
from rich.console import Console
from rich.markup import escape as markup
from rich.text import Text
from typer.core import TyperCommand
from typer.models import ArgumentInfo

from energyql.errors import ArgumentError
from energyql.kinds import KINDS, Kind
from energyql.models import DEFAULT_MODEL, packaged_models
from energyql.pipeline.settings import DrawSettings, setting_types, settings_in
from energyql.pipeline.source import ModelSource
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
    """Console that prints control characters, as in names of files, as codes, so that no text moves the cursor."""

    def render_str(self, text: str, **settings: Any) -> Text:
        """Put codes in place of control characters."""
        return super().render_str(text.translate(_CONTROLS), **settings)


out = Terminal(highlight=False, soft_wrap=True, emoji=False)
err = Terminal(stderr=True, highlight=False, soft_wrap=True, emoji=False)
STANDARD = "-"
"""Path that means standard input or output."""


def _read_query(text: str) -> str:
    return sys.stdin.read() if text == STANDARD else refuse_files([text])[0]


def refuse_files(texts: list[str]) -> list[str]:
    """Return queries, after a check that none with a suffix, such as `queries.txt`, is an existing file.

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


Query = Annotated[str, typer.Argument(callback=_read_query)]
Model = Annotated[str, typer.Option("--model", "-m", autocompletion=_complete_model)]
SOURCE_HELP = "A checkpoint, pipeline, model folder or packaged model, or a generator: module:factory, or a plugin."
ModelArgument = Annotated[str, typer.Argument(help=SOURCE_HELP)]
Name = Annotated[str | None, typer.Option(metavar="NAME")]
MORE = "More options"
"""Heading of the options that only --help-all shows."""


def more(*declared: str, **properties: Any) -> Any:
    """Declaration of an option that only --help-all shows, with arguments of `typer.Option`."""
    return typer.Option(*declared, rich_help_panel=MORE, **properties)


class Command(TyperCommand):
    """A command whose --help leaves out the options under `MORE`, which --help-all shows too."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help."""
        shown = copy(self)
        if MORE not in ctx.meta:
            shown.params = [each for each in self.params if getattr(each, "rich_help_panel", None) != MORE]
        super(Command, shown).format_help(ctx, formatter)


def _help_all(context: typer.Context, shown: bool) -> None:
    if shown and not context.resilient_parsing:
        context.meta[MORE] = True
        typer.echo(context.get_help())
        raise typer.Exit


Code = Annotated[str | None, more(metavar="NAME")]
AllowPlugins = Annotated[bool, more()]
Port = Annotated[int, typer.Option(min=0, max=65535)]
Json = Annotated[bool, typer.Option("--json")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q")]


class SharedHelp:
    """Help texts of options that several commands have. The docstring of a command may have another text for an option.

    Args:
        query: A query, such as "smile AND NOT (glasses OR beard)"; - reads it from standard input.
        model: A packaged model, or a model folder.
        generator: The generator, if the folder does not hold it: module:factory, or a plugin.
        judge: A judge instead of the folder's: module:function, a plugin, or none.
        reader: A reader of texts in quotes: a folder of transformers or open_clip, or module:factory.
        allow_plugins: Import the generator and the judge that the model folder names; needed once, until they change.
        device: auto, cpu, cuda, mps.
        labels: CSV or Parquet: one column per attribute.
        labeller: module:function that labels pictures, a plugin, or a folder with a judge.
        prompts: JSON: attribute -> prompts for CLIP, or for the --reader.
        clip_model: A model of open_clip.
        clip_weights: The weights of the CLIP model: a name, or a file.
        clip_margin: Least lead of the best prompt over the next, in logits.
        host: Address to listen on. By default only this machine can reach it.
        port: 0 chooses a free port.
        allow_host: Another allowed host name; repeat for more.
        token: Token that visitors need; by default a new one if other machines can reach the page, empty for none.
        open_page: Open the page in a browser.
        as_json: Print one JSON document on standard output, and nothing else.
        quiet: Print no progress bar and no report.
    """


@dataclass(frozen=True)
class Source(ModelSource):
    """Values of the options --model, --generator, --judge, --reader and --allow-plugins of a command."""

    model: Model = DEFAULT_MODEL
    generator: Code = None
    judge: Code = None
    reader: Name = None
    allow_plugins: AllowPlugins = False

    def open(self, device: str) -> str | Loaded:
        """Return the model that the options name, for the argument `model` of functions such as `energyql.generate`.

        It is loaded only if a generator, judge or reader is named, or plugins are allowed; else it is a name or a path.

        Raises:
            EnergyQLError: the model cannot be loaded.
        """
        if self.is_plain:
            return self.model
        from energyql.pipeline.model import load_model

        return load_model(self, device)


@dataclass(frozen=True)
class CodeSource(ModelSource):
    """Values of the options of `Source` without --model, for commands that say otherwise which models they load."""

    generator: Code = None
    judge: Code = None
    reader: Name = None
    allow_plugins: AllowPlugins = False


@dataclass(frozen=True)
class GeneratorSource(ModelSource):
    """Values of --model, --generator and --allow-plugins, for commands that need the generator and heads of a model."""

    model: Model = DEFAULT_MODEL
    generator: Code = None
    allow_plugins: AllowPlugins = False


@dataclass(frozen=True)
class OwnSource(ModelSource):
    """Values of the argument MODEL and of --generator and --allow-plugins, for models that are made or added to."""

    model: ModelArgument = field()
    generator: Code = None
    allow_plugins: AllowPlugins = False


@dataclass(frozen=True)
class LessonSource(OwnSource):
    """The same for a lesson, where photographs may stand in place of a model, which is then ""."""

    model: Annotated[str, typer.Argument(help=SOURCE_HELP, show_default=False)] = ""


@dataclass(frozen=True)
class LabelSource:
    """Values of the options that say where labels of pictures come from: a table, a function, or the model CLIP."""

    labels: Path | None = None
    labeller: str | None = None
    prompts: Path | None = None
    clip_model: Annotated[str, more()] = "ViT-B-32"
    clip_weights: Annotated[str, more()] = "laion2b_s34b_b79k"
    clip_margin: Annotated[float, more(min=0)] = 0.0
    reader: Name = None

    def check(self, **others: object) -> None:
        """Check that exactly one of --labels, --labeller, --prompts and `others` (name -> value) is set.

        Raises:
            ArgumentError: none of the options is set, or several are.
        """
        sources = {"labels": self.labels, "labeller": self.labeller, "prompts": self.prompts} | others
        present = [f"--{name}" for name, value in sources.items() if value is not None]
        if len(present) != 1:
            options = ", ".join(f"--{name}" for name in sources)
            raise ArgumentError(f"labels come from {' and '.join(present) or 'nowhere'}", hint=f"give one of {options}")

    def open(
        self, device: torch.device, latents: Path | None = None, model: str | None = None
    ) -> LabelTable | ImageLabeller:
        """Return the table of labels, or the labeller: a function that labels pictures.

        Args:
            device: device on which the model CLIP is computed.
            latents: with --labels, file with the latents of the rows of the table.
            model: with --reader, the model folder with the calibrations of the reader.

        Raises:
            EnergyQLError: the table cannot be read, or the labeller cannot be loaded.
        """
        from energyql.attributes.judge import open_labeller
        from energyql.attributes.words import open_words
        from energyql.pipeline.model import judge_mark
        from energyql.training.clip_labels import ClipLabeller, load_clip_labeller, read_prompts
        from energyql.training.labels import read_label_table

        if self.labels is not None:
            return read_label_table(self.labels, latents)
        if self.labeller is not None:
            return open_labeller(self.labeller)
        assert self.prompts is not None
        if self.reader is not None:
            words = open_words(self.reader, judge_mark)
            if model is not None and Path(model).is_dir():
                words = words.stored(Path(model))
            prompts, name = read_prompts(self.prompts), f"{words.mark} {words.calibrations}"
            return ClipLabeller(words.reader, prompts, margin=self.clip_margin, identity=name, words=words)
        clip = {"model": self.clip_model, "weights": self.clip_weights}
        return load_clip_labeller(self.prompts, margin=self.clip_margin, device=device, **clip)


@dataclass(frozen=True)
class Page:
    """Values of the options of a command that serves a web page."""

    host: str = "127.0.0.1"
    allow_host: list[str] | None = None
    token: Annotated[str | None, typer.Option(envvar="ENERGYQL_TOKEN")] = None
    open_page: Annotated[bool, typer.Option("--open")] = False

    def serving(self, port: int, before: str, after: str) -> dict[str, Any]:
        """Keyword arguments of `energyql.studio.web.serve_app`, which serves the page.

        When it is ready, its addresses are printed, and a warning if other machines can reach it.

        Args:
            before: text before the address for this machine.
            after: text after all addresses.
        """

        def ready(listening: Listening) -> None:
            first, *others = listening.addresses
            out.print(f"{markup(before)} [bold]{markup(first)}[/]")  # nothing after it could become a part of the link
            for address in others:
                out.print(f"From other machines: [bold]{markup(address)}[/]")
            out.print(markup(after))
            if listening.exposed:
                who = "only those who have the token" if listening.token else "anyone there, without a token,"
                err.print(
                    f"[yellow]Warning:[/] other machines can reach this page; {who} can use it. Nothing is encrypted: "
                    "in a network that you do not trust, leave out --host and put a proxy with encryption in front."
                )
            if self.open_page:
                typer.launch(first)

        return {"host": self.host, "port": port, "allowed": self.allow_host or [], "token": self.token, "ready": ready}


def out_option(*, standard: bool = False, suffix: str = "") -> Any:
    """Declaration of the option --out.

    Args:
        standard: whether the value may be `-`, which means standard output.
        suffix: the only suffix, such as ".csv", that a path may have; "" if all are allowed.
    """

    def check(path: Any) -> Any:
        if path is None or (standard and str(path) == STANDARD):
            return path
        if str(path) == STANDARD:
            hint = "name a file or folder after --out"
            raise ArgumentError("this command cannot write to standard output", hint=hint)
        if suffix and Path(path).suffix.lower() not in ("", suffix):
            raise ArgumentError(f"the result cannot be saved as {path}", hint=f"end the path in {suffix}")
        return path

    return typer.Option("--out", "-o", callback=check)


def print_json(data: Any) -> None:
    """Print JSON values as one indented document; a `ValueError` if a number is NaN or infinite."""
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.write(text.encode(errors="backslashreplace").decode() + "\n")  # a path may hold bytes that are no text


def check_studio(what: str) -> None:
    """Raise an `ArgumentError` if fastapi or uvicorn, which `what` needs, is not installed."""
    for library in ("fastapi", "uvicorn"):
        import_optional(library, f"{what} needs {library}", 'pip install "fastapi>=0.115" "uvicorn>=0.30"')


def read_condition(text: str | None) -> Any:
    """Condition of a generator in a text: 3 for "3" (a class), [0.5, 0.5] for "0.5,0.5", a list of prompts in JSON.

    Any other text is a prompt. `None` (the option is not given) stays `None`.
    """
    if text is None:
        return None
    with suppress(ValueError):
        return [float(part) for part in text.split(",") if part.strip()] if "," in text or "." in text else int(text)
    with suppress(ValueError, RecursionError):
        prompts = json.loads(text)
        if isinstance(prompts, list) and all(isinstance(prompt, str) for prompt in prompts):
            return prompts
    return text


def read_names(text: str) -> tuple[str, ...]:
    """Names in a text such as "smile, hat"; blanks around them and empty names are left out."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def read_pairs(option: str, texts: list[str] | None, form: str, example: str) -> dict[str, str]:
    """Return {"sigma": "80"} for texts such as "sigma=80", the values of an option, which may be `None`.

    Args:
        option: the option, such as "--fixed", for messages.
        form: form of the texts for messages, such as "INPUT=NUMBER".
        example: a text of this form, such as "sigma=80".

    Raises:
        ArgumentError: a text has another form, or two have the same name.
    """
    pairs = dict[str, str]()
    for text in texts or ():
        name, _, value = text.partition("=")
        if not (name and value):
            raise ArgumentError(f"{option}: {text!r} is not of the form {form}", hint=f"such as {example}")
        if name in pairs:
            raise ArgumentError(f"{option}: {name} is given twice")
        pairs[name] = value
    return pairs


def read_range(option: str, text: str, between: str = "..", *, single: bool = False) -> tuple[float, float]:
    """The least and the largest number in a text such as "-1..1"; with `single`, of one number such as "1" too.

    Args:
        option: the option, such as "--range", for messages.
        between: the sign between the numbers.

    Raises:
        ArgumentError: the text has another form.
    """
    least, separator, largest = text.partition(between)
    try:
        return float(least), float(largest if separator or not single else least)
    except ValueError:
        what = "neither a number nor" if single else "not"
        message = f"{option}: {text!r} is {what} of the form LOW{between}HIGH"
        raise ArgumentError(message, hint=f"such as 0{between}1") from None


def read_rows(text: str) -> list[int]:
    """Numbers of layers in a text such as "4-9" (both included) or "0,1,7"; an `ArgumentError` for another form."""
    numbers: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.partition("-")
            rows = range(int(first), int(last) + 1) if dash else [int(first)]
            if not rows:
                raise ValueError
            numbers += rows
    except ValueError:
        raise ArgumentError(f"layers are written 4-9 or 0,1,7, not {text!r}") from None
    return numbers


def _read_kinds(texts: list[str]) -> dict[str, Kind]:
    """Attribute -> kind, for texts such as "age=continuous"."""
    kinds: dict[str, Kind] = {}
    for text in texts:
        name, _, kind = text.rpartition("=")
        if not name or kind not in KINDS:
            wrong = f"{kind!r} is no kind of attribute" if name else f"{text!r} is not name=kind"
            raise ArgumentError(wrong, hint=f"kinds are {', '.join(KINDS)}")
        kinds[name] = cast(Kind, kind)
    return kinds


def _read_psi(text: str) -> tuple[float, float]:
    """Range (low, high) of psi: (0.5, 1) for "0.5:1", (0.7, 0.7) for "0.7"."""
    return read_range("--truncation", text, ":", single=True)


_ORDER = ("save_to", "n", "model", "truncation", "condition", "seed", "device", "as_json", "quiet")
"""Options that many commands have, in the order of the help."""


@dataclass(frozen=True)
class Written:
    """How an option is written whose setting has another type: the type of the option, and the function that reads it.

    The function is not called for `None`. If `empty` is set, the default is this text, not the default of the setting.
    """

    annotation: Any
    read: Callable[[Any], Any] = lambda value: value
    empty: str | None = None


_PSI = float | tuple[float, float] | None
"""Type of a truncation that may be a range."""
WRITTEN: Mapping[str, Written] = {
    "condition": Written(str | None, read_condition),
    "allow_weak": Written(Annotated[str, typer.Option(metavar="NAMES")], read_names, ""),
    "batch_size": Written(Annotated[int | None, typer.Option(min=1)]),
    "only": Written(str | None, read_names),
    "goals": Written(Annotated[str | None, typer.Option(metavar="NAMES")], read_names),
    "layers": Written(str | None, read_rows),
    "labeller": Written(str | None),
    "kinds": Written(Annotated[list[str] | None, typer.Option("--kind")], _read_kinds),
    "judge": Written(Annotated[str, typer.Option(metavar="NAME")]),
    "features": Written(Annotated[str, typer.Option(metavar="FOLDER")]),
    "labels": Written(Path | None),
    "n": Written(Annotated[int | None, typer.Option("-n")]),
    "budget": Written(Annotated[int | None, typer.Option(min=1)]),
    "workers": Written(Annotated[int, typer.Option(min=1)]),
    "gpus": Written(Annotated[float, typer.Option(min=0)]),
    "pool": Written(Annotated[int, typer.Option(min=1)]),
    "only_satisfied": Written(Annotated[bool | None, typer.Option("--only-satisfied")]),
}
"""Name of a setting -> its option, where the two types differ."""


def _options_of(record: type, names: Sequence[str], written: Mapping[str, Written]) -> dict[str, Written]:
    """Name of a setting of a record -> how its option is written."""
    types, psi = setting_types(record), Written(str | None, _read_psi)
    return {name: psi if types[name] == _PSI else written.get(name) or Written(types[name]) for name in names}


def _in_group(group: type) -> list[Field[Any]]:
    """The fields of a group that are options: not those of `ModelSource` that the group does not declare again."""
    return [each for each in fields(group) if each not in fields(ModelSource)]


def _is_argument(parameter: inspect.Parameter) -> bool:
    return isinstance(get_args(parameter.annotation)[1], ArgumentInfo)


def with_options(
    *names: str, record: type = DrawSettings, written: Mapping[str, Written] = WRITTEN, **defaults: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that adds help texts and options to a command, a function that typer calls.

    - The help text of an option is the first that exists of these: the entry of the option in the section "Args" of
      the docstring; the `help` of its `typer.Option`; that of the field of `record`; its entry in `SharedHelp`, the
      texts of options that several commands have. The help of the command is the docstring without the section "Args".
    - A parameter whose class is a dataclass, such as `Source`, becomes several options, one for each field.
    - A parameter of type bool becomes an option without a negative, such as --balance without --no-balance.
    - Options that many commands have stand in the order of `_ORDER`.
    - If options are declared by `more`, the command gets the option --help-all, which shows them.
    - Each of `names` becomes an option; those whose `Setting` is not `common`, one that only --help-all shows.
      The help lists these options before --device; for a command without --device, before --json; for a command without
      both, at the end.

    Args:
        names: names of fields of `record`, such as "semantics", in the order of the help. The command gets their values
            as `**settings`.
        record: the class of the settings; by default those of `generate`.
        written: options whose types are not those of the fields.
        defaults: defaults that differ from those of the record, by name of a field.
    """
    described, forms = settings_in(record), _options_of(record, names, written)
    own_defaults = {each.name: each.default for each in fields(record)} | defaults
    own_defaults |= {name: form.empty for name, form in forms.items() if form.empty is not None}
    shared = {name: setting.help for name, setting in settings_in(DrawSettings).items()}
    shared |= _read_docstring(SharedHelp)[1] | {name: described[name].help for name in names}

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(function, eval_str=True).parameters
        groups: dict[str, Any] = {name: each.annotation for name, each in own.items() if is_dataclass(each.annotation)}
        text, helps = _read_docstring(function)

        @wraps(function)
        def run(**values: Any) -> None:
            values.pop("help_all", None)
            values |= {name: form.read(values[name]) for name, form in forms.items() if values[name] is not None}
            for name, group in groups.items():
                values[name] = group(**{each.name: values.pop(each.name) for each in _in_group(group)})
            function(**values)

        def option(name: str, annotation: Any, default: Any) -> inspect.Parameter:
            inner, declaration = annotation, typer.Argument() if default is inspect.Parameter.empty else typer.Option()
            if get_origin(annotation) is Annotated:
                inner, declaration = get_args(annotation)
            declaration = copy(declaration)
            declaration.help = helps.get(name) or declaration.help or shared.get(name)
            if name in names and not described[name].common:
                declaration.rich_help_panel = MORE
            if inner is bool and not isinstance(declaration.default, str):  # where typer puts the first declared name
                declaration.param_decls = (f"--{name.replace('_', '-')}",)
            kind = inspect.Parameter.KEYWORD_ONLY
            return inspect.Parameter(name, kind, annotation=Annotated[inner, declaration], default=default)

        options: list[inspect.Parameter] = []
        for name, parameter in own.items():
            if name in groups:
                hints = get_type_hints(groups[name], include_extras=True)
                for each in _in_group(groups[name]):
                    default = inspect.Parameter.empty if each.default is MISSING else each.default
                    options.append(option(each.name, hints[each.name], default))
            elif name != "settings":
                options.append(option(name, parameter.annotation, parameter.default))
        at = next((i for i, each in enumerate(options) if each.name in ("device", "as_json")), len(options))
        added = [option(name, forms[name].annotation, own_defaults[name]) for name in names]
        options[at:at] = added
        places = [i for i, each in enumerate(options) if each.name in _ORDER and not _is_argument(each)]
        in_order = sorted((options[i] for i in places), key=lambda parameter: _ORDER.index(parameter.name))
        for place, parameter in zip(places, in_order, strict=True):
            options[place] = parameter
        if count := sum(get_args(each.annotation)[1].rich_help_panel == MORE for each in options):
            shows = typer.Option(
                is_eager=True, callback=_help_all, help=f"Show this message with {count} more options and exit."
            )
            options.append(option("help_all", Annotated[bool, shows], False))
        run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
        run.__doc__ = text
        return run

    return decorate


def _read_docstring(function: object) -> tuple[str, dict[str, str]]:
    """Docstring without its section "Args", and the texts of this section by name of an argument."""
    text, _, section = (inspect.getdoc(function) or "").partition("\n\nArgs:\n")
    entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
    return text, {name: " ".join(words.split()) for name, words in entries}
