"""Python assignments as data: the syntax tree is read, and no line of it is ever executed.

What can be read: literals, names bound to them, `dict(...)`, lists and `*`/`**` in them, `+` on texts and lists, sums
and products of numbers, f-strings of such, and imported names, which stand for themselves ("CrossEntropyLoss"). All
else is listed with its line and the reason, and every name that it may have changed counts as unknown.
"""

from __future__ import annotations

import ast
import contextlib
import operator
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

MOST_ITEMS = 10_000  # in one list or text: what doubles itself forty times is no config
MOST_UNREAD = 200
_ARITHMETIC = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}


@dataclass(frozen=True)
class Symbol:
    """A name that an import brought in, with its attributes: `PROMPT_TEMPLATE.qwen_chat`. It is never looked up."""

    name: str

    @property
    def short(self) -> str:
        return self.name.rsplit(".", 1)[-1]


class Unread(Exception):
    """A value that cannot be known without executing, and where it stands. It is raised where it is used; the innermost
    list, dict or assignment around that holds it instead."""


def read_assignments(source: str) -> tuple[dict, list[str]]:
    """(values by name, what could not be read). SyntaxError, ValueError, MemoryError, RecursionError: not Python."""
    reader = _Reader()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about odd escapes in a text: the config's own business
        for statement in ast.parse(source).body:
            reader.read(statement)
    return reader.values, reader.unread


class _Reader:
    """Goes through the statements of a config in order; `values` holds what names are bound to."""

    def __init__(self):
        self.values: dict[str, object] = {}
        self.unread: list[str] = []

    def read(self, statement: ast.stmt) -> None:
        match statement:
            case ast.Import(names=names) | ast.ImportFrom(names=names) if names[0].name != "*":
                for alias in names:
                    name = alias.asname or alias.name.split(".")[0]
                    self.values[name] = Symbol(alias.name if alias.asname else name)
            case ast.Assign(targets=targets, value=expression):
                self._assign(targets, expression)
            case ast.AnnAssign(target=target, value=ast.expr() as expression):
                self._assign([target], expression)
            case ast.Pass() | ast.Expr(value=ast.Constant()):  # a docstring is a constant
                pass
            case _:
                self._give_up(statement)

    def _assign(self, targets: list[ast.expr], expression: ast.expr) -> None:
        value = self._value(expression)
        for target in targets:
            if isinstance(target, ast.Name):
                self.values[target.id] = value
            else:
                self._give_up(target)

    def _give_up(self, node: ast.AST) -> None:
        """What is not read makes every name that it binds unknown, and all that holds a list or dict named in it."""
        unread, parts = self._note(_tell_unread(node)), list(ast.walk(node))
        names = [part for part in parts if isinstance(part, ast.Name)]
        changed = {part.id for part in names if not isinstance(part.ctx, ast.Load)}
        named = [part for part in parts if isinstance(getattr(part, "name", None), str)]  # def, class, import
        changed |= {getattr(part, "asname", None) or part.name for part in named}
        objects = [value for part in names if isinstance(value := self.values.get(part.id), dict | list)]
        for name, value in self.values.items():
            if any(_contains(value, thing) for thing in objects):
                self.values[name] = unread
        self.values |= dict.fromkeys(changed, unread)

    def _note(self, unread: Unread) -> Unread:
        """Lists it once, wherever else the unknown value is used."""
        if str(unread) not in self.unread and len(self.unread) < MOST_UNREAD:
            self.unread.append(str(unread))
        return unread

    def _value(self, node: ast.expr):
        try:
            return self._read(node)
        except Unread as unread:
            return self._note(unread.with_traceback(None))

    def _read(self, node: ast.expr):
        """The value of an expression; Unread where only executing it could tell."""
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name) if name in self.values:
                if isinstance(value := self.values[name], Unread):
                    raise value
                return value
            case ast.Attribute(value=owner, attr=name):
                return Symbol(f"{self._read_as(owner, Symbol).name}.{name}")
            case ast.List(elts=items) | ast.Tuple(elts=items):
                return _bounded(node, [value for item in items for value in self._items(item)])
            case ast.Dict(keys=keys, values=values):
                return self._dict(zip(keys, values, strict=True))
            case ast.Call(func=ast.Name(id="dict"), args=[], keywords=words) if "dict" not in self.values:
                return self._dict((word.arg and ast.Constant(word.arg), word.value) for word in words)
            case ast.Subscript(value=owner, slice=key):
                with contextlib.suppress(KeyError, IndexError, TypeError):
                    return self._read_as(owner, dict | list)[self._read(key)]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return _calculate(node, operation=ast.Sub(), left=0, right=self._read(operand))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return not self._read_as(operand, bool)
            case ast.BinOp(left=left, op=operation, right=right):
                return _calculate(node, operation=operation, left=self._read(left), right=self._read(right))
            case ast.JoinedStr(values=parts) if not any(getattr(part, "format_spec", None) for part in parts):
                pieces = [part if isinstance(part, ast.Constant) else part.value for part in parts]
                return _bounded(node, "".join(str(self._read_as(piece, str | int | float)) for piece in pieces))
        raise _tell_unread(node)

    def _read_as(self, node: ast.expr, kind: type):
        if not isinstance(value := self._read(node), kind):
            raise _tell_unread(node)
        return value

    def _items(self, node: ast.expr) -> list:
        return self._read_as(node.value, list) if isinstance(node, ast.Starred) else [self._value(node)]

    def _dict(self, pairs: Iterable[tuple[ast.expr | None, ast.expr]]) -> dict:
        """Pairs of key and value; a key of None stands before `**value`."""
        found = {}
        for key, value in pairs:
            if key is None:
                found |= self._read_as(value, dict)
            else:
                found[self._read_as(key, str | int | float)] = self._value(value)
        return found


def _calculate(node: ast.expr, *, operation: ast.operator, left, right):
    """Sums of texts and of lists, and arithmetic of numbers."""
    function = _ARITHMETIC.get(type(operation))
    if function is operator.add and any(isinstance(left, kind) and isinstance(right, kind) for kind in (str, list)):
        return _bounded(node, left + right)
    if function and type(left) in (int, float) and type(right) in (int, float):
        with contextlib.suppress(ZeroDivisionError, OverflowError):
            result = function(left, right)
            if abs(result) < 1e18:
                return result
    raise _tell_unread(node)


def _bounded(node: ast.expr, value: str | list) -> str | list:
    if len(value) > MOST_ITEMS:
        raise _tell_unread(node)
    return value


def _tell_unread(node: ast.AST) -> Unread:
    return Unread(f"line {node.lineno} ({type(node).__name__})")


def _contains(value, thing, *, depth: int = 12) -> bool:
    """Whether `thing` itself, not one equal to it, is `value` or in it."""
    if value is thing or depth == 0:
        return value is thing
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(_contains(item, thing, depth=depth - 1) for item in inner)
