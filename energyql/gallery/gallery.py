"""Galleries: many queries drawn with one set of settings, truth tables and traversals, written as one HTML page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from itertools import product
from operator import and_
from pathlib import Path
from typing import TYPE_CHECKING

from energyql.energy.rule import check_semantics
from energyql.errors import ArgumentError, Contradiction, EnergyQLError, KindError, Span
from energyql.files import naming_target, write_text
from energyql.gallery import page
from energyql.gallery.page import QuerySection, Section, Traversal, TruthRow, TruthTable
from energyql.gallery.words import probability, score_clauses
from energyql.language import Cardinality, Expr, Interval, Not, OneOf, parse
from energyql.models import DEFAULT_MODEL, read_vocabulary
from energyql.pipeline.checks import verdict
from energyql.pipeline.draw import Pipeline, PreparedQuery, pipeline_for
from energyql.pipeline.model import Model
from energyql.pipeline.queries import CheckedQuery, ListedQuery, check, check_all, list_queries
from energyql.pipeline.result import Result
from energyql.pipeline.settings import EXACT, DrawOptions, DrawSettings, whole_number
from energyql.progress import Report, reporting
from energyql.sampling.traversal import MOST_STEPS, Given, interpolate
from energyql.vocabulary import Vocabulary

if TYPE_CHECKING:
    from typing_extensions import Unpack

MOST_LITERALS = 4
"""Largest number of literals of a truth table, which then has 16 rows."""
_OPEN, _CLOSE = "ALL OF (", ")"
"""Text around literals that makes a query of them."""


def split_literals(text: str) -> list[Expr]:
    """Parse literals separated by commas: `smile, hair = red, hair IN {gray, black}`.

    Raises:
        EnergyQLError: a literal is no query; the carets point into `text`.
    """
    try:
        parsed = parse(f"{_OPEN}{text}{_CLOSE}")  # the grammar tells commas between literals from those in a set
    except EnergyQLError as error:
        shift, last = len(_OPEN), len(text)
        error.query = text
        error.spans = tuple(Span(max(start - shift, 0), min(max(end - shift, 0), last)) for start, end in error.spans)
        raise
    if not isinstance(parsed, Cardinality):  # a text such as `a) AND (b`
        raise ArgumentError(f"{text!r} is no list of literals", hint="write them with commas: smile, glasses")
    return [replace(operand, span=None) for operand in parsed.operands]


def check_literals(literals: Sequence[str | Expr], vocabulary: Vocabulary) -> list[Expr]:
    """Return the literals of a truth table as expressions.

    Args:
        literals: texts or expressions.
        vocabulary: attributes of the model.

    Raises:
        ArgumentError: there are none or too many, or two are equal.
        DataError: some do not fit the model; the message shows all of them.
    """
    if not 1 <= len(literals) <= MOST_LITERALS:
        raise ArgumentError(
            f"a truth table has 1 to {MOST_LITERALS} attributes, not {len(literals)}",
            hint="leave some out: each doubles the table" if literals else 'such as "smile" and "hair = red"',
        )
    entries = [ListedQuery(literal, place=f"attribute {number}") for number, literal in enumerate(literals, start=1)]
    exprs = [checked.expr for checked in check_all(entries, vocabulary, EXACT, source="truth table")]
    for number, expr in enumerate(exprs):
        if expr in exprs[:number]:
            raise ArgumentError(f"{expr} is in the truth table twice", hint="leave one out")
    return exprs


def negated(literal: Expr) -> Expr:
    """Return NOT literal in its shortest form, such as `hair != red` or `age <= 0.6`."""
    if isinstance(literal, Not):
        return literal.operand
    if isinstance(literal, OneOf):
        return replace(literal, negated=not literal.negated)
    if isinstance(literal, Interval) and literal.high is None:
        return Interval(literal.name, None, literal.low, high_closed=not literal.low_closed)
    if isinstance(literal, Interval) and literal.low is None:
        return Interval(literal.name, literal.high, None, low_closed=not literal.high_closed)
    return Not(literal)


def fill_table(
    literals: Sequence[Expr],
    vocabulary: Vocabulary,
    semantics: str,
    draw: Callable[[Expr], Result],
    report: Callable[[float], None],
) -> TruthTable:
    """Draw every combination of literals that is no contradiction.

    Args:
        literals: the literals.
        vocabulary: attributes of the model.
        semantics: name of the semantics.
        draw: returns pictures of a query.
        report: called with the fraction of the combinations that are drawn.
    """
    rows = []
    combinations = list(product([True, False], repeat=len(literals)))
    for number, values in enumerate(combinations):
        report(number / len(combinations))
        parts = [part if true else negated(part) for part, true in zip(literals, values, strict=True)]
        query = reduce(and_, parts)
        try:
            check(ListedQuery(query), vocabulary, semantics)
        except (Contradiction, KindError) as error:  # KindError: a negation outside the range of an attribute
            rows.append(TruthRow(values, str(query), None, error.message))
        else:
            rows.append(TruthRow(values, str(query), draw(query)))
    return TruthTable(tuple(str(literal) for literal in literals), rows)


Query = str | Expr
Queries = Query | Iterable[Query | tuple[str, Query] | ListedQuery] | Mapping[str, Query]


class Gallery:
    """A page of queries, each with its pictures, verdicts, clauses and circuit.

    All queries are checked before the first is drawn.

    Args:
        queries: a list of queries (text or expressions), or of pairs (title, query), or a dict from titles to queries.
        n: number of pictures of each query.
        title: title of the page.
        about: text under the title; a blank line begins a new paragraph.
        model: name of a packaged model, a model folder, a `Model` in memory, or a `Pipeline`, a model on its device.
        device: "cpu", "cuda" and so on; "auto" is that of a model in memory, else a GPU if there is one.
        progress: whether to show a bar; or a function of the name of a stage and the fraction of it that is done.
        options: settings of `energyql.generate`, for every query of the gallery.

    Raises:
        DataError: some queries are wrong; the message shows all of them.
        EnergyQLError: a setting is wrong.

    Example:
        >>> gallery = Gallery(["smile AND hat", "beard XOR long_hair"], n=8)  # doctest: +SKIP
        >>> gallery.add_truth_table("smile", "glasses")  # doctest: +SKIP
        >>> gallery.save("site/")  # doctest: +SKIP
    """

    def __init__(
        self,
        queries: Queries = (),
        n: int = 8,
        *,
        title: str = "",
        about: str = "",
        model: str | Path | Model | Pipeline = DEFAULT_MODEL,
        device: str = "auto",
        progress: bool | Report = True,
        **options: Unpack[DrawOptions],
    ) -> None:
        self.title, self.about, self.n, self.progress = title, about, n, progress
        self.settings = DrawSettings(**options)
        self.semantics = check_semantics(self.settings.semantics)
        self.sections: list[Section] = []
        loaded = model.model if isinstance(model, Pipeline) else model
        self.vocabulary: Vocabulary = loaded.vocabulary if isinstance(loaded, Model) else read_vocabulary(loaded)
        self._model, self._device = model, device
        self.add_all(queries)

    @property
    def results(self) -> list[Result]:
        """All results, in the order of the page."""
        return [result for section in self.sections for result in section.results]

    def __repr__(self) -> str:
        return f"<Gallery: {self.summary()}>"

    def summary(self) -> str:
        """Return one line: the numbers of queries, of pictures, and of pictures that satisfy their query."""
        return page.summary(self.sections)

    def add(self, query: Query, title: str = "") -> Result:
        """Draw one more query, and return its pictures.

        Args:
            query: text or expression.
            title: its heading on the page; by default the query itself.

        Raises:
            EnergyQLError: the query is wrong.
        """
        checked = check(ListedQuery(query, title), self.vocabulary, self.semantics)
        return self._add(checked, self._prepare(checked.text))

    def add_all(self, several: Queries, *, source: str = "") -> list[Result]:
        """Check more queries, then draw them.

        Args:
            several: see the argument `queries` of the class; or the `ListedQuery`s that `read_queries` returns.
            source: the file that they come from, for messages.

        Raises:
            DataError: some queries are wrong; the message shows all of them.
        """
        checked = check_all(list_queries(several), self.vocabulary, self.semantics, source=source)
        results = []
        with reporting(self.progress if checked else False) as report:
            prepared = [self._prepare(each.text) for each in checked]
            for number, pair in enumerate(zip(checked, prepared, strict=True)):
                report("gallery", number / len(checked))
                results.append(self._add(*pair))
            report("gallery", 1.0)
        return results

    def add_truth_table(self, *literals: Query, n: int | None = None) -> TruthTable:
        """Draw every combination of up to four attributes, such as `"smile", "hair = red", "skin_tone > 0.6"`.

        A contradictory combination is a row of the table, with the reason in place of pictures.

        Args:
            literals: one to four different literals; any query can be one.
            n: number of pictures of each combination; by default the gallery's, but not more than 4.

        Raises:
            ArgumentError: there are no literals or too many, or two are equal.
            DataError: some literals are wrong; the message shows all of them.
        """
        parts = check_literals(literals, self.vocabulary)
        n = min(self.n, 4) if n is None else n

        def draw(query: Expr) -> Result:
            return self._prepare(query).run(n, progress=self._within)

        with reporting(self.progress) as report:
            table = fill_table(parts, self.vocabulary, self.semantics, draw, lambda fraction: report("table", fraction))
            report("table", 1.0)
        self.sections.append(table)
        return table

    def add_traversal(self, start: Query, end: Query, steps: int = 8, *, n: int | None = None) -> Traversal:
        """Draw paths from samples of one query to samples of another; both ends of a path start from one latent.

        Args:
            start: query at the first picture of each path.
            end: query at the last picture of each path.
            steps: number of pictures of a path, both ends included.
            n: number of paths; by default the gallery's number of pictures, but not more than 3.

        Raises:
            DataError: a query is wrong; the message shows it.
            ArgumentError: `steps` is out of range.
        """
        n = min(self.n, 3) if n is None else n
        first, last = self.check_traversal(start, end, steps)
        times = [step / (steps - 1) for step in range(steps)]
        ends = [self._prepare(query.expr) for query in (first, last)]
        with reporting(self.progress) as report:
            report("traversal", 0.0)
            from_here = ends[0].run(n, progress=self._within).z
            report("traversal", 1 / 3)
            to_there = ends[1].run(n, progress=self._within).z
            report("traversal", 2 / 3)
            latents = interpolate(from_here, to_there, times).flatten(0, 1)
            settings = replace(self.settings, sampler=Given(latents), strength=None)
            result = self._prepare(first.expr, settings).run(len(latents), progress=self._within)
            report("traversal", 1.0)
        probabilities = [probability(query.bound, result, self.vocabulary) for query in (first, last)]
        judged = None if result.provenance["judge"] is None else result.judged
        holds = [verdict(query.bound, judged, self.vocabulary)[0] for query in (first, last)]
        traversal = Traversal(first, last, times, result, probabilities, holds)
        self.sections.append(traversal)
        return traversal

    def check_traversal(self, start: Query, end: Query, steps: int) -> list[CheckedQuery]:
        """Return the two queries of a traversal, checked; see `add_traversal` for the errors."""
        whole_number("steps", steps, least=2, most=MOST_STEPS)
        entries = [ListedQuery(start, place="start"), ListedQuery(end, place="end")]
        return check_all(entries, self.vocabulary, self.semantics, source="traversal")

    def notes(self) -> list[str]:
        """Return a line for each query that means the same as an earlier one."""
        return [
            f"{section.query.name} means the same as {first.query.name}"
            for section in self.sections
            if isinstance(section, QuerySection) and section.same_as is not None
            for first in [self.sections[section.same_as - 1]]
            if isinstance(first, QuerySection)
        ]

    def to_html(self) -> str:
        """Return the page as HTML."""
        return page.render(self.sections, title=self.title, about=self.about)

    def save(self, path: str | Path) -> Path:
        """Write the page into a folder, as `index.html`, or to a path that ends in .html; return its path.

        Raises:
            ArgumentError: the path cannot be written, or the gallery is empty.
        """
        target = page.page_path(path)
        if not self.sections:
            raise ArgumentError("the gallery is empty", hint="add a query first")
        html = self.to_html()
        with naming_target(target):
            write_text(target, html)
        return target

    def _repr_html_(self) -> str:
        return page.frame(self.to_html()) if self.sections else "<em>an empty gallery</em>"

    @property
    def _within(self) -> bool | Report:
        """The progress of one query: a function that the caller gave, or none, because the gallery has its own bar."""
        return self.progress if callable(self.progress) else False

    def _prepare(self, query: Query, settings: DrawSettings | None = None) -> PreparedQuery:
        return pipeline_for(self._model, self._device).prepare(query, settings or self.settings)

    def _add(self, query: CheckedQuery, prepared: PreparedQuery) -> Result:
        """Draw a query, and add its section to the page."""
        same = [
            number
            for number, section in enumerate(self.sections, start=1)
            if isinstance(section, QuerySection) and section.query.means_the_same(query)
        ]
        result = prepared.run(self.n, progress=self._within)
        joined, clauses = score_clauses(query.bound, result, self.vocabulary)
        self.sections.append(QuerySection(query, result, joined, clauses, same[0] if same else None))
        return result


class GalleryOptions(DrawOptions, total=False):
    """The keyword arguments of `Gallery`, without `queries` and `n`."""

    title: str
    about: str
    model: str | Path | Model | Pipeline
    device: str
    progress: bool | Report


def truth_table(*literals: Query, n: int = 4, **options: Unpack[GalleryOptions]) -> Gallery:
    """Return a gallery of every combination of up to four attributes; see `Gallery.add_truth_table`.

    Args:
        literals: literals such as `"smile", "hair = red", E.skin_tone > 0.6`.
        n: number of pictures of each combination.
        options: the other arguments of `Gallery`.

    Raises:
        EnergyQLError: a literal or a setting is wrong.
    """
    gallery = Gallery(n=n, **options)
    gallery.add_truth_table(*literals, n=n)
    return gallery


def traverse(start: Query, end: Query, steps: int = 8, *, n: int = 3, **options: Unpack[GalleryOptions]) -> Gallery:
    """Return a gallery of paths from samples of one query to samples of another; see `Gallery.add_traversal`.

    Args:
        start: query at the first picture of each path.
        end: query at the last picture of each path.
        steps: number of pictures of a path, both ends included.
        n: number of paths.
        options: the other arguments of `Gallery`.

    Raises:
        EnergyQLError: a query or a setting is wrong.
    """
    gallery = Gallery(n=n, **options)
    gallery.add_traversal(start, end, steps, n=n)
    return gallery
