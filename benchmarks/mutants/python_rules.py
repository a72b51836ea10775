"""Mutants of Python: rules over the syntax tree; each replaces the text of one node."""

import ast
import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from .mutant import Mutant
from .sql_rules import is_sql, variants

_COMPARE: dict[type, list[type]] = {
    ast.Lt: [ast.LtE, ast.Gt], ast.LtE: [ast.Lt, ast.Gt], ast.Gt: [ast.GtE, ast.Lt], ast.GtE: [ast.Gt, ast.Lt],
    ast.Eq: [ast.NotEq], ast.NotEq: [ast.Eq], ast.Is: [ast.IsNot], ast.IsNot: [ast.Is],
    ast.In: [ast.NotIn], ast.NotIn: [ast.In],
}  # fmt: skip
_BINARY: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd, ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult,
}  # fmt: skip
_TWINS = [
    ("min", "max"), ("any", "all"), ("argmin", "argmax"), ("floor", "ceil"), ("sum", "mean"), ("mean", "median"),
    ("log", "log2"),
    ("minimum", "maximum"), ("cumsum", "cumprod"), ("triu", "tril"), ("repeat", "tile"), ("nanmean", "nanmedian"),
    ("amin", "amax"), ("nlargest", "nsmallest"), ("head", "tail"), ("first", "last"), ("left", "right"), ("std", "var"),
]  # fmt: skip
TWIN = {a: b for pair in _TWINS for a, b in (pair, pair[::-1])}
_LIMIT = 1000  # numbers from here on are sizes of caches and samples: one more or less changes nothing that anybody sees
_ORDERS = {"reverse", "ascending", "descending", "stable"}
_AXES = {"axis", "dim"}


def mutants(path: str, text: str) -> Iterator[Mutant]:
    """Every mutant of a Python file that still compiles, in the order of the text."""
    places = _Places(text)
    for node, scope in _nodes(ast.parse(text)):
        start, end = places.of(node)
        made = [(rule, new) for rule, new in _changes(node, text[start:end])]
        for rule, new in dict.fromkeys(made):
            mutant = Mutant(path, start, end, new, rule, scope)
            if new != text[start:end] and _compiles(mutant.applied(text)):
                yield mutant


