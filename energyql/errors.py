"""All errors and warnings of energyql, and the drawing of carets under a query.

An error holds the query and the spans at fault as fields, and prints as

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
"""Most terminal columns that are drawn of one line of a query."""
_MAX_LINES = 6
"""Most lines of a query that one error draws."""
_MOST_MESSAGE, _MOST_DRAWN, _MOST_HINT = 1700, 700, 500
"""Most characters of each part of an error: whatever it is about, a terminal shows it."""
_LINE_BREAK = re.compile(r"\r\n|\r|\n")


class Span(NamedTuple):
    """A half-open range of character offsets into the text of a query."""

    start: int
    end: int


class Suggestion(NamedTuple):
    """A text that may have been meant in place of a part of a query."""

    span: Span
    text: str


class _Located(Exception):
    """A message with the query that it is about, the spans of the parts meant, and a hint; see `EnergyQLError`."""

    def __init__(
        self, message: str, *, query: str | None = None, spans: Iterable[tuple[int, int]] = (), hint: str | None = None
    ) -> None:
        super().__init__(abridge(message, _MOST_MESSAGE))
        self.message = message
        self.query = query
        self.spans = tuple(Span(start, end) for start, end in spans)
        self.hint = hint
        self.suggestions: tuple[Suggestion, ...] = ()

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("message", "hint") and isinstance(value, str):
            value = abridge(value, _MOST_MESSAGE if name == "message" else _MOST_HINT)
        super().__setattr__(name, value)

    @property
    def span(self) -> Span | None:
        """The first of `spans`, or None."""
        return self.spans[0] if self.spans else None

    @property
    def line(self) -> int | None:
        """Line of `span` in the query, counted from 1; None where there is no span."""
        return self._position()[0]

    @property
    def column(self) -> int | None:
        """Column of `span` in its line, in characters counted from 1; None where there is no span."""
        return self._position()[1]

    def _position(self) -> tuple[int, int] | tuple[None, None]:
        if self.query is None or not self.spans:
            return None, None
        start = min(max(self.spans[0].start, 0), len(self.query))
        lines = [0, *(line_break.end() for line_break in _LINE_BREAK.finditer(self.query, 0, start))]
        return len(lines), start - lines[-1] + 1

    def __str__(self) -> str:
        parts = [self.message]
        if self.query and not self.query.isspace() and self.spans:
            parts.append(draw(self.query, self.spans))
        if self.hint:
            parts.append(self.hint)
        return "\n".join(parts)

    def __reduce__(self) -> tuple[Any, ...]:
        # By default an exception is unpickled by a call with `args`, which fails where a subclass needs more arguments.
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class EnergyQLError(_Located):
    """Base class of the errors that energyql raises for wrong input.

    `str(error)` is the message, the query with carets under the parts at fault, and the hint; `error.render()` puts
    the class name in front, which is what the command line prints.

    Args:
        message: what is wrong, in one sentence without a full stop; the middle of a long one is left out.
        query: the text that `spans` point into.
        spans: (start, end) character offsets of the parts at fault, the most important first. An empty span is a place
            between two characters, such as the end of the text.
        hint: a way to correct it; the middle of a long one is left out.

    Attributes:
        suggestions: corrections of the query as data: each replaces one part of it.
    """

    exit_code: ClassVar[int] = 1
    """Exit code of a command that this error ends: one for each class, so that scripts can tell errors apart."""

    def render(self) -> str:
        """Return the class name and the text of `str(error)`, as the command line prints it."""
        return f"{type(self).__name__}: {self}"


class QuerySyntaxError(EnergyQLError):
    """The text is not a query."""

    exit_code = 3


class UnknownAttribute(EnergyQLError, AttributeError, KeyError):
    """A query names attributes that the model does not have; `names` holds all of them in order of appearance.

    It is also an AttributeError, so that `hasattr(model.E, "smile")` works, and a KeyError, because vocabularies and
    the tables of a result raise it as well.
    """

    exit_code = 4

    def __init__(self, message: str, *, names: Iterable[str] = (), **place: Any) -> None:
        super().__init__(message, **place)
        self.names = tuple(names)


class KindError(EnergyQLError):
    """An attribute is used as one of another kind, or with a value or number that it cannot have."""

    exit_code = 5


class Contradiction(EnergyQLError):
    """No values of the attributes satisfy the query."""

    exit_code = 6


class LimitError(EnergyQLError):
    """A query is too long, nested too deep or too large."""

    exit_code = 7


class VocabularyError(EnergyQLError):
    """The description of a model's attributes is wrong."""

    exit_code = 8


class ArgumentError(EnergyQLError, TypeError, ValueError):
    """An argument of a public function or operator has the wrong type or value.

    It is also a TypeError and a ValueError, so that programs can catch it as usual in Python.
    """

    exit_code = 2


class DataError(EnergyQLError):
    """A table, array or list of queries cannot be read, or holds a wrong value."""

    exit_code = 9


