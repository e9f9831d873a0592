from __future__ import annotations

import re
from importlib.resources import files

from energyql.language.builder import Builder


def test_every_rule_of_the_grammar_has_a_method() -> None:
    grammar = files("energyql.grammar").joinpath("query.lark").read_text("utf-8")
    aliases = set(re.findall(r"-> ([a-z_]+) *(?://.*)?$", grammar, re.MULTILINE))
    rules = set(re.findall(r"^([a-z_]+):", grammar, re.MULTILINE))
    methods = {name for name in vars(Builder) if not name.startswith("__")}
    assert aliases | rules == methods
