"""The small changes of a reference that learners make by mistake: each a mutant, with what it did in the learner's words.

A reference's syntax tree is walked once. At every node each operator below offers what could stand there instead: another
`dim`, a sum for a mean, a step left out or done twice, swapped arguments, `>` for `>=`, one too many. What a mutant says is
a clause that completes "Your results are exactly those of an answer in which ...", and shows no line of the reference: of
its names only those of the arguments appear, which the exercise gives.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Options = Iterator[tuple[str, str, ast.AST | list[ast.stmt] | None]]  # (kind, clause, what stands there instead)


@dataclass(frozen=True)
class Change:
    """`node` replaced by `instead` (by nothing, if None)."""

    node: ast.AST
    instead: Any


@dataclass(frozen=True)
class Mutant:
    """A small mistake. kind: what sort of mistake. says: the clause about it. changes: of the tree, at least one."""

    kind: str
    says: str
    changes: tuple[Change, ...] = field(compare=False)


def mutants(place: Place) -> list[Mutant]:
    """Every mutant of the tree, the likeliest kinds first; the same mistake in several places also in all of them at once."""
    found: dict[Any, Mutant] = {}
    for operator in OPERATORS:
        alike: dict[tuple[str, str], dict[int, Change]] = {}
        for node in place.nodes:
            for kind, says, instead in operator(node, place):
                text = "" if instead is None else _dump(instead)
                if text != _dump(node) and (text, id(node)) not in found:
                    change = Change(node, _located(instead))
                    found[text, id(node)] = Mutant(kind, says, (change,))
                    alike.setdefault((kind, says), {}).setdefault(id(node), change)
        for (kind, says), changes in alike.items():
            if len(changes) > 1:
                found[operator, kind, says] = Mutant(kind, says, tuple(changes.values()))
    return list(found.values())


def mutated(place: Place, changes: Sequence[Change]) -> ast.Module:
    """The tree with these changes, as a new one that shares with the old what is the same in both."""
    instead = {id(change.node): change.instead for change in changes}
    touched: set[int] = set()
    for change in changes:
        node: ast.AST | None = change.node
        while node is not None:
            touched.add(id(node))
            node = place.up(node)

    def copy(node: Any, inside: frozenset[int]) -> list[Any]:
        """The node, or what is there instead of it; `inside` are the replaced nodes that a replacement may hold."""
        if not isinstance(node, ast.AST) or id(node) in place.parent and id(node) not in touched:
            return [node]
        if id(node) in instead and id(node) not in inside:
            new = instead[id(node)]
            news = new if isinstance(new, list) else [] if new is None else [new]
            return [part for n in news for part in copy(n, inside | {id(node)})]
        fields = {}
        for name, value in ast.iter_fields(node):
            if isinstance(value, list):
                value = [part for item in value for part in copy(item, inside)]
                value = value or ([ast.Pass(**POSITION)] if name == "body" else [])
            elif isinstance(value, ast.AST):
                value = copy(value, inside)[0]
            fields[name] = value
        return [type(node)(**fields, **(POSITION if hasattr(node, "lineno") else {}))]

    return copy(place.tree, frozenset())[0]


POSITION = {"lineno": 1, "col_offset": 0, "end_lineno": 1, "end_col_offset": 0}


def _located(node: Any) -> Any:
    """New nodes need a position to be compiled."""
    for part in [n for item in (node if isinstance(node, list) else [node]) if item for n in ast.walk(item)]:
        if "lineno" in part._attributes and not hasattr(part, "lineno"):
            for name, value in POSITION.items():
                setattr(part, name, value)
    return node


def _dump(node: Any) -> str:
    return ";".join(map(ast.dump, node)) if isinstance(node, list) else ast.dump(node)


class _Watch(ast.NodeTransformer):
    def visit_While(self, node: ast.While) -> ast.While:
        self.generic_visit(node)
        node.body = [tick(), *node.body]
        return node

    visit_For = visit_While

    def visit_comprehension(self, node: ast.comprehension) -> ast.comprehension:
        self.generic_visit(node)
        node.ifs = [ast.UnaryOp(ast.Not(), tick().value), *node.ifs]  # the clock says None
        return node


def tick() -> ast.Expr:
    return ast.Expr(ast.Call(ast.Name("__tick__", ast.Load()), [], []))


def is_tick(node: ast.AST) -> bool:
    """Is it a look at the clock: a statement, or a condition of a comprehension?"""
    looked = node.value if isinstance(node, ast.Expr) else node.operand if isinstance(node, ast.UnaryOp) else None
    return isinstance(looked, ast.Call) and method(looked) == "__tick__"


def watched(text: str, name: str, arguments: Sequence[str]) -> ast.Module:
    """The tree of a text, with a look at the clock in every round of every loop.

    The function called `name` has its arguments called as the learner knows them.
    """
    tree = ast.parse(text)
    for index, node in enumerate(tree.body):
        if isinstance(node, ast.FunctionDef) and node.name == name and len(node.args.args) == len(arguments):
            names = {a.arg: b for a, b in zip(node.args.args, arguments, strict=True) if a.arg != b}
            taken = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
            if names and taken.isdisjoint(set(names.values()) - set(names)):
                tree.body[index] = _renamed(node, names)
    return ast.fix_missing_locations(_Watch().visit(tree))


# -- where a node stands --------------------------------------------------------------------------------------------------


class Place:
    """What operators know about the tree: the parent of every node, the arguments, and what takes the place of a value."""

    def __init__(self, tree: ast.Module, arguments: Sequence[str]):
        self.tree = tree
        self.arguments = list(arguments)
        self.parent: dict[int, ast.AST] = {}
        self.nodes: list[ast.AST] = []
        for node in ast.walk(tree):
            for child in ast.iter_child_nodes(node):
                self.parent[id(child)] = node
        for function in tree.body:
            self._collect(function)

    def _collect(self, node: ast.AST) -> None:
        """Without annotations, defaults, decorators and docstrings, which are no part of what is computed."""
        self.nodes.append(node)
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "defaults", "bases"):
                continue
            for child in value if isinstance(value, list) else [value]:
                docstring = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
                if isinstance(child, ast.AST) and not docstring and not is_tick(child):
                    self._collect(child)

    def up(self, node: ast.AST) -> ast.AST | None:
        return self.parent.get(id(node))

    def is_value(self, node: ast.AST) -> bool:
        """Is it an expression that is computed with (no target, no name of a function or keyword, no index)?"""
        if not isinstance(node, ast.expr) or not isinstance(getattr(node, "ctx", ast.Load()), ast.Load):
            return False
        above = self.up(node)
        called = isinstance(above, ast.Call) and above.func is node
        return not called and not isinstance(above, ast.Slice | ast.JoinedStr | ast.FormattedValue)

    def name(self, node: ast.AST) -> str | None:
        """The node as a learner could have written it: `temperature`, `len(first)`, 255; None if it needs other names."""
        text = ast.unparse(node)
        names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        if len(text) > 24 or not names <= {*self.arguments, "len", "math", "torch"}:
            return None
        return f"`{text}`" if names else text

    def called(self, node: ast.AST, other: str) -> str:
        return self.name(node) or other


def method(node: ast.AST) -> str | None:
    """The name of what is called: "mean" for x.mean(1) and for torch.mean(x, 1)."""
    if isinstance(node, ast.Call):
        return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
    return node.attr if isinstance(node, ast.Attribute) else None


MODULES = {"torch", "functional", "F", "math", "np", "nn", "linalg", "losses", "augment", "random", "schedules"}


def subject(node: ast.Call) -> ast.expr | None:
    """What is worked on: x for x.mean(1), torch.mean(x, 1) and abs(x)."""
    if isinstance(node.func, ast.Attribute):
        root = node.func.value
        while isinstance(root, ast.Attribute):
            root = root.value
        if not (isinstance(root, ast.Name) and root.id in MODULES):
            return node.func.value
    return node.args[0] if node.args and not isinstance(node.args[0], ast.Starred) else None


WORDS = {
    "log": "logarithm", "exp": "exponential", "sqrt": "square root", "square": "square", "abs": "absolute value",
    "detach": "detach()", "log_softmax": "log-softmax", "normalize": "normalization", "T": "transpose", "mT": "transpose",
    "transpose": "transpose", "argmax": "argmax", "max": "maximum", "min": "minimum", "amax": "maximum",
    "amin": "minimum", "std": "standard deviation", "var": "variance", "clamp": "clamp", "clip": "clamp",
    "logsumexp": "log-sum-exp", "norm": "norm", "flip": "flip", "round": "rounding", "floor": "rounding down",
    "ceil": "rounding up", "int": "int()", "cumsum": "cumulative sum", "prod": "product",
}  # fmt: skip


def word(name: str | None) -> str:
    return WORDS.get(
        name or "", name if name in ("mean", "sum", "softmax", "median", "sigmoid", "relu") else f"{name}()"
    )


def call(value: ast.expr, name: str, *args: Any, **keywords: Any) -> ast.Call:
    """value.name(...)"""
    return ast.Call(
        ast.Attribute(value, name, ast.Load()),
        [a if isinstance(a, ast.AST) else constant(a) for a in args],
        [ast.keyword(k, constant(v)) for k, v in keywords.items()],
    )


def constant(value: Any) -> ast.expr:
    return ast.parse(repr(value), mode="eval").body


def binary(left: ast.expr, operator: ast.operator, right: Any) -> ast.BinOp:
    return ast.BinOp(left, operator, right if isinstance(right, ast.AST) else constant(right))


def number_of(node: ast.AST | None) -> int | float | None:
    """The value of a literal number, a minus before it included."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = number_of(node.operand)
        return None if inner is None else -inner
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value
    return None


