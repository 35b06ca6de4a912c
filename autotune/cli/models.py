"""`autotune tune-model`: the kernels of a model of a framework, tuned within one budget and stored.

Knows how a model is found and what is shown; the framework is its plugin's business.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ..ir.errors import DeviceError, MeasureError, UsageError
from ..options import Options, resolve
from ..report import duration
from .grid import function
from .output import FORMAT, Progress, aligned, say

HEADS = ("part", "kernels", "distinct", "default", "tuned", "trials")


def model_of(name: str) -> tuple[Any, tuple[Any, ...]]:
    """The model that `script.py:fn` or `pkg.mod:fn` makes, and its inputs, made by it too or by `make_inputs`."""
    place, _, attribute = name.rpartition(":")
    if place.endswith(".py"):
        if not Path(place).is_file():
            raise UsageError(f"{place}: no such file")
        sys.path.insert(0, str(Path(place).resolve().parent))
        name = f"{Path(place).stem}:{attribute}"
    make = function(name)
    made = make()
    if not (isinstance(made, tuple) and len(made) == 2):
        inputs = getattr(sys.modules.get(make.__module__), "make_inputs", None)
        if inputs is None:
            raise UsageError(f"{name} must return (model, inputs), or have a function make_inputs() beside it")
        made = made, inputs()
    model, given = made
    return model, tuple(given) if isinstance(given, (tuple, list)) else (given,)


@click.command("tune-model")
@click.argument("name", metavar="script.py:make_model")
@click.option("--budget", default="60s", show_default=True, help="Time for all kernels together, such as 60s or 2min.")
@click.option("--threads", help="How many (default: torch's).")
@click.option("--cache", help="readwrite, readonly, off, or the path of a store.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on standard error.")
@FORMAT
def tune_model(name: str, budget: str, threads: str | None, cache: str | None, quiet: bool, form: str) -> int:
    """Tune the kernels of a torch model and store them: autotune tune-model script.py:make_model --budget 60s

    make_model() returns a module and its inputs, or the module alone where make_inputs() stands beside it. A later
    torch.compile(model, backend="autotune") takes what is stored.
    """
    options = resolve(budget=budget, threads=threads, cache=cache)
    try:
        from ..plugins import torch as plugin
    except ImportError as error:
        raise DeviceError(str(error)) from error
    model, inputs = model_of(name)
    found = tuned(plugin, model, inputs, options, {"threads": threads, "cache": cache}, quiet)
    rows = [asdict(part) for part in found]
    if form == "json":
        click.echo(json.dumps(rows, indent=1))
    else:
        times = [(duration(p.default_seconds), duration(p.seconds)) for p in found]
        table = [(p.title, str(p.kernels), str(p.distinct), *t, str(p.trials)) for p, t in zip(found, times)]
        click.echo(aligned(HEADS, table), nl=False)
    if not found:
        raise MeasureError(f"{name}: no part of this model is computed by kernels")
    return 0


def tuned(plugin: Any, model: Any, inputs: Any, options: Options, given: dict[str, Any], quiet: bool) -> list[Any]:
    """Tune a model and show progress. `given`: the options that were given, None for the others."""
    progress, budget = Progress(1, quiet, not options.no_color), options.budget or 60.0
    progress.start("compiling", budget)

    def told(title: str, trials: int, best: float) -> None:
        if progress.title != title and not quiet and progress.bar is None:
            say(title)
        progress.title = title
        progress.trial(trials, best)

    try:
        found: list[Any] = plugin.tune(
            model, *inputs, budget=budget, progress=told,
            options={name: value for name, value in given.items() if value is not None},
        )  # fmt: skip
    finally:
        progress.close()
    if not quiet and (late := [part.title for part in found if part.seconds is None]):
        say(f"the budget ended before {', '.join(late)}")
    return found
