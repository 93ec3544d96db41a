"""The values a pickle describes, found without running it.

A pickle is a program for a small machine; Python's own `pickle` calls whatever function it names.
This reading of it calls nothing: it follows the instructions that build numbers, texts, tuples,
lists and dicts, keeps every named thing as its name, and asks its caller what a call of a named
thing stands for. So a file of weights from anywhere can be looked at.
Instructions: documented in the standard library, `pickletools`.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any


class Refused(ValueError):
    """The pickle wants something that data has no need of."""


@dataclass(frozen=True, slots=True)
class Global:
    """A function or class that the pickle names, such as `collections.OrderedDict`."""

    name: str


class Opaque:
    """What a call that is not followed would have made; attributes set on it are dropped."""


Call = Callable[[Global, tuple[Any, ...]], Any]
Persistent = Callable[[Any], Any]

_MARK = object()
_PUSHED = {  # the instruction carries the value
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_STORES, _LOADS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}, {"GET", "BINGET", "LONG_BINGET"}


def read_pickle(stream: IO[bytes], call: Call, persistent: Persistent) -> Any:
    """The value of one pickle; `stream` is left behind its end.

    call        what a named thing applied to arguments stands for; raises Refused if for nothing
    persistent  what a persistent id stands for
    Raises Refused, or ValueError, IndexError, KeyError, TypeError where the pickle is malformed.
    """
    machine = _Machine(call, persistent)
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name == "STOP":
            break
        machine.run(opcode.name, argument)
    return machine.pop()


class _Machine:
    def __init__(self, call: Call, persistent: Persistent) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._call, self._persistent = call, persistent
        self._actions: dict[str, Callable[[], None]] = {
            "PROTO": lambda: None,
            "FRAME": lambda: None,
            "MARK": lambda: self._stack.append(_MARK),
            "POP": lambda: self._stack.pop() and None,
            "EMPTY_LIST": lambda: self._stack.append([]),
            "EMPTY_DICT": lambda: self._stack.append({}),
            "LIST": lambda: self._stack.append(self._marked()),
            "TUPLE": lambda: self._stack.append(tuple(self._marked())),
            "DICT": lambda: self._stack.append(_pairs(self._marked())),
            "APPEND": lambda: self._extend([self.pop()]),
            "APPENDS": lambda: self._extend(self._marked()),
            "SETITEM": lambda: self._update([self._stack.pop(-2), self.pop()]),
            "SETITEMS": lambda: self._update(self._marked()),
            "STACK_GLOBAL": self._named,
            "BINPERSID": lambda: self._stack.append(self._persistent(self.pop())),
            "REDUCE": self._reduce,
            "BUILD": self._build,
        }

    def pop(self) -> Any:
        """The topmost value."""
        value = self._stack.pop()
        if value is _MARK:
            raise ValueError("a mark where a value belongs")
        return value

    def run(self, name: str, argument: Any) -> None:
        """Follow one instruction. Raises Refused for one that data has no need of."""
        stack = self._stack
        if name in _PUSHED:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _STORES:
            self._memo[len(self._memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in _LOADS:
            stack.append(self._memo[argument])
        elif name in _TUPLES:
            stack[-_TUPLES[name] :] = [tuple(stack[-_TUPLES[name] :])]
        elif name == "GLOBAL":
            stack.append(Global(argument.replace(" ", ".", 1)))
        elif name in self._actions:
            self._actions[name]()
        else:
            raise Refused(f"the instruction {name}")

    def _marked(self) -> list[Any]:
        """Everything above the last mark, which goes with it."""
        place = len(self._stack) - 1 - self._stack[::-1].index(_MARK)
        values = self._stack[place + 1 :]
        del self._stack[place:]
        return values

    def _extend(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise Refused(f"items appended to {type(target).__name__}")
        target.extend(values)

    def _update(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict):
            raise Refused(f"items set on {type(target).__name__}")
        target.update(_pairs(values))

    def _named(self) -> None:
        name, module = self.pop(), self.pop()
        self._stack.append(Global(f"{module}.{name}"))

    def _reduce(self) -> None:
        arguments, named = self.pop(), self.pop()
        if not isinstance(named, Global) or not isinstance(arguments, tuple):
            raise Refused(f"a call of {type(named).__name__}")
        self._stack.append(self._call(named, arguments))

    def _build(self) -> None:
        """Attributes of a dict, such as the versions that modules write: dropped."""
        self.pop()
        if not isinstance(self._stack[-1], dict | Opaque):
            raise Refused(f"attributes set on {type(self._stack[-1]).__name__}")


def _pairs(values: list[Any]) -> dict[Any, Any]:
    """Keys are texts and numbers: hashing a tuple of tuples of … can take forever."""
    if not all(isinstance(key, str | int | float) for key in values[::2]):
        raise Refused("a key that is neither text nor number")
    return dict(zip(values[::2], values[1::2], strict=True))