class _Places:
    """Offsets in characters of nodes, whose columns count bytes."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines(keepends=True)
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line))

    def of(self, node: Any) -> tuple[int, int]:
        return self._at(node.lineno, node.col_offset), self._at(node.end_lineno, node.end_col_offset)

    def _at(self, line: int, column: int) -> int:
        return self._starts[line - 1] + len(self._lines[line - 1].encode()[:column].decode())


def _compiles(text: str) -> bool:
    try:
        with warnings.catch_warnings(action="ignore", category=SyntaxWarning):
            compile(text, "mutant", "exec")
    except (SyntaxError, ValueError):
        return False
    return True


def _nodes(tree: ast.Module) -> Iterator[tuple[Any, str]]:
    """Nodes with the qualified name that they stand in; none of docstrings, annotations, imports, texts of errors."""
    stack: list[tuple[Any, str, str]] = [(node, _constant(node), "") for node in reversed(tree.body)]
    while stack:
        node, scope, prefix = stack.pop()
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Raise | ast.Assert | ast.Global) or _is_docstring(node):
            continue
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            scope = f"{prefix}.{node.name}".lstrip(".")
            prefix = f"{scope}.<locals>" if isinstance(node, ast.FunctionDef) else scope
        if hasattr(node, "lineno"):
            yield node, scope
        if not isinstance(node, ast.JoinedStr):
            stack += [(child, scope, prefix) for child in reversed(list(_children(node)))]


def _constant(node: Any) -> str:
    """Of a statement of a module: the names that it binds, with a star; nothing for functions and classes."""
    targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
    names = [n.id for t in targets if t is not None for n in ast.walk(t) if isinstance(n, ast.Name)]
    return ",".join(names) + "*" if names else ""


def _is_docstring(node: Any) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _children(node: Any) -> Iterator[Any]:
    skipped = {"annotation", "returns", "decorator_list", "type_params"}
    for name, value in ast.iter_fields(node):
        if name not in skipped:
            yield from (v for v in (value if isinstance(value, list) else [value]) if isinstance(v, ast.AST))


def _changes(node: Any, text: str) -> Iterator[tuple[str, str]]:
    """(rule, new text) of one node."""
    for kind, rule in _RULES:
        if isinstance(node, kind):
            yield from rule(node, text)


def _written(node: Any) -> str:
    return f"({ast.unparse(node)})"


def _with(node: Any, **fields: Any) -> str:
    other = copy.copy(node)
    for name, value in fields.items():
        setattr(other, name, value)
    return _written(other)


def _compare(node: ast.Compare, text: str) -> Iterator[tuple[str, str]]:
    for number, op in enumerate(node.ops):
        for other in _COMPARE[type(op)]:
            yield "comparison", _with(node, ops=[*node.ops[:number], other(), *node.ops[number + 1 :]])


def _boolean(node: ast.BoolOp, text: str) -> Iterator[tuple[str, str]]:
    yield "and/or", _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    for number in range(len(node.values)):
        kept = node.values[:number] + node.values[number + 1 :]
        yield "condition dropped", _with(node, values=kept) if len(kept) > 1 else _written(kept[0])


def _unary(node: ast.UnaryOp, text: str) -> Iterator[tuple[str, str]]:
    if isinstance(node.op, ast.Not):
        yield "not dropped", _written(node.operand)
    elif isinstance(node.op, ast.Invert | ast.USub) and not isinstance(node.operand, ast.Constant):
        yield "sign or ~ dropped", _written(node.operand)


def _binary(node: ast.BinOp, text: str) -> Iterator[tuple[str, str]]:
    if type(node.op) in _BINARY and not (isinstance(node.op, ast.BitOr) and isinstance(node.right, ast.Dict | ast.Set)):
        yield "operator", _with(node, op=_BINARY[type(node.op)]())
    if isinstance(node.op, ast.BitAnd):
        yield "mask dropped", _written(node.left)
        yield "mask dropped", _written(node.right)


def _number(node: ast.Constant, text: str) -> Iterator[tuple[str, str]]:
    if isinstance(node.value, bool):
        yield "true/false", str(not node.value)
    elif isinstance(node.value, int | float) and abs(node.value) < _LIMIT:
        yield "constant + 1", str(node.value + 1)
        yield "constant - 1", f"({node.value - 1})"
    elif isinstance(node.value, str) and is_sql(node.value):
        yield from variants(text)


def _joined(node: ast.JoinedStr, text: str) -> Iterator[tuple[str, str]]:
    if is_sql(text):
        yield from variants(text)


def _call(node: ast.Call, text: str) -> Iterator[tuple[str, str]]:
    plain = [a for a in node.args if not isinstance(a, ast.Starred)]
    if len(plain) == len(node.args) > 1:
        yield "arguments swapped", _with(node, args=[node.args[1], node.args[0], *node.args[2:]])
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in TWIN:
        func = copy.copy(node.func)
        setattr(func, "attr" if isinstance(func, ast.Attribute) else "id", TWIN[name])
        yield "twin", _with(node, func=func)
    if name in ("where", "clip", "clamp", "nan_to_num") and node.args:
        yield "mask dropped", _written(node.args[1 if name == "where" and len(node.args) > 1 else 0])
    for number, keyword in enumerate(node.keywords):
        if keyword.arg in _AXES or keyword.arg in _ORDERS:
            kept = node.keywords[:number] + node.keywords[number + 1 :]
            yield ("axis" if keyword.arg in _AXES else "order"), _with(node, keywords=kept)


def _subscript(node: ast.Subscript, text: str) -> Iterator[tuple[str, str]]:
    if isinstance(node.ctx, ast.Load) and not isinstance(node.slice, ast.Constant | ast.UnaryOp):
        yield "mask or slice dropped", _written(node.value)


def _if(node: ast.If, text: str) -> Iterator[tuple[str, str]]:
    if not node.orelse and len(node.body) == 1 and isinstance(node.body[0], ast.Raise):
        return  # a refusal: words of errors have tests of their own
    for value in (True, False):
        head = copy.copy(node)
        head.test = ast.Constant(value)
        yield "condition fixed", _indented(head, node.col_offset)


def _choice(node: ast.IfExp, text: str) -> Iterator[tuple[str, str]]:
    yield "condition fixed", _written(node.body)
    yield "condition fixed", _written(node.orelse)


def _statement(node: Any, text: str) -> Iterator[tuple[str, str]]:
    target = node.targets[0] if isinstance(node, ast.Assign) else None
    if not isinstance(node, ast.Assign) or isinstance(target, ast.Attribute | ast.Subscript):
        yield "statement removed", "pass"


def _indented(node: Any, columns: int) -> str:
    return ast.unparse(node).replace("\n", "\n" + " " * columns)


_RULES: list[tuple[Any, Callable[[Any, str], Iterator[tuple[str, str]]]]] = [
    (ast.Compare, _compare), (ast.BoolOp, _boolean), (ast.UnaryOp, _unary), (ast.BinOp, _binary), (ast.Constant, _number),
    (ast.JoinedStr, _joined), (ast.Call, _call), (ast.Subscript, _subscript), (ast.If, _if), (ast.IfExp, _choice),
    ((ast.AugAssign, ast.Expr, ast.Assign, ast.Continue, ast.Break), _statement),
]  # fmt: skip