def literal(node: ast.AST | None) -> Any:
    try:
        return ast.literal_eval(node) if node is not None else None
    except (ValueError, TypeError, SyntaxError):
        return None


def replaced(node: ast.AST, **fields: Any) -> ast.AST:
    """A copy of one node with other fields."""
    return type(node)(**{**dict(ast.iter_fields(node)), **fields})


# -- operators: what could stand in a node's place --------------------------------------------------------------------------

# where a dim stands among the positional arguments of a method; one further on where a function takes the tensor first
DIM_PLACE = {
    "mean": 0, "sum": 0, "std": 0, "var": 0, "softmax": 0, "log_softmax": 0, "max": 0, "min": 0, "argmax": 0, "argmin": 0,
    "cumsum": 0, "sort": 0, "argsort": 0, "flip": 0, "logsumexp": 0, "unsqueeze": 0, "squeeze": 0, "prod": 0, "amax": 0,
    "amin": 0, "all": 0, "any": 0, "median": 0, "roll": 1, "topk": 1, "gather": 0, "index_select": 0, "cat": 0, "stack": 0,
    "repeat_interleave": 1, "chunk": 1, "split": 1, "unbind": 0, "norm": 1, "rot90": 1, "flatten": 0, "select": 0,
    "narrow": 0, "normalize": 1, "cosine_similarity": 1, "diff": 1, "concatenate": 0,
}  # fmt: skip
REDUCING = {"mean", "sum", "std", "var", "max", "min", "argmax", "argmin", "amax", "amin", "all", "any", "median", "prod",
            "norm", "logsumexp"}  # fmt: skip


def dim_of(node: ast.AST) -> tuple[str, Any, ast.expr] | None:
    """("keyword" or the index among args, the dim's value, its node) of a call along dims, or None."""
    name = method(node)
    if not isinstance(node, ast.Call) or name is None:
        return None
    for keyword in node.keywords:
        if keyword.arg in ("dim", "dims", "axis") and literal(keyword.value) is not None:
            return "keyword", literal(keyword.value), keyword.value
    if name in DIM_PLACE:
        first = DIM_PLACE[name] + (0 if subject(node) is getattr(node.func, "value", None) else 1)
        if name in ("flip",) and len(node.args) > first + 1:
            return None
        if len(node.args) > first and literal(node.args[first]) is not None:
            value = literal(node.args[first])
            if isinstance(value, int | tuple | list) and not isinstance(value, bool):
                return str(first), value, node.args[first]
    return None


def another_dim(node: ast.AST, place: Place) -> Options:
    if (found := dim_of(node)) is None:
        return
    where, value, at = found
    what = word(method(node))
    for other in _other_dims(value):
        yield (
            "another dim",
            f"the {what} goes over dim {_dims(other)}, where dim {_dims(value)} is needed",
            _with_dim(node, at, other),
        )
    if method(node) in REDUCING and where == "keyword":
        rest = [k for k in node.keywords if k.arg not in ("dim", "axis", "keepdim")]
        yield (
            "another dim",
            f"the {what} goes over everything at once, where dim {_dims(value)} is needed",
            replaced(node, keywords=rest),
        )
    if method(node) in REDUCING and where != "keyword":
        rest = [k for k in node.keywords if k.arg != "keepdim"]
        yield (
            "another dim",
            f"the {what} goes over everything at once, where dim {_dims(value)} is needed",
            replaced(node, args=[a for a in node.args if a is not at][: int(where)], keywords=rest),
        )


def all_dims(node: ast.AST, place: Place) -> Options:
    """Another dim wherever a function goes over one."""
    if not isinstance(node, ast.FunctionDef):
        return
    given = {found[1] for n in ast.walk(node) if (found := dim_of(n)) is not None and isinstance(found[1], int)}
    for value, other in itertools.product(sorted(given), (0, 1, 2, -1)):
        if other != value:
            body = [_over(statement, value, other, False) for statement in node.body]
            yield (
                "another dim",
                f"everything goes over dim {other}, where dim {value} is needed",
                replaced(node, body=body),
            )


