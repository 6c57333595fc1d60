"""A configuration dataclass as a command: one flag per field, or all of them in a YAML file."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from contextlib import suppress
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from ..errors import ForgemapError


def run_config_command(
    config_class: type, run: Callable[[Any], object], *, name: str, help: str, arguments: list[str]
) -> None:
    """Reads `arguments` into a `config_class` and calls `run` with it; exits when it is done.

    Each field becomes `--field-name`, with `metadata["help"]` as its sentence, unless
    `metadata["flag"]` is False; lists repeat their flag, dictionaries are written as YAML
    (`'{width: 32}'`). `--config FILE` reads fields from a
    YAML file; flags go before the file and the file before the defaults.
    """

    def command(**flags: Any) -> None:
        run(read_config(config_class, flags.pop("config"), flags))

    kinds = typing.get_type_hints(config_class)
    # typer reads the signature, so the flags are its parameters.
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            _parameter("config", Path, "YAML file with any of the fields below."),
            *(
                _parameter(f.name, _flag_kind(kinds[f.name]), _help(f))
                for f in _flagged(config_class)
            ),
        ]
    )
    command.__annotations__ = {
        p.name: p.annotation for p in inspect.signature(command).parameters.values()
    }
    app = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.command(help=help)(command)
    typer.main.get_command(app)(args=arguments, prog_name=name)


def read_config(config_class: type, file: Path | None, flags: dict[str, Any]) -> Any:
    """A `config_class` from a YAML file and flags; a flag that was not given is None (or empty).

    Raises:
        ForgemapError: an unknown or missing field, or a value of the wrong kind.
    """
    kinds = typing.get_type_hints(config_class)
    known = {f.name: f for f in _flagged(config_class)}
    values = _read_yaml(file) if file is not None else {}
    if unknown := [n for n in values if n not in known]:
        raise ForgemapError(f"{file}: unknown field {unknown[0]!r}; valid: {', '.join(known)}.")
    values |= {n: v for n, v in flags.items() if v is not None and v != []}
    for name, value in values.items():
        values[name] = convert(value, kinds[name], name)
    if missing := [n for n, f in known.items() if n not in values and _default(f) is MISSING]:
        raise ForgemapError(f"Missing: --{missing[0].replace('_', '-')} (or {missing[0]} in YAML).")
    # A class that starts from named sets of values, as recipes, has a constructor that knows them.
    return getattr(config_class, "of", config_class)(**values)


def convert(value: Any, kind: Any, name: str) -> Any:
    """`value`, as YAML or the command line spells it, as `kind`.

    Kinds: int, float, bool, str, Path, Literal, lists and tuples of one kind, dict, any | None.

    Raises:
        ForgemapError: it does not fit.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else convert(value, _without_none(kind), name)
    if origin in (list, tuple) and isinstance(value, (list, tuple)):
        return origin(convert(item, inner[0], name) for item in value)
    if origin is dict and isinstance(value, str):
        value = yaml.safe_load(value)
    if kind is Any or (origin is dict and isinstance(value, dict)):
        return value
    if origin is typing.Literal and value in inner:
        return value
    # YAML reads 1e-3 as a string, and true as something that Python takes for 1.
    if isinstance(value, bool) == (kind is bool):
        if isinstance(kind, type) and isinstance(value, kind):
            return value
        with suppress(TypeError, ValueError):
            if kind is Path and isinstance(value, str):
                return Path(value)
            if kind is float or (kind is int and float(value).is_integer()):
                return kind(float(value))
    raise ForgemapError(f"{name}: {value!r} is not valid; it must be {_spelled(kind)}.")


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ForgemapError(f"{file}: cannot be read ({error.strerror}).") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = str(error).replace("\n", " ")
        raise ForgemapError(f"{file}: not valid YAML ({where}).") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ForgemapError(f"{file}: must hold `field: value` lines.")
    return {str(name): value for name, value in values.items()}


def _flagged(config_class: type) -> list[Field[Any]]:
    return [f for f in fields(config_class) if f.metadata.get("flag", True)]


def _parameter(name: str, kind: Any, help: str) -> inspect.Parameter:
    # Of `no_auth` there is no --no-no-auth.
    names = [f"--{name.replace('_', '-')}"] if kind is bool and name.startswith("no_") else []
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, typer.Option(*names, help=help, show_default=False)],
    )


def _flag_kind(kind: Any) -> Any:
    """What typer is to parse: lists repeat their flag; dictionaries are parsed by `convert`."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _flag_kind(_without_none(kind))
    if origin in (list, tuple):
        return list[_flag_kind(inner[0])]  # type: ignore[misc]
    if origin is dict:
        return str
    return kind


def _help(field: Field[Any]) -> str:
    sentence = str(field.metadata.get("help", "")).rstrip(".")
    default = _default(field)
    if default is MISSING:
        return f"{sentence} (required)."
    if isinstance(default, (list, tuple)):
        default = " ".join(map(str, default))
    silent = default in ("", {}, None) or default is False
    return f"{sentence}." if silent else f"{sentence} (default: {default})."


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default


def _without_none(kind: Any) -> Any:
    (kind,) = [k for k in typing.get_args(kind) if k is not type(None)]
    return kind


def _spelled(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return f"one of {', '.join(map(str, typing.get_args(kind)))}"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return names.get(kind, str(kind))
