"""Python assignments as data: the syntax tree is read, and no line of it is ever executed.

What can be read: literals, names bound to them, `dict(...)`, lists and `*`/`**` in them, `+` on texts and lists, sums
and products of numbers, f-strings of such, and imported names, which stand for themselves ("CrossEntropyLoss"). All
else is listed with its line and the reason, and every name that it may have changed counts as unknown.
"""

from __future__ import annotations

import ast
import math
import operator
import warnings
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
_DEFINITIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_WORDS = {
    ast.If: "an if statement",
    ast.For: "a loop",
    ast.While: "a loop",
    ast.With: "a with statement",
    ast.Try: "a try statement",
    ast.FunctionDef: "a function",
    ast.ClassDef: "a class",
    ast.AugAssign: "an assignment such as +=",
    ast.Delete: "a del statement",
    ast.Subscript: "an item of something",
    ast.Attribute: "an attribute",
    ast.Expr: "a call or expression",
    ast.Lambda: "a lambda",
    ast.ListComp: "a list comprehension",
    ast.DictComp: "a dict comprehension",
    ast.IfExp: "a choice by if",
    ast.Compare: "a comparison",
    ast.BoolOp: "an and/or",
}


@dataclass(frozen=True)
class Symbol:
    """A name that an import brought in, with its attributes: `PROMPT_TEMPLATE.qwen_chat`. It is never looked up."""

    name: str

    @property
    def short(self) -> str:
        return self.name.rsplit(".", 1)[-1]


@dataclass(frozen=True)
class Unread:
    """A value that cannot be known without executing, and why."""

    reason: str


def read_assignments(source: str) -> tuple[dict, list[str]]:
    """(values by name, what could not be read). SyntaxError, ValueError, MemoryError, RecursionError: not Python."""
    reader = _Reader()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about odd escapes in a text: the config's own business
        reader.read(ast.parse(source))
    return reader.values, reader.unread