def _over(node: Any, value: int, other: int, broadcast: bool) -> Any:
    if not isinstance(node, ast.AST):
        return node
    fields = {}
    for name, part in ast.iter_fields(node):
        wide = isinstance(node, ast.BinOp)
        fields[name] = (
            [_over(p, value, other, False) for p in part] if isinstance(part, list) else _over(part, value, other, wide)
        )
    new = type(node)(**fields)
    if (found := dim_of(new)) is not None and found[1] == value:
        new = _with_dim(new, found[2], other)
        if broadcast and method(new) in REDUCING and all(k.arg != "keepdim" for k in new.keywords):
            new.keywords.append(ast.keyword("keepdim", constant(True)))
    return new


def _other_dims(value: Any) -> list[Any]:
    if isinstance(value, int):
        return [d for d in (0, 1, 2, 3, -1, -2) if d != value]
    value = tuple(value)
    options = [tuple(reversed(value))] + [value[:i] + value[i + 1 :] for i in range(len(value)) if len(value) > 1]
    options += [(0, *value), (0, 1), (1, 2), (2, 3), (1, 2, 3), (0, 2, 3), (0, 1, 2, 3), (-2, -1), 0, 1]
    return [o for o in dict.fromkeys(options) if o != value]


def _dims(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def _with_dim(node: ast.Call, at: ast.expr, other: Any) -> ast.Call:
    keywords = [replaced(k, value=constant(other)) if k.value is at else k for k in node.keywords]
    return replaced(node, args=[constant(other) if a is at else a for a in node.args], keywords=keywords)


SWAPS = {
    "mean": ("sum", "max", "median", "amax", "std"), "sum": ("mean", "max", "prod"), "std": ("var", "mean"),
    "var": ("std",), "max": ("min", "mean", "sum"), "min": ("max", "mean", "sum"), "argmax": ("argmin",),
    "argmin": ("argmax",), "amax": ("amin", "mean"), "amin": ("amax", "mean"), "any": ("all",), "all": ("any",),
    "prod": ("sum",), "median": ("mean",), "softmax": ("log_softmax", "sigmoid"), "log_softmax": ("softmax",),
    "floor": ("ceil", "round"), "ceil": ("floor", "round"), "round": ("floor", "ceil", "int"), "int": ("round",),
    "sin": ("cos",), "cos": ("sin",), "log": ("log2", "log10", "log1p", "exp"), "exp": ("log", "exp2", "square"), "sqrt": ("square",),
    "square": ("abs", "sqrt"), "abs": ("square",), "zeros": ("ones",), "ones": ("zeros",), "tril": ("triu",),
    "triu": ("tril",), "cumsum": ("cumprod",), "cumprod": ("cumsum",), "argsort": ("sort",), "clamp_min": ("clamp_max",),
    "norm": ("sum",), "zeros_like": ("ones_like",), "ones_like": ("zeros_like",), "repeat": ("repeat_interleave",),
    "repeat_interleave": ("repeat",), "hflip": ("vflip",), "maximum": ("minimum",), "minimum": ("maximum",),
    "logsumexp": ("sum",), "fliplr": ("flipud",), "flipud": ("fliplr",), "nanmean": ("mean",), "cat": ("stack",),
    "stack": ("cat",), "reshape": (), "softmin": ("softmax",),
}  # fmt: skip


def another_function(node: ast.AST, place: Place) -> Options:
    name = method(node)
    if not isinstance(node, ast.Call) or name not in SWAPS:
        return
    for other in SWAPS[name]:
        func = (
            replaced(node.func, attr=other) if isinstance(node.func, ast.Attribute) else replaced(node.func, id=other)
        )
        kind = (
            "sum for mean"
            if (name, other) == ("mean", "sum")
            else "mean for sum"
            if (name, other) == ("sum", "mean")
            else f"{other} for {name}"
        )
        yield kind, f"a {word(other)} stands where a {word(name)} is needed", replaced(node, func=func)
        unary = subject(node)
        if other == "log_softmax" and unary is not None:
            yield "logarithm too much", "a logarithm is taken of the softmax", call(node, "log")


KEEP = {"len", "range", "enumerate", "zip", "list", "tuple", "dict", "set", "super", "isinstance", "backward", "step",
        "zero_grad", "arange", "zeros", "ones", "eye", "full", "rand", "randn", "randperm", "randint", "empty", "tensor",
        "tolist", "cat", "stack", "size", "append", "items", "keys", "values", "parameters", "manual_seed", "float",
        "item", "str", "Linear", "Sequential", "buffers", "state_dict", "named_parameters", "meshgrid", "where"}  # fmt: skip


def step_missing(node: ast.AST, place: Place) -> Options:
    """x.exp() -> x, functional.normalize(x, dim=1) -> x, x.T -> x."""
    if isinstance(node, ast.Attribute) and node.attr in ("T", "mT") and place.is_value(node):
        yield "transpose missing", "the transpose is missing", node.value
    name = method(node)
    if not isinstance(node, ast.Call) or name is None or name in KEEP or not place.is_value(node):
        return
    target = subject(node)
    if target is not None:
        diagonal = any(k in ast.unparse(node) for k in ("diag", "eye(", "tril", "triu")) and name in (
            "masked_fill",
            "where",
            "triu",
            "tril",
        )
        kind, says = (
            ("diagonal left in", "the diagonal is left in")
            if diagonal
            else (f"{word(name)} missing", f"the {word(name)} is missing")
        )
        yield kind, says, target


TWICE = {
    "softmax",
    "log_softmax",
    "exp",
    "log",
    "sqrt",
    "square",
    "normalize",
    "sigmoid",
    "mean",
    "log2",
    "tanh",
    "cumsum",
}


def step_twice(node: ast.AST, place: Place) -> Options:
    name = method(node)
    if not isinstance(node, ast.Call) or name not in TWICE or (target := subject(node)) is None:
        return
    if isinstance(node.func, ast.Attribute) and node.func.value is target:
        doubled = replaced(node, func=replaced(node.func, value=node))
    else:
        doubled = replaced(node, args=[node, *node.args[1:]])
    yield f"{word(name)} twice", f"the {word(name)} is taken twice", doubled


def other_count(node: ast.AST, place: Place) -> Options:
    """Biased for unbiased, and the other way round."""
    if not isinstance(node, ast.Call) or method(node) not in ("std", "var", "std_mean", "var_mean", "cov"):
        return
    given = {k.arg: literal(k.value) for k in node.keywords}
    biased = given.get("correction") == 0 or given.get("unbiased") is False
    rest = [k for k in node.keywords if k.arg not in ("correction", "unbiased")]
    if biased:
        yield (
            "divided by N - 1",
            f"the {word(method(node))} divides by the count less 1, where the count itself is needed",
            replaced(node, keywords=rest),
        )
    else:
        new = [*rest, ast.keyword("correction", constant(0))]
        yield (
            "divided by N",
            f"the {word(method(node))} divides by the count, where the count less 1 is needed",
            replaced(node, keywords=new),
        )


def operand_missing(node: ast.AST, place: Place) -> Options:
    if not isinstance(node, ast.BinOp):
        return
    left, right = (place.called(side, "") for side in (node.left, node.right))
    mask = ast.unparse(node.right)
    if "eye(" in mask or "diag" in mask and ast.unparse(node.left) in mask and isinstance(node.op, ast.Sub):
        yield "diagonal left in", "the diagonal is left in", node.left
    words = {
        ast.Add: ("a term missing", "{} isn't added", "a term"), ast.Sub: ("a term missing", "{} isn't subtracted", "what is to be taken off"),
        ast.Mult: ("a factor missing", "the factor {} is missing", "that is needed"), ast.Div: ("a division missing", "the division by {} is missing", "a size or scale"),
        ast.Pow: ("a power missing", "the power {} is missing", "that is needed"), ast.Mod: ("the remainder missing", "the remainder (%) is missing", ""),
        ast.FloorDiv: ("a division missing", "the division by {} is missing", "a size"), ast.MatMult: ("a product missing", "the product with {} is missing", "a matrix"),
    }  # fmt: skip
    kind, says, other = words.get(type(node.op), ("an operand missing", "{} is missing", "an operand"))
    if isinstance(node.op, ast.Sub | ast.Add) and number_of(node.right) == 1:
        kind = "off by one"
    yield kind, says.format(right or other), node.left
    if isinstance(node.op, ast.Add | ast.Mult | ast.MatMult):
        yield kind, says.format(left or other), node.right
    if isinstance(node.op, ast.Sub):
        yield (
            "a term missing",
            f"{left or 'what is to be subtracted from'} is missing, and the rest is not negated",
            node.right,
        )
    if isinstance(node.op, ast.Div):
        yield "a numerator missing", f"{left or 'the numerator'} is missing", node.right


def operand_twice(node: ast.AST, place: Place) -> Options:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div | ast.Mult | ast.Sub | ast.Add):
        verb = {
            ast.Div: "the division by {} is made",
            ast.Mult: "the factor {} is used",
            ast.Sub: "{} is subtracted",
            ast.Add: "{} is added",
        }[type(node.op)]
        for side in (node.right, node.left) if isinstance(node.op, ast.Mult | ast.Add) else (node.right,):
            yield (
                "an operand twice",
                verb.format(place.called(side, "something")) + " twice",
                binary(node, node.op, side),
            )
        if isinstance(node.op, ast.Div | ast.Mult):
            root = binary(node.right, ast.Pow(), 0.5)
            yield (
                "a root too much",
                f"the square root of {place.called(node.right, 'a factor')} stands where the thing itself is needed",
                replaced(node, right=root),
            )


