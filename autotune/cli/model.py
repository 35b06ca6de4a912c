"""`autotune model`: the cost model of this machine, fitted to recorded spaces, shown and judged.

Knows files and what to print; what is fitted is said in `search.correction`.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..calibrate import correction, keep_correction
from ..devices import device
from ..ir.errors import UsageError
from ..options import user_directory
from ..search.correction import Correction, fit, judged, left_out
from ..search.recorded import Space, load
from .output import FORMAT, aligned, say

_SPACES = click.argument("spaces", nargs=-1, required=True, type=click.Path(path_type=Path))


@click.group()
def model() -> None:
    """The cost model: fit it to recorded spaces, show it, judge it. SPACES are files, or folders of them."""


def _loaded(places: tuple[Path, ...], least: int) -> list[Space]:
    files = [f for place in places for f in (sorted(place.glob("*.json.xz")) if place.is_dir() else [place])]
    if len(files) < least:
        where = ", ".join(map(str, places))
        raise UsageError(f"{len(files)} recorded spaces in {where}, and {least} are needed; docs/search.md says how")
    found = [load(file) for file in files]
    for space in found:
        if space.strangers:
            say(f"{space.name}: {space.strangers} recorded points are of another version, and are left out")
    return found


@model.command("fit")
@_SPACES
@click.option("-o", "--output", type=click.Path(path_type=Path), help="A file (default: where this machine's is kept).")
def fit_(spaces: tuple[Path, ...], output: Path | None) -> None:
    """Fit coefficients of the model's terms, and use them on this machine from now on."""
    found = fit(_loaded(spaces, 1))
    if output is not None:
        output.write_text(json.dumps(found.to_json(), indent=1) + "\n", "utf-8")
    elif found.device != device("cpu", user_directory("config")).digest:
        raise UsageError("these spaces were recorded on another machine: fit into a file with -o")
    click.echo(_table(found), nl=False)
    say(f"{found.points} points of {len(found.spaces)} spaces; kept in {output or keep_correction(found)}")


@model.command()
@FORMAT
def show(form: str) -> None:
    """Show the coefficients in force on this machine."""
    found = correction(device("cpu", user_directory("config")))
    if form == "json":
        click.echo(json.dumps(found.to_json() if found else None, indent=1))
    elif found is None:
        click.echo("the model is as it comes: nothing was fitted on this machine")
    else:
        click.echo(_table(found), nl=False)
        click.echo(f"{found.points} points of {', '.join(found.spaces)}")


@model.command("eval")
@_SPACES
@FORMAT
def eval_(spaces: tuple[Path, ...], form: str) -> None:
    """Judge the model on each space: as it comes, and fitted to all other spaces."""
    found = _loaded(spaces, 2)
    fitted, plain = left_out(found), {s.name: judged(s) for s in found}
    if form == "json":
        click.echo(json.dumps({"plain": plain, "fitted": fitted}, indent=1))
        return
    keys = ("peak@1", "peak@5", "peak@8", "pairwise")
    rows = [[n, *(f"{rows[n][k]:.3f}" for k in keys for rows in (plain, fitted))] for n in plain]
    means = [f"{sum(r[k] for r in rows.values()) / len(rows):.3f}" for k in keys for rows in (plain, fitted)]
    heads = [f"{k}{mark}" for k in keys for mark in ("", " fitted")]
    click.echo(aligned(["space", *heads], [*rows, ["mean", *means]]), nl=False)


def _table(found: Correction) -> str:
    rows = [[s, term, f"{factor:.4g}"] for s, terms in found.coefficients.items() for term, factor in terms.items()]
    return aligned(["sketch", "term", "coefficient"], rows)
