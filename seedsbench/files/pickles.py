"""The standard library's unpickler, made to build plain data and inert objects of our own, and nothing else.

Before it runs, `_scan` reads the opcodes and refuses what no checkpoint needs (extension codes, other ways to
name and call things, huge memo indices, ...). `find_class` looks names up in a short table; any other name
is refused. What the table gives, and every object made with it, is Inert: its state cannot be set.

Source: the opcodes' description in the standard library's pickletools, and CPython's Modules/_pickle.c.
"""

import io
import pickle
import pickletools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO

from seedsbench.files.archives import shown
from seedsbench.files.torch_files import MAX_OPCODES, MAX_TUPLES

OPCODES = frozenset(
    """NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE BINUNICODE8
    BINBYTES SHORT_BINBYTES BINBYTES8 MARK EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS
    EMPTY_DICT SETITEM SETITEMS EMPTY_SET ADDITEMS FROZENSET BINPUT LONG_BINPUT MEMOIZE BINGET LONG_BINGET
    PROTO FRAME STOP GLOBAL STACK_GLOBAL REDUCE NEWOBJ BUILD""".split()  # noqa: SIM905
)


class Refused(ValueError):
    """Why a pickle is not read: one line, without the name of the file."""


def described(value: Any) -> str:
    """What a value is, in a few words, without following references inside it."""
    if isinstance(value, str):
        return f"the text {shown(repr(value[:60]))}"
    if value is None or isinstance(value, bool | int | float):
        return f"the value {value}"
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return f"a {shown(getattr(value, 'kind', type(value).__name__))}"


def _scan(stream: BinaryIO, most: int, opcodes: frozenset[str]) -> None:
    """Read a pickle up to its end without running it. Raises Refused; ValueError if it is damaged."""
    tuples = 0
    for count, (opcode, value, at) in enumerate(pickletools.genops(stream), start=1):
        name = opcode.name
        tuples += name.startswith(("TUPLE", "FROZENSET"))
        if name not in opcodes:
            raise Refused(f"it holds the opcode {name} at byte {at}, which no checkpoint needs")
        if name == "PROTO" and value not in (2, 3, 4, 5):
            raise Refused(f"it is a pickle of protocol {value}; protocols 2 to 5 can be read")
        if count > most or tuples > MAX_TUPLES:
            raise Refused(f"it has more than {most} opcodes, or {MAX_TUPLES} tuples")
        if name.endswith("BINPUT") and int(value or 0) > count:  # memory for as many would be taken
            raise Refused(f"it numbers its object {count} at most as {value}, at byte {at}")
        if isinstance(value, int) and value.bit_length() > 64:  # as keys, all could have one hash
            raise Refused(f"it holds an integer of {value.bit_length()} bits at byte {at}")
        if isinstance(value, str):
            value.encode()  # no lone surrogates


class Inert:
    """What unpickling makes besides plain data, and what stands for a name.

    The opcode BUILD sets any attribute of an object, a function or a class; but where it finds a
    `__setstate__` it only calls that, and on a class with an argument too few.
    """

    kind = "record"

    def __setstate__(self, state: Any) -> None:
        raise Refused(f"it sets the state (BUILD) of {described(self)} to {described(state)}")


class Allowance:
    """How many more bytes may be handed to functions: else a small file has one text copied on and on.

    Apart from the Unpickler: a function that held that would keep the file in memory, in a circle.
    """

    def __init__(self, left: int) -> None:
        self.left = left

    def spend(self, args: tuple[Any, ...]) -> None:
        """Pay for arguments that may be copied; raises Refused."""
        self.left -= sum(len(arg) for arg in args if isinstance(arg, str | bytes))
        self.left -= sum(64 * len(arg) for arg in args if isinstance(arg, list))
        if self.left < 0:
            raise Refused("it makes more text, bytes and lists than its length allows")


class AllowedFunction(Inert):
    """What stands for a function: calls one of ours, and says so in the errors."""

    def __init__(self, name: str, run: Callable[..., Any], allowance: Allowance) -> None:
        self.kind, self.run, self.allowance = name, run, allowance

    def __call__(self, *args: Any) -> Any:
        self.allowance.spend(args)
        try:
            return self.run(*args)
        except MemoryError:
            raise
        except Exception as error:
            given = shown(", ".join(map(described, args[:6])) or "nothing", 200)
            raise Refused(f"it calls {self.kind} with {given}: {shown(error, 300)}") from error


class Unpickler(pickle.Unpickler):
    """Reads what `_scan` let through. names: what stands for each name that a pickle may hold."""

    def __init__(self, stream: BinaryIO, names: Mapping[str, Any], allowance: int) -> None:
        super().__init__(stream)
        self.names, self.allowance = names, Allowance(allowance)

    def find_class(self, module: str, name: str, /) -> Any:
        # The two parts are looked up as written: "os", "path.join" is no other spelling of anything.
        full = f"{module}.{name}"
        if "." in name or full not in self.names:
            raise Refused(f"it names the global {shown(full)}, which is not on the list of harmless ones")
        found = self.names[full]
        return found if isinstance(found, type | str) else AllowedFunction(full, found, self.allowance)

    def persistent_load(self, pid: Any) -> Any:
        return pid  # plain data like all else


def loaded(
    stream: BinaryIO,
    names: Mapping[str, Any],
    *,
    most: int = MAX_OPCODES,
    more: Iterable[str] = (),
    allowance: int = 0,
) -> Any:
    """What the pickle at the stream's position holds. Raises Refused, and anything if it is damaged.

    most: how many opcodes. more: allowed ones besides OPCODES. allowance: bytes handed to functions.
    """
    start = stream.tell()
    _scan(stream, most, OPCODES.union(more))
    stream.seek(start)
    return Unpickler(stream, names, allowance).load()


def unpickled(data: bytes, names: Mapping[str, Any]) -> Any:
    """What the bytes of a file hold. Raises Refused, or MemoryError, whatever they are."""
    if data[:1] != pickle.PROTO:
        kind = "a zip file, as torch.save writes" if data[:2] == b"PK" else "no pickle of protocol 2 to 5"
        raise Refused(f"it is {kind}")
    stream = io.BytesIO(data)
    try:
        # A byte is handed to a function once, or twice where text spells bytes.
        value = loaded(stream, names, allowance=4 * len(data))
    except (Refused, MemoryError):
        raise
    except Exception as error:  # pickle promises no particular ones for damaged files
        said = shown(f"{type(error).__name__}: {error}", 200)
        raise Refused(f"it is damaged, or does what no checkpoint needs: {said}") from error
    if after := len(data) - stream.tell():
        raise Refused(f"{after} bytes follow the end of its pickle")
    return value