def other_operator(node: ast.AST, place: Place) -> Options:
    if isinstance(node, ast.BinOp):
        right = place.called(node.right, "something")
        options = {
            ast.Add: [("sign", ast.Sub(), f"{right} is subtracted where it is to be added")], ast.Sub: [("sign", ast.Add(), f"{right} is added where it is to be subtracted")],
            ast.Mult: [("divided for multiplied", ast.Div(), f"{right} divides where it is to multiply"), ("added for multiplied", ast.Add(), f"{right} is added where it is to multiply")],
            ast.Div: [("multiplied for divided", ast.Mult(), f"{right} multiplies where it is to divide"), ("whole division", ast.FloorDiv(), "a division is rounded down"), ("subtracted for divided", ast.Sub(), f"{right} is subtracted where it is to divide")],
            ast.FloorDiv: [("division not rounded", ast.Div(), "a division isn't rounded down"), ("remainder for quotient", ast.Mod(), "a remainder (%) stands where a quotient (//) is needed")],
            ast.Mod: [("quotient for remainder", ast.FloorDiv(), "a quotient (//) stands where a remainder (%) is needed")],
            ast.Pow: [("multiplied for power", ast.Mult(), "a product stands where a power is needed")], ast.MatMult: [("elementwise product", ast.Mult(), "an elementwise product (*) stands where a matrix product (@) is needed")],
            ast.BitAnd: [("or for and", ast.BitOr(), "an 'or' stands where an 'and' is needed")], ast.BitOr: [("and for or", ast.BitAnd(), "an 'and' stands where an 'or' is needed")],
        }  # fmt: skip
        for kind, operator, says in options.get(type(node.op), ()):
            yield kind, says, replaced(node, op=operator)
    if isinstance(node, ast.AugAssign):
        for old, new, says in (
            (ast.Add, ast.Sub(), "subtracted where it is to be added"),
            (ast.Sub, ast.Add(), "added where it is to be subtracted"),
        ):
            if isinstance(node.op, old):
                yield "sign", f"a term is {says}", replaced(node, op=new)
        if isinstance(node.target, ast.Name):
            yield (
                "overwritten",
                "a running value is overwritten where it is to be added to",
                ast.Assign([node.target], node.value),
            )


def swapped_operands(node: ast.AST, place: Place) -> Options:
    if isinstance(node, ast.BinOp) and isinstance(
        node.op, ast.Sub | ast.Div | ast.MatMult | ast.Pow | ast.Mod | ast.FloorDiv
    ):
        what = {ast.Sub: "a difference is taken the wrong way round", ast.Div: "a quotient is turned upside down", ast.MatMult: "the two sides of a matrix product are swapped",
                ast.Pow: "the base and the exponent are swapped"}.get(type(node.op), "the two sides of a division are swapped")  # fmt: skip
        kind = "sign" if isinstance(node.op, ast.Sub) else "sides swapped"
        yield kind, what, replaced(node, left=node.right, right=node.left)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
        for left, right in ((True, False), (False, True), (True, True)):
            yield "transpose too much or missing", "a side of the matrix product is transposed that shouldn't be, or isn't where it should be", replaced(
                node, left=_transposed(node.left) if left else node.left, right=_transposed(node.right) if right else node.right)  # fmt: skip
        both = replaced(node, left=_transposed(node.right), right=_transposed(node.left))
        yield "rows and columns swapped", "the matrix is transposed", both
        yield (
            "rows against rows",
            "the matrix product pairs the other dimension: rows where columns are to be paired, or columns where rows are",
            replaced(node, left=_transposed(node.left), right=_transposed(node.right)),
        )


def _transposed(node: ast.expr) -> ast.expr:
    if isinstance(node, ast.Attribute) and node.attr in ("T", "mT"):
        return node.value
    return ast.Attribute(node, "mT", ast.Load())


