"""A small language for code that must be native but is no kernel: integer functions in Python's syntax, to LLVM text.

Every value is an i64, addresses too. Statements: assignment, if, while, for name in range(n), break, continue, return
and calls. Module level: functions (those named at_* are exported) and `name = n`, n zeroed bytes aligned to 64. A name
that is defined nowhere is an external function or, uncalled, an external address. Memory: load, store, load32, store32,
stack(n); sequentially consistent swap, fetch_add, fetch_and, fetch_or, cas, astore; aload acquires. int32(x) extends
the sign of the low half; call(address, ...), pause(), trap(). It knows nothing of what is written in it.
"""

from __future__ import annotations

import ast
import itertools
import platform

from ..ir.errors import BuildError

_BINARY: dict[type[ast.AST], str] = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.FloorDiv: "udiv", ast.BitAnd: "and", ast.BitOr: "or",
    ast.LShift: "shl", ast.RShift: "lshr",
}  # fmt: skip
_COMPARE: dict[type[ast.AST], str] = {
    ast.Eq: "eq", ast.NotEq: "ne", ast.Lt: "slt", ast.LtE: "sle", ast.Gt: "sgt", ast.GtE: "sge",
}  # fmt: skip
# {p} is the first argument as a pointer, {1} and {2} are the others; "result; result of that" are two instructions
_MEMORY = {
    "load": "load i64, ptr {p}, align 8",
    "aload": "load atomic i64, ptr {p} acquire, align 8",
    "load32": "load i32, ptr {p}, align 4; zext i32 {r} to i64",
    "store": "!store i64 {1}, ptr {p}, align 8",
    "astore": "!store atomic i64 {1}, ptr {p} seq_cst, align 8",
    "store32": "trunc i64 {1} to i32; !store i32 {r}, ptr {p}, align 4",
    "swap": "atomicrmw xchg ptr {p}, i64 {1} seq_cst",
    "fetch_add": "atomicrmw add ptr {p}, i64 {1} seq_cst",
    "fetch_and": "atomicrmw and ptr {p}, i64 {1} seq_cst",
    "fetch_or": "atomicrmw or ptr {p}, i64 {1} seq_cst",
    "cas": "cmpxchg ptr {p}, i64 {1}, i64 {2} seq_cst seq_cst; extractvalue {{ i64, i1 }} {r}, 1; zext i1 {r} to i64",
    "int32": "trunc i64 {0} to i32; sext i32 {r} to i64",
}
_PAUSE = {
    "x86_64": ("call void @llvm.x86.sse2.pause()", "declare void @llvm.x86.sse2.pause()"),
    "aarch64": ("call void @llvm.aarch64.hint(i32 1)", "declare void @llvm.aarch64.hint(i32)"),
}


def translate(source: str) -> str:
    """The LLVM text of a module. Raises BuildError at anything outside the language."""
    module = ast.parse(source)
    functions = {node.name: node for node in module.body if isinstance(node, ast.FunctionDef)}
    sizes: dict[str, int] = {}
    for node in module.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=int(size))):
                sizes[name] = size
    externals: dict[str, int | None] = {}
    text = [f"@{name} = internal global [{size} x i8] zeroinitializer, align 64" for name, size in sizes.items()]
    for function in functions.values():
        text += _Function(function, {*functions, *sizes}, externals).lines
    for name, arity in externals.items():
        arguments = ", ".join(["i64"] * (arity or 0))
        text.append(f"declare i64 @{name}({arguments})" if arity is not None else f"@{name} = external global i8")
    return "\n".join([*text, _PAUSE.get(platform.machine(), ("", ""))[1], "declare void @llvm.trap()", ""])


