"""What stays between two runs of one process: every cache of a module is listed, with its key, in `session.py`."""

import ast
import re
from pathlib import Path

import torch
from evaluation.lively import known_model, silent

from energyql import generate
from energyql.pipeline import session
from energyql.pipeline.calibrate import calibrate
from energyql.pipeline.ledger import Ledger
from energyql.pipeline.plan import metered, plan_query
from energyql.pipeline.run import draw, draw_numbers
from energyql.pipeline.session import open_session
from energyql.progress import quiet

PACKAGE = Path(session.__file__).parents[1]


def is_cached(node):
    """Whether a decorator or value is a cache of functools, as in `@cache`, `@lru_cache(4)` and `lru_cache(4)(f)`."""
    while isinstance(node, ast.Call):
        node = node.func
    return (node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")) in {"cache", "lru_cache"}


def caches(file):
    """Names of the caches that a module has for the whole process, with their parameters where these are written."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    for node in [*body, *(inner for each in body if isinstance(each, ast.ClassDef) for inner in each.body)]:
        if isinstance(node, ast.FunctionDef) and any(map(is_cached, node.decorator_list)):
            yield node.name, ", ".join(argument.arg for argument in node.args.args)
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and is_cached(node.value):
            yield node.targets[0].id, None


def test_every_cache_of_a_module_is_listed_with_its_key():
    listed = dict(re.findall(r"^- `([\w.]+)\(([\w, ]*)\)`: \w", session.__doc__, re.MULTILINE))
    found = {}
    for file in PACKAGE.rglob("*.py"):
        module = ".".join(file.relative_to(PACKAGE).with_suffix("").parts)
        found |= {f"{module}.{name}": key for name, key in caches(file)}
    assert listed.keys() == found.keys()
    assert all(key in (None, listed[name]) for name, key in found.items())


def test_a_second_run_repeats_its_pilot_run_unless_its_plan_is_calibrated():
    model, options = known_model(slope=0.7), {"verify": "faithful", "attempts": 512}
    first, second = (generate("a AND c", 4, model=model, progress=silent, **options) for _ in range(2))
    assert first.statistics["generator_calls"] == second.statistics["generator_calls"]
    ledger = Ledger()
    plan = calibrate(metered(plan_query(open_session(model), "a AND c", **options), ledger), ledger)
    third = draw(plan, 4, progress=silent)
    assert ledger.pilot_calls > 0
    assert third.z.equal(first.z)
    assert third.statistics["generator_calls"] < first.statistics["generator_calls"]


def test_samples_drawn_by_their_numbers_are_those_of_a_run_and_count_its_pilot_once():
    plan = plan_query(open_session(known_model(slope=0.7)), "a AND c", verify="faithful", attempts=512)
    ledger = Ledger()
    calibrated, numbers = calibrate(metered(plan, ledger), ledger, end=4), [3, 0]
    chosen, alone = draw_numbers(plan, numbers, quiet), [draw(calibrated, 1, first=i, progress=silent) for i in numbers]
    assert chosen.z.equal(torch.cat([result.z for result in alone]))
    drawn = sum(result.statistics["generator_calls"] for result in alone)
    assert chosen.statistics["generator_calls"] == ledger.pilot_calls + drawn > drawn