class _Reader:
    """Goes through the statements of a config in order; `values` holds what names are bound to."""

    def __init__(self):
        self.values: dict[str, object] = {}
        self.unread: list[str] = []
        self._imported: dict[str, Symbol] = {}
        self._budget = [20 * MOST_ITEMS]  # steps to look for what is unread

    def read(self, tree: ast.Module) -> None:
        for statement in tree.body:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                for alias in statement.names:
                    name = alias.asname or alias.name.split(".")[0]
                    self.values.pop(name, None)
                    if name == "*":
                        self._note(f"line {statement.lineno} imports everything from a module")
                    self._imported[name] = Symbol(alias.name if alias.asname else name)
            elif isinstance(statement, ast.Assign):
                self._assign(statement.targets, statement.value, statement.lineno)
            elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
                self._assign([statement.target], statement.value, statement.lineno)
            elif not _says_nothing(statement):
                self._give_up(statement, f"line {statement.lineno} is {_describe(statement)}")

    def _assign(self, targets: list[ast.expr], expression: ast.expr, line: int) -> None:
        value = self._value(expression)
        for target in targets:
            if isinstance(target, ast.Name):
                self.values[target.id] = value
                for place, why in find_unread(value, budget=self._budget):
                    self._note(f"{target.id}{place} (line {line}): {why}")
            else:
                self._give_up(target, f"line {line} assigns to {_describe(target)}")

    def _give_up(self, node: ast.AST, reason: str) -> None:
        """A statement that is not read makes every name that it may change unknown, and all that contains its value."""
        self._note(reason)
        changed = {inner.id for inner in ast.walk(node) if _is_written(inner) and isinstance(inner, ast.Name)}
        changed |= {inner.name for inner in ast.walk(node) if isinstance(inner, _DEFINITIONS)}
        touched = {_root(inner) for inner in ast.walk(node) if _is_written(inner)}
        for call in (inner for inner in ast.walk(node) if isinstance(inner, ast.Call)):
            given = [*call.args, *(keyword.value for keyword in call.keywords), call.func]
            touched |= {_root(inner) for inner in given}
        objects = [self.values[name] for name in touched if isinstance(self.values.get(name), dict | list)]
        for name, value in self.values.items():
            if name in changed or any(_contains(value, thing) for thing in objects):
                self.values[name] = Unread(reason)
        self.values |= {name: Unread(reason) for name in changed}

    def _note(self, text: str) -> None:
        if len(self.unread) < MOST_UNREAD:
            self.unread.append(text)

    def _value(self, node: ast.expr):
        reader = getattr(self, f"_read_{type(node).__name__.lower()}", None)
        return reader(node) if reader else Unread(f"{_describe(node)} is not read")

    def _read_constant(self, node: ast.Constant):
        return node.value

    def _read_name(self, node: ast.Name):
        if node.id in self.values:
            return self.values[node.id]
        return self._imported.get(node.id) or Unread(f"the name {node.id} is not bound to a value")

    def _read_attribute(self, node: ast.Attribute):
        owner = self._value(node.value)
        if isinstance(owner, Symbol):
            return Symbol(f"{owner.name}.{node.attr}")
        return Unread(f"the attribute .{node.attr} of something that is not imported")

    def _read_list(self, node: ast.List | ast.Tuple):
        items = []
        for item in node.elts:
            if isinstance(item, ast.Starred):
                inner = self._value(item.value)
                if not isinstance(inner, list):
                    return Unread(f"*{_describe(item.value)} is not a list that can be read")
                items += inner
            else:
                items.append(self._value(item))
            if len(items) > MOST_ITEMS:
                return Unread(f"more than {MOST_ITEMS:,} items")
        return items

    _read_tuple = _read_list

    def _read_dict(self, node: ast.Dict):
        pairs = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                inner = self._value(value)
                if not isinstance(inner, dict):
                    return Unread("** of something that is not a dict that can be read")
                pairs |= inner
                continue
            name = self._value(key)
            if not isinstance(name, str | int | float):
                return Unread("a key that is neither text nor number")
            pairs[name] = self._value(value)
        return pairs

    def _read_call(self, node: ast.Call):
        if not (isinstance(node.func, ast.Name) and node.func.id == "dict" and "dict" not in self.values):
            return Unread(f"the call of {_describe(node.func)} would have to be executed")
        if node.args:
            return Unread("dict() of a value")
        pairs = {}
        for keyword in node.keywords:
            value = self._value(keyword.value)
            if keyword.arg:
                pairs[keyword.arg] = value
            elif isinstance(value, dict):
                pairs |= value
            else:
                return Unread("** of something that is not a dict that can be read")
        return pairs

    def _read_subscript(self, node: ast.Subscript):
        owner, key = self._value(node.value), self._value(node.slice)
        try:
            return owner[key] if isinstance(owner, dict | list) else Unread("an item of something that is not read")
        except (KeyError, IndexError, TypeError):
            return Unread("an item that is not there")

    def _read_unaryop(self, node: ast.UnaryOp):
        value = self._value(node.operand)
        if isinstance(node.op, ast.USub) and _is_number(value):
            return -value
        return not value if isinstance(node.op, ast.Not) and isinstance(value, bool) else Unread("an operator")

    def _read_binop(self, node: ast.BinOp):
        left, right = self._value(node.left), self._value(node.right)
        plus = isinstance(node.op, ast.Add)
        if plus and any(isinstance(left, kind) and isinstance(right, kind) for kind in (str, list)):
            return left + right if len(left) + len(right) <= MOST_ITEMS else Unread("it grows without end")
        if _is_number(left) and _is_number(right):
            try:
                return _calculate(node.op, left, right)
            except (ZeroDivisionError, OverflowError):
                return Unread("a number that does not exist")
        return Unread("an operator on something that is not read")

    def _read_joinedstr(self, node: ast.JoinedStr):
        texts = []
        for part in node.values:
            value = part.value if isinstance(part, ast.Constant) else self._value(part.value)
            if not isinstance(value, str | int | float) or getattr(part, "format_spec", None):
                return Unread("an f-string with something that is not read")
            texts.append(str(value))
        return "".join(texts) if sum(map(len, texts)) <= MOST_ITEMS else Unread("it grows without end")


def find_unread(value, *, place: str = "", budget: list[int] | None = None) -> list[tuple[str, str]]:
    """(place, reason) of what is unread inside a value; places read like `.mllm.llm_lora` or `[0]`."""
    budget = budget or [MOST_ITEMS]  # the same list may stand in another one many times over
    budget[0] -= 1
    if isinstance(value, Unread):
        return [(place, value.reason)]
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = []
    for key, item in inner:
        if budget[0] <= 0 or len(found) > MOST_UNREAD:
            break
        where = f"[{key}]" if isinstance(value, list) else f".{key}"
        found += find_unread(item, place=place + where, budget=budget)
    return found


def _calculate(operation: ast.operator, left: float, right: float) -> float | Unread:
    function = _ARITHMETIC.get(type(operation))
    if function is None:
        return Unread("an operator other than + - * /")
    result = function(left, right)
    return result if math.isfinite(result) and abs(result) < 1e18 else Unread("a number beyond all measure")


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _root(node: ast.expr) -> str | None:
    """The name at the root of `a.b["c"].d`."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _is_written(node: ast.AST) -> bool:
    return isinstance(getattr(node, "ctx", None), ast.Store | ast.Del)


def _contains(value, thing, *, depth: int = 12) -> bool:
    """Whether `thing` itself, not one equal to it, is `value` or in it."""
    if value is thing or depth == 0:
        return value is thing
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(_contains(item, thing, depth=depth - 1) for item in inner)


def _says_nothing(statement: ast.stmt) -> bool:
    """A docstring or pass."""
    constant = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return constant or isinstance(statement, ast.Pass)


def _describe(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_describe(node.value)}.{node.attr}" if _root(node) else "an attribute"
    return _WORDS.get(type(node), f"Python's {type(node).__name__}")
