"""The sections of a page as markup: a card each."""

from __future__ import annotations

import numpy as np

from energyql.gallery import words
from energyql.gallery.clauses import ALL, Clause
from energyql.gallery.sections import Answer, Row, Section, Traversal, TruthTable
from energyql.gallery.tiles import Tile, answer_tile, bar, clause_cells, numbers, strip, wall
from energyql.language import draw_tree
from energyql.pipeline.queries import CheckedQuery
from energyql.pipeline.result import Result
from energyql.pipeline.result_html import reading
from energyql.render.graph import graph_width
from energyql.render.markup import Markup, element, join

HALF = 430
"""Widest circuit, in pixels, that has room beside the clauses."""


def card(section: Section, number: int) -> Markup:
    """The card of a section, the `number`-th of its page."""
    identity = f"s{number}"
    if isinstance(section, Answer):
        return _answer(section, identity, number)
    return _truth_table(section, identity) if isinstance(section, TruthTable) else _traversal(section, identity)


def heading(section: Section) -> str:
    """What the index calls a section."""
    if isinstance(section, Answer):
        return section.query.title or str(section.query.expr)
    if isinstance(section, TruthTable):
        return f"Truth table of {', '.join(section.literals)}"
    return " → ".join(query.title or str(query.expr) for query in (section.start, section.end))


def _answer(section: Answer, identity: str, number: int) -> Markup:
    result, query = section.result, section.query
    canonical = str(query.expr)
    tiles = [
        answer_tile(f"{identity}-{i}", result, i, canonical, clause_cells(section.clauses, i))
        for i in range(len(result))
    ]
    notes = [
        f"written as {query.text}" if query.text.strip() != canonical else "",
        f"means the same as number {section.same_as}" if section.same_as is not None else "",
    ]
    panels = [_clauses(section), _meaning(query, f"Circuit of query {number}")]
    return _card(
        identity,
        _head(identity, query.title, [query_line(query, identity="" if query.title else identity)]),
        _facts(section),
        _notes(notes),
        wall(tiles, label=f"Pictures of query {number}", kind="sortable"),
        element("div", *panels, class_="panels"),
        _more(
            tiles, result, _details("The compiled query in words", element("pre", query.rule.explain(), tabindex="0"))
        ),
        text=f"{query.title} {canonical} {query.text}",
        energy=float(result.energy.mean()),
        kind="answer",
    )


def query_line(query: CheckedQuery, letter: str = "", *, identity: str = "") -> Markup:
    """A query with a button that copies it; the heading of the card `identity` if that is given."""
    text = str(query.expr)
    code = words.query_code(text)
    mark = element("span", letter, class_=f"letter {letter.lower()}") if letter else None
    button = element(
        "button", "Copy", type="button", class_="copy", data_copy=text, aria_label=f"Copy the query {text}"
    )
    shown = element("h2", code, id=f"{identity}-name") if identity else code
    return element("div", mark, shown, button, class_="line")


def _truth_table(section: TruthTable, identity: str) -> Markup:
    tiles: list[Tile] = []
    rows = [_truth_row(row, f"{identity}-{number}", tiles) for number, row in enumerate(section.rows)]
    literals = [element("th", words.query_code(text), scope="col", class_="literal") for text in section.literals]
    combination = element("th", "combination", scope="col", class_="combination")
    ends = [element("th", text, scope="col") for text in ("pictures", "satisfied")]
    head = element("thead", element("tr", combination, *literals, *ends))
    return _card(
        identity,
        _head(identity, f"Truth table of {', '.join(section.literals)}", []),
        _facts(section),
        _notes(["pictures in one column start from the same latent"]),
        element("table", head, element("tbody", *rows), class_="truth"),
        _more(tiles, section.results[0]) if tiles else None,
        text=" ".join(["truth table", *(row.query for row in section.rows)]),
        energy=None,
        kind="table",
    )


def _truth_row(row: Row, identity: str, tiles: list[Tile]) -> Markup:
    values = [element("td", "yes" if true else "no", class_="yes" if true else "no") for true in row.values]
    head = element("th", words.query_code(row.query), scope="row", class_="combination")
    if row.result is None:
        why = element("td", f"a contradiction: {row.reason}", colspan=2, class_="impossible")
        return element("tr", head, *values, why)
    result = row.result
    cells = {"combination": row.query}
    mine = [answer_tile(f"{identity}-{i}", result, i, row.query, cells) for i in range(len(result))]
    tiles += mine
    satisfied, total = words.share([result])
    pictures = element("td", wall(mine, label=f"Pictures of {row.query}"), class_="pictures")
    return element("tr", head, *values, pictures, element("td", f"{satisfied} of {total}", class_="share"))


def _traversal(section: Traversal, identity: str) -> Markup:
    steps = len(section.times)
    names = words.attribute_names(section.start.expr, section.end.expr)
    walls, tiles = [], []
    for path in range(section.paths):
        mine = [_step(section, path * steps + step, step, f"{identity}-{path}", names) for step in range(steps)]
        tiles += mine
        walls.append(element("div", wall(mine, label=f"Way {path + 1}", kind="way"), class_="scroll", tabindex="0"))
    queries = [query_line(query, letter) for query, letter in ((section.start, "A"), (section.end, "B"))]
    way = f"{words.plural(section.paths, 'way')} of {steps} steps along great arcs of the latent space"
    return _card(
        identity,
        _head(identity, "From A to B", queries),
        element("p", way, class_="facts"),
        *walls,
        _more(tiles, section.result),
        text=f"traversal {section.start.expr} {section.end.expr}",
        energy=None,
        kind="traversal",
    )