def brackets(node: ast.AST, place: Place) -> Options:
    """(a + b) / c -> a + b / c, and what is done before a step for after it: exp(a / b) -> exp(a) / b."""
    if isinstance(node, ast.BinOp):
        for side in ("left", "right"):
            inner = getattr(node, side)
            weaker = (
                isinstance(inner, ast.BinOp)
                and not isinstance(inner.op, ast.Pow)
                and (
                    isinstance(inner.op, ast.Add | ast.Sub)
                    and isinstance(
                        node.op, ast.Mult | ast.Div | ast.Pow | ast.Mod | ast.FloorDiv | ast.MatMult | ast.Sub
                    )
                    or isinstance(node.op, ast.Pow | ast.Div)
                )
            )
            if weaker and side == "left":
                yield (
                    "brackets missing",
                    "brackets are missing: a step is done to a part where it is to be done to the whole",
                    replaced(inner, right=replaced(node, left=inner.right)),
                )
            if weaker and side == "right":
                yield (
                    "brackets missing",
                    "brackets are missing: a step is done to a part where it is to be done to the whole",
                    replaced(inner, left=replaced(node, right=inner.left)),
                )
            if (
                isinstance(inner, ast.Call)
                and (target := subject(inner)) is not None
                and method(inner) not in KEEP
                and isinstance(inner.func, ast.Attribute)
                and inner.func.value is target
            ):
                moved = replaced(inner, func=replaced(inner.func, value=replaced(node, **{side: target})))
                yield (
                    "order of steps",
                    f"the {word(method(inner))} is taken after a step that it is to come before",
                    moved,
                )
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and (target := subject(node)) is node.func.value
        and target is not None
    ):
        if isinstance(target, ast.BinOp) and method(node) not in KEEP:
            for side in ("left", "right"):
                early = replaced(node, func=replaced(node.func, value=getattr(target, side)))
                yield (
                    "order of steps",
                    f"the {word(method(node))} is taken of a part, or before a step that it is to come after",
                    replaced(target, **{side: early}),
                )
        if (
            isinstance(target, ast.Call)
            and isinstance(target.func, ast.Attribute)
            and subject(target) is target.func.value
        ):
            first = replaced(node, func=replaced(node.func, value=target.func.value))
            yield (
                "order of steps",
                f"the {word(method(node))} comes before the {word(method(target))}, where it is to come after",
                replaced(target, func=replaced(target.func, value=first)),
            )
    if (
        isinstance(node, ast.UnaryOp)
        and isinstance(node.op, ast.USub)
        and isinstance(node.operand, ast.BinOp)
        and isinstance(node.operand.op, ast.Add | ast.Sub)
    ):
        yield (
            "brackets missing",
            "brackets are missing: the minus sign belongs before all terms",
            replaced(node.operand, left=ast.UnaryOp(ast.USub(), node.operand.left)),
        )


def before_reducing(node: ast.AST, place: Place) -> Options:
    """Something is done to each value before a mean or a sum that should be taken of the values as they are."""
    if isinstance(node, ast.Call) and method(node) in REDUCING and (target := subject(node)) is not None:
        for name in ("abs", "square", "exp", "log", "sqrt"):
            new = call(target, name)
            whole = (
                replaced(node, func=replaced(node.func, value=new))
                if getattr(node.func, "value", None) is target
                else replaced(node, args=[new, *node.args[1:]])
            )
            yield (
                f"{word(name)} too much",
                f"a {word(method(node))} is taken of the {word(name)} of what it is to be taken of",
                whole,
            )


def sign(node: ast.AST, place: Place) -> Options:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and number_of(node) is None:
        yield "sign", "a minus sign is missing", node.operand
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.Invert):
        yield "not missing", "a 'not' is missing: a condition is turned round", node.operand
    if (
        place.is_value(node)
        and isinstance(node, ast.Name | ast.Call | ast.BinOp | ast.Subscript | ast.Attribute)
        and method(node) not in ("range", "zip", "enumerate")
    ):
        above = place.up(node)
        if isinstance(above, ast.Return | ast.Call | ast.BinOp | ast.Assign | ast.keyword | ast.Attribute | ast.Tuple):
            turn = isinstance(above, ast.Call) and method(above) in ("rot90", "roll", "rotate90", "square_symmetry")
            kind, says = (
                ("the other direction", "the turn goes in the other direction")
                if turn
                else ("sign", f"{place.called(node, 'a value')} has the wrong sign")
            )
            yield kind, says, ast.UnaryOp(ast.USub(), node)


OPPOSITE = {
    ast.Gt: [(ast.GtE(), ">=", ">"), (ast.Lt(), "<", ">")], ast.GtE: [(ast.Gt(), ">", ">="), (ast.LtE(), "<=", ">=")],
    ast.Lt: [(ast.LtE(), "<=", "<"), (ast.Gt(), ">", "<")], ast.LtE: [(ast.Lt(), "<", "<="), (ast.GtE(), ">=", "<=")],
    ast.Eq: [(ast.NotEq(), "!=", "==")], ast.NotEq: [(ast.Eq(), "==", "!=")],
    ast.In: [(ast.NotIn(), "not in", "in")], ast.NotIn: [(ast.In(), "in", "not in")],
    ast.Is: [(ast.IsNot(), "is not", "is")], ast.IsNot: [(ast.Is(), "is", "is not")],
}  # fmt: skip


def comparison(node: ast.AST, place: Place) -> Options:
    if isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            for new, is_, needed in OPPOSITE[type(operator)]:
                equal = {is_, needed} in ({">", ">="}, {"<", "<="})
                kind = "at equality" if equal else "comparison turned round"
                says = f"{is_} stands where {needed} is needed" + (", which matters at equality" if equal else "")
                yield kind, says, replaced(node, ops=[*node.ops[:index], new, *node.ops[index + 1 :]])
    if isinstance(node, ast.BoolOp):
        other, says = (
            (ast.Or(), "'or' stands where 'and' is needed")
            if isinstance(node.op, ast.And)
            else (ast.And(), "'and' stands where 'or' is needed")
        )
        yield "and, or", says, replaced(node, op=other)
        for index in range(len(node.values)):
            rest = node.values[:index] + node.values[index + 1 :]
            yield (
                "a condition missing",
                "one of the conditions is missing",
                rest[0] if len(rest) == 1 else replaced(node, values=rest),
            )
    if isinstance(node, ast.If | ast.IfExp | ast.While):
        yield (
            "condition turned round",
            "a condition is turned round",
            replaced(node, test=ast.UnaryOp(ast.Not(), node.test)),
        )
        if not isinstance(node, ast.While):
            yield (
                "a case forgotten",
                "a special case is forgotten: what holds otherwise is done there, too",
                replaced(node, test=constant(False)),
            )
            yield (
                "the special case always",
                "what is meant for a special case is always done",
                replaced(node, test=constant(True)),
            )
    if isinstance(node, ast.comprehension) and not all(map(is_tick, node.ifs)):
        clock = list(filter(is_tick, node.ifs))
        yield "a condition missing", "a condition on what is taken is missing", replaced(node, ifs=clock)


