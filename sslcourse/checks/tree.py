"""The syntax tree of a right answer: where a node stands, what it is called in words, and the tree with changes made.

Of the answer's own names only those of its arguments may be said, which the exercise gives: everything else is described.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

POSITION = {"lineno": 1, "col_offset": 0, "end_lineno": 1, "end_col_offset": 0}
MODULES = {"torch", "functional", "F", "math", "np", "nn", "linalg", "losses", "augment", "random", "schedules"}
SOMETHING = "something"


@dataclass(frozen=True)
class Change:
    """`node` replaced by `instead`: an expression, a list of statements, or nothing."""

    node: ast.AST
    instead: Any


# -- small parts ----------------------------------------------------------------------------------------------------------


def method(node: ast.AST) -> str | None:
    """The name of what is called: "mean" for x.mean(1) and for torch.mean(x, 1)."""
    if isinstance(node, ast.Call):
        return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
    return node.attr if isinstance(node, ast.Attribute) else None


def subject(node: ast.Call) -> ast.expr | None:
    """What is worked on: x for x.mean(1), torch.mean(x, 1) and abs(x)."""
    if isinstance(node.func, ast.Attribute):
        root = node.func.value
        while isinstance(root, ast.Attribute):
            root = root.value
        if not (isinstance(root, ast.Name) and root.id in MODULES):
            return node.func.value
    return node.args[0] if node.args and not isinstance(node.args[0], ast.Starred) else None


def is_method(node: ast.AST) -> bool:
    """x.mean(1), not torch.mean(x, 1)?"""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and subject(node) is node.func.value


def rest(node: ast.Call) -> list[ast.expr]:
    """The arguments but the subject."""
    return [a for a in node.args if a is not subject(node)]


def renamed(node: ast.Call, name: str) -> ast.Call:
    """The same call of another function."""
    func = replaced(node.func, **{"attr" if isinstance(node.func, ast.Attribute) else "id": name})
    return replaced(node, func=func)


def on(node: ast.Call, new: ast.expr) -> ast.Call:
    """The same call with another subject."""
    if is_method(node):
        return replaced(node, func=replaced(node.func, value=new))
    return replaced(node, args=[new, *node.args[1:]])


def call(value: ast.expr, name: str, *args: Any, **keywords: Any) -> ast.Call:
    """value.name(...)"""
    named = [ast.keyword(k, constant(v)) for k, v in keywords.items()]
    return ast.Call(ast.Attribute(value, name, ast.Load()), [constant(a) for a in args], named)


def function(name: str, *args: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), list(args), [])


def constant(value: Any) -> ast.expr:
    return value if isinstance(value, ast.AST) else ast.parse(repr(value), mode="eval").body


def binary(left: ast.expr, operator: ast.operator, right: Any) -> ast.BinOp:
    return ast.BinOp(left, operator, constant(right))


def number_of(node: ast.AST | None) -> int | float | None:
    """The value of a literal number, a minus before it included."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = number_of(node.operand)
        return None if inner is None else -inner
    return node.value if isinstance(node, ast.Constant) and type(node.value) in (int, float) else None


def literal(node: ast.AST | None) -> Any:
    try:
        return ast.literal_eval(node) if node is not None else None
    except (ValueError, TypeError, SyntaxError):
        return None


def replaced(node: ast.AST, **fields: Any) -> ast.AST:
    """A copy of one node with other fields."""
    return type(node)(**{**dict(ast.iter_fields(node)), **fields})


def rebuilt(node: Any, other: Callable[[ast.AST], Any]) -> Any:
    """A copy with every node for which `other` gives something replaced by that, from the top down."""
    if isinstance(node, list):
        return [rebuilt(item, other) for item in node]
    if not isinstance(node, ast.AST):
        return node
    if (new := other(node)) is not None:
        return new
    return type(node)(**{name: rebuilt(value, other) for name, value in ast.iter_fields(node)})


