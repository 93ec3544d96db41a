"""Plain JSON values into frozen dataclasses, refusing whatever the dataclass does not state."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from .errors import AntiphonError, CorruptFile

_WAY_OUT = "export the bundle again with this version"


def parse(kind: Any, raw: Any, where: str) -> Any:
    """`raw` as a value of the annotated type `kind`; `where` names it in errors.

    Knows dataclasses, tuple[X, ...], dict[str, X], unions, bool, int, float and str.
    Raises CorruptFile for unknown or missing keys and for wrong types.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _parse_union(arguments, raw, where)
    if origin is tuple:
        items = _expect(list, raw, where)
        return tuple(parse(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(items))
    if origin is dict:
        pairs = _expect(dict, raw, where).items()
        return {key: parse(arguments[1], value, f"{where}.{key}") for key, value in pairs}
    if is_dataclass(kind):
        return _parse_dataclass(kind, _expect(dict, raw, where), where)
    if kind is float and type(raw) is int:
        try:
            return float(raw)
        except OverflowError:
            raise CorruptFile(f"{where} is {_short(raw)}, too large; {_WAY_OUT}") from None
    return _expect(kind, raw, where)


def _expect(kind: type[Any], raw: Any, where: str) -> Any:
    if type(raw) is not kind:  # not isinstance: True is no integer here
        raise CorruptFile(f"{where} is {_short(raw)}, expected {kind.__name__}; {_WAY_OUT}")
    return raw


def _parse_union(kinds: tuple[Any, ...], raw: Any, where: str) -> Any:
    if raw is None and NoneType in kinds:
        return None
    kinds = tuple(kind for kind in kinds if kind is not NoneType)
    for kind in kinds:
        if len(kinds) == 1 or type(raw) is kind:
            return parse(kind, raw, where)
    names = " or ".join(kind.__name__ for kind in kinds)
    raise CorruptFile(f"{where} is {_short(raw)}, expected {names}; {_WAY_OUT}")


def _parse_dataclass(kind: Any, raw: dict[str, Any], where: str) -> Any:
    known = {field.name: field for field in fields(kind)}
    if unknown := raw.keys() - known.keys():
        raise CorruptFile(f"{where}: unknown keys {_short(sorted(unknown))}; {_WAY_OUT}")
    needed = {n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING}
    if missing := needed - raw.keys():
        raise CorruptFile(f"{where}: missing keys {sorted(missing)}; {_WAY_OUT}")
    hints = get_type_hints(kind)
    values = {name: parse(hints[name], value, f"{where}.{name}") for name, value in raw.items()}
    try:
        return kind(**values)
    except CorruptFile:
        raise
    except AntiphonError as error:
        raise CorruptFile(f"{where}: {error}; {_WAY_OUT}") from error


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
