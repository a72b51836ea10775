"""Templates compiled so that marks survive: as Transformers compiles them, with what puts texts together replaced."""

from collections.abc import Callable, Iterable
from functools import cache, wraps
from typing import Any

from jinja2 import Environment, Template, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.filters import make_attrgetter
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import pass_environment

from .marks import Lost, Marked, joined, said
from .values import Nothing, Truth, carries, one_origin, to_json


@cache
def compiled(template: str) -> Template:
    """The template, for messages that are marked; raises what Jinja raises for one that is not well-formed."""
    from transformers.utils.chat_template_utils import _compile_jinja_template

    theirs: Any = _compile_jinja_template(template).environment
    ours = _Environment(
        trim_blocks=theirs.trim_blocks, lstrip_blocks=theirs.lstrip_blocks,
        keep_trailing_newline=theirs.keep_trailing_newline,
        extensions=[type(extension) for extension in theirs.extensions.values()],
    )  # fmt: skip
    ours.globals.update(theirs.globals)
    ours.tests.update(theirs.tests | _TESTS)
    ours.filters.update({name: _keeping(name, way) for name, way in theirs.filters.items()})
    ours.filters.update(join=_join, replace=_replace, tojson=to_json)
    return ours.from_string(template)


class _Generator(CodeGenerator):
    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.concat(map(str, (")
        for piece in node.nodes:
            self.visit(piece, frame)
            self.write(", ")
        self.write(")))")


class _Environment(ImmutableSandboxedEnvironment):
    code_generator_class = _Generator
    concat = staticmethod(joined)  # type: ignore[assignment]

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Methods of plain texts that are handed marked ones keep their marks."""
        method, handed = getattr(__obj, "__wrapped__", __obj), any(map(carries, [*args, *kwargs.values()]))
        owner = getattr(method, "__self__", None)
        if handed and type(owner) is str:
            __obj = getattr(said(owner, None), method.__name__)
        found = super().call(__context, __obj, *args, **kwargs)
        if isinstance(found, str) and not isinstance(found, Marked) and found and (handed or carries(owner)):
            raise Lost(f"puts it into another text by `{getattr(method, '__name__', 'a call')}`")
        return found


def _keeping(name: str, way: Callable[..., Any]) -> Callable[..., Any]:
    """A filter whose text keeps whose it was: of one who alone said what goes in; else Lost."""

    @wraps(way)
    def method(*args: Any, **kwargs: Any) -> Any:
        found = way(*args, **kwargs)
        value, *others = [a for a in args if not isinstance(a, Environment | Context | nodes.EvalContext)] or [None]
        others += kwargs.values()
        if not isinstance(found, str) or isinstance(found, Marked) or not found or not any(map(carries, [value, *others])):
            return found
        whose = one_origin(value)
        if whose is None or any(map(carries, others)):
            raise Lost(f"puts it into another text by the filter `{name}`")
        return said(str(found), whose)

    return method


@pass_environment
def _join(environment: Any, value: Iterable[Any], d: str = "", attribute: Any = None) -> Marked:
    items = value if attribute is None else map(make_attrgetter(environment, attribute), value)
    return joined((d, "")).join(map(str, items))


def _replace(s: Any, old: str, new: str, count: int | None = None) -> Marked:
    return joined((str(s), "")).replace(old, new, -1 if count is None else count)


_TESTS: dict[str, Callable[[Any], bool]] = {
    "none": lambda value: value is None or isinstance(value, Nothing),
    "boolean": lambda value: value is True or value is False or isinstance(value, Truth),
    "true": lambda value: value is True or (isinstance(value, Truth) and bool(value)),
    "false": lambda value: value is False or (isinstance(value, Truth) and not value),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool | Truth),
}
