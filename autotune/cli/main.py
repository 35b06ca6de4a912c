"""The command `autotune`: its options, what becomes of errors, and the commands that run cases.

Knows options and exit codes: 0 all ok; 1 some not, or a check failed; 2 usage; 3 no such device or toolchain; 4 nothing valid
was measured; 5 a miss in a frozen store; 130 interrupted. How cases are found, run and shown is in the files beside this one.
"""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from .. import __version__
from ..ir.errors import AutotuneError, DeviceError, FrozenError, MeasureError, UsageError
from ..options import Options, resolve
from .grid import Case, cases, read
from .output import FORMATS, Progress, Writer, say, sweep_table
from .run import FIELDS, Record, State, exit_code, prepare, run

Command = TypeVar("Command", bound=Callable[..., Any])
_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (FrozenError, 5), (UsageError, 2), (DeviceError, 3), (MeasureError, 4), (AutotuneError, 1), (OSError, 1),
)  # fmt: skip
TARGETS = ("cuda", "hip", "opencl", "llvm")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code. Errors are one line on standard error."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}")
        try:
            given = None if arguments is None else list(arguments)
            return int(cli.main(given, prog_name="autotune", standalone_mode=False) or 0)
        except (KeyboardInterrupt, click.Abort):
            say("interrupted")
            return 130
        except click.exceptions.NoArgsIsHelpError as error:
            say(error.format_message())
            return 2
        except click.ClickException as error:
            say(f"error: {error.format_message()}")
            return error.exit_code
        except (AutotuneError, OSError) as error:
            if _debugging():
                traceback.print_exc()
            say(f"error: {error}")
            return next(code for kind, code in _CODES if isinstance(error, kind))


def _debugging() -> bool:
    try:
        return resolve().debug >= 4
    except UsageError:
        return False