class _Function:
    """Renders one function. Variables live on the stack until `sroa` lifts them; conditions become jumps."""

    def __init__(self, node: ast.FunctionDef, known: set[str], externals: dict[str, int | None]) -> None:
        self.known, self.externals, self._numbers = known, externals, itertools.count()
        self._loops: list[tuple[str, str]] = []  # where continue and break go
        arguments = [a.arg for a in node.args.args]
        stored = (n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
        self.locals = dict.fromkeys([*arguments, *stored])
        linkage = "" if node.name.startswith("at_") else "internal "
        head = f"define {linkage}i64 @{node.name}({', '.join(f'i64 %in.{a}' for a in arguments)}) {{"
        self.lines = [head, *(f"  %{name} = alloca i64" for name in self.locals)]
        self.lines += [f"  store i64 %in.{a}, ptr %{a}" for a in arguments]
        self.body(node.body)
        self.lines += ["  ret i64 0", "}"]

    def emit(self, instruction: str) -> str:
        if instruction.startswith("!"):
            self.lines.append("  " + instruction[1:])
            return "0"
        self.lines.append(f"  %r{(n := next(self._numbers))} = {instruction}")
        return f"%r{n}"

    def labels(self, *names: str) -> list[str]:
        n = next(self._numbers)
        return [f"{name}.{n}" for name in names]

    def jump(self, label: str) -> None:
        self.emit(f"!br label %{label}")

    def here(self, label: str) -> None:
        self.lines.append(f"{label}:")

    def body(self, nodes: list[ast.stmt]) -> None:
        for node in nodes:
            self.statement(node)

    def statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self.emit(f"!store i64 {self.value(value)}, ptr %{name}")
            case ast.AugAssign(target=ast.Name(id=name), op=op, value=value) if type(op) in _BINARY:
                right = self.value(value)
                old = self.emit(f"load i64, ptr %{name}")
                self.emit(f"!store i64 {self.emit(f'{_BINARY[type(op)]} i64 {old}, {right}')}, ptr %{name}")
            case ast.Expr(value=value):
                self.value(value)
            case ast.Return(value=value):
                self.emit(f"!ret i64 {self.value(value) if value else 0}")
                self.here(*self.labels("dead"))
            case ast.If(test=test, body=body, orelse=orelse):
                yes, no, end = self.labels("then", "else", "endif")
                self.condition(test, yes, no)
                for label, block in ((yes, body), (no, orelse)):
                    self.here(label)
                    self.body(block)
                    self.jump(end)
                self.here(end)
            case ast.While(test=test, body=body):
                again, inside, end = self.labels("while", "do", "done")
                self.loop(body, test, again, inside, end, again)
            case ast.For(target=ast.Name(id=name), iter=ast.Call(func=ast.Name(id="range"), args=[stop]), body=body):
                again, inside, end, step = self.labels("for", "do", "done", "next")
                self.emit(f"!store i64 0, ptr %{name}")
                self.loop(body, ast.Compare(ast.Name(name, ast.Load()), [ast.Lt()], [stop]), again, inside, end, step)
                self.here(step)
                self.statement(ast.AugAssign(ast.Name(name, ast.Store()), ast.Add(), ast.Constant(1)))
                self.jump(again)
                self.lines.append(self.lines.pop(self.lines.index(f"{end}:")))
            case ast.Continue() | ast.Break():
                self.jump(self._loops[-1][isinstance(node, ast.Break)])
                self.here(*self.labels("dead"))
            case _:
                raise BuildError(f"not in the language: {ast.unparse(node)}")

    def loop(self, body: list[ast.stmt], test: ast.expr, again: str, inside: str, end: str, step: str) -> None:
        self.jump(again)
        self.here(again)
        self.condition(test, inside, end)
        self.here(inside)
        self._loops.append((step, end))
        self.body(body)
        self._loops.pop()
        self.jump(step)
        self.here(end)

    def condition(self, node: ast.expr, yes: str, no: str) -> None:
        """Jump to `yes` or `no`; `and` and `or` stop early."""
        match node:
            case ast.BoolOp(op=op, values=[*first, last]):
                for value in first:
                    (on,) = self.labels("test")
                    self.condition(value, *((on, no) if isinstance(op, ast.And) else (yes, on)))
                    self.here(on)
                self.condition(last, yes, no)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                self.condition(operand, no, yes)
            case _:
                self.emit(f"!br i1 {self.test(node)}, label %{yes}, label %{no}")

    def test(self, node: ast.expr) -> str:
        match node:
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARE:
                return self.emit(f"icmp {_COMPARE[type(op)]} i64 {self.value(left)}, {self.value(right)}")
        return self.emit(f"icmp ne i64 {self.value(node)}, 0")

    def value(self, node: ast.expr) -> str:
        match node:
            case ast.Constant(value=int(number)):
                return str(number)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int(number))):
                return str(-number)
            case ast.Name(id=name) if name in self.locals:
                return self.emit(f"load i64, ptr %{name}")
            case ast.Name(id=name):
                if name not in self.known:
                    self.externals.setdefault(name, None)
                return f"ptrtoint (ptr @{name} to i64)"
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                return self.emit(f"{_BINARY[type(op)]} i64 {self.value(left)}, {self.value(right)}")
            case ast.Compare(ops=[op]) if type(op) in _COMPARE:
                return self.emit(f"zext i1 {self.test(node)} to i64")
            case ast.Call(func=ast.Name(id=name), args=args):
                return self.called(name, args)
        raise BuildError(f"not in the language: {ast.unparse(node)}")

    def called(self, name: str, args: list[ast.expr]) -> str:
        if name == "stack":
            block = f"  %r{(n := next(self._numbers))} = alloca i8, i64 {self.value(args[0])}, align 64"
            self.lines.insert(1 if isinstance(args[0], ast.Constant) else len(self.lines), block)
            return self.emit(f"ptrtoint ptr %r{n} to i64")
        values = [self.value(a) for a in args]
        if name == "pause":
            return self.emit("!" + _PAUSE.get(platform.machine(), ("fence seq_cst", ""))[0])
        if name == "trap":
            return self.emit("!call void @llvm.trap()")
        if name in _MEMORY:
            pointer = "" if name == "int32" else self.emit(f"inttoptr i64 {values[0]} to ptr")
            result = ""
            for part in _MEMORY[name].split("; "):
                result = self.emit(part.format(*values, p=pointer, r=result))
            return result
        target = f"@{name}"
        if name == "call":
            target, *values = self.emit(f"inttoptr i64 {values[0]} to ptr"), *values[1:]
        elif name not in self.known:
            self.externals[name] = len(values)
        return self.emit(f"call i64 {target}({', '.join(f'i64 {v}' for v in values)})")