def with_names(node: Any, names: Mapping[str, str]) -> Any:
    """A copy with other names, all at once."""

    def other(part: ast.AST) -> ast.AST | None:
        if isinstance(part, ast.Name):
            return replaced(part, id=names.get(part.id, part.id))
        return replaced(part, arg=names.get(part.arg, part.arg)) if isinstance(part, ast.arg) else None

    return rebuilt(node, other)


def dump(node: Any, known: dict[int, str], own: Container[int] = ()) -> str:
    """The node as text, the same for nodes that say the same. known: texts of nodes so far; kept for those among `own`."""
    if isinstance(node, list):
        return f"[{','.join([dump(item, known, own) for item in node])}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    if (text := known.get(id(node))) is None:
        parts = [dump(getattr(node, name, None), known, own) for name in node._fields]
        text = f"{type(node).__name__}({','.join(parts)})"
        if id(node) in own:
            known[id(node)] = text
    return text


def located(node: Any) -> Any:
    """New nodes need a position to be compiled; what has one is of the tree, or was located before, with all in it."""
    for part in node if isinstance(node, list) else [node]:
        if isinstance(part, ast.AST) and not hasattr(part, "lineno"):
            if "lineno" in part._attributes:
                for name, value in POSITION.items():
                    setattr(part, name, value)
            for child in ast.iter_child_nodes(part):
                located(child)
    return node


# -- reading an answer ----------------------------------------------------------------------------------------------------


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
    return ast.Expr(function("__tick__"))


def is_tick(node: ast.AST) -> bool:
    """Is it a look at the clock: a statement, or a condition of a comprehension?"""
    looked = node.value if isinstance(node, ast.Expr) else node.operand if isinstance(node, ast.UnaryOp) else None
    return isinstance(looked, ast.Call) and method(looked) == "__tick__"


def watched(text: str, name: str, arguments: Sequence[str], inline: bool = False) -> ast.Module:
    """The tree of a text, with a look at the clock in every round of every loop.

    The function called `name` has its arguments called as the learner knows them. inline: values that are named and used
    once stand where they are used, so that a change reaches from one line into another.
    """
    tree = ast.parse(text)
    for index, node in enumerate(tree.body):
        if isinstance(node, ast.FunctionDef) and node.name == name and len(node.args.args) == len(arguments):
            names = {a.arg: b for a, b in zip(node.args.args, arguments, strict=True) if a.arg != b}
            taken = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
            if names and taken.isdisjoint(set(names.values()) - set(names)):
                tree.body[index] = with_names(node, names)
        if inline and isinstance(node, ast.FunctionDef):
            tree.body[index] = inlined(tree.body[index])
    return ast.fix_missing_locations(_Watch().visit(tree))


def inlined(function: ast.FunctionDef) -> ast.FunctionDef:
    """A function in which every value that has a name and one use stands where it is used."""
    body, index = list(function.body), 0
    plain = (ast.Assign, ast.AugAssign, ast.Return, ast.Expr)
    while index < len(body):
        step = body[index]
        target = step.targets[0] if isinstance(step, ast.Assign) else None
        uses = [n for s in body for n in ast.walk(s) if isinstance(target, ast.Name) and _is_name(n, target.id)]
        use = uses[1] if len(uses) == 2 and isinstance(uses[1].ctx, ast.Load) else None
        later = next(
            (s for s in body[index + 1 :] if isinstance(s, plain) and any(n is use for n in ast.walk(s))), None
        )
        if isinstance(target, ast.Name) and _is_path(step.value) and all(isinstance(n.ctx, ast.Load) for n in uses[1:]):
            name, value = target.id, step.value  # cosine = functional.cosine_similarity
            body = [
                rebuilt(s, lambda n, x=name, v=value: rebuilt(v, lambda _: None) if _is_name(n, x) else None)
                for s in body
                if s is not step
            ]
        elif later is not None and not _repeated(later, use):
            new = rebuilt(later, lambda n, use=use, step=step: step.value if n is use else None)
            body = [new if s is later else s for s in body if s is not step]
        else:
            index += 1
    return replaced(function, body=body)


