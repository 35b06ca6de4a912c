"""The command `autotune`: its commands and options, and what becomes of errors.

Exit codes: 0 all ok; 1 some not, or a check failed; 2 usage; 3 no such device or toolchain; 4 nothing valid measured;
5 a miss in a frozen store; 130 interrupted. How cases are found, run and shown is in the files beside this one.
"""

from __future__ import annotations

import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import reduce
from itertools import product
from pathlib import Path
from typing import Any

import click

from .. import __version__
from ..ir.errors import AutotuneError, DeviceError, FrozenError, MeasureError, UsageError
from ..options import STRATEGIES, Options, resolve
from .grid import Case, cases, read
from .machine import devices, doctor
from .model import model
from .models import tune_model
from .output import FORMATS, Progress, Writer, say, words
from .run import FIELDS, Record, State, exit_code, prepare, run, save
from .stores import cache

_CODES = {FrozenError: 5, UsageError: 2, DeviceError: 3, MeasureError: 4, AutotuneError: 1, OSError: 1}
_PATH = click.Path(path_type=Path)
_CASES = (
    click.argument("op", required=False),
    click.argument("words", nargs=-1, metavar="[name=values]..."),
    click.option("--from", "source", type=_PATH, help="A TOML or JSON file of many cases."),
    click.option("--dtype", help="Element type of a named operation's arrays (default f32)."),
    click.option("--device", help="Where to run, such as cpu."),
    click.option("--threads", help="How many (default: the affinity mask and the cgroup quota)."),
    click.option("--cache", help="readwrite, readonly, off, or the path of a store."),
)
_MEASURING = (
    click.option("--budget", help="Time for each case, such as 2s or 500ms."),
    click.option("--trials", help="Candidates for each case, at most."),
    click.option("--strategy", type=click.Choice(STRATEGIES), help="What to try next."),
    click.option("--study", help="With tpe or cma: the URL of a storage that several processes share."),
    click.option("--format", "form", type=click.Choice(FORMATS), default="table", show_default=True),
    click.option("-o", "--output", type=_PATH, help="A file for the results (default: standard output)."),
    click.option("-q", "--quiet", is_flag=True, help="No progress on standard error."),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code. Errors are one line on standard error."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}")
        try:
            return int(cli.main(arguments, prog_name="autotune", standalone_mode=False) or 0)
        except (KeyboardInterrupt, click.Abort):
            say("interrupted")
            return 130
        except click.ClickException as error:
            told = error.format_message()
            say(told if isinstance(error, click.exceptions.NoArgsIsHelpError) else f"error: {told}")
            return error.exit_code
        except (AutotuneError, OSError) as error:
            if _debugging():
                traceback.print_exc()
            say(f"error: {error}")
            return next(code for kind, code in _CODES.items() if isinstance(error, kind))


def _debugging() -> bool:
    try:
        return resolve().debug >= 4
    except UsageError:
        return False


