"""Code of one's own: what one training by a *program* is, and the hashes by which code is part of a run's id.

A program is a command or a Python function in place of our trainer. Its recipe is the program, its parameters, the name
of its data, and the seed; ``identity`` hashes it as it does ours. Where the program and its data lie, and how its
metrics are read, is *execution*.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import json
import re
import string
import symtable
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec
from importlib.util import decode_source
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import Field, ValidationError, model_validator

from deit_ablate.errors import TrainError
from deit_ablate.execution import Part, Whole
from deit_ablate.recipe import flatten

PLACES = ("data", "seed", "run", "checkpoint", "parent", "teacher", "log")
"""Placeholders of a command that are no parameters: the data's folder, the run's seed, the folder of this attempt's
output, the folder that is kept for the next attempt, the output of the run that it starts from, that of its teacher,
and the file of what it prints."""
FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
"""``module:function``"""
NAME = re.compile(r"[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*)*", re.ASCII)
"""A parameter, dotted where it is nested."""


class Program(Part):
    """What is executed: exactly one of a command and a function."""

    command: Annotated[list[str], Field(min_length=1)] | None = None
    """The arguments of a command, with ``{placeholders}`` for values; no shell is involved."""
    function: Annotated[str, Field(pattern=f"^({FUNCTION.pattern})$")] | None = None
    """``module:function``, called in the worker as ``function(parameters, run)``."""
    lock: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")] | None = None
    """The content of a file that fixes the interpreter's packages."""

    @model_validator(mode="after")
    def _is_one(self) -> Program:
        if (self.command is None) == (self.function is None):
            raise ValueError("neither a command nor a function, or both")
        return self


class ProgramData(Part):
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._:-]*$", max_length=200)] | None = None
    """The name of the data: another name is another run. Their content is not looked at."""


class ProgramRecipe(Part):
    """All that decides the outcome of one training by a program, beside its sources and its parents."""

    program: Program
    parameters: dict[str, Any] = Field(default={})
    data: ProgramData = ProgramData()
    seed: Annotated[Whole, Field(ge=0, lt=2**32)] = 0

    @model_validator(mode="after")
    def _has_what_is_told(self) -> ProgramRecipe:
        known = {*PLACES, *(key for key, _ in flatten(self.parameters))}
        for _, name in placeholders(self.program.command or []):
            if name not in known:
                raise ValueError(f"program.command: {{{name}}} is no parameter")
        return self

    @classmethod
    def of_record(cls, values: Mapping[str, Any]) -> ProgramRecipe:
        """A stored recipe. Raises TrainError for one that is none of a program, or whose command has placeholders that
        stand for nothing."""
        try:
            return cls.model_validate_json(json.dumps(values))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            place, said = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
            raise TrainError(": ".join(filter(None, ["recipe.json", place, said]))) from None


def is_program(recipe: Mapping[str, Any]) -> bool:
    """Whether a canonical recipe is that of a program."""
    return "program" in recipe


# -- arguments -----------------------------------------------------------------------------------------------------

Value: TypeAlias = str | int | float | bool | list[Any] | None


def placeholders(command: list[str]) -> Iterator[tuple[int, str]]:
    """(index of the argument, name) of each placeholder. Raises ValueError for an argument that is no template."""
    for index, argument in enumerate(command):
        try:
            parts = list(string.Formatter().parse(argument))
        except ValueError as error:
            raise ValueError(f"{argument!r} is no template ({error}); a brace itself is doubled: {{{{") from None
        for _, name, form, conversion in parts:
            if name is None:
                continue
            if form or conversion or not NAME.fullmatch(name):
                raise ValueError(f"{{{name}}} in {argument!r} is no name of a parameter; a brace itself is doubled")
            yield index, name


def arguments(command: list[str], values: Mapping[str, Value]) -> list[str]:
    """The command with its placeholders replaced, for an exec without a shell.

    An argument with a null in it is left out. A placeholder that is a whole argument becomes several arguments where
    its value is a list; true and false are spelled so. ``values``: by (dotted) name, all that it names.
    """
    found: list[str] = []
    for argument in command:
        parts = [(text, name) for text, name, _, _ in string.Formatter().parse(argument)]
        if len(parts) == 1 and parts[0][1] is not None and not parts[0][0]:
            value = values[parts[0][1]]
            found += map(spelled, value if isinstance(value, list) else [] if value is None else [value])
        elif all(name is None or values[name] is not None for _, name in parts):
            found.append("".join(text + ("" if name is None else spelled(values[name])) for text, name in parts))
    return found


