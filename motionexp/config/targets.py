"""The classes that `_target_` may name, and the types of their constructors, read from source files.

Nothing is imported: neither torch, nor a package that a file of settings names.
"""

import ast
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from motionexp.errors import InputError, one_of

PACKAGE = "motionexp"
WITHOUT_CONSTRUCTOR = ("ABC", "Generic", "NamedTuple", "Protocol", "object")
SEQUENCES = ("Sequence", "list", "tuple", "Collection", "Iterable")
SIMPLE: Mapping[str, tuple[type | tuple[type, ...], str]] = {
    "int": (int, "a whole number"),
    "float": ((int, float), "a number"),
    "str": (str, "text"),
    "bool": (bool, "true or false"),
    "Path": (str, "a path"),
}


class Definition(NamedTuple):
    """A node of a source file, and the module in which its names are looked up."""

    node: ast.AST
    module: str


class Parameter(NamedTuple):
    """A parameter of a constructor: its type, None where it has none, and whether it has no default."""

    type: Definition | None
    required: bool


@dataclass
class Signature:
    """The parameters of a constructor by their names; `is_open`: it may take others too."""

    parameters: dict[str, Parameter] = field(default_factory=dict)
    is_open: bool = False


def check_plugins(plugins: Sequence[str]) -> Iterator[str]:
    """What is wrong with `plugins=`: each is the name of a top-level package that is installed."""
    for plugin in plugins:
        if not plugin.isidentifier() or find_spec(plugin) is None:
            yield f"plugins=[{plugin}]: no such package; install it, or add its folder's parent to PYTHONPATH"


def check_allowed(
    path: str, plugins: Collection[str] = (), setting: str = "_target_", kind: type[ast.AST] = ast.ClassDef
) -> Definition:
    """The definition that `path`, as PACKAGE.MODULE.CLASS, names in this package or in one of `plugins`.

    What a module has only imported is refused, for it may be anything. Call this before an import of a path
    that comes from a file or from the command line.

    Args:
        setting: what the path was given to, for the error.
        kind: `ast.ClassDef`, or `ast.FunctionDef` for a function.

    Raises:
        InputError: names the package and the setting that allows it, or the module that defines nothing.
    """
    package, (module, _, name) = str(path).partition(".")[0], str(path).rpartition(".")
    if package not in (PACKAGE, *plugins):
        raise InputError(
            f"{setting}={path}: code of {package} is only run with plugins=[{package}] on the command line"
        )
    # Read as text: importing would run code before the settings are checked.
    for node in _body(module):
        if isinstance(node, kind) and defined_name(node) == name:
            return Definition(node, module)
    raise InputError(f"{setting}={path}: the module {module or package} defines no {name}")


def check_room(path: object, room: str, setting: str) -> None:
    """Raises InputError for a class of this package that is not in the room of what the setting takes."""
    if not isinstance(path, str):
        raise InputError(f"{setting}={path!r:.80}: the name of a class, as text")
    if path.startswith(f"{PACKAGE}.") and not path.startswith(f"{room}."):
        raise InputError(f"{setting}={path}: a class of {room}, or of a package in plugins=")


def signature(path: str, plugins: Collection[str] = (), setting: str = "_target_") -> Signature:
    """The constructor of the class that `path` names. Raises InputError as `check_allowed`."""
    return _constructor(check_allowed(path, plugins, setting))


def class_value(path: str, name: str, plugins: Collection[str] = ()) -> Any:
    """The literal that a class, or the nearest of its bases, assigns to a name; None where there is none.

    Raises:
        InputError: as `check_allowed`.
    """
    return _assigned(check_allowed(path, plugins), name)


def _assigned(definition: Definition | None, name: str) -> Any:
    if definition is None or not isinstance(definition.node, ast.ClassDef):
        return None
    for statement in definition.node.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign) and defined_name(statement) == name:
            try:
                return ast.literal_eval(statement.value) if statement.value else None
            except ValueError:
                return None
    bases = (_lookup(ast.unparse(base), definition.module) for base in definition.node.bases)
    return next((value for base in bases if (value := _assigned(base, name)) is not None), None)


def node_problems(
    group: str,
    node: Mapping[str, Any],
    constructor: Signature,
    program: Collection[str] = (),
    checked: Collection[str] = (),
) -> Iterator[str]:
    """What is wrong with the values of a `_target_` node, one sentence a problem; unknown keys aside.

    Args:
        group: the setting that holds the node, such as `method`.
        node: the values by their names, with `_target_`.
        program: names of parameters that the program gives.
        checked: names whose values are checked elsewhere.
    """
    for name, parameter in constructor.parameters.items():
        if name not in node and parameter.required and name not in program:
            yield f"{group}.{name}: missing, and {node['_target_']} needs it"
        elif name in node and name in program:
            yield f"{group}.{name}: not for you to set, because the program gives it"
        elif name in node and name not in checked and parameter.type is not None:
            fits, expected = _fit(node[name], parameter.type)
            if not fits:
                yield f"{group}.{name}={node[name]}: {expected}"


def has_type(parameter: Parameter, name: str) -> bool:
    """Whether the name of a type, such as `float`, is part of a parameter's annotation."""
    nodes = () if parameter.type is None else ast.walk(parameter.type.node)
    return any(isinstance(node, ast.Name) and node.id == name for node in nodes)


