"""The documents say what is so: links lead somewhere, code parses, and the table of steps is that of the registry."""

from __future__ import annotations

import ast
import inspect
import re
import shutil
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from autotune.ir.steps import REGISTRY

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
STEPS = re.compile(r"(?<=<!-- steps:begin -->\n).*?(?=<!-- steps:end -->)", re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def step_table() -> Iterator[str]:
    """The section on steps: a table of fields with their defaults, then what each one does, from its docstring."""
    yield "| step | fields |\n|---|---|\n"
    for kind, cls in REGISTRY.items():
        names = [f.name if f.default is MISSING else f"{f.name}={f.default!r}" for f in fields(cls)]
        yield f"| [{kind}](#{kind}) | {', '.join(f'`{n}`' for n in names)} |\n"
    for kind, cls in REGISTRY.items():
        yield f"\n### {kind}\n\n```text\n{inspect.cleandoc(cls.__doc__ or '')}\n```\n"


def test_steps_are_current(update_golden: bool) -> None:
    page = ROOT / "docs" / "schedule.md"
    text = page.read_text(encoding="utf-8")
    wanted = STEPS.sub(lambda _: "".join(step_table()), text)
    if update_golden:
        page.write_text(wanted, encoding="utf-8")
        text = wanted
    assert STEPS.search(text), "docs/schedule.md has lost its markers steps:begin and steps:end"
    assert text == wanted, "docs/schedule.md is behind the registry: run pytest --update-golden"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = [t for t in re.findall(r"\]\(([^)\s]+)\)", text) if not t.startswith(("http", "#"))]
    assert [t for t in targets if not (page.parent / t.partition("#")[0]).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_code_parses(page: Path) -> None:
    for source in blocks(page, "python"):
        ast.parse(source, str(page))


def test_the_emulator_runs_what_its_page_shows() -> None:
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    for source in blocks(ROOT / "docs" / "emulator.md", "python"):
        exec(compile(source, "docs/emulator.md", "exec"), {})


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "CHANGELOG.md"], ids=lambda p: str(p.relative_to(ROOT)))
def test_named_files_exist(page: Path) -> None:
    """`ir/lower.py` and the like, in the text of a page, are files of the repository or of the package."""
    if page.name == "design.md":
        return  # the plan of the house also names what is still to be built
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    named = set(re.findall(r"`([\w/]+\.py)`", text)) | set(re.findall(r"`([\w/]+/)`", text))
    assert sorted(n for n in named if not (ROOT / n).exists() and not (ROOT / "autotune" / n).exists()) == []


def test_readme_has_a_place_for_results() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("<!-- results:begin -->") == text.count("<!-- results:end -->") == 1
    assert text.index("<!-- results:begin -->") < text.index("<!-- results:end -->")


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert [
        p.name for p in PAGES if p.parent.name == "docs" and p.name != "index.md" and f"({p.name})" not in index
    ] == []


def test_make_has_its_targets() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in ("demo", "test", "test-gpu-tools", "lint", "bench", "bench-search", "venv", "clean"):
        assert re.search(rf"^{target}:", text, re.MULTILINE), target
