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
_MOST_MESSAGE = 1700
"""Most characters of the message of an error, so that a terminal shows the whole error."""
_MOST_DRAWN = 700
"""Most characters of the lines and carets of a query."""
_MOST_HINT = 500
"""Most characters of a hint."""
_LINE_BREAK = re.compile(r"\r\n|\r|\n")


class Span(NamedTuple):
    """A half-open range of character offsets into the text of a query."""

    start: int
    end: int


class Suggestion(NamedTuple):
    """A correction of a query: the text that may have been meant in place of a part of it."""

    span: Span
    text: str


class _Located(Exception):
    """A message about a query, with the parts of the query that it is about and a hint.

    The arguments are those of `EnergyQLError`.
    """

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
        # The default unpickles an exception by a call with `args`, which fails for a subclass with more arguments.
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
    """Exit code of a command that ends with this error; each class has its own."""

    def render(self) -> str:
        """Return the class name and the text of `str(error)`, as the command line prints it."""
        return f"{type(self).__name__}: {self}"


class QuerySyntaxError(EnergyQLError):
    """A text that is not a query."""

    exit_code = 3


class UnknownAttribute(EnergyQLError, AttributeError, KeyError):
    """A query with attributes that the model does not have.

    It is also an `AttributeError`, so that `hasattr(model.E, "smile")` works, and a `KeyError`, because vocabularies
    and the tables of a result raise it as well.

    Attributes:
        names: the missing attributes, in the order of the query.
    """

    exit_code = 4

    def __init__(self, message: str, *, names: Iterable[str] = (), **place: Any) -> None:
        super().__init__(message, **place)
        self.names = tuple(names)


class KindError(EnergyQLError):
    """An attribute that is used like one of another kind, or with a value that it cannot have."""

    exit_code = 5


class Contradiction(EnergyQLError):
    """A query that no values of the attributes satisfy."""

    exit_code = 6


class LimitError(EnergyQLError):
    """A query that is too long, nested too deep or too large."""

    exit_code = 7


class VocabularyError(EnergyQLError):
    """A wrong description of a model's attributes."""

    exit_code = 8


class ArgumentError(EnergyQLError, TypeError, ValueError):
    """An argument of a public function or operator that has the wrong type or value.

    It is also a `TypeError` and a `ValueError`, so that programs can catch it as usual in Python.
    """

    exit_code = 2


class DataError(EnergyQLError):
    """A table, array or list of queries that cannot be read, or holds a wrong value."""

    exit_code = 9


class ModelError(EnergyQLError):
    """A model folder or checkpoint that is missing or damaged, or whose parts do not fit together."""

    exit_code = 10


class WeakHeadError(EnergyQLError):
    """A query that needs a weak head, one of low quality on held-out labels, which `allow_weak` does not name."""

    exit_code = 11


class OutOfDomainError(EnergyQLError):
    """A picture to invert that the generator cannot draw: the reconstruction differs too much."""

    exit_code = 12


class IncompleteError(EnergyQLError):
    """A data set that was written, but has classes with too few pictures that satisfy their query."""

    exit_code = 13


class LabelWarning(UserWarning):
    """Labels that are few, or perhaps wrong: a column, or the order of the rows, may not be as intended."""


class QueryWarning(_Located, UserWarning):
    """Base class of the warnings about queries; they have the fields of an `EnergyQLError`, and `str` draws carets."""


class TautologyWarning(QueryWarning):
    """A query that is true of every sample, so that it has no effect."""


class ConstantPartWarning(QueryWarning):
    """A query with a part that is true of every sample, or of none; the query as a whole is neither."""


class CheckpointWarning(UserWarning):
    """A property of pictures that a checkpoint does not hold; the message says which value is assumed."""


class LockWarning(UserWarning):
    """A folder on a file system without locks, where a second writer cannot be noticed."""


def caller_level() -> int:
    """Return the `stacklevel` with which a warning of the calling function points at code outside this package."""
    names = [frame.f_globals.get("__name__", "").partition(".")[0] for frame, _ in walk_stack(sys._getframe(1))]
    return len(names) - names[::-1].index("energyql") + 1  # after the outermost frame of the package


def misfit(function: Callable[..., Any], *arguments: object, **options: object) -> str:
    """Return why a function or class cannot be called with these arguments.

    The text is empty if it can be called, or if Python has no signature of it, such as of many classes written in C.
    """
    try:
        if inspect.isfunction(function) or inspect.ismethod(function) or inspect.isclass(function):
            inspect.signature(function).bind(*arguments, **options)
    except (TypeError, ValueError) as error:  # a ValueError: there is no signature
        return str(error) if isinstance(error, TypeError) else ""
    return ""


def abridge(text: str, most: int) -> str:
    """Return `text`, or at most `most` characters of it: the middle of a longer text is replaced by dots."""
    if len(text) <= most:
        return text
    end = most // 3
    return f"{text[: most - end - 5]} ... {text[-end:]}"


def listed(first: str, mistakes: Sequence[str]) -> str:
    """Return one message for several mistakes.

    Args:
        first: the first paragraph.
        mistakes: a paragraph each; as many as there is room for are shown, at least one, then the number of the others.
    """
    lengths = accumulate(len(mistake) + 2 for mistake in mistakes)
    room = _MOST_MESSAGE - len(first) - 20
    count = max(1, sum(length <= room for length in lengths))
    parts = [first, *mistakes[:count]]
    if count < len(mistakes):
        parts.append(f"and {len(mistakes) - count:,} more")
    return "\n\n".join(parts)


def draw(query: str, spans: Iterable[tuple[int, int]]) -> str:
    """Return the lines of `query` that hold `spans`, each above a line of carets, without a final newline.

    Lines are indented by two spaces, and numbered if the query has several. A long line is cut to a window around the
    first span in it. An empty span gets one caret.

    Args:
        query: the text.
        spans: (start, end) character offsets into it, the most important first.
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
    """Return the visible part of one line of a query, and the line of carets under it.

    Args:
        line: the line.
        marks: (start, end) of the carets, character offsets into the line, at least one.
    """
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
    """Return the range (first, last) of a line to show: of a long line, about `_WINDOW` characters around the span."""
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
    """Return a character as it is drawn, and its width in columns of a terminal."""
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