def _constructor(definition: Definition) -> Signature:
    node, module = definition
    assert isinstance(node, ast.ClassDef)
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return _of_function(statement.args, module)
    names = [ast.unparse(base.value if isinstance(base, ast.Subscript) else base) for base in node.bases]
    bases = [_lookup(name, module) for name in names if name not in WITHOUT_CONSTRUCTOR]
    inherited = [
        _constructor(base) if base and isinstance(base.node, ast.ClassDef) else Signature(is_open=True)
        for base in bases
    ]
    if not any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        return inherited[0] if inherited else Signature()
    # A dataclass takes the fields of its bases first, the nearest base last.
    merged = Signature(is_open=any(base.is_open for base in inherited))
    for base in reversed(inherited):
        merged.parameters |= base.parameters
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            default = ast.unparse(statement.value) if statement.value else None
            if "ClassVar" in ast.unparse(statement.annotation) or "init=False" in (default or ""):
                continue
            required = default is None or (default.startswith("field(") and "default" not in default)
            annotation = Definition(statement.annotation, module)
            merged.parameters[statement.target.id] = Parameter(annotation, required)
    return merged


def _of_function(arguments: ast.arguments, module: str) -> Signature:
    by_place = [*arguments.posonlyargs, *arguments.args][1:]  # without self
    # `defaults` are those of the last parameters by place; `kw_defaults` has None where there is no default.
    missing = [None] * (len(by_place) - len(arguments.defaults))
    defaults = [*missing, *arguments.defaults, *arguments.kw_defaults]
    parameters = {
        argument.arg: Parameter(
            Definition(argument.annotation, module) if argument.annotation else None, default is None
        )
        for argument, default in zip((*by_place, *arguments.kwonlyargs), defaults, strict=True)
    }
    return Signature(parameters, is_open=arguments.kwarg is not None)


def _fit(value: Any, annotation: Definition) -> tuple[bool, str]:
    """Whether a value is of a type, and what the type is in words; other types than those of settings fit."""
    node, module = annotation
    match node:
        case ast.Constant(value=None):
            return value is None, "null"
        case ast.Constant(value=str() as text):
            return _fit(value, Definition(ast.parse(text, mode="eval").body, module))
        # bool is a subclass of int in Python, and true is no number to a reader.
        case ast.Name(id=name) | ast.Attribute(attr=name) if name in SIMPLE:
            types, words = SIMPLE[name]
            return isinstance(value, types) and (name == "bool" or not isinstance(value, bool)), words
        case ast.Name(id=name) if (alias := _lookup(name, module)) and isinstance(alias.node, ast.expr):
            return _fit(value, alias)
        case ast.BinOp(op=ast.BitOr(), left=left, right=right):
            return _fit_any(value, [left, right], module)
        case ast.Subscript(value=ast.Name(id=name) | ast.Attribute(attr=name), slice=inner):
            parts = list(inner.elts) if isinstance(inner, ast.Tuple) else [inner]
            return _fit_generic(value, name, parts, module)
    return True, ""


def _fit_generic(value: Any, name: str, parts: list[ast.expr], module: str) -> tuple[bool, str]:
    if name == "Literal":
        values = [part.value for part in parts if isinstance(part, ast.Constant)]
        return value in values, one_of(str(value), map(str, values))
    if name in ("Optional", "Union"):
        return _fit_any(value, parts + [ast.Constant(None)] * (name == "Optional"), module)
    if name not in SEQUENCES:
        return True, ""
    # `tuple[int, ...]`: the ellipsis is no type.
    parts = [part for part in parts if not (isinstance(part, ast.Constant) and part.value is ...)]
    items = [_fit_any(item, parts, module) for item in value] if isinstance(value, list | tuple) else []
    fits = isinstance(value, list | tuple) and all(item[0] for item in items)
    return fits, f"a list, where an item is {_fit_any(None, parts, module)[1]}"


def _fit_any(value: Any, parts: Sequence[ast.expr], module: str) -> tuple[bool, str]:
    results = [_fit(value, Definition(part, module)) for part in parts]
    words = dict.fromkeys(words for _, words in results if words)
    return any(fits for fits, _ in results), " or ".join(words)


def _lookup(name: str, module: str) -> Definition | None:
    """The class or the alias that a name stands for in a module, also by an import from the same package."""
    for node in _body(module):
        if isinstance(node, ast.ClassDef) and node.name == name:
            return Definition(node, module)
        if isinstance(node, ast.Assign | ast.AnnAssign) and defined_name(node) == name and node.value:
            return Definition(node.value, module)
        if isinstance(node, ast.ImportFrom):
            parents = module.split(".")[: -node.level] if node.level else []
            source = ".".join([*parents, node.module or ""])
            names = {alias.asname or alias.name: alias.name for alias in node.names}
            # Only this package and the class's own are looked into.
            if name in names and source.partition(".")[0] in (PACKAGE, module.partition(".")[0]):
                return _lookup(names[name], source)
    return None


def defined_name(node: ast.AST) -> str:
    """The name that a statement assigns or defines; empty where it does neither."""
    target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", node)
    return str(getattr(target, "id", getattr(target, "name", "")))


def module_file(module: str) -> Path | None:
    """The file of a module; None where there is no such file. Only its package is looked up."""
    package, *parts = module.split(".")
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None:
        return None
    files = [Path(spec.origin)] if spec.origin and not parts else []
    for folder in spec.submodule_search_locations or ():
        files += [Path(folder, *parts, "__init__.py")]
        files += [Path(folder, *parts[:-1], f"{parts[-1]}.py")] if parts else []
    return next((file for file in files if file.is_file()), None)


def _body(module: str) -> Sequence[ast.stmt]:
    """The statements of a module's file; none where there is no such file."""
    file = module_file(module)
    return [] if file is None else _parsed(file, file.stat().st_mtime_ns)


@cache
def _parsed(file: Path, changed: int) -> Sequence[ast.stmt]:
    """The statements of a file as it was last changed at that time."""
    try:
        return ast.parse(file.read_text()).body
    except SyntaxError as error:
        raise InputError(f"{file}, line {error.lineno}: {error.msg}") from error
