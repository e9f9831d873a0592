"""The command `energyql train-judge`, which gives a model that has heads a judge, or measures one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from energyql.cli import labels as sources
from energyql.cli import options
from energyql.cli.options import out, out_option, read_names
from energyql.cli.reports import print_trained_judge


def train_judge(
    model: options.ModelArgument,
    save_to: Annotated[Path | None, out_option("The model folder to add to. By default that of the model.")] = None,
    labels: sources.Labels = None,
    labeller: sources.Labeller = None,
    prompts: sources.Prompts = None,
    clip_model: sources.ClipModel = sources.CLIP_MODEL,
    clip_weights: sources.ClipWeights = sources.CLIP_WEIGHTS,
    clip_margin: sources.ClipMargin = 0.0,
    only: sources.Only = None,
    n: Annotated[int, typer.Option("-n", min=20, help="Pictures for --labeller or CLIP.")] = 5_000,
    seed: sources.Seed = None,
    generator: options.Generator = None,
    judge: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="train: a judge that learns from the labelled pictures; or one by name, which is measured on them: "
            "module:function, or a plugin.",
        ),
    ] = "train",
    allow_plugins: options.AllowPlugins = False,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
) -> None:
    """Train a judge for a model that has heads: label pictures, fit, report, save.

    The judge reads pictures and takes no part in the sampling. It reads the attributes of the labels from now on, and
    other judges in the folder read the others. An interrupted training is continued by the same command.
    """
    from energyql.pipeline.model import choose_device
    from energyql.training.judge import TRAIN
    from energyql.training.judge import train_judge as run

    sources.check_sources(labels=labels, labeller=labeller, prompts=prompts)
    where = choose_device(device)
    source = sources.read_picture_labels(
        labels, None, labeller, prompts,
        clip_model=clip_model, clip_weights=clip_weights, clip_margin=clip_margin, device=where,
    )  # fmt: skip
    trained = run(
        model, source, save_to, only=None if only is None else list(read_names(only)), count=n, seed=seed,
        generator=generator, allow_plugins=allow_plugins, judge=judge, device=where, progress=not quiet,
    )  # fmt: skip
    if not quiet:
        print_trained_judge(None if judge == TRAIN else judge, trained.report, trained.unmeasured)
        out.print(f"Saved {escape(str(save_to or model))}; energyql report shows the quality")
