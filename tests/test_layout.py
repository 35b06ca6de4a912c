"""The rules of the house that readers rely on: which room imports which, what it may know, how long a file may be."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "autotune"
ROOMS = ("ir", "search", "codegen", "devices", "cache")
# room -> the rooms it may import; everything else below autotune/ is the top and may import all of them.
MAY_IMPORT = {
    "ir": {"ir"},
    "devices": {"ir", "devices"},
    "codegen": {"ir", "devices", "codegen"},
    "cache": {"ir", "devices", "cache"},
    "search": {"ir", "devices", "search"},
}
OPERATIONS = frozenset({
    "gemm", "gemv", "bmm", "matmul", "softmax", "logsumexp", "conv", "conv1d", "conv2d", "conv3d", "pool2d", 
    "layernorm", "rmsnorm", "batchnorm", "groupnorm", "attention", "sdpa", "relu", "gelu", "silu", "swish", "sigmoid",
})  # fmt: skip
OPERATION_PAIRS = frozenset({("layer", "norm"), ("rms", "norm"), ("group", "norm"), ("batch", "norm")})
FORBIDDEN = {"pickle", "cPickle", "cloudpickle", "dill", "shelve", "marshal", "multiprocessing"}
COLUMNS, LINES = 120, 500


def sources(*folders: str) -> list[Path]:
    return sorted(p for folder in folders for p in (ROOT / folder).rglob("*.py"))


PACKAGE_FILES = sources("autotune")
ALL_FILES = sources("autotune", "tests", "benchmarks", "examples")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def none(found: list[str], rule: str) -> None:
    """Fails with the rule and everything that breaks it."""
    assert not found, "\n  ".join([rule, *found])


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), name(path))


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted module) of every import, relative ones resolved; `from a import b` gives both a and a.b."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *filter(None, [node.module])))
            yield node.lineno, module
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def room(module: str) -> str | None:
    """The room or top module that a dotted name is in; None outside of the package and for `autotune` itself."""
    parts = module.split(".")
    return parts[1] if parts[0] == "autotune" and len(parts) > 1 else None


@pytest.mark.parametrize("own", ROOMS)
def test_import_direction(own: str) -> None:
    wrong = []
    for path in sources(f"autotune/{own}"):
        for line, module in imported(path):
            other = room(module)
            if module == "autotune" or (other is not None and other not in MAY_IMPORT[own]):
                wrong.append(f"{name(path)}:{line} imports {module}")
    none(wrong, f"{own} may import only {', '.join(sorted(MAY_IMPORT[own]))}")


def test_the_top_goes_through_no_link() -> None:
    wrong = [
        f"{name(path)}:{line} imports {module}"
        for path in ALL_FILES
        for line, module in imported(path)
        if module.split(".")[0] in ROOMS
    ]
    none(wrong, "import from autotune.<room>, never through the links at the root")


def at_import(path: Path) -> Iterator[str]:
    """The modules that importing a file imports: not those in functions, nor for type checkers alone."""
    pending: list[ast.AST] = [tree(path)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            checked = isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
            pending += [] if checked else ast.iter_child_nodes(node)


def test_plugins_alone_need_what_they_plug_into() -> None:
    wrong = [
        f"{name(path)} imports {module}"
        for path in PACKAGE_FILES
        for module in at_import(path)
        if module.split(".")[0] == "torch" and PACKAGE / "plugins" / "torch" not in path.parents
    ]
    wrong += [
        f"{name(path)}:{line} imports {module}"
        for path in PACKAGE_FILES
        for line, module in imported(path)
        if room(module) == "plugins" and not {"plugins", "cli"} & set(path.relative_to(PACKAGE).parts)
    ]
    none(wrong, "torch is imported at once in its plugin only, and no room or module knows the plugins")


@pytest.mark.parametrize("link", ROOMS)
def test_links_at_the_root(link: str) -> None:
    path = ROOT / link
    assert path.is_symlink() and path.is_dir(), f"{link} must be a link to autotune/{link}"
    assert path.readlink() == Path("autotune") / link


def test_every_folder_of_the_package_is_a_package() -> None:
    folders = {path.parent for path in PACKAGE_FILES}
    none([name(f) for f in folders if not (f / "__init__.py").exists()], "folders without __init__.py")


def test_file_lengths() -> None:
    lengths = {name(p): len(p.read_text(encoding="utf-8").splitlines()) for p in ALL_FILES}
    none([f"{file}: {n}" for file, n in lengths.items() if n >= LINES], f"files of {LINES} lines or more")


def test_columns() -> None:
    wide = [
        f"{name(path)}:{number}"
        for path in ALL_FILES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > COLUMNS
    ]
    none(wide, f"lines of more than {COLUMNS} columns")


def test_every_module_says_what_it_knows() -> None:
    silent = [name(p) for p in ALL_FILES if p.read_text(encoding="utf-8").strip() and not ast.get_docstring(tree(p))]
    none(silent, "modules without a docstring")


def test_the_environment_is_read_in_one_file() -> None:
    wrong = []
    for path in PACKAGE_FILES:
        if path == PACKAGE / "options.py":
            continue
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv", "getenvb"):
                wrong.append(f"{name(path)}:{node.lineno}")
        wrong += [f"{name(path)}:{line}" for line, module in imported(path) if module in ("os.environ", "os.getenv")]
    none(wrong, "the environment is read in autotune/options.py only")


def test_no_pickle() -> None:
    wrong = [
        f"{name(path)}:{line} imports {module}"
        for path in PACKAGE_FILES
        for line, module in imported(path)
        if module.split(".")[0] in FORBIDDEN
    ]
    wrong += [
        f"{name(path)}:{node.value.lineno} allows pickle"
        for path in PACKAGE_FILES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and getattr(node.value, "value", True)
    ]
    none(wrong, "data travels as JSON and SQL, never as something that runs when it is read")


def knows(text: str) -> str | None:
    """The operation that an identifier or a string names, if any. A capital starts a new word."""
    words = re.findall("[a-z0-9]+", re.sub("([a-z0-9])([A-Z])", r"\1 \2", text).lower())
    pair = next((f"{a}_{b}" for a, b in zip(words, words[1:]) if (a, b) in OPERATION_PAIRS), None)
    return pair or next((w for w in words if w in OPERATIONS), None)


def spoken(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Every identifier and every string of a module that is not a docstring."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(module)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(module):
        line = getattr(node, "lineno", 0)
        for field in ("id", "attr", "arg", "name"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                yield line, value
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield line, node.value


@pytest.mark.parametrize("own", ["ir", "codegen", "search"])
def test_lower_rooms_know_no_operation(own: str) -> None:
    files = sources(f"autotune/{own}")
    wrong = [f"{name(p)}:{line} {text!r}" for p in files for line, text in spoken(tree(p)) if knows(text)]
    wrong += [name(p) for p in files if knows(p.stem)]
    none(wrong, f"{own} sees loops and expressions, never operations")


@pytest.mark.parametrize(
    ("text", "found"),
    [("gemm_tile", "gemm"), ("layer_norm", "layer_norm"), ("fastGelu", "gelu"), ("is a softmax", "softmax"),
     ("GEMM", "gemm"), ("is_linear", None), ("convert", None), ("product", None), ("norm", None), ("release", None)],
)  # fmt: skip
def test_words_are_matched_whole(text: str, found: str | None) -> None:
    assert knows(text) == found


def test_public_names_are_no_module_names() -> None:
    import autotune

    modules = {p.stem for p in PACKAGE_FILES if p.parent == PACKAGE} | {p.parent.name for p in PACKAGE.glob("*/*.py")}
    public = set(autotune.__all__) - {"__version__"}
    assert public & modules <= {"ops"}, "a public name hides, or is hidden by, a module"


def test_import_is_light() -> None:
    heavy = ("optuna", "sqlalchemy", "networkx", "rich", "torch", "click")
    code = f"import sys, autotune; print(*[m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
