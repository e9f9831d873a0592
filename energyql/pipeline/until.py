"""Drawing until enough pictures satisfy the query, or the budget ends."""

from __future__ import annotations

import math

from energyql.pipeline.prepared import PreparedQuery
from energyql.pipeline.result import Result
from energyql.progress import Report
from energyql.sampling import SampleResult, summarize

LEAST_RATE = 0.05
"""A share of satisfied samples below which it is not trusted when guessing how many more to draw."""


def draw_until_satisfied(prepared: PreparedQuery, n: int, budget: int, report: Report) -> Result:
    """The first n samples that satisfy the query, out of at most `budget`; see `energyql.until_satisfied`."""
    kept: list[Result] = []
    tried: list[SampleResult] = []
    found = drawn = 0
    seconds = {"seconds_sampling": 0.0, "seconds_drawing": 0.0}
    while found < n and drawn < budget:
        rate = max(LEAST_RATE, found / drawn) if drawn else 1.0
        count = min(budget - drawn, math.ceil((n - found) / rate))
        result, sampled = prepared.generate(drawn, count, lambda stage, fraction: None)
        good = result.satisfied.nonzero()[0][: n - found]
        kept.append(result.select(good))
        tried.append(sampled)
        seconds = {name: total + result.statistics[name] for name, total in seconds.items()}
        found, drawn = found + len(good), drawn + count
        report("satisfied", found / n)
        report("budget", drawn / budget)
    joined = Result.join(kept)
    joined.statistics.update(summarize(SampleResult.join(tried)) | seconds | {"drawn": float(drawn)})
    joined.provenance.update({"n": found, "wanted": n, "budget": budget})
    return joined