def constants(node: ast.AST, place: Place) -> Options:
    value = number_of(node)
    above = place.up(node)
    if value is None or isinstance(above, ast.UnaryOp) or _is_dim(node, place):
        return
    if isinstance(above, ast.Subscript) and above.slice is node or isinstance(above, ast.Slice):
        return  # indices have an operator of their own
    if isinstance(value, int):
        for delta in (1, -1):
            yield "off by one", f"{value + delta} stands where {value} is needed", constant(value + delta)
        others = (2 * value, value // 2, 0, 256 if value == 255 else 1)
    else:
        near = (
            [round(value + delta, 6) for delta in (0.1, -0.1, 0.2, -0.2, 0.5, -0.5, 1.0, -1.0)] if value > 0.2 else []
        )
        others = (2 * value, value / 2, 1 - value, 10 * value, value / 10, value**2, 0.0, 1.0, -value, *near)
    for other in others:
        if other != value:
            # many limits lead to the same choices: which of them it was, nobody can know
            it = "another limit" if isinstance(above, ast.Compare) else f"{other:.4g}"
            yield "another constant", f"{it} stands where {value:.4g} is needed", constant(other)


def _is_dim(node: ast.AST, place: Place) -> bool:
    above = place.up(node)
    if isinstance(above, ast.keyword):
        return above.arg in ("dim", "dims", "axis", "correction", "dim0", "dim1", "start_dim")
    if isinstance(above, ast.Tuple):
        above = place.up(above)
        return isinstance(above, ast.Call | ast.keyword)
    return isinstance(above, ast.Call) and (found := dim_of(above)) is not None and found[2] is node


def off_by_one(node: ast.AST, place: Place) -> Options:
    counted = isinstance(node, ast.Call) and method(node) in ("len", "numel", "size")
    shape = isinstance(node, ast.Subscript) and isinstance(node.value, ast.Attribute) and node.value.attr == "shape"
    argument = isinstance(node, ast.Name) and node.id in place.arguments
    inside = isinstance(place.up(node), ast.Call) and method(place.up(node)) in ("range", "arange")
    if place.is_value(node) and (counted or shape or argument or inside):
        for operator, words in ((ast.Sub(), "one too few"), (ast.Add(), "one too many")):
            yield "off by one", f"{place.called(node, 'a count')} is taken {words}", binary(node, operator, 1)
    if isinstance(node, ast.Call) and method(node) in ("range", "arange") and len(node.args) == 1:
        stop = node.args[0]
        yield "counted from 1", "the count begins at 1 and leaves out 0", replaced(node, args=[constant(1), stop])
        yield (
            "counted from 1",
            "the count goes from 1 to the end, where it is to begin at 0",
            replaced(node, args=[constant(1), binary(stop, ast.Add(), 1)]),
        )


def another_size(node: ast.AST, place: Place) -> Options:
    """len(x) for x.shape[1], another dimension's size, the number of all elements."""
    tensor, index = None, None
    if isinstance(node, ast.Call) and method(node) == "len" and isinstance(node.func, ast.Name) and node.args:
        tensor, index = node.args[0], 0
    elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Attribute) and node.value.attr == "shape":
        tensor, index = node.value.value, literal(node.slice)
    elif isinstance(node, ast.Call) and method(node) == "numel" and isinstance(node.func, ast.Attribute):
        tensor = node.func.value
    if tensor is None:
        return
    shape = ast.Attribute(tensor, "shape", ast.Load())
    for other in (0, 1, 2, 3, -1):
        if other != index:
            yield (
                "another size",
                f"the size of dim {other} stands where another size is needed",
                ast.Subscript(shape, constant(other), ast.Load()),
            )
    yield (
        "another size",
        "the number of all elements stands where the size of one dimension is needed",
        call(tensor, "numel"),
    )


def indices(node: ast.AST, place: Place) -> Options:
    if isinstance(node, ast.Slice):
        for end in ("lower", "upper"):
            at = getattr(node, end)
            if at is not None:
                yield (
                    "slice",
                    f"a slice {'begins at the beginning' if end == 'lower' else 'goes to the end'}, where it has a limit",
                    replaced(node, **{end: None}),
                )
                for operator, words in ((ast.Add(), "late"), (ast.Sub(), "early")):
                    verb = "begins" if end == "lower" else "ends"
                    yield (
                        "off by one",
                        f"a slice {verb} one place too {words}",
                        replaced(node, **{end: binary(at, operator, 1)}),
                    )
        if node.lower is not None and node.upper is None or node.upper is not None and node.lower is None:
            yield (
                "the other end",
                "the other end of a slice is taken",
                replaced(node, lower=node.upper, upper=node.lower),
            )
            at = node.lower if node.lower is not None else node.upper
            turned = (
                {"lower": ast.UnaryOp(ast.USub(), at), "upper": None}
                if node.lower is None
                else {"lower": None, "upper": ast.UnaryOp(ast.USub(), at)}
            )
            yield (
                "the other end",
                "the last ones are taken where the first ones are needed, or the first for the last",
                replaced(node, **turned),
            )
        if node.lower is None and node.upper is None and node.step is None:
            return
        if node.step is not None:
            yield "slice", "the step of a slice is missing", replaced(node, step=None)
    if not isinstance(node, ast.Subscript) or isinstance(node.ctx, ast.Del):
        return
    value = literal(node.slice)
    if isinstance(value, int) and not (isinstance(node.value, ast.Attribute) and node.value.attr == "shape"):
        for other, kind in (
            (-1, "the other end"),
            (0, "another index"),
            (1, "another index"),
            (value + 1, "off by one"),
            (value - 1, "off by one"),
            (2, "another index"),
        ):
            if other != value:
                yield (
                    kind,
                    f"the place {other} is taken where the place {value} is needed",
                    replaced(node, slice=constant(other)),
                )
        yield "not indexed", "all is taken where one place is needed", node.value
    if isinstance(node.slice, ast.Tuple):
        for a, b in itertools.combinations(range(len(node.slice.elts)), 2):
            elements = list(node.slice.elts)
            elements[a], elements[b] = elements[b], elements[a]
            yield (
                "indices swapped",
                "two indices are swapped, rows for columns",
                replaced(node, slice=replaced(node.slice, elts=elements)),
            )
    if not isinstance(node.ctx, ast.Store) and not isinstance(value, int):
        yield "not selected", "all is taken where a part is to be selected", node.value
        if isinstance(node.slice, ast.Compare | ast.Name | ast.UnaryOp):
            yield (
                "the others selected",
                "the others are selected: a mask is turned round",
                replaced(node, slice=ast.UnaryOp(ast.Invert(), node.slice)),
            )


