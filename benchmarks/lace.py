"""The sampling experiments of the paper by the choices of latents: `python -m benchmarks.lace --help`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.choices import ChoiceModel, find_choices
from benchmarks.common import DeviceOption, SmokeOption, run_command, show, split_names
from energyql.errors import EnergyQLError
from energyql.evaluation.bench import Bench
from energyql.evaluation.compare import compare, run_settings
from energyql.evaluation.measure import machine
from energyql.evaluation.methods import PAPER, read_methods
from energyql.evaluation.protocols import PROTOCOLS
from energyql.evaluation.reference import prior_samples
from energyql.evaluation.report import EVALUATION_NOTE, TABLE_WIDTH, evaluation_page, evaluation_tables
from energyql.evaluation.settings import PRIOR, SampleCounts
from energyql.files import write_json, write_text
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.settings import DEFAULT_SAMPLER
from energyql.progress import reporting

SAMPLED = tuple(name for name, protocol in PROTOCOLS.items() if not protocol.sequential)
SMOKE = SampleCounts(n=4, prior=400, oracle=30)


def main(
    protocols: Annotated[str, typer.Option(help="Those of energyql evaluate that draw samples.")] = ",".join(SAMPLED),
    samplers: Annotated[str, typer.Option(help="As for energyql bench.")] = f"{DEFAULT_SAMPLER},{PAPER}",
    model: Annotated[str, typer.Option(help="A packaged model with a recipe.")] = DEFAULT_MODEL,
    n: Annotated[int, typer.Option("--n", "-n", min=2, help="Samples for each query and sampler.")] = 200,
    prior: Annotated[int, typer.Option(min=100, help="Latents of the prior that all queries share.")] = PRIOR,
    seed: Annotated[int, typer.Option(min=0, help="Of queries and samples.")] = 0,
    device: DeviceOption = "auto",
    out: Annotated[Path, typer.Option(help="Folder of results and the state of the run.")] = Path("runs/lace"),
    smoke: SmokeOption = False,
) -> None:
    """Run the protocols of energyql evaluate without pictures, a thousand times as fast. Interrupt at will: it resumes.

    Fréchet distances need pictures, and so does editing: these are left to energyql evaluate.
    """
    chosen, methods = split_names("--protocols", protocols, SAMPLED), read_methods(samplers)
    counts = SMOKE if smoke else SampleCounts(n=n, prior=prior, seed=seed)
    evaluated = ChoiceModel(model, device=device)
    data: dict[str, Any] = {"settings": run_settings(evaluated, counts), "machine": machine()}
    data |= {"contenders": [method.name for method in methods], "setups": {}}
    with reporting(True) as report:
        samples = prior_samples(evaluated, counts.prior, out / "kept" / "prior", report, seed=counts.seed)
        for number, name in enumerate(chosen):
            report("protocols", number / len(chosen))
            protocol = PROTOCOLS[name]
            found: dict[str, Any] = {"title": protocol.title, "about": protocol.about}
            data["setups"][name] = found
            try:
                queries = protocol.choose_queries(evaluated.vocabulary, samples, counts.seed)
            except EnergyQLError as error:
                found["missing"] = error.message
            else:
                bench = Bench(evaluated, counts, out / name, report, out / "kept")
                compared = compare(bench, queries, methods, title=protocol.title, find=find_choices)
                found["comparison"] = {key: compared[key] for key in ("queries", "summary")}
            write_json(out / "evaluation.json", data)
            write_text(out / "evaluation.md", evaluation_page(data))
    show(*evaluation_tables(data), EVALUATION_NOTE, f"Saved {out}: evaluation.json, evaluation.md", width=TABLE_WIDTH)


if __name__ == "__main__":
    run_command(main, resumes=True)