def _is_path(node: ast.AST) -> bool:
    """functional.cosine_similarity, and the like?"""
    if isinstance(node, ast.Attribute):
        return _is_path(node.value) or isinstance(node.value, ast.Name) and node.value.id in MODULES
    return False


def _is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _repeated(step: ast.AST, use: ast.AST) -> bool:
    """Is it used in a comprehension or a lambda, where it would be worked out several times?"""
    inner = (ast.ListComp, ast.GeneratorExp, ast.DictComp, ast.SetComp, ast.Lambda)
    return any(isinstance(n, inner) and any(m is use for m in ast.walk(n)) for n in ast.walk(step))


WORDS = {
    "log": "logarithm", "exp": "exponential", "sqrt": "square root", "square": "square", "abs": "absolute value",
    "log_softmax": "log-softmax", "normalize": "normalization", "T": "transpose", "mT": "transpose",
    "transpose": "transpose", "max": "maximum", "min": "minimum", "amax": "maximum", "amin": "minimum",
    "maximum": "maximum", "minimum": "minimum", "std": "standard deviation", "var": "variance", "clip": "clamp",
    "logsumexp": "log-sum-exp", "round": "rounding", "floor": "rounding down", "ceil": "rounding up",
    "cumsum": "cumulative sum", "prod": "product", "len": "length", "log2": "logarithm to base 2",
    "log10": "logarithm to base 10", "numel": "number of elements",
}  # fmt: skip
PLAIN = {"mean", "sum", "softmax", "median", "sigmoid", "relu", "norm", "flip", "clamp", "argmax", "argmin", "mode"}
SEEN_THROUGH = {"unsqueeze", "view", "reshape", "expand", "expand_as", "to", "float", "double", "long", "int", "clone",
                "squeeze", "permute", "contiguous", "item", "tolist", "view_as", "as_tensor", "flatten", "movedim"}  # fmt: skip