def swapped_arguments(node: ast.AST, place: Place) -> Options:
    if isinstance(node, ast.Call) and len(node.args) > 1 and not any(isinstance(a, ast.Starred) for a in node.args):
        for a, b in itertools.combinations(range(len(node.args)), 2):
            args = list(node.args)
            args[a], args[b] = args[b], args[a]
            turn = method(node) == "where"
            says = (
                "the two choices of where() are swapped"
                if turn and a == 1
                else f"two arguments of {method(node)}() are swapped"
            )
            yield "arguments swapped", says, replaced(node, args=args)
    if (
        isinstance(node, ast.Call)
        and len(node.args) == 1
        and isinstance(node.func, ast.Attribute)
        and subject(node) is node.func.value
        and place.is_value(node)
    ):
        swapped = replaced(node, func=replaced(node.func, value=node.args[0]), args=[node.func.value])
        yield "arguments swapped", f"the two sides of {method(node)}() are swapped", swapped
    if isinstance(node, ast.Tuple) and isinstance(node.ctx, ast.Load) and 1 < len(node.elts) < 5:
        for a, b in itertools.combinations(range(len(node.elts)), 2):
            elements = list(node.elts)
            elements[a], elements[b] = elements[b], elements[a]
            returned = isinstance(place.up(node), ast.Return)
            says = "two of the values that you return are swapped" if returned else "two values are swapped"
            yield "values swapped", says, replaced(node, elts=elements)


def another_name(node: ast.AST, place: Place) -> Options:
    """One argument for another, in one place or everywhere."""
    if isinstance(node, ast.FunctionDef):
        own = [a.arg for a in node.args.args if a.arg in place.arguments]
        for a, b in itertools.combinations(own, 2):
            names = {a: b, b: a}
            renamed = [_renamed(statement, names) for statement in node.body]
            yield "arguments swapped", f"`{a}` and `{b}` are swapped", replaced(node, body=renamed)
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and place.is_value(node):
        function = node
        while function is not None and not isinstance(function, ast.FunctionDef):
            function = place.up(function)
        if function is None:
            return
        known = [a.arg for a in function.args.args]
        local = list(
            dict.fromkeys(n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
        )
        for other in (*known, *local) if node.id in (*known, *local) else ():
            if other != node.id and other != "_":
                both = {other, node.id} <= set(place.arguments)
                one = (
                    f"`{other}` stands where another value is needed"
                    if other in place.arguments
                    else f"something else stands where `{node.id}` is needed"
                    if node.id in place.arguments
                    else "one intermediate value stands where another is needed"
                )
                yield (
                    "one for the other",
                    f"`{other}` stands where `{node.id}` is needed" if both else one,
                    replaced(node, id=other),
                )


def _renamed(node: Any, names: Mapping[str, str]) -> Any:
    if isinstance(node, list):
        return [_renamed(item, names) for item in node]
    if isinstance(node, ast.Name):
        return replaced(node, id=names.get(node.id, node.id))
    if isinstance(node, ast.arg):
        return replaced(node, arg=names.get(node.arg, node.arg))
    if isinstance(node, ast.AST):
        return type(node)(**{name: _renamed(value, names) for name, value in ast.iter_fields(node)})
    return node


def statements(node: ast.AST, place: Place) -> Options:
    above = place.up(node)
    body = (
        next(
            (
                b
                for n in ("body", "orelse")
                if isinstance(b := getattr(above, n, None), list) and any(s is node for s in b)
            ),
            None,
        )
        if isinstance(node, ast.stmt)
        else None
    )
    if body is None or isinstance(node, ast.FunctionDef | ast.ClassDef):
        return
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        name = f"{method(node.value)}()"
        yield f"{name} missing", f"{name} is missing", []
        yield f"{name} twice", f"{name} is called twice", [node, node]
    elif isinstance(node, ast.AugAssign | ast.Assign | ast.If | ast.For):
        yield "a step missing", "a step is left out", []
        if isinstance(node, ast.AugAssign | ast.Assign):
            yield "a step twice", "a step is done twice", [node, node]
    if isinstance(node, ast.For):
        yield "one round alone", "a loop stops after its first round", replaced(node, body=[*node.body, ast.Break()])
        yield (
            "the other way round",
            "a loop runs from the end to the beginning",
            replaced(node, iter=_function("reversed", _function("list", node.iter))),
        )
        yield (
            "a round missing",
            "the first round of a loop is left out",
            replaced(
                node, iter=ast.Subscript(_function("list", node.iter), ast.Slice(constant(1), None, None), ast.Load())
            ),
        )
        if (
            isinstance(node.body[-1], ast.Return | ast.Assign | ast.AugAssign | ast.Expr)
            and len(body) > 1
            and isinstance(body[-1], ast.Return)
            and body[-1] is not node
        ):
            yield (
                "return inside the loop",
                "the function returns in the loop's first round",
                replaced(node, body=[*node.body, body[-1]]),
            )


def order_of_steps(node: ast.AST, place: Place) -> Options:
    for name in ("body", "orelse"):
        body = getattr(node, name, None)
        for index in (
            range(len(body) - 1)
            if isinstance(body, list) and isinstance(node, ast.FunctionDef | ast.For | ast.While | ast.If)
            else ()
        ):
            if not isinstance(body[index + 1], ast.Return):
                new = [*body[:index], body[index + 1], body[index], *body[index + 2 :]]
                yield "order of steps", "two steps are done in the other order", replaced(node, **{name: new})


def arguments_kept(node: ast.AST, place: Place) -> Options:
    """Nothing is done, or it is done to a copy."""
    if (
        isinstance(node, ast.FunctionDef)
        and (own := [a.arg for a in node.args.args])
        and set(own) <= set(place.arguments)
    ):
        yield (
            "nothing done",
            "nothing is done to the arguments, or it is done to copies of them",
            replaced(node, body=[ast.Pass()]),
        )
        for name in own:
            use = ast.Name(name, ast.Load())
            yield "nothing done", f"`{name}` comes back as it was", replaced(node, body=[ast.Return(use)])
            copy = ast.parse(f"{name} = __import__('copy').deepcopy({name})").body
            says = f"a copy of `{name}` is changed, and `{name}` itself stays as it was"
            yield "works on a copy", says, replaced(node, body=[*copy, *node.body])


def _function(name: str, *args: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), list(args), [])


def keywords(node: ast.AST, place: Place) -> Options:
    if not isinstance(node, ast.Call):
        return
    for keyword in node.keywords:
        if keyword.arg is None or keyword.arg in (
            "generator",
            "dim",
            "dims",
            "axis",
            "correction",
            "unbiased",
            "device",
        ):
            continue
        rest = [k for k in node.keywords if k is not keyword]
        value = literal(keyword.value)
        shown = f"{keyword.arg}={value!r}" if value is not None else f"{keyword.arg}"
        named = shown if value is not None and len(shown) < 30 else keyword.arg
        yield f"{keyword.arg} missing", f"{method(node)}() lacks its {named}", replaced(node, keywords=rest)
        if isinstance(value, bool):
            new = [replaced(k, value=constant(not value)) if k is keyword else k for k in node.keywords]
            yield (
                f"{keyword.arg} turned round",
                f"{keyword.arg}={not value} stands where {keyword.arg}={value} is needed",
                replaced(node, keywords=new),
            )
        for other in CHOICES.get(value, ()) if isinstance(value, str) else ():
            new = [replaced(k, value=constant(other)) if k is keyword else k for k in node.keywords]
            yield (
                f"another {keyword.arg}",
                f"{keyword.arg}={other!r} stands where {keyword.arg}={value!r} is needed",
                replaced(node, keywords=new),
            )
    if method(node) in ("clamp", "clip"):
        if len(node.args) > 1:
            yield (
                "clamp on one side",
                "the clamp has one limit alone, where two are needed",
                replaced(node, args=node.args[:1]),
            )
    if method(node) in ("sort", "argsort", "topk", "sorted"):
        name = {"topk": "largest", "sorted": "reverse"}.get(method(node), "descending")
        if all(k.arg != name for k in node.keywords):
            turned = ast.keyword(name, constant(name != "largest"))
            yield (
                "the other end",
                "the order is turned round: the smallest first for the largest, or the largest for the smallest",
                replaced(node, keywords=[*node.keywords, turned]),
            )