def _together(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


_CASES = _together(
    click.argument("op", required=False),
    click.argument("words", nargs=-1, metavar="[name=values]..."),
    click.option("--from", "source", type=click.Path(path_type=Path), help="a TOML or JSON file of many cases"),
    click.option("--dtype", help="element type of a named operation's arrays (default f32)"),
)
_MACHINE = _together(
    click.option("--device", help="where to run, such as cpu"),
    click.option("--threads", help="how many (default: the affinity mask and the cgroup quota)"),
    click.option("--cache", help="readwrite, readonly, off, or the path of a store"),
)
_MEASURING = _together(
    click.option("--budget", help="time for each case, such as 2s or 500ms"),
    click.option("--trials", help="candidates for each case, at most"),
    click.option("--format", "form", type=click.Choice(FORMATS), default="table", show_default=True),
    click.option("-o", "--output", type=click.Path(path_type=Path), help="a file for the results (default: standard output)"),
    click.option("-q", "--quiet", is_flag=True, help="no progress on standard error"),
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__)
def cli() -> None:
    """Finds by proof, prediction and measurement the fastest kernel for a shape on a device, and remembers it.

    An operation is a name (gemm, softmax, ...) with name=values, or a function of your own, pkg.mod:fn, with its arrays as
    'x=f32[m,k]'. Values are a,b or first:last:step, the last one included.
    """


def chosen(op: str | None, words: Sequence[str], source: Path | None, dtype: str | None) -> list[Case]:
    """The cases that the command line names, all of them checked."""
    if (op is None) == (source is None):
        raise UsageError("name an operation (such as gemm m=64 n=64 k=64), or a file of cases with --from")
    if source is None:
        return cases(op or "", words, dtype)
    if words:
        raise UsageError("--from takes its parameters from the file")
    if dtype is not None:
        raise UsageError("--from takes the dtype of each case from the file")
    return read(source, FIELDS)


def ready(device: str | None, threads: str | None, cache: str | None, **more: Any) -> Options:
    """The options in force, once it is clear that the device is there and that the store can be opened."""
    from ..session import DEFAULT_BUDGET, Workshop, session

    options = resolve(device=device, threads=threads, cache=cache, tune="cached", **more)
    options = replace(options, budget=options.budget or DEFAULT_BUDGET)
    shop = Workshop(session(), options)
    return replace(options, threads=shop.threads)


def run_all(
    chosen: Sequence[Case], options: Options, writer: Writer, progress: Progress, state: State,
    each: Callable[[Case], Record],
) -> int:  # fmt: skip
    """Run what is not finished yet; the exit code. After an interrupt nothing more is begun."""
    records: list[Record] = []
    for case in chosen:
        progress.start(str(case), options.budget or 1.0)
        record = state.get(case, options)
        if record is None:
            record = each(case)
            state.put(case, options, record)
        records.append(record)
        writer.write(record)
        progress.finish(record)
        if record["status"] == "interrupted":
            say(f"interrupted: {len(records) - 1} of {len(chosen)} cases are finished")
            break
    return exit_code(records, options.frozen)


@cli.command()
@_CASES
@_MACHINE
@_MEASURING
@click.option("--resume", is_flag=True, help="go on where this sweep was stopped: finished cases are not run again")
@click.option("--state", "path", type=click.Path(path_type=Path), help="where to note finished cases (default: beside the cache)")
@click.option("--jobs", type=click.IntRange(1), default=1, help="processes that build candidates")
def sweep(
    op: str | None, words: tuple[str, ...], source: Path | None, dtype: str | None, device: str | None,
    threads: str | None, cache: str | None, budget: str | None, trials: str | None, form: str, output: Path | None,
    quiet: bool, resume: bool, path: Path | None, jobs: int,
) -> int:  # fmt: skip
    """Tune every case of a grid: autotune sweep gemm m=64,512 n=512 k=64:256:64"""
    todo = chosen(op, words, source, dtype)
    options = ready(device, threads, cache, budget=budget, trials=trials)
    path = path or State.place(options.directory(), todo, options)
    if resume and path is None:
        raise UsageError("nothing is kept to resume from (no cache directory); name a file with --state")
    if jobs > 1 and not quiet:
        say(f"note: --jobs {jobs}: this version builds candidates in one process")
    state = State(path, resume)
    if resume and not quiet:
        say(f"resuming: {sum(state.get(case, options) is not None for case in todo)} of {len(todo)} cases are finished")
    with Progress(len(todo), quiet, not options.no_color) as progress, Writer(form, FIELDS, sweep_table, output) as writer:
        return run_all(todo, options, writer, progress, state, lambda case: run(case, options, progress.trial))


@cli.command()
@_CASES
@_MACHINE
@click.option("--counterfactual", is_flag=True, help="what each step of the schedule is worth")
def explain(
    op: str | None, words: tuple[str, ...], source: Path | None, dtype: str | None, device: str | None,
    threads: str | None, cache: str | None, counterfactual: bool,
) -> int:  # fmt: skip
    """Say what would run and why: schedule, exact counts, predicted and measured time, % of roofline."""
    if counterfactual:
        raise UsageError("explain --counterfactual is not in this version; explain shows the schedule and its counts")
    todo = chosen(op, words, source, dtype)
    options = ready(device, threads, cache)
    for case in todo:
        text = prepare(case, options).explain()
        click.echo(f"{case} {case.dtype}\n{text}")
    return 0


@cli.command()
@_CASES
@_MACHINE
@_MEASURING
@click.option("--against", default="numpy,torch", show_default=True, help="libraries to compare with")
@click.option("--fail-slower", "slower", metavar="5%", help="exit 1 where a case is slower than a peer by more than this")
@click.option("--rounds", type=click.IntRange(3), default=15, show_default=True, help="interleaved rounds of samples")
@click.option("--stability", type=click.IntRange(1), help="repeat N times")
def bench(
    op: str | None, words: tuple[str, ...], source: Path | None, dtype: str | None, device: str | None,
    threads: str | None, cache: str | None, budget: str | None, trials: str | None, form: str, output: Path | None,
    quiet: bool, against: str, slower: str | None, rounds: int, stability: int | None,
) -> int:  # fmt: skip
    """Compare with NumPy and torch in paired, interleaved rounds; above 1 is faster than the peer.

    A case whose winner is stored is not tuned again, unless --budget or --trials is given.
    """
    from . import bench as benches

    if stability is not None:
        raise UsageError("bench --stability is not in this version; --rounds raises the number of paired samples")
    margin, peers = benches.margin(slower), benches.peers(against)
    todo = chosen(op, words, source, dtype)
    benches.check(todo, peers)
    options = ready(device, threads, cache, budget=budget, trials=trials)
    tune = budget is not None or trials is not None
    fields = (*FIELDS, "peers")
    with Progress(len(todo), quiet, not options.no_color) as progress, Writer(form, fields, sweep_table, output) as writer:
        each = lambda case: benches.compare(case, options, peers, rounds, tune, progress.trial)
        code = run_all(todo, options, writer, progress, State(None, False), each)
    behind = [] if margin is None else list(benches.behind(writer.rows, margin))
    for line in behind:
        say(f"slower: {line}")
    return code or int(bool(behind))


@cli.command()
@_CASES
@_MACHINE
@click.option("--target", type=click.Choice(TARGETS), default="llvm", show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="the folder to write")
def emit(
    op: str | None, words: tuple[str, ...], source: Path | None, dtype: str | None, device: str | None,
    threads: str | None, cache: str | None, target: str, output: Path,
) -> int:  # fmt: skip
    """Write the kernel of one case as text, with a launcher and a description."""
    from .emit import write

    if target != "llvm":
        raise DeviceError(f"--target {target}: this version renders llvm only")
    todo = chosen(op, words, source, dtype)
    if len(todo) != 1:
        raise UsageError(f"emit writes one case, and these are {len(todo)}: give one value to each parameter")
    options = resolve(device=device, threads=threads, cache=cache, tune="cached")
    for path in write(todo[0], options, output):
        click.echo(str(path))
    return 0


@cli.command()
@click.option("--calibrate", is_flag=True, help="measure peak and bandwidth with generated kernels, and keep them")
@click.option("--threads", type=click.IntRange(1), help="threads to calibrate with, beside one")
@click.option("--format", "form", type=click.Choice(("table", "json")), default="table", show_default=True)
def devices(calibrate: bool, threads: int | None, form: str) -> int:
    """Describe the devices of this machine."""
    from . import machine

    return machine.devices(calibrate, threads, form)


@cli.command()
def doctor() -> int:
    """Check that everything that tuning needs works here, and say what to do where it does not."""
    from . import machine

    return machine.doctor()


def _cache() -> click.Group:
    from .stores import group

    return group


class _Lazy(click.Group):
    """The commands of the cache, imported when one of them is asked for."""

    def list_commands(self, context: click.Context) -> list[str]:
        return _cache().list_commands(context)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        return _cache().get_command(context, name)


@cli.group(cls=_Lazy)
@click.option("--store", type=click.Path(), help="another store than the default one")
@click.pass_context
def cache(context: click.Context, store: str | None) -> None:
    """Keep, check and share what was measured."""
    context.obj = store


if __name__ == "__main__":
    sys.exit(main())
