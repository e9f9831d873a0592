"""All errors and warnings of energyql, and the drawing of carets under the wrong parts of a query.

An error has the query and the positions of its wrong parts as attributes. The command line prints:

    UnknownAttribute: 'glases' is not an attribute of model 'avatars'
      smile AND NOT (glases OR beerd)
                     ^^^^^^    ^^^^^
    did you mean glasses, beard?
"""

from __future__ import annotations

import copyreg
import inspect
import re
import sys
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from traceback import walk_stack
from typing import Any, ClassVar, NamedTuple

_WINDOW = 100
"""Number of characters that an error draws of a long line of a query."""
_MAX_LINES = 6
"""Most lines of a query that one error draws."""
_MOST_MESSAGE = 1700
"""Most characters of an error's message, so that a terminal shows the whole error."""
_MOST_DRAWN = 700
"""Most characters that an error draws, in lines of the query and lines of carets together."""
_MOST_HINT = 500
"""Most characters of a hint."""
_EITHER = re.compile("\ufdd0([^\ufdd0-\ufdd2]*)\ufdd1([^\ufdd0-\ufdd2]*)\ufdd2")
"""A part of a text that `either` returns; the marks are characters that Unicode keeps out of texts."""
_LINE_BREAK = re.compile(r"\r\n|\r|\n")


EARLIER = "was written by an earlier, unreleased version of energyql"
"""What is said of every file in a form that only versions before the first release wrote; none of them is read."""


class Span(NamedTuple):
    """A part of a query's text: the characters from offset `start` to `end - 1`, counted from 0."""

    start: int
    end: int


class Suggestion(NamedTuple):
    """A correction of a query: a part to replace, and the text to put in its place."""

    span: Span
    text: str


def either(python: str, command: str) -> str:
    """Part of the message or hint of an error: `python` is shown in Python, and `command` on the command line.

    Such as `either('verify="off"', "--verify off")`. Only errors and warnings of energyql choose one of the forms.
    """
    return f"\ufdd0{python}\ufdd1{command}\ufdd2"


def for_command_line(text: str) -> str:
    """`text` with the second form of each part that `either` returned."""
    return _EITHER.sub(r"\2", text)


class _Text(str):
    """A message or hint of an error as Python shows it; `command` is the text for the command line."""

    command: str

    def __new__(cls, text: str, most: int = _MOST_MESSAGE) -> _Text:
        """Read the parts of a text that `either` returned; of more than `most` characters, the middle is left out."""
        told = super().__new__(cls, abridge(_EITHER.sub(r"\1", text), most))
        told.command = abridge(getattr(text, "command", for_command_line(text)), most)
        return told