class ModelError(EnergyQLError):
    """A model folder or checkpoint is missing or damaged, or its parts do not fit together."""

    exit_code = 10


class WeakHeadError(EnergyQLError):
    """A query needs a head whose quality on held-out labels is too low, and which is not allowed by name."""

    exit_code = 11


class OutOfDomainError(EnergyQLError):
    """A generator cannot draw a picture that is to be inverted: the reconstruction differs too much."""

    exit_code = 12


class IncompleteError(EnergyQLError):
    """A data set was written, but some of its classes lack pictures that satisfy their query."""

    exit_code = 13


class LabelWarning(UserWarning):
    """There are few labels, or a column or the order of rows may not be as intended."""


class QueryWarning(_Located, UserWarning):
    """Base class of the warnings about queries; they have the fields of an `EnergyQLError`, and `str` draws carets."""


class TautologyWarning(QueryWarning):
    """A query is true of every sample, so it has no effect."""


class ConstantPartWarning(QueryWarning):
    """A part of a query is never true, or always, whatever the picture; the query as a whole is neither."""


class CheckpointWarning(UserWarning):
    """Pictures depend on something that a checkpoint does not hold; the message says what is assumed."""


class LockWarning(UserWarning):
    """A folder lies on a file system without locks, where a second writer cannot be noticed."""


def caller_level() -> int:
    """Return the `stacklevel` of the line that called this package, for a warning of the function that calls this."""
    names = [frame.f_globals.get("__name__", "").partition(".")[0] for frame, _ in walk_stack(sys._getframe(1))]
    return len(names) - names[::-1].index("energyql") + 1  # frames of decorators may stand between those of the package


def misfit(function: Callable[..., Any], *arguments: object, **options: object) -> str:
    """Return why a function or class of Python cannot be called with these arguments; "" if it can, or who knows."""
    try:
        if inspect.isfunction(function) or inspect.ismethod(function) or inspect.isclass(function):
            inspect.signature(function).bind(*arguments, **options)
    except (TypeError, ValueError) as error:  # a ValueError: of a class in C
        return str(error) if isinstance(error, TypeError) else ""
    return ""


def abridge(text: str, most: int) -> str:
    """Return a text of at most `most` characters: where it is longer, its middle is left out."""
    if len(text) <= most:
        return text
    end = most // 3
    return f"{text[: most - end - 5]} ... {text[-end:]}"


def listed(first: str, mistakes: Sequence[str]) -> str:
    """Return a message with several mistakes, as many as there is room for, and the number of the others."""
    lengths = accumulate(len(mistake) + 2 for mistake in mistakes)
    room = _MOST_MESSAGE - len(first) - 20
    shown = max(1, sum(length <= room for length in lengths))
    parts = [first, *mistakes[:shown]]
    if shown < len(mistakes):
        parts.append(f"and {len(mistakes) - shown:,} more")
    return "\n\n".join(parts)


def draw(query: str, spans: Iterable[tuple[int, int]]) -> str:
    """Return the lines of `query` that hold `spans`, each above a line of carets, without a final newline.

    Lines are indented by two; a query of several lines gets line numbers. A long line is cut to a window around the
    first span in it. An empty span gets one caret.
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
    shown = sorted(by_line.items())[:_MAX_LINES]
    width = len(str(shown[-1][0])) if shown else 1
    lines, previous = list[str](), 0
    gap, complete = f"  {'':{width}} | ...", len(by_line) <= _MAX_LINES
    for number, pieces in shown:
        text, carets = _draw_line(query[starts[number - 1] : ends[number - 1]], pieces)
        if len(starts) == 1:
            lines += [f"  {text}", f"  {carets}"]
            continue
        more = [gap] if previous and number > previous + 1 else []
        more += [f"  {number:{width}} | {text}", f"  {'':{width}} | {carets}"]
        if sum(map(len, [*lines, *more, gap])) + len(lines) + len(more) > _MOST_DRAWN:
            complete = False
            break
        lines += more
        previous = number
    if not complete:
        lines.append(gap)
    return "\n".join(line.rstrip() for line in lines)


def _draw_line(line: str, marks: list[tuple[int, int]]) -> tuple[str, str]:
    """Return the visible part of one line, and the carets under it."""
    first, last = _window(line, *marks[0])
    before, after = "..." * (first > 0), "..." * (last < len(line))
    shown = [_show(character) for character in line[first:last]]
    columns = list(accumulate((width for _, width in shown), initial=len(before)))
    carets = bytearray(b" " * (columns[-1] + 1))
    for start, end in marks:
        if start > last or end < first:
            continue
        left = columns[max(start, first) - first]
        right = max(columns[min(end, last) - first], left + 1)
        carets[left:right] = b"^" * (right - left)
    return before + "".join(piece for piece, _ in shown) + after, carets.decode("ascii").rstrip()


def _window(line: str, start: int, end: int) -> tuple[int, int]:
    """Return the range of a long line to show: about `_WINDOW` characters around the span."""
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
    """Return one character as it is drawn, and its width in terminal columns."""
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
