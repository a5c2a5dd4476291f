"""What a pickle may do, as far as `pickle_machine` asks; the refusal; how values of a file are named."""

from dataclasses import dataclass
from typing import Any

MAX_OPCODES = 2_000_000
"""Opcodes of one file, nested pickles included; 600 tensors need 150 000."""


class Refused(ValueError):
    """Why a pickle is not read: one line, without the name of the file."""


class Damaged(Refused):
    """A refusal for which a cut or corrupted file is the likely reason."""


def shown(value: Any, limit: int = 100) -> str:
    """Text from a file, safe to print: ASCII on one line, cut to `limit` characters."""
    text = str(value).encode("unicode_escape").decode("ascii")
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def described(value: Any) -> str:
    """What a value is, in a few words, without following references inside it."""
    if isinstance(value, Global):
        return f"the global {value}"
    if isinstance(value, str):
        return f"the text {shown(repr(value[:60]))}"
    if value is None or isinstance(value, bool | int | float):
        return f"the value {value}"
    if isinstance(value, memoryview):
        return f"{len(value)} bytes"
    return f"a {shown(getattr(value, 'kind', type(value).__name__))}"


@dataclass(frozen=True)
class Global:
    """A global's name, and only that."""

    module: str
    name: str

    def __str__(self) -> str:
        return shown(f"{self.module}.{self.name}")


class Policy:
    """What a pickle may name and do. This one refuses everything; formats override what they need."""

    def find(self, name: Global) -> Any:
        """What stands for a global."""
        raise Refused(f"it names the global {name}, which is not on the list of harmless ones")

    def call(self, function: Any, args: tuple[Any, ...]) -> Any:
        """REDUCE: the record of calling `function`."""
        raise Refused(f"it calls {described(function)}")

    def create(self, cls: Any, args: tuple[Any, ...]) -> Any:
        """NEWOBJ: the record of a new object of class `cls`."""
        raise Refused(f"it creates an object of {described(cls)}")

    def build(self, target: Any, state: Any) -> None:
        """BUILD: note the state of a record made before."""
        raise Refused(f"it sets the state (BUILD) of {described(target)}")

    def persistent(self, reference: Any) -> Any:
        """BINPERSID: what stands for an object kept outside the pickle."""
        raise Refused(f"it refers to something outside itself: persistent id {described(reference)}")


@dataclass
class Budget:
    """Work still allowed; one for a file and all pickles nested in it.

    An object once made can be named again at no cost, so a short file can have the same long list or
    text copied without end. What is handed to a call therefore counts as if it were made anew.
    """

    text_bytes: int
    opcodes: int = MAX_OPCODES

    @classmethod
    def of(cls, data: memoryview) -> "Budget":
        """For the pickle of a file: honest ones decode each text once, or twice where it spells bytes."""
        return cls(text_bytes=4 * len(data))

    def spend(self, opcodes: int) -> None:
        self.opcodes -= opcodes
        if self.opcodes < 0:
            raise Refused(f"it has more than {MAX_OPCODES} opcodes and arguments")

    def spend_text(self, size: int) -> None:
        self.text_bytes -= size
        if self.text_bytes < 0:
            raise Refused("it makes more text than its length allows")

    def spend_on(self, value: Any) -> None:
        """Pay for handing out a value that may be copied."""
        if isinstance(value, str):
            self.spend_text(len(value))
        elif isinstance(value, tuple | list | dict | set | frozenset):
            self.spend(len(value))
