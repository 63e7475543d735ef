"""Small faults, one at a time: the mutants of a module.

Texts are left alone; `test_messages.py` compares them whole.

Made here rather than with a general tool for three reasons: the whole run takes a minute because
mutants are loaded inside a running pytest, it also runs on Windows, and class bodies, where the
envelope's limits live, are mutated as well as functions.
"""

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
}
_NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes:
        module: dotted name of the mutated module.
        place: class and function, or ``<module>``.
        line: line in the original.
        change: what was replaced by what.
        source: the whole mutated module.
    """

    module: str
    place: str
    line: int
    change: str
    source: str

    def __str__(self) -> str:
        return f"line {self.line} of {self.module} {self.place}: {self.change}"


def mutants(module: str, source: str) -> Iterator[Mutant]:
    """All mutants of a module."""
    tree = ast.parse(source)
    for site in _sites(tree, "<module>", None):
        before = _text(site.statement)
        for variant in _variants(site.node):
            site.replace(variant)
            whole = variant if site.node is site.statement else site.statement
            change = f"{before}  ->  {_text(whole)}"
            mutated = ast.unparse(ast.fix_missing_locations(tree))
            yield Mutant(module, site.place, site.node.lineno, change, mutated)
        site.replace(site.node)


def _text(statement: ast.AST) -> str:
    """A statement on one line; of a compound one, only the head."""
    if isinstance(statement, ast.If | ast.While | ast.For):
        statement = copy.copy(statement)
        statement.body, statement.orelse = [], []
    elif isinstance(statement, ast.FunctionDef | ast.ClassDef):
        statement = copy.copy(statement)
        statement.body = []
    return " ".join(ast.unparse(ast.fix_missing_locations(statement)).split())


@dataclass(frozen=True)
class _Site:
    """Something that can be replaced, in which place and which statement."""

    node: ast.expr | ast.stmt
    place: str
    statement: ast.stmt
    replace: Callable[[ast.AST], None]


def _sites(parent: ast.AST, place: str, statement: ast.stmt | None) -> Iterator[_Site]:
    """Every statement and expression that decides something."""
    for field, value in ast.iter_fields(parent):
        if field in ("returns", "decorator_list", "type_ignores"):
            continue
        children = value if isinstance(value, list) else [value]
        for index, child in enumerate(children):
            if not isinstance(child, ast.AST) or _says_nothing(child):
                continue
            if field == "annotation":
                # Types decide nothing, but the bounds in `msgspec.Meta` do.
                for call in (node for node in ast.walk(child) if isinstance(node, ast.Call)):
                    yield from _sites(call, place, statement)
                continue
            around = child if isinstance(child, ast.stmt) else statement
            if isinstance(child, ast.expr | ast.stmt) and around is not None:
                if isinstance(value, list):
                    replace = _replace_item(value, index)
                else:
                    replace = _replace_field(parent, field)
                yield _Site(child, place, around, replace)
            inner = place
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                inner = child.name if place == "<module>" else f"{place}.{child.name}"
            yield from _sites(child, inner, around)


def _replace_item(items: list[ast.AST], index: int) -> Callable[[ast.AST], None]:
    def replace(node: ast.AST) -> None:
        items[index] = node

    return replace


def _replace_field(parent: ast.AST, field: str) -> Callable[[ast.AST], None]:
    def replace(node: ast.AST) -> None:
        setattr(parent, field, node)

    return replace


def _says_nothing(node: ast.AST) -> bool:
    """Imports, docstrings and names of types."""
    match node:
        case ast.Import() | ast.ImportFrom():
            return True
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.Subscript(value=ast.Name(id="Literal")):
            return True
    return False


def _variants(node: ast.expr | ast.stmt) -> Iterator[ast.AST]:
    match node:
        case ast.Compare():
            for index, old in enumerate(node.ops):
                for new in _COMPARISONS[type(old)]:
                    variant = copy.deepcopy(node)
                    variant.ops[index] = new()
                    yield variant
        case ast.BoolOp():
            other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield ast.BoolOp(other, node.values)
            for index in range(len(node.values)):
                rest = node.values[:index] + node.values[index + 1 :]
                yield ast.BoolOp(node.op, rest) if len(rest) > 1 else rest[0]
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield node.operand
        case ast.BinOp() if type(node.op) in _OPERATORS:
            yield ast.BinOp(node.left, _OPERATORS[type(node.op)](), node.right)
        case ast.IfExp():
            yield node.body
            yield node.orelse
        case ast.Call(func=ast.Name(id="abs")):
            yield node.args[0]
        case ast.Call(func=ast.Name(id=name)) if name in _NAMES:
            yield ast.Call(ast.Name(_NAMES[name]), node.args, node.keywords)
        case ast.Constant(value=bool()):
            yield ast.Constant(not node.value)
        case ast.Constant(value=int() | float()):
            change = max(1, abs(node.value))
            yield ast.Constant(node.value + change)
            yield ast.Constant(node.value - change)
        case ast.If():
            for constant in (True, False):
                yield ast.If(ast.Constant(constant), node.body, node.orelse)
        case ast.While():
            yield ast.While(ast.Constant(False), node.body, node.orelse)
        case ast.For():
            yield ast.For(node.target, ast.List([]), node.body, node.orelse)
        case ast.Return() if not isinstance(node.value, ast.Constant | None):
            yield ast.Return(ast.Constant(None))
        case ast.Expr() | ast.Assign() | ast.AugAssign() | ast.Raise():
            yield ast.Pass()
            if isinstance(node, ast.AugAssign):
                yield ast.AugAssign(node.target, _OPERATORS[type(node.op)](), node.value)
        case ast.Break():
            yield ast.Continue()
        case ast.Continue():
            yield ast.Break()