class _Located(Exception):
    """Base class of errors and of warnings, with a hint and a place in a query; `EnergyQLError` has the arguments."""

    def __init__(
        self, message: str, *, query: str | None = None, spans: Iterable[tuple[int, int]] = (), hint: str | None = None
    ) -> None:
        self.message = message
        super().__init__(self.message)
        self.query = query
        self.spans = tuple(Span(start, end) for start, end in spans)
        self.hint = hint
        self.suggestions: tuple[Suggestion, ...] = ()

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("message", "hint") and isinstance(value, str):
            value = _Text(value, _MOST_MESSAGE if name == "message" else _MOST_HINT)
        super().__setattr__(name, value)

    @property
    def span(self) -> Span | None:
        """The most important wrong part of the query; None if `spans` is empty."""
        return self.spans[0] if self.spans else None

    @property
    def line(self) -> int | None:
        """Line of the query in which `span` begins, counted from 1; None without a span or a query."""
        return self._position()[0]

    @property
    def column(self) -> int | None:
        """Column at which `span` begins in its line, in characters counted from 1; None without a span or a query."""
        return self._position()[1]

    def _position(self) -> tuple[int, int] | tuple[None, None]:
        if self.query is None or not self.spans:
            return None, None
        start = min(max(self.spans[0].start, 0), len(self.query))
        lines = [0, *(line_break.end() for line_break in _LINE_BREAK.finditer(self.query, 0, start))]
        return len(lines), start - lines[-1] + 1

    def __str__(self) -> str:
        return self._text(self.message, self.hint)

    def for_command_line(self) -> str:
        """`str(self)`, with the names of options in place of those of Python's arguments; see `either`."""
        return self._text(*(getattr(text, "command", text) for text in (self.message, self.hint)))

    def _text(self, message: str | None, hint: str | None) -> str:
        drawn = draw(self.query, self.spans) if self.query and not self.query.isspace() and self.spans else None
        return "\n".join(filter(None, (message, drawn, hint)))

    def __reduce__(self) -> tuple[Any, ...]:
        # The default unpickles an exception by a call with `args`, which fails for a subclass with more arguments.
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class EnergyQLError(_Located):
    """Base class of the errors that energyql raises for wrong input.

    `str(error)` is the message, the query with carets under the wrong parts, and the hint.

    Args:
        message: what is wrong, in one sentence without a full stop. Of a long message or hint, the middle is left out.
        query: text of the query; `None` if the error is not about a query.
        spans: (start, end) character offsets of the wrong parts in `query`, the most important first. If start and end
            are equal, the mistake is between two characters, or at the end of the text.
        hint: a way to correct the mistake.

    Attributes:
        suggestions: corrections, for programs that show errors: each replaces one part of the query by another text.
    """

    exit_code: ClassVar[int] = 1
    """Exit code of a command that ends with this error; each class has its own."""

    def render(self) -> str:
        """Name of the error's class, ": " and `str(error)`."""
        return f"{type(self).__name__}: {self}"

    def quoted(self) -> str:
        """Text of `render` as a part of the message of another error, which has both of its forms; see `either`."""
        python, command = str(self), self.for_command_line()
        return f"{type(self).__name__}: {python if python == command else either(python, command)}"


class QuerySyntaxError(EnergyQLError):
    """A text is not a query."""

    exit_code = 3


class UnknownAttribute(EnergyQLError, AttributeError, KeyError):
    """A query names attributes that the model does not have.

    It is also an `AttributeError`, so that `hasattr(model.E, "smile")` works, and a `KeyError`, because a vocabulary
    and other dicts by attribute raise it for a missing key.

    Attributes:
        names: the missing attributes, in the order of the query.
    """

    exit_code = 4

    def __init__(self, message: str, *, names: Iterable[str] = (), **place: Any) -> None:
        super().__init__(message, **place)
        self.names = tuple(names)


class KindError(EnergyQLError):
    """A condition does not fit its attribute: `hair > 2` if `hair` has classes, or `hair = wood` if wood is none."""

    exit_code = 5


class Contradiction(EnergyQLError):
    """A query cannot be true, whatever values the attributes have, such as `hat AND NOT hat`."""

    exit_code = 6


class LimitError(EnergyQLError):
    """A query is too long, nested too deep or too large."""

    exit_code = 7


class VocabularyError(EnergyQLError):
    """A vocabulary, the description of a model's attributes, is wrong; for example, two attributes have one name."""

    exit_code = 8


class ArgumentError(EnergyQLError, TypeError, ValueError):
    """An argument of a public function or operator is wrong; also a `TypeError` and a `ValueError`."""

    exit_code = 2


class DataError(EnergyQLError):
    """A table, array or list of queries cannot be read, or holds a wrong value."""

    exit_code = 9


class ModelError(EnergyQLError):
    """A model folder or checkpoint is missing or damaged, or its parts do not fit together."""

    exit_code = 10


class WeakHeadError(EnergyQLError):
    """The query names an attribute that the model predicts too badly from latents.

    The quality of the attribute's head was measured on latents that were held out of its training. The argument
    `allow_weak` permits such attributes. They need no permission if a verifier reads them off the pictures.
    """

    exit_code = 11