def article(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def word(name: str | None) -> str:
    return WORDS.get(name or "", name if name in PLAIN else f"{name}()")


class Place:
    """What operators know about the tree: the parent of every node, the arguments, and what is called how in words."""

    def __init__(self, tree: ast.Module, arguments: Sequence[str]):
        self.tree = tree
        self.arguments = list(arguments)
        self.parent: dict[int, ast.AST] = {}
        self.nodes: list[ast.AST] = []
        self.own = {f.name for f in tree.body if isinstance(f, ast.FunctionDef | ast.ClassDef)}
        for node in ast.walk(tree):
            for child in ast.iter_child_nodes(node):
                self.parent[id(child)] = node
        for part in tree.body:
            self._collect(part)
        self.meaning = self._meanings()
        self._names: dict[int, str | None] = {}
        self._words: dict[tuple[int, int], str] = {}
        self._kept: list[ast.AST] = []  # an id is a node's own only as long as the node is there

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

    def _meanings(self) -> dict[str, ast.expr]:
        """What stands behind a name that is given once: what was assigned, or what a loop goes over."""
        found: dict[str, list[ast.expr]] = {}
        for node in self.nodes:
            pairs: list[tuple[ast.expr, ast.expr]] = []
            if isinstance(node, ast.Assign):
                pairs = [(target, node.value) for target in node.targets]
            elif isinstance(node, ast.For | ast.comprehension):
                pairs = [(node.target, node.iter)]
            elif isinstance(node, ast.AugAssign):
                pairs = [(node.target, node.value)] * 2
            for target, value in pairs:
                parts = getattr(target, "elts", [target])
                values = value.args if method(value) == "zip" else getattr(value, "elts", [])
                if method(value) in ("var_mean", "std_mean"):
                    values = [renamed(value, name) for name in method(value).split("_")]
                matched = values if len(values) == len(parts) > 1 else [value] * len(parts)
                for part, its in zip(parts, matched, strict=True):
                    if isinstance(part, ast.Name):
                        found.setdefault(part.id, []).append(its)
        return {name: values[0] for name, values in found.items() if len(values) == 1}

    def up(self, node: ast.AST) -> ast.AST | None:
        return self.parent.get(id(node))

    def above(self, node: ast.AST) -> Iterator[ast.AST]:
        """The nodes that a node stands in, from the inside out."""
        while (node := self.up(node)) is not None:
            yield node

    def in_helper(self, node: ast.AST) -> bool:
        """Does it stand in a function that the right answer calls, and not in the answer itself?"""
        return all(above is not self.tree.body[0] for above in self.above(node))

    def around(self, nodes: Sequence[ast.AST]) -> ast.AST:
        """The smallest node that all of these stand in."""
        way = [nodes[0], *self.above(nodes[0])]
        for node in nodes[1:]:
            theirs = {id(n) for n in (node, *self.above(node))}
            way = [n for n in way if id(n) in theirs]
        return way[0]

    def is_value(self, node: ast.AST) -> bool:
        """Is it an expression that is computed with (no target, no name of a function or keyword, no index)?"""
        if not isinstance(node, ast.expr) or not isinstance(getattr(node, "ctx", ast.Load()), ast.Load):
            return False
        above = self.up(node)
        called = isinstance(above, ast.Call) and above.func is node
        return not called and not isinstance(above, ast.Slice | ast.JoinedStr | ast.FormattedValue)

    def name(self, node: ast.AST) -> str | None:
        """The node as a learner could have written it: `temperature`, `len(first)`, 255; None if it needs other names."""
        if id(node) not in self._names:
            names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
            text = ast.unparse(node) if names <= {*self.arguments, "len", "math", "torch"} else ""
            self._names[id(node)] = None if not 0 < len(text) <= 24 else f"`{text}`" if names else text
            self._kept.append(node)
        return self._names[id(node)]

    def words(self, node: ast.AST, depth: int = 2) -> str:
        """What a node is called: `temperature`, "the mean of `images`", "a product"; SOMETHING where no word is known."""
        if (id(node), depth) not in self._words:
            self._words[id(node), depth] = self._in_words(node, depth)
        return self._words[id(node), depth]

    def _in_words(self, node: ast.AST, depth: int) -> str:
        if named := self.name(node):
            return named
        inner = next((n for n in ("value", "operand") if isinstance(getattr(node, n, None), ast.expr)), "")
        if isinstance(node, ast.Name):
            known = self.meaning.get(node.id) if depth else None
            return self.words(known, depth - 1) if known is not None else SOMETHING
        if isinstance(node, ast.Call):
            return self._call_in_words(node, depth)
        if isinstance(node, ast.BinOp):
            sides = [self.words(side, 0) for side in (node.left, node.right)]
            names = dict.fromkeys((ast.Mult, ast.MatMult), "product")
            names |= {ast.Add: "sum", ast.Sub: "difference", ast.Div: "quotient"}
            what = names.get(type(node.op))
            both = depth and SOMETHING not in sides
            return SOMETHING if what is None else f"the {what} of {' and '.join(sides)}" if both else f"a {what}"
        if isinstance(node, ast.Compare):
            return "a comparison"
        if isinstance(node, ast.Attribute) and node.attr in ("T", "mT") or isinstance(node, ast.Subscript):
            what = "the transpose" if isinstance(node, ast.Attribute) else "a part"
            of = self.words(node.value, depth)
            return of if of == SOMETHING else f"{what} of {of}"
        return self.words(getattr(node, inner), depth) if inner else SOMETHING

    def _call_in_words(self, node: ast.Call, depth: int) -> str:
        name, target = method(node), subject(node)
        if name in SEEN_THROUGH and target is not None:
            return self.words(target, depth)
        if name is None or name in self.own or name not in WORDS and name not in PLAIN:
            return SOMETHING
        of = self.words(target, depth - 1) if depth and target is not None else SOMETHING
        return f"the {word(name)}" if of == SOMETHING or len(of) > 40 else f"the {word(name)} of {of}"


def mutated(place: Place, changes: Sequence[Change]) -> ast.Module:
    """The tree with these changes, as a new one that shares with the old what is the same in both."""
    instead = {id(change.node): change.instead for change in changes}
    touched: set[int] = set()
    for change in changes:
        touched |= {id(change.node), *map(id, place.above(change.node))}

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