def misplaced(command: list[str], values: Mapping[str, Value]) -> tuple[str, str, str] | None:
    """(parameter, what is wrong with its value, what was expected) of the first value that its argument cannot have.

    A null leaves its argument out: where that is the value of an option before it, the option would take what follows.
    """
    for index, name in placeholders(command):
        value, argument = values.get(name, ""), command[index]
        whole = argument == f"{{{name}}}"
        if isinstance(value, list) and not whole:
            return name, f"{value!r} cannot stand within {argument!r}", f"one value, or an argument that is {{{name}}}"
        before = command[index - 1] if index else ""
        if value is None and whole and re.fullmatch(r"--?[A-Za-z][^={}]*", before):
            expected = f"{before}={{{name}}} in the command, which null leaves out whole; or [] for no argument at all"
            return name, f"null leaves {before} without its value", expected
    return None


def spelled(value: Any) -> str:
    """One value as an argument."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    return str(value)


# -- custom code -------------------------------------------------------------------------------------------------------


def code_of(name: str) -> dict[str, str]:
    """Module -> hash of its normalised code, for the module in ``module:function`` and all own code that it imports.

    Own code is the top-level package (or single module) that the module is in, and what lies in the same folder as
    that, unless packages are installed there. Import statements count wherever they stand, transitively, with the
    ``__init__`` of every package on the way; nothing is executed, so imports by a computed name are not seen. Comments,
    docstrings and formatting are no part of a hash; deit_ablate itself is not own code: SEMANTICS stands for it.
    Raises TrainError where there is no such module, it has no source file, or a file does not parse.
    """
    importlib.invalidate_caches()
    root = name.partition(":")[0]
    if (file := _file(root)) is None:
        if _spec(root) is None:
            raise TrainError(f"{name}: cannot find {root!r}; install it, or add its folder to PYTHONPATH")
        raise TrainError(f"{name}: {root!r} has no source file")
    top, found, waiting = root.partition(".")[0], {root: _hash_and_imports(root, *file)}, [root]
    while waiting:
        importer = waiting.pop()
        for module in (*_parents(importer), *found[importer][1]):
            if module not in found and _is_own(module, top) and (file := _file(module)) is not None:
                found[module] = _hash_and_imports(module, *file)
                waiting.append(module)
    return {module: found[module][0] for module in sorted(found)}


def undefined(function: str) -> str:
    """Why the module of a ``module:function`` does not bind that name at its top, in words; empty where it does, as far
    as its source tells, which is not executed."""
    module, _, name = function.partition(":")
    try:
        code_of(function)
    except TrainError as error:
        return str(error)
    path = source_file(module)
    if path.suffix != ".py":
        return ""
    source = decode_source(path.read_bytes())
    tree = ast.parse(source, path)
    if any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in ast.walk(tree)):
        return ""
    bound = symtable.symtable(source, str(path), "exec")
    symbol = bound.lookup(name) if name in bound.get_identifiers() else None
    found = symbol and (symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace())
    return "" if found else f"{module!r} has no {name!r}"


def source_files(patterns: Sequence[str], folder: Path) -> dict[str, str]:
    """ "./" and the path below the folder -> the hash of its content, of Python without what has no effect, for each
    file that the patterns (as ``mylab/**/*.py``) name. A ``*`` takes nothing of hidden folders (.venv, .git), nor of
    the runs of a store of results: what a program copies there would make all runs others. Raises TrainError for a
    pattern that names none, a file that does not parse, or one outside the folder."""
    found: dict[str, str] = {}
    for pattern in patterns:
        if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
            raise TrainError(f"{pattern!r} is not below the folder of the sweep file")
        paths = [path.relative_to(folder) for path in sorted(folder.glob(pattern)) if path.is_file()]
        if not (paths := [path for path in paths if not _is_passed_over(path, pattern)]):
            raise TrainError(f"{pattern!r} names no file in {folder}")
        names = (f"./{path.as_posix()}" for path in paths if "__pycache__" not in path.parts)
        found |= {name: source_sha256(name, folder) for name in names}
    return found


def _is_passed_over(path: Path, pattern: str) -> bool:
    above = path.parts[:-1]
    hidden = any(part.startswith(".") for part in above) and not any(each[0] == "." for each in Path(pattern).parts)
    of_run = re.search("(^|/)(runs|trash)/[0-9a-f]{16}", "/".join(above))
    return bool(re.search(r"[*?\[]", pattern) and (hidden or of_run))


def source_sha256(name: str, folder: Path | None = None) -> str:
    """The hash of a module's code, or of a file (below ``folder``), as ``sources`` has it; for ``module:function``,
    that of the file, which earlier versions stored. Raises TrainError where there is no such source."""
    module = name.partition(":")[0]
    path = (folder or Path()) / name if name.startswith("./") else source_file(module)
    try:
        if ":" in name and not name.startswith("./"):
            return hashlib.sha256(path.read_bytes()).hexdigest()
        facts = path.stat()
    except OSError as error:
        raise TrainError(f"{path}: {error.strerror}") from None
    return _hash_and_imports(module, str(path), facts.st_mtime_ns, facts.st_size)[0]


def changed(sources: Mapping[str, str], folder: Path | None = None) -> str | None:
    """The first of a run's ``sources`` (name -> hash) whose code is another by now; None where all are as they were.
    ``folder``: of files. Raises TrainError where there is no such source."""
    return next((name for name, sha256 in sources.items() if source_sha256(name, folder) != sha256), None)


def must_be_planned(sources: Mapping[str, str], folder: Path | None = None) -> None:
    """Raises TrainError where the code is not that with which a run was planned."""
    if name := changed(sources, folder):
        raise TrainError(f"the source of {name} has changed since this run was planned: it is another run now")


def source_file(module: str) -> Path:
    """The file of a module. Raises TrainError where there is none."""
    if (file := _file(module)) is None:
        raise TrainError(f"cannot find the source of {module!r}")
    return Path(file[0])


def _parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


def _is_own(module: str, top: str) -> bool:
    other = module.partition(".")[0]
    if "deit_ablate" in (top, other):
        return False
    return other == top or (_folder(other) == _folder(top) and not _installed(_folder(top)))


def _folder(top: str) -> Path | None:
    """The folder in which a top-level module or package lies."""
    spec = _spec(top)
    if spec is None:
        return None
    places = [*(spec.submodule_search_locations or ())] or ([spec.origin] if spec.has_location and spec.origin else [])
    return Path(places[0]).resolve().parent if places else None


def _installed(folder: Path | None) -> bool:
    known = (Path(sysconfig.get_path(which)).resolve() for which in ("stdlib", "platstdlib", "purelib", "platlib"))
    return folder is None or folder.name in ("site-packages", "dist-packages", "lib-dynload") or folder in known


def _spec(module: str) -> ModuleSpec | None:
    """As importlib.util.find_spec, which executes the packages that a module is in."""
    spec, path = None, None
    for name in (*_parents(module), module):
        finders = (finder for finder in sys.meta_path if hasattr(finder, "find_spec"))
        spec = next((found for finder in finders if (found := finder.find_spec(name, path))), None)
        if spec is None or (name != module and spec.submodule_search_locations is None):
            return None
        path = spec.submodule_search_locations
    return spec


def _file(module: str) -> tuple[str, int, int] | None:
    """The file of a module, with its time and size: what was read of it is remembered until one of them changes."""
    spec = _spec(module)
    if spec is None or not spec.has_location or spec.origin is None or not Path(spec.origin).is_file():
        return None
    facts = Path(spec.origin).stat()
    return spec.origin, facts.st_mtime_ns, facts.st_size


@functools.lru_cache(maxsize=4096)
def _hash_and_imports(module: str, path: str, modified: int, size: int) -> tuple[str, tuple[str, ...]]:
    content = Path(path).read_bytes()
    if not path.endswith(".py"):
        return hashlib.sha256(content).hexdigest(), ()  # an extension module
    try:
        tree = ast.parse(content, path)
        code = _code(tree)
    except (SyntaxError, ValueError, RecursionError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise TrainError(f"{path}{line}: the source of {module} does not parse ({error})") from error
    package = module if Path(path).stem == "__init__" else module.rpartition(".")[0]
    return hashlib.sha256(code.encode()).hexdigest(), tuple(dict.fromkeys(_imports(tree, package)))


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    """The modules that import statements may name, with the packages they are in."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            named = [base, *(f"{base}.{alias.name}" for alias in node.names)] if base else []
        else:
            continue
        for name in named:
            yield from (*_parents(name), name)


def _code(part: Any) -> str:
    """Source code as a tree, less what has no effect. Not ast.dump or ast.unparse, which differ between versions."""
    if isinstance(part, ast.Constant):
        return f"{type(part.value).__name__} {part.value!r}"
    if isinstance(part, ast.AST):
        fields = ((name, child) for name, child in ast.iter_fields(part) if child is not None and child != [])
        return f"{type(part).__name__}({', '.join(f'{name}={_code(child)}' for name, child in fields)})"
    if isinstance(part, list):
        return f"[{', '.join(_code(child) for child in part if not _has_no_effect(child))}]"
    return repr(part)


def _has_no_effect(node: Any) -> bool:
    text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    return text or isinstance(node, ast.Pass)
