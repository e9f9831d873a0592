"""A gallery: an HTML page with pictures of queries, truth tables and traversals, all sampled with the same settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from itertools import product
from operator import and_
from pathlib import Path
from typing import TYPE_CHECKING

from energyql.energy.rule import check_semantics
from energyql.errors import ArgumentError, Contradiction, EnergyQLError, KindError, NoPicturesError, Span
from energyql.files import naming_target, write_text
from energyql.gallery import page
from energyql.gallery.page import QuerySection, RefusedSection, Section, Traversal, TruthRow, TruthTable
from energyql.gallery.words import probability, score_clauses
from energyql.generators.base import check_single_condition
from energyql.language import Cardinality, Expr, Interval, Not, OneOf, parse
from energyql.models import DEFAULT_MODEL, read_vocabulary
from energyql.pipeline.checks import satisfied_by_judge
from energyql.pipeline.model import Model
from energyql.pipeline.plan import Plan, plan_query
from energyql.pipeline.queries import CheckedQuery, ListedQuery, check, check_all, list_queries
from energyql.pipeline.result import Result
from energyql.pipeline.run import draw
from energyql.pipeline.session import Session, open_session
from energyql.pipeline.settings import EXACT, DrawOptions, DrawSettings, whole_number
from energyql.progress import Report, reporting
from energyql.render.markup import element
from energyql.sampling.traversal import MOST_STEPS, Given, interpolate
from energyql.vocabulary import Vocabulary

if TYPE_CHECKING:
    from typing_extensions import Unpack

MOST_LITERALS = 4
"""Largest number of literals of a truth table, which then has 16 rows."""


def split_literals(text: str) -> list[Expr]:
    """Split literals that commas separate, such as `smile, hair = red, hair IN {gray, black}`.

    Raises:
        EnergyQLError: a literal is no query; the message shows `text`, with carets under the mistake.
    """
    before = "ALL OF ("
    try:
        parsed = parse(f"{before}{text})")  # the grammar tells commas between literals from commas in a set
    except EnergyQLError as error:
        offsets = [[min(max(offset - len(before), 0), len(text)) for offset in span] for span in error.spans]
        error.query, error.spans = text, tuple(Span(start, end) for start, end in offsets)
        raise
    if not isinstance(parsed, Cardinality):  # a text such as `a) AND (b`
        raise ArgumentError(f"{text!r} is no list of literals", hint="write them with commas: smile, glasses")
    return [replace(operand, span=None) for operand in parsed.operands]


def check_literals(literals: Sequence[str | Expr], vocabulary: Vocabulary) -> list[Expr]:
    """Check the literals of a truth table, 1 to `MOST_LITERALS` different queries, and return them as expressions."""
    if not 1 <= len(literals) <= MOST_LITERALS:
        raise ArgumentError(f"a truth table has 1 to {MOST_LITERALS} attributes, not {len(literals)}")
    entries = [ListedQuery(literal, place=f"attribute {number}") for number, literal in enumerate(literals, start=1)]
    exprs = [checked.expr for checked in check_all(entries, vocabulary, EXACT, source="truth table")]
    for number, expr in enumerate(exprs):
        if expr in exprs[:number]:  # equal expressions may have different texts, with and without quotes
            raise ArgumentError(f"{expr} is in the truth table twice", hint="leave one out")
    return exprs


def negated(literal: Expr) -> Expr:
    """Negation of a literal in its shortest form: `hair != red` for `hair = red`, `a` for `NOT a`."""
    if isinstance(literal, Not):
        return literal.operand
    if isinstance(literal, OneOf):
        return replace(literal, negated=not literal.negated)
    if isinstance(literal, Interval) and None in (literal.low, literal.high):
        return Interval(literal.name, literal.high, literal.low, not literal.high_closed, not literal.low_closed)
    return Not(literal)


Query = str | Expr
Queries = Query | Iterable[Query | tuple[str, Query] | ListedQuery] | Mapping[str, Query]


def check_traversal(
    start: Query, end: Query, steps: int, settings: DrawSettings, vocabulary: Vocabulary
) -> list[CheckedQuery]:
    """Check the arguments of `Gallery.add_traversal`, and return its two queries; errors are the same."""
    whole_number("steps", steps, least=2, most=MOST_STEPS)
    check_single_condition(settings.condition)
    entries = [ListedQuery(start, place="start"), ListedQuery(end, place="end")]
    return check_all(entries, vocabulary, check_semantics(settings.semantics), source="traversal")


class Gallery:
    """An HTML page of queries, with the pictures of each query, the judge's verdicts, and the compiled query.

    All of `queries` are checked before the first of them is drawn.

    Args:
        queries: the queries to draw immediately, none by default: a list of queries (text or expressions), a list of
            pairs (title, query), or a dict from titles to queries.
        n: number of pictures of each query.
        title: title of the page; by default it names the model.
        about: text under the title; a blank line begins a new paragraph.
        model: as for `energyql.generate`, like `device` and `progress`; also a `Session` (a model on its device).
        options: settings of `energyql.generate`, such as `seed` and `truncation`, for every query of the gallery.

    Raises:
        DataError: `queries` has several queries, and some are wrong; the message shows the wrong ones.
        EnergyQLError: the only query or a setting is wrong.

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
        model: str | Path | Model | Session = DEFAULT_MODEL,
        device: str = "auto",
        progress: bool | Report = True,
        **options: Unpack[DrawOptions],
    ) -> None:
        self.title, self.about, self.n, self.progress = title, about, n, progress
        self.settings = DrawSettings(**options)
        self.semantics = check_semantics(self.settings.semantics)
        self.sections: list[Section] = []
        loaded = model.model if isinstance(model, Session) else model
        self.vocabulary: Vocabulary = loaded.vocabulary if isinstance(loaded, Model) else read_vocabulary(loaded)
        self._model, self._device = model, device
        self.add_all(queries)

    @property
    def results(self) -> list[Result]:
        """The results of all sections, in the order of the page."""
        return [result for section in self.sections for result in section.results]

    def __repr__(self) -> str:
        return f"<Gallery: {self.summary()}>"

    def summary(self) -> str:
        """One line: the numbers of queries, of pictures, and of pictures that satisfy their query."""
        return page.summary(self.sections)

    def add(self, query: Query, title: str = "") -> Result:
        """Draw one more query, add a section for it to the page, and return its pictures.

        Args:
            title: heading of the query on the page; by default the query itself.

        Raises:
            NoPicturesError: too few pictures are accepted, or the query cannot be reached.
            EnergyQLError: the query is wrong.
        """
        checked = check(ListedQuery(query, title), self.vocabulary, self.semantics)
        result = draw(self._plan(checked.text), self.n, progress=self._within)
        self._add(checked, result)
        return result

    def add_all(self, several: Queries, *, source: str = "") -> list[Result | None]:
        """Check more queries, draw them and add their sections to the page; return a result for each query.

        If the verifier accepts no picture, the section has the reason in place of pictures, and the result is `None`.

        Args:
            several: queries as for `Gallery`, or the list that `read_queries` returns for a file.
            source: name of the file that the queries come from, for messages; empty for no file.

        Raises:
            DataError: some of several queries, or of a file, are wrong; the message shows them.
            EnergyQLError: the only query or a setting is wrong.
        """
        checked = check_all(list_queries(several), self.vocabulary, self.semantics, source=source)
        results = []
        with reporting(self.progress if checked else False) as report:
            plans = [self._plan(each.text) for each in checked]
            for number, query in enumerate(checked):
                report("gallery", number / len(checked))
                result, reason = self._draw(plans[number], self.n)
                if result is None:
                    self.sections.append(RefusedSection(query, reason))
                else:
                    self._add(query, result)
                results.append(result)
            report("gallery", 1.0)
        return results

    def add_truth_table(self, *literals: Query, n: int | None = None) -> TruthTable:
        """Draw every combination of up to four literals, a AND b, a AND NOT b and so on, and add the table to the page.

        If no picture can satisfy a combination, or the verifier accepts none, its row has the reason in place of
        pictures.

        Args:
            literals: one to four different literals, such as "smile" and "hair = red"; any query can be a literal.
            n: number of pictures of each combination; by default `n` of the gallery, but not more than 4.

        Raises:
            ArgumentError: there are no literals or too many, or two are equal.
            DataError: some literals are wrong; the message shows all of them.
        """
        parts = check_literals(literals, self.vocabulary)
        n = min(self.n, 4) if n is None else n

        rows, pairs = [], [(part, negated(part)) for part in parts]
        combinations = zip(product([True, False], repeat=len(parts)), product(*pairs), strict=True)
        with reporting(self.progress) as report:
            for number, (values, literals_here) in enumerate(combinations):
                report("table", number / 2 ** len(parts))
                query = reduce(and_, literals_here)
                try:
                    check(ListedQuery(query), self.vocabulary, self.semantics)
                except (Contradiction, KindError) as error:  # KindError: a negation outside the range of an attribute
                    rows.append(TruthRow(values, str(query), None, error.message, contradiction=True))
                else:
                    rows.append(TruthRow(values, str(query), *self._draw(self._plan(query), n)))
            report("table", 1.0)
        table = TruthTable(tuple(map(str, parts)), rows)
        self.sections.append(table)
        return table

    def add_traversal(self, start: Query, end: Query, steps: int = 8, *, n: int | None = None) -> Traversal:
        """Draw paths through latent space, from samples of one query to samples of another, and add them to the page.

        The sampler starts from the same random latent for both ends of a path, so that the ends are similar. No
        verifier chooses among the samples, whatever the settings say, because it might keep samples from different
        latents.

        Args:
            start: query at the first picture of each path.
            end: query at the last picture of each path.
            steps: number of pictures of a path, both ends included, 2 to `MOST_STEPS`.
            n: number of paths; by default `n` of the gallery, but not more than 3.

        Raises:
            DataError: a query is wrong; the message shows it.
            ArgumentError: `steps` is outside its range, or the gallery is of several prompts.
        """
        n = min(self.n, 3) if n is None else n
        first, last = check_traversal(start, end, steps, self.settings, self.vocabulary)
        times = [step / (steps - 1) for step in range(steps)]
        settings = replace(self.settings, verify="off")
        ends = [self._plan(query.expr, settings) for query in (first, last)]
        with reporting(self.progress) as report:
            report("traversal", 0.0)
            from_here = draw(ends[0], n, progress=self._within).z
            report("traversal", 1 / 3)
            to_there = draw(ends[1], n, progress=self._within).z
            report("traversal", 2 / 3)
            latents = interpolate(from_here, to_there, times).flatten(0, 1)
            on_the_way = replace(settings, sampler=Given(latents), strength=None)
            result = draw(self._plan(first.expr, on_the_way), len(latents), progress=self._within)
            report("traversal", 1.0)
        probabilities = [probability(query.bound, result, self.vocabulary) for query in (first, last)]
        judged = None if result.provenance["judge"] is None else result.judged
        holds = [satisfied_by_judge(query.bound, judged, self.vocabulary) for query in (first, last)]
        traversal = Traversal(result, first, last, times, probabilities, holds)
        self.sections.append(traversal)
        return traversal

    def to_html(self) -> str:
        """The page as HTML."""
        return page.render(self.sections, title=self.title, about=self.about)

    def save(self, path: str | Path) -> Path:
        """Write the page to a .html file, or as `index.html` to a folder, and return the file's path.

        Raises:
            ArgumentError: the file cannot be written, or the gallery is empty.
        """
        target = page.page_path(path)
        if not self.sections:
            raise ArgumentError("the gallery is empty", hint="add a query first")
        with naming_target(target):
            write_text(target, self.to_html())
        return target

    def _repr_html_(self) -> str:
        if not self.sections:
            return "<em>an empty gallery</em>"
        return element("iframe", srcdoc=self.to_html(), width="100%", height=720, title="Gallery", style="border:0")

    @property
    def _within(self) -> bool | Report:
        """Progress of a single query: the gallery's function, or False, because the gallery shows one bar for all."""
        return self.progress if callable(self.progress) else False

    def _plan(self, query: Query, settings: DrawSettings | None = None) -> Plan:
        return plan_query(open_session(self._model, self._device), query, settings or self.settings)

    def _draw(self, plan: Plan, n: int) -> tuple[Result | None, str]:
        """Draw n pictures and "", or `None` and the reason why the verifier accepts too few."""
        try:
            return draw(plan, n, progress=self._within), ""
        except NoPicturesError as error:
            return None, error.message

    def _add(self, query: CheckedQuery, result: Result) -> None:
        queries = {i: section.query for i, section in enumerate(self.sections, 1) if isinstance(section, QuerySection)}
        same = next((i for i, other in queries.items() if other.means_the_same(query)), None)
        self.sections.append(QuerySection(result, query, *score_clauses(query.bound, result, self.vocabulary), same))


class GalleryOptions(DrawOptions, total=False):
    """The keyword arguments of `Gallery`, without `queries` and `n`."""

    title: str
    about: str
    model: str | Path | Model | Session
    device: str
    progress: bool | Report


def truth_table(*literals: Query, n: int = 4, **options: Unpack[GalleryOptions]) -> Gallery:
    """Make a gallery with one truth table: pictures of every combination of one to four literals.

    The literals, such as `"smile", "hair = red", E.skin_tone > 0.6`, and errors are those of `Gallery.add_truth_table`;
    the options are keyword arguments of `Gallery`, such as `title` and `seed`. Each combination has n pictures.
    """
    gallery = Gallery(n=n, **options)
    gallery.add_truth_table(*literals, n=n)
    return gallery


def traverse(start: Query, end: Query, steps: int = 8, *, n: int = 3, **options: Unpack[GalleryOptions]) -> Gallery:
    """Make a gallery with one traversal: paths through latent space, from samples of one query to samples of another.

    The arguments and errors are those of `Gallery.add_traversal`; the options are keyword arguments of `Gallery`, such
    as `title` and `seed`.
    """
    gallery = Gallery(n=n, **options)
    gallery.add_traversal(start, end, steps, n=n)
    return gallery