CHOICES = {"bilinear": ("nearest", "bicubic"), "bicubic": ("bilinear", "nearest"), "nearest": ("bilinear",), "mean": ("sum", "none"),
           "sum": ("mean", "none"), "none": ("mean", "sum"), "reflect": ("constant",), "ij": ("xy",), "xy": ("ij",)}  # fmt: skip


def returned(node: ast.AST, place: Place) -> Options:
    """Something more is done to the result, or to what a variable holds."""
    whole = isinstance(node, ast.Return) and node.value is not None
    if not whole and not isinstance(node, ast.Assign):
        return
    if isinstance(node.value, ast.Tuple):
        for index, element in enumerate(node.value.elts) if whole else ():
            for kind, says, new in _more(element, place, "one of the results"):
                elements = [*node.value.elts[:index], new, *node.value.elts[index + 1 :]]
                yield kind, says, replaced(node, value=replaced(node.value, elts=elements))
        return
    for kind, says, new in _more(node.value, place, "the result" if whole else "an intermediate value"):
        yield kind, says, replaced(node, value=new)


def _more(value: ast.expr, place: Place, what: str) -> Options:
    for name, says in (
        ("softmax", "a softmax"),
        ("exp", "the exponential"),
        ("log", "the logarithm"),
        ("sqrt", "the square root"),
        ("square", "the square"),
        ("abs", "the absolute value"),
    ):
        yield (
            f"{word(name)} too much",
            f"{says} is taken of {what}",
            call(value, name, *([-1] if name == "softmax" else [])),
        )
    yield "softmax too much", f"a softmax is taken of {what}", call(value, "softmax", 0)
    for dim in (None, 0, 1, -1):
        for name in ("mean", "sum", "amax"):
            over = "" if dim is None else f" over dim {dim}"
            yield (
                f"{word(name)} too much",
                f"a {word(name)}{over} is taken of {what}",
                call(value, name, *([] if dim is None else [dim])),
            )
    for operator, words in ((ast.Add(), "large"), (ast.Sub(), "small")):
        yield "off by one", f"{what} is 1 too {words}", binary(value, operator, 1)
    for limits, says in (((0, 1), "limited to [0, 1]"), ((0,), "kept from going below 0")):
        yield "clamp too much", f"{what} is {says}", call(value, "clamp", *limits)
    yield "rounding too much", f"{what} is rounded", call(value, "round")
    yield "detached", f"{what} is cut off from the gradient", call(value, "detach")
    yield "transposed", f"{what} is transposed", ast.Attribute(value, "mT", ast.Load())
    yield "mirrored", f"{what} is turned round along dim 0", call(value, "flip", 0)
    yield "complement", f"one minus {what} is given", binary(constant(1), ast.Sub(), value)
    yield "reciprocal", f"one divided by {what} is given", binary(constant(1), ast.Div(), value)
    for factor, name in ((2, "a factor of 2"), (255, "a factor of 255")):
        yield name, f"{what} is {factor} times too large", binary(value, ast.Mult(), factor)
        yield name, f"{what} is {factor} times too small", binary(value, ast.Div(), factor)
    for argument in place.arguments:
        use = ast.Name(argument, ast.Load())
        for size, name in (
            (use, f"`{argument}`"),
            (_function("len", use), f"the length of `{argument}`"),
            (
                ast.Subscript(ast.Attribute(use, "shape", ast.Load()), constant(1), ast.Load()),
                f"the size of dim 1 of `{argument}`",
            ),
        ):
            yield "multiplied too much", f"{what} is multiplied by {name}", binary(value, ast.Mult(), size)
            yield "divided too much", f"{what} is divided by {name}", binary(value, ast.Div(), size)


def wrapped(node: ast.AST, place: Place) -> Options:
    """An argument that has been changed before it is used."""
    if not (
        isinstance(node, ast.Name)
        and node.id in place.arguments
        and isinstance(node.ctx, ast.Load)
        and place.is_value(node)
    ):
        return
    what = f"`{node.id}`"
    functional_ = ast.parse("__import__('torch').nn.functional.normalize", mode="eval").body
    for dim in (1, 0, -1):
        yield (
            "normalization too much",
            f"{what} is normalized over dim {dim} before it is used",
            ast.Call(functional_, [node], [ast.keyword("dim", constant(dim))]),
        )
        yield "softmax too much", f"a softmax over dim {dim} is taken of {what}", call(node, "softmax", dim)
        yield (
            "centring too much",
            f"the mean over dim {dim} is taken off {what}",
            binary(node, ast.Sub(), call(node, "mean", dim, True)),
        )
    for name in ("exp", "log", "sqrt", "square", "abs", "sigmoid", "round"):
        yield f"{word(name)} too much", f"the {word(name)} of {what} is taken", call(node, name)
    yield "detached", f"the gradient is cut off at {what}", call(node, "detach")
    yield "transposed", f"{what} is transposed", ast.Attribute(node, "mT", ast.Load())
    yield "complement", f"1 - {what} stands where {what} is needed", binary(constant(1), ast.Sub(), node)
    yield "mirrored", f"{what} is turned round along dim 0", call(node, "flip", 0)
    yield "mirrored", f"{what} is turned round along its last dim", call(node, "flip", -1)
    yield "squared", f"the square of {what} stands where {what} is needed", binary(node, ast.Pow(), 2)
    for factor, words in ((255, "255"), (90, "90 (degrees)"), (2, "2")):
        yield f"a factor of {factor}", f"{what} is multiplied by {words}", binary(node, ast.Mult(), factor)
        yield f"a factor of {factor}", f"{what} is divided by {words}", binary(node, ast.Div(), factor)
        yield (
            "rounded down",
            f"{what} is divided by {words} and rounded down",
            binary(node, ast.FloorDiv(), factor),
        )


OPERATORS: tuple[Callable[[ast.AST, Place], Options], ...] = (
    arguments_kept, another_dim, all_dims, another_function, other_count, brackets, step_missing, step_twice, operand_missing, sign, swapped_operands, other_operator,
    comparison, indices, another_name, swapped_arguments, operand_twice, off_by_one, constants, another_size, keywords, before_reducing,
    statements, order_of_steps, returned, wrapped,
)  # fmt: skip