def _with(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Several options at once."""
    return lambda command: reduce(lambda made, option: option(made), reversed(options), command)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__)
def cli() -> None:
    """Finds by proof, prediction and measurement the fastest kernel for a shape on a device, and remembers it.

    An operation is a name (gemm, softmax, ...) with name=values, or a function of your own, pkg.mod:fn, with its arrays
    as 'x=f32[m,k]'. Values are a,b or first:last:step, the last one included.
    """


def chosen(given: dict[str, Any]) -> list[Case]:
    """The cases that the command line names, all of them checked."""
    op, source, dtype = given["op"], given["source"], given["dtype"]
    if (op is None) == (source is None):
        raise UsageError("name an operation (such as gemm m=64 n=64 k=64), or a file of cases with --from")
    if source is not None and dtype is not None:
        raise UsageError("--from takes the dtype of each case from the file")
    return cases(op, given["words"], dtype) if source is None else read(source, FIELDS)


def ready(given: dict[str, Any], here: bool = True) -> Options:
    """The options in force. Raises DeviceError where the device must be `here` and is not."""
    from ..calibrate import ensure
    from ..session import session
    from ..tuning import DEFAULT_BUDGET
    from ..workshop import Workshop

    names = ("device", "threads", "cache", "budget", "trials", "strategy", "study")
    options = resolve(tune="cached", **{name: given.get(name) for name in names})
    if here:
        ensure(Workshop(session(), options).spec, say)
    threads = Workshop(session(), options).threads if here else session().threads(options)
    return replace(options, budget=options.budget or DEFAULT_BUDGET, threads=threads)


def _run(todo: Sequence[Case], given: dict[str, Any], state: State, fields: Sequence[str], each: Any) -> list[Record]:
    """Run what is not finished yet, in order; after an interrupt nothing more is begun."""
    options, records = state.options, list[Record]()
    progress = Progress(len(todo), given["quiet"], not options.no_color)
    with closing(progress), Writer(given["form"], fields, given["output"]) as writer:
        for case in todo:
            progress.start(str(case), options.budget or 1.0)
            record = state.get(case)
            if record is None:
                state.put(case, record := each(case, progress.trial))
            records.append(record)
            writer.write(record)
            progress.finish(record)
            if record["status"] == "interrupted":
                say(f"interrupted: {len(records) - 1} of {len(todo)} cases are finished")
                break
    return records


@cli.command()
@_with(*_CASES, *_MEASURING)
@click.option("--resume", is_flag=True, help="Go on where this sweep was stopped: finished cases are not run again.")
@click.option("--state", "path", type=_PATH, help="Where to note finished cases (default: in the cache directory).")
@click.option("--jobs", type=click.IntRange(1), help="Compilers that run at a time with --no-run (default: cores).")
@click.option("--no-run", is_flag=True, help="Rank and compile for --device or --targets; measure nothing.")
@click.option("--targets", help="With --no-run: several devices, such as cuda:sm_90,hip:gfx942.")
@click.option("--top", type=click.IntRange(1, 100), help="With --no-run: candidates of each kernel (default 8).")
def sweep(
    resume: bool, path: Path | None, jobs: int | None, no_run: bool, targets: str | None, top: int | None, **given: Any
) -> int:
    """Tune every case of a grid: autotune sweep gemm m=64,512 n=512 k=64:256:64

    With --no-run -o list.json candidates are listed for a device that need not be here; --from list.json measures them
    where it is.
    """
    from . import shortlists

    if no_run:
        return _listed(given, jobs, targets, top)
    if targets is not None or top is not None:
        raise UsageError("--targets and --top go with --no-run; a sweep that measures has one --device")
    lists = None
    if given["source"] is not None and given["op"] is None and shortlists.is_shortlist(given["source"]):
        lists = shortlists.read(given["source"], given["device"])
        given = {**given, "device": lists.device}
    todo, options = lists.cases if lists else chosen(given), ready(given)
    path = path or State.place(options.directory(), todo, options)
    if resume and path is None:
        raise UsageError("nothing is kept to resume from, for there is no cache directory; name a file with --state")
    state = State(path, options, resume)
    if resume and not given["quiet"]:
        say(f"resuming: {sum(state.get(case) is not None for case in todo)} of {len(todo)} cases are finished")
    note = (lambda text: None) if given["quiet"] else say
    for text in lists.unread if lists else ():
        note(text)
    each = lambda case, progress: (
        shortlists.measured(case, lists, options, progress, note) if lists else run(case, options, progress)
    )
    return exit_code(_run(todo, given, state, FIELDS, each), options.frozen)


def _listed(given: dict[str, Any], jobs: int | None, targets: str | None, top: int | None) -> int:
    """Write a shortlist, and show it."""
    from ..devices.cpu import default_threads
    from ..shortlist import TOP
    from . import shortlists

    if targets is not None and given["device"] is not None:
        raise UsageError("give --targets or --device, not both")
    if wrong := [name for name in ("budget", "trials") if given[name] is not None]:
        raise UsageError(f"--no-run measures nothing: --{wrong[0]} has no meaning")
    if given["form"] not in ("table", "json"):
        raise UsageError(f"--no-run writes a table or json, no {given['form']}")
    todo, options = chosen(given), ready(given, here=False)
    names = [name.strip() for name in targets.split(",")] if targets is not None else [options.device]
    found = shortlists.toolchains(names, options)
    entries: list[Record] = []
    output: Path | None = given["output"]
    if output is not None and not output.parent.is_dir():
        raise UsageError(f"-o {output}: no such folder")
    interrupted = False
    for case, (spec, tool) in product(todo, found):
        begun = time.monotonic()
        try:
            row = shortlists.entry(case, spec, tool, options, top or TOP, jobs or default_threads())
        except KeyboardInterrupt:
            interrupted = True
            say(f"interrupted: {len(entries)} of {len(todo) * len(found)} lists are finished")
            break
        entries.append(row)
        if not given["quiet"]:
            many = sum(len(kernel["candidates"]) for kernel in row["kernels"])
            say(f"{case} on {spec.id}: {row['status']}, {many} candidates, {time.monotonic() - begun:.1f} s")
    text = shortlists.document(entries)
    if output is not None:
        save(output, text)
    if given["form"] == "json" and output is None:
        click.echo(text, nl=False)
    elif given["form"] == "table":
        click.echo(shortlists.table(entries), nl=False)
    return 130 if interrupted else exit_code(entries, options.frozen)


@cli.command()
@_with(*_CASES, *_MEASURING)
@click.option("--against", default="numpy,torch", show_default=True, help="Libraries to compare with.")
@click.option("--fail-slower", "slower", metavar="5%", help="Exit 1 where a case is slower than a peer by more.")
@click.option("--rounds", type=click.IntRange(3), default=15, show_default=True, help="Interleaved rounds of samples.")
@click.option("--stability", type=click.IntRange(2), metavar="N", help="Tune N times from nothing; compare the picks.")
def bench(against: str, slower: str | None, rounds: int, stability: int | None, **given: Any) -> int:
    """Compare with NumPy and torch in paired, interleaved rounds; above 1 is faster than the peer.

    A case whose winner is stored is not tuned again, unless --budget or --trials is given. With --stability N each case
    is tuned N times from an empty store, quiet and beside a noisy neighbour, and all picks are then compared.
    """
    from . import bench as benches

    if stability is not None:
        from .stable import bench_stability

        todo = chosen(given)
        return bench_stability(todo, ready(given), stability, slower, given)
    margin, todo = benches.margin(slower), chosen(given)
    peers = benches.peers(against, todo)
    options, again = ready(given), bool(given["budget"] or given["trials"])
    each = lambda case, progress: benches.compare(case, options, peers, rounds, again, progress)
    records = _run(todo, given, State(None, options, False), (*FIELDS, "peers"), each)
    behind = [(r, name) for r in records for name, peer in r["peers"].items() if peer["ratio"] < 1 - margin]
    for r, name in behind:
        say(f"slower: {r['op']} {words(r['params'])}: {r['peers'][name]['ratio']:.3f}x {name}")
    return exit_code(records, options.frozen) or int(bool(behind))


@cli.command()
@_with(*_CASES)
@click.option("--counterfactual", is_flag=True, help="Measure each decision of the schedule taken otherwise.")
@click.option("--spaces", type=_PATH, help="With --counterfactual: recorded spaces, to judge the rules that prune.")
def explain(counterfactual: bool, spaces: Path | None, **given: Any) -> int:
    """Say what would run and why: schedule, exact counts, predicted and measured time, % of roofline."""
    from . import why

    if spaces is not None and not counterfactual:
        raise UsageError("--spaces goes with --counterfactual")
    recorded = None if spaces is None else why.spaces(spaces)
    todo, options = chosen(given), ready(given)
    for case in todo:
        prepared = prepare(case, options)
        click.echo(f"{case} {case.dtype}\n{prepared.explain()}")
        for part in why.shown(prepared) if counterfactual else ():
            click.echo(part)
    if recorded is not None:
        click.echo(why.judged(recorded), nl=False)
    return 0


@cli.command()
@_with(*_CASES)
@click.option("--target", type=click.Choice(("cuda", "hip", "opencl", "llvm")), default="llvm", show_default=True)
@click.option("-o", "--output", type=_PATH, required=True, help="The folder to write.")
def emit(target: str, output: Path, **given: Any) -> int:
    """Write the kernel of one case as text, with a launcher and a description."""
    from .emit import write

    todo = chosen(given)
    if len(todo) != 1:
        raise UsageError(f"emit writes one case, and these are {len(todo)}: give one value to each parameter")
    for path in write(todo[0], ready(given, here=False), output, target):
        click.echo(path)
    return 0


@cli.command()
@_with(*_CASES)
@click.option("--target", type=click.Choice(("cuda", "hip")), default="cuda", show_default=True)
@click.option("--execute", is_flag=True, help="Run the text on this CPU, too: several orders, sanitizers.")
def verify(target: str, execute: bool, **given: Any) -> int:
    """Prove the CUDA or HIP kernels of each case; needs no GPU. Exit 1 where something is wrong."""
    from .verify import verify as findings

    todo, options, wrong = chosen(given), ready(given, here=False), 0
    for case in todo:
        click.echo(f"{case} {case.dtype}")
        for what, problem in findings(case, options, target, execute):
            click.echo(f"  {what}" + (f": {problem or 'right'}" if problem is not None else ""))
            wrong += bool(problem)
    return int(wrong > 0)


@cli.command()
@_with(*_CASES)
@click.option("--budget", help="Tune first, each case or the whole model for so long (default: nothing is tuned).")
@click.option("--against", help="Measure beside numpy, torch; a model beside eager, inductor (its default).")
@click.option("-o", "--output", type=_PATH, default="report.html", show_default=True, help="The page to write.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on standard error.")
def report(budget: str | None, against: str | None, output: Path, quiet: bool, **given: Any) -> int:
    """Write one page about kernels: autotune report sweep.jsonl | script.py:make_model | gemm m=512 n=512 k=512

    A file that a sweep or bench wrote, a torch model, or cases as sweep takes them: rooflines, tuning curves, which
    operation went into which kernel, times, and the schedule and source behind each point. It needs no network.
    """
    from . import reports

    op, name = given["op"], " ".join(filter(None, (given["op"] or f"--from {given['source']}", *given["words"])))
    reports.check(output)
    if reports.is_model(op, given["words"]) and given["source"] is None:
        return _model_report(op, budget, against, name, output, quiet, given)
    if op is not None and not given["words"] and Path(op).suffix in (".json", ".jsonl", ".toml", ".csv"):
        given = {**given, "op": None, "source": Path(op)}
    if given["source"] is not None and reports.is_records(rows := reports.rows_of(given["source"])):
        if wrong := [o for o, value in (("budget", budget), ("against", against)) if value is not None]:
            raise UsageError(f"{given['source']} holds what was measured: --{wrong[0]} has no meaning")
        each = lambda record: ready({**given, "device": record["device"], "threads": record["threads"]})
        return reports.of_records(given["source"], rows, each, f"autotune report {name}", output, quiet)
    todo, options = chosen(given), ready({**given, "budget": budget})
    return reports.of_cases(todo, options, budget is not None, against, f"autotune report {name}", output, quiet)


def _model_report(
    name: str, budget: str | None, against: str | None, command: str, output: Path, quiet: bool, given: dict[str, Any]
) -> int:
    from . import reports
    from .models import model_of, tuned

    options = {n: given[n] for n in ("threads", "cache") if given[n] is not None}
    if wrong := [n for n in ("dtype", "device") if given[n] is not None]:
        raise UsageError(f"{name} is a model: --{wrong[0]} has no meaning; its tensors say it")
    names, plugin = reports.model_peers(against), reports.plugin_of_models()
    settings = ready({**given, "budget": budget})
    model, inputs = model_of(name)
    if budget is not None:
        tuned(plugin, model, inputs, settings, options, quiet)
    return reports.of_model(
        plugin, name, model, inputs, options, names, f"autotune report {command}", output, quiet
    )  # fmt: skip


for _command in (devices, doctor, cache, model, tune_model):
    cli.add_command(_command)
