"""A reference answer as text: what a change of it comes to, as an answer that can be called.

The text of a reference is that of the function or class itself and of the functions that it calls in its own module, so
that a change may reach into a helper. A changed text is executed in a copy of the module's namespace: nothing that others
use changes.
"""

from __future__ import annotations
import __future__

import ast
import contextlib
import functools
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any

Change = tuple[str, str]
# packages and built-in functions that change nothing but what they are given
WITHIN = {"torch", "numpy", "scipy", "sklearn", "math", "statistics", "itertools", "functools", "collections", "operator",
          "random", "re", "copy", "typing", "dataclasses", "sslcourse"}  # fmt: skip
OUTWARD = {"open", "input", "exec", "eval", "compile", "__import__", "breakpoint", "save", "savez", "savetxt", "tofile"}
FLAGS = __future__.annotations.compiler_flag


class ChangeError(ValueError):
    """A change that can't be made: its old text doesn't stand in the reference, or the new one is no Python."""


@dataclass(frozen=True)
class Source:
    """The text of a reference and of its helpers, and the names that they know.

    name: of the reference in `text`. namespace: the globals of its module, and what it closes over.
    """

    name: str
    text: str
    namespace: dict[str, Any]

    def changed(self, changes: Sequence[Change]) -> Any:
        """The reference with every (old, new) of `changes` made, one after the other, wherever `old` stands.

        Raises ChangeError.
        """
        text = self.with_changes(changes)
        try:
            return self.built(ast.parse(text))
        except SyntaxError as error:
            raise ChangeError(f"{self.name} with {changes!r} is no Python: {error}.") from error

    def with_changes(self, changes: Sequence[Change]) -> str:
        """The changed text. Raises ChangeError where an old text doesn't stand there."""
        text = self.text
        for old, new in changes:
            if old not in text:
                raise ChangeError(f"{old!r} doesn't stand in the source of {self.name}, so it can't become {new!r}.")
            text = text.replace(old, new)
        return text

    def built(self, tree: ast.Module, **names: Any) -> Any:
        """What `tree`, a changed tree of `text`, defines under the reference's name. names: more that it may use."""
        namespace = {**self.namespace, **names}
        exec(compile(tree, f"<a change of {self.name}>", "exec", FLAGS, dont_inherit=True), namespace)
        return namespace[self.name]


def source_of(reference: Any) -> Source | None:
    """The source of a function or class, or None where there is none (a partial, a value)."""
    if not (inspect.isfunction(reference) or inspect.isclass(reference)):
        return None
    module = sys.modules.get(reference.__module__)
    namespace = dict(vars(module)) if module else {}
    members = vars(reference).values() if inspect.isclass(reference) else (reference,)
    for member in filter(inspect.isfunction, members):
        namespace |= {**member.__globals__, **inspect.getclosurevars(member).nonlocals}
    with contextlib.suppress(OSError, TypeError):
        name = "answer" if reference.__name__ == "<lambda>" else reference.__name__
        own = _of_lambda(reference, name) if name == "answer" else textwrap.dedent(inspect.getsource(reference))
        helpers = [textwrap.dedent(inspect.getsource(helper)) for helper in _helpers(reference)]
        return Source(name, "\n\n".join([own, *helpers]), namespace) if own else None
    return None


def reaches_out(source: Source) -> bool:
    """May running it change more than what it is given: files, say, or what other cells hold? Raises SyntaxError."""
    tree = ast.parse(source.text)
    names, own = set(), {getattr(node, "name", "") for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Global | ast.Nonlocal):
            return True
        if isinstance(node, ast.Import | ast.ImportFrom):
            packages = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            if not {package.split(".")[0] for package in packages} <= WITHIN:
                return True
        names.add(getattr(node, "id", getattr(node, "attr", "")))
    known = [source.namespace[name] for name in names - own if name in source.namespace]
    homes = [v.__name__ if inspect.ismodule(v) else getattr(v, "__module__", None) or "torch"  # what C gives has none
             for v in known if inspect.ismodule(v) or callable(v)]  # fmt: skip
    return bool(names & OUTWARD) or not {home.split(".")[0] for home in homes} <= WITHIN


def _of_lambda(function: Callable, name: str) -> str | None:
    """A lambda as the text of a function with a name; None where its line holds another that is like it."""
    lines, _ = inspect.findsource(function)
    here = [
        node
        for node in ast.walk(_tree("".join(lines)))
        if isinstance(node, ast.Lambda)
        and node.lineno == function.__code__.co_firstlineno
        and [a.arg for a in node.args.args] == list(inspect.signature(function).parameters)
        and _names(compile(ast.Expression(node), "", "eval").co_consts[0]) == _names(function.__code__)
    ]
    if len(here) != 1:
        return None
    return f"def {name}({ast.unparse(here[0].args)}):\n    return {ast.unparse(here[0].body)}\n"


@functools.lru_cache(maxsize=4)
def _tree(text: str) -> ast.Module:
    return ast.parse(text)


def _helpers(reference: Any) -> list[Callable]:
    """The functions of the reference's own module that it calls, and that those call."""
    found: dict[str, Callable] = {}
    waiting = [reference]
    while waiting:
        for name, function in _called(waiting.pop()):
            if name not in found and function is not reference:
                found[name] = function
                waiting.append(function)
    return list(found.values())


def _called(item: Any) -> Iterator[tuple[str, Callable]]:
    functions = [f for f in vars(item).values() if inspect.isfunction(f)] if inspect.isclass(item) else [item]
    for function in functions:
        for name in sorted(_names(function.__code__)):
            value = function.__globals__.get(name)
            plain = inspect.isfunction(value) and value.__module__ == function.__module__ and value.__name__ == name
            if plain and not hasattr(value, "__wrapped__"):
                yield name, value


def _names(code: CodeType) -> set[str]:
    """The names that a code object uses, those in its comprehensions and inner functions included."""
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return set(code.co_names).union(*map(_names, inner))


def source_once(reference: Any) -> Source | None:
    """`source_of`, read once."""
    try:
        return _cached(reference)
    except TypeError:  # a value that can't be a key, such as a list
        return None


_cached = functools.cache(source_of)