class OutOfDomainError(EnergyQLError):
    """No latents were found for a picture: the generator's nearest picture differs too much from it."""

    exit_code = 12


class IncompleteError(EnergyQLError):
    """A data set was written with too few pictures, because for some classes too few satisfy their query."""

    exit_code = 13


class NoPicturesError(EnergyQLError):
    """A run ended without pictures: base class of `RefusedError`, `BudgetError` and `UnreachableError`."""

    exit_code = 14


class RefusedError(NoPicturesError):
    """The verifier refuses nearly all pictures: more are drawn for one that is kept than `attempts` allows.

    Raise `attempts`, label more pictures that satisfy the query, or draw without a verifier.
    """


class BudgetError(NoPicturesError):
    """The budget of calls of the generator ended before a sample was complete: raise `budget`, or ask for less."""


class UnreachableError(NoPicturesError):
    """The model hardly draws a picture that satisfies the query: change the prompt, the model or the query.

    It is raised where a reader of pictures guides the sampler, or prompts have shares; the message says how rare the
    query is.
    """


class LabelWarning(_Located, UserWarning):
    """Labels for a training are few or perhaps wrong, such as those of another column, or in another order."""


class QueryWarning(_Located, UserWarning):
    """Base class of the warnings about queries, with the attributes and the text of an `EnergyQLError`."""


class TautologyWarning(QueryWarning):
    """A query is true of every sample, so that it has no effect."""


class ConstantPartWarning(QueryWarning):
    """A part of a query is true of every sample, or of none, although the whole query is not."""


class CheckpointWarning(_Located, UserWarning):
    """A checkpoint does not state a property of its pictures; the message says what is assumed."""


class LockWarning(UserWarning):
    """A file system has no locks, so that two processes could write to one folder at the same time."""


def caller_level() -> int:
    """Argument `stacklevel` with which `warnings.warn`, called where this is called, shows the user's line of code."""
    names = [frame.f_globals.get("__name__", "").partition(".")[0] for frame, _ in walk_stack(sys._getframe(1))]
    return len(names) - names[::-1].index("energyql") + 1  # after the outermost frame of the package


def misfit(function: Callable[..., Any], *arguments: object, **options: object) -> str:
    """Return why a function or class cannot be called with some arguments, such as "missing a required argument: 'z'".

    The text is empty if the call is possible, or if Python does not know, as for many classes written in C.
    """
    try:
        if inspect.isfunction(function) or inspect.ismethod(function) or inspect.isclass(function):
            inspect.signature(function).bind(*arguments, **options)
    except (TypeError, ValueError) as error:  # a ValueError: there is no signature
        return str(error) if isinstance(error, TypeError) else ""
    return ""


def abridge(text: str, most: int) -> str:
    """Cut a text that has more than `most` characters, with " ... " in place of its middle."""
    if len(text) <= most:
        return text
    end = most // 3
    return f"{text[: most - end - 5]} ... {text[-end:]}"


def listed(first: str, mistakes: Sequence[str]) -> str:
    """Join mistakes to one message, short enough for an error: paragraph `first`, those that fit, and "and 3 more"."""
    lengths = accumulate(len(mistake) + 2 for mistake in mistakes)
    room = _MOST_MESSAGE - len(first) - 20
    count = max(1, sum(length <= room for length in lengths))
    parts = [first, *mistakes[:count]]
    if count < len(mistakes):
        parts.append(f"and {len(mistakes) - count:,} more")
    return "\n\n".join(parts)