def _step(section: Traversal, index: int, step: int, identity: str, names: list[str]) -> Tile:
    lines, marks, cells = [], [], {"step": f"{step + 1} of {len(section.times)}"}
    verdicts = []
    for letter, query, probability, holds in zip(
        "AB", (section.start, section.end), section.probability, section.holds, strict=True
    ):
        p = None if probability is None else float(probability[index])
        shown = "?" if p is None else f"{p:.2f}"
        mark = element("span", letter, class_=f"letter {letter.lower()}")
        lines.append(element("span", mark, bar(p or 0.0, letter.lower()), shown, class_="odds"))
        verdicts.append((str(query.expr), bool(holds[index])))
        marks += [mark] if holds[index] else []
        cells[f"P({letter})"] = shown
    read = element("span", reading(section.result.judged, index, names), class_="read")
    time = element("span", f"t = {section.times[step]:.2f}", class_="time")
    below = element("span", time, *lines, read, class_="below")
    corner = element("span", *marks, class_="marks", aria_hidden="true")
    return Tile(f"{identity}-{step}", section.result, index, verdicts, below, corner, cells)


def _clauses(section: Answer) -> Markup:
    needed = len(section.clauses) == 1 or section.joined == ALL
    rows = [_clause(clause, needed) for clause in section.clauses]
    head = element("tr", *(element("th", text, scope="col") for text in ("clause", "each picture", "mean", "least")))
    note = element("span", f" ({section.joined})", class_="faint") if section.joined else None
    table = element("table", element("thead", head), element("tbody", *rows), class_="clauses")
    return element("div", element("h3", "How sure is each clause", note), table, class_="panel")


def _clause(clause: Clause, needed: bool) -> Markup:
    head = element("th", words.query_code(clause.text), scope="row")
    if clause.probability is None:
        return element("tr", head, element("td", "too large to tell", colspan=3))
    cells = (f"{clause.probability.mean():.3f}", f"{clause.probability.min():.3f}")
    return element(
        "tr",
        head,
        element("td", strip(clause.probability, needed)),
        *(element("td", cell, class_="count") for cell in cells),
    )


def _meaning(query: CheckedQuery, label: str) -> Markup:
    """The circuit; where the semantics has none, the tree that it scores as written."""
    caption, drawing = "Compiled circuit", query.rule.draw()
    if drawing is None:
        caption, drawing = "Tree, which this semantics scores as written", draw_tree(query.expr)
    scrolled = element("div", drawing, class_="scroll", tabindex="0", role="region", aria_label=label)
    kind = "panel wide" if graph_width(drawing) > HALF else "panel"
    return element("figure", element("figcaption", element("h3", caption)), scrolled, class_=kind)


def _facts(section: Answer | TruthTable) -> Markup:
    satisfied, total = words.share(section.results)
    count = element("strong", f"{satisfied} of {total}", class_="yes" if satisfied == total else "no")
    parts: list[str] = [join([count, " satisfied"])]
    if section.results:
        first = section.results[0].provenance
        energy = np.concatenate([result.energy for result in section.results]).mean()
        parts += [f"mean energy {energy:.3g} nats" if first["semantics"] == "exact" else f"mean energy {energy:.3g}"]
        parts += [f"{first['semantics']} semantics", words.sampler_name(first.get("sampler", ""))]
        parts += [f"seed {first['seed']}", f"says the {first['judge']}"]
    return element("p", words.joined(parts), class_="facts")


def _card(identity: str, *content: Markup | None, text: str, energy: float | None, kind: str) -> Markup:
    return element(
        "section",
        *content,
        id=identity,
        class_=f"card {kind}",
        aria_labelledby=f"{identity}-name",
        data_text=text.casefold(),
        data_energy=None if energy is None else f"{energy:.6g}".replace("inf", "Infinity"),
    )


def _head(identity: str, title: str, lines: list[Markup]) -> Markup:
    return element("header", element("h2", title, id=f"{identity}-name") if title else None, *lines)


def _notes(notes: list[str]) -> Markup | None:
    shown = [note for note in notes if note]
    return element("p", "; ".join(shown), class_="faint") if shown else None


def _more(tiles: list[Tile], result: Result, *others: Markup) -> Markup:
    table = element("div", numbers(tiles), class_="scroll", tabindex="0")
    drawn = _definitions(words.facts(result))
    return element(
        "div", _details("Numbers of every picture", table), *others, _details("How it was drawn", drawn), class_="more"
    )


def _details(summary: str, content: Markup) -> Markup:
    return element("details", element("summary", summary), content)


def _definitions(pairs: list[tuple[str, str]]) -> Markup:
    return element("dl", *(join([element("dt", name), element("dd", text)]) for name, text in pairs))