def draw(query: str, spans: Iterable[tuple[int, int]]) -> str:
    """Draw the lines of a query that have wrong parts, each with a line of carets below it.

    Lines are numbered if the query has several. Of a long line, only the part around the first mark is shown.

    Args:
        query: text of the query.
        spans: (start, end) character offsets of the wrong parts, the most important first; one caret if they are equal.
    """
    marks = [(min(max(start, 0), len(query)), min(max(start, end, 0), len(query))) for start, end in spans]
    breaks = [line_break.span() for line_break in _LINE_BREAK.finditer(query)]
    starts, ends = [0, *(end for _, end in breaks)], [*(start for start, _ in breaks), len(query)]
    by_line: dict[int, list[tuple[int, int]]] = {}
    for start, end in marks:
        first = bisect_right(starts, start) - 1
        for index in range(first, min(len(starts), first + _MAX_LINES + 1)):
            if index > first and starts[index] >= end:
                break
            low, high = max(start, starts[index]), min(end, ends[index])
            if index > first:  # the indentation of a continued line is not at fault
                low += len(query[low:high]) - len(query[low:high].lstrip())
            if low < high or start == end:
                by_line.setdefault(index + 1, []).append((low - starts[index], high - starts[index]))
    marked = sorted(by_line.items())[:_MAX_LINES]
    width = len(str(marked[-1][0])) if marked else 1
    lines, previous = list[str](), 0
    gap, complete = f"  {'':{width}} | ...", len(by_line) <= _MAX_LINES
    for number, pieces in marked:
        text, carets = _draw_line(query[starts[number - 1] : ends[number - 1]], pieces)
        left = [f"  {number:{width}} | ", f"  {'':{width}} | "] if len(starts) > 1 else ["  ", "  "]
        more = [gap] if previous and number > previous + 1 else []
        more += [left[0] + text, left[1] + carets]
        if sum(map(len, [*lines, *more, gap])) + len(lines) + len(more) > _MOST_DRAWN:
            complete = False
            break
        lines += more
        previous = number
    if not complete:
        lines.append(gap)
    return "\n".join(line.rstrip() for line in lines)


def _draw_line(line: str, marks: list[tuple[int, int]]) -> tuple[str, str]:
    """The shown part of a query's line, and a line of carets under the (start, end) offsets `marks`."""
    first, last = _window(line, *marks[0])
    before, after = "..." * (first > 0), "..." * (last < len(line))
    cells = [_show(character) for character in line[first:last]]
    columns = list(accumulate((width for _, width in cells), initial=len(before)))
    carets = bytearray(b" " * (columns[-1] + 1))
    for start, end in marks:
        if start > last or end < first:
            continue
        left = columns[max(start, first) - first]
        right = max(columns[min(end, last) - first], left + 1)
        carets[left:right] = b"^" * (right - left)
    return before + "".join(piece for piece, _ in cells) + after, carets.decode("ascii").rstrip()


def _window(line: str, start: int, end: int) -> tuple[int, int]:
    """Offsets (first, last) of the part of a line that is shown: about `_WINDOW` characters around `start` to `end`."""
    first, last = 0, len(line)
    if last > _WINDOW + 6:
        room = max(_WINDOW - (end - start), 40)
        first = min(max(start - room // 2, 0), len(line) - _WINDOW)
        while 0 < first < start and unicodedata.combining(line[first]):
            first += 1
        last = min(first + _WINDOW, len(line))
    while sum(_show(character)[1] for character in line[first:last]) > 2 * _WINDOW + 6:  # escapes take many columns
        first, last = (first + 1, last) if start - first > last - start else (first, last - 1)
    return first, last


def _show(character: str) -> tuple[str, int]:
    """What is drawn for a character (an escape if it is invisible), and its width in columns of a terminal."""
    if character == "\t":
        return "    ", 4
    category = unicodedata.category(character)
    if category in {"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"}:
        # Invisible, or of unknown width: an escape makes it visible and keeps the carets in place.
        escape = character.encode("unicode_escape", "surrogatepass").decode("ascii")
        return escape, len(escape)
    if category in {"Mn", "Me"} or "\u1160" <= character <= "\u11ff":
        return character, 0
    return character, 2 if unicodedata.east_asian_width(character) in "WF" else 1


def first_line(error: BaseException) -> str:
    """First line of an error's message that is not empty; for an empty message, the name of its class."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
