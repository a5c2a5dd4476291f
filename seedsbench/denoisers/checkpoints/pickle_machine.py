"""An interpreter of pickles that can do nothing but build plain data. Protocols 2 to 5.

A pickle is a program for a small stack machine. Python's own machine imports whatever the program
names and calls whatever it likes; fencing that in means trusting every path through it. This one has
no import, no call and no attribute access of its own: it makes numbers, text, lists, tuples, dicts and
sets, and asks a `Policy` about the five operations with power (naming a global, calling it, creating an
object, setting its state, resolving a persistent id). The policy answers with inert records.

Nothing is allocated on a declared size's word: bytes are slices of the input (no copies), lengths are
checked against what is left of it, and opcodes, nesting and stack are bounded.

Source: the opcodes' description in the standard library's pickletools.
"""

import pickletools
import struct
from collections.abc import Callable
from typing import Any

from seedsbench.denoisers.checkpoints.pickle_policy import (
    Budget,
    Damaged,
    Global,
    Policy,
    Refused,
    described,
)

MAX_NESTING = 500
"""Open marks, that is containers being filled within one another."""
MAX_STACK = 100_000
MAX_INTEGER_BYTES = 32
MAX_NAME = 500
STOP = ord(".")
OPCODE_NAMES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}


def run(data: memoryview, policy: Policy, budget: Budget, start: int = 0) -> tuple[Any, int]:
    """Interpret the pickle that begins at `start`: its value, and the position behind its end.

    Raises Refused, and nothing else, whatever the bytes are.
    """
    machine = Machine(data, policy, budget, start)
    try:
        return machine.run(), machine.at
    except (LookupError, struct.error, UnicodeDecodeError) as error:
        # An opcode that finds the stack, the memo or the input too short.
        raise Damaged(
            f"it is truncated or damaged: no valid pickle at byte {machine.at} of {len(data)}"
        ) from error


class Machine:
    """Stack, marks and memo of one pickle. `run` is the way in."""

    def __init__(self, data: memoryview, policy: Policy, budget: Budget, start: int) -> None:
        self.data, self.policy, self.budget, self.at = data, policy, budget, start
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        if bytes(self.data[self.at : self.at + 1]) != b"\x80":
            if self.at >= len(self.data):
                raise IndexError("end of input")
            raise Refused(f"there is no pickle of protocol 2 to 5 at byte {self.at} of {len(self.data)}")
        data, budget = self.data, self.budget
        while True:
            code = data[self.at]
            self.at += 1
            budget.spend(1)
            if code == STOP:
                value = self.stack.pop()
                if self.stack or self.marks:
                    raise Damaged(f"it is damaged: unfinished objects at its end, byte {self.at}")
                return value
            step = STEPS.get(code)
            if step is None:
                name = OPCODE_NAMES.get(code, f"{code:#04x}")
                raise Refused(f"it holds the opcode {name} at byte {self.at - 1}, which no checkpoint needs")
            step(self)
            if len(self.stack) > MAX_STACK:
                raise Refused(f"it stacks more than {MAX_STACK} objects")

    # --- reading the input -------------------------------------------------------------------------

    def take(self, count: int) -> memoryview:
        if count > len(self.data) - self.at:
            raise Damaged(
                f"it is truncated or damaged: {count} bytes declared at byte {self.at} of {len(self.data)}"
            )
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, form: struct.Struct) -> Any:
        return form.unpack(self.take(form.size))[0]

    def line(self) -> str:
        head = bytes(self.data[self.at : self.at + MAX_NAME])
        length = head.find(b"\n")
        if length < 0:
            raise Damaged(f"it is damaged: a name without an end, or of over {MAX_NAME} bytes, at {self.at}")
        self.at += length + 1
        return head[:length].decode("utf-8")

    # --- the stack ---------------------------------------------------------------------------------

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        if len(self.marks) >= MAX_NESTING:
            raise Refused(f"it nests more than {MAX_NESTING} containers")
        self.marks.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self.marks.pop()
        return items

    def popped(self, count: int) -> tuple[Any, ...]:
        if len(self.stack) < count:
            raise IndexError("stack underflow")
        items = tuple(self.stack[-count:])
        del self.stack[-count:]
        return items

    # --- opcodes with more to them than one expression ---------------------------------------------

    def protocol(self) -> None:
        version = self.take(1)[0]
        if not 2 <= version <= 5:
            raise Refused(f"it is a pickle of protocol {version}; protocols 2 to 5 can be read")

    def frame(self) -> None:
        length = self.number(U64)
        if length > len(self.data) - self.at:
            raise Damaged(f"it is truncated: a frame of {length} bytes at byte {self.at} of {len(self.data)}")

    def integer(self, size: int) -> None:
        if not 0 <= size <= MAX_INTEGER_BYTES:
            raise Refused(f"it holds an integer of {size} bytes")
        self.push(int.from_bytes(self.take(size), "little", signed=True))

    def text(self, size: int) -> None:
        raw = self.take(size)
        self.budget.spend_text(size)
        self.push(str(raw, "utf-8"))

    def remember(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def global_by_name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise Refused(f"it names a global by {described(module)} and {described(name)}, not by two texts")
        self.push(self.policy.find(Global(module, name)))

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise Refused(f"it appends to {described(target)}")
        target.extend(items)

    def add(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not set:
            raise Refused(f"it adds to {described(target)} as if it were a set")
        target.update(keys(items))

    def set_items(self, items: list[Any] | tuple[Any, ...]) -> None:
        target = self.stack[-1]
        if type(target) is not dict:
            raise Refused(f"it sets items of {described(target)}")
        if len(items) % 2:
            raise IndexError("odd number of items")
        target.update(zip(keys(items[::2]), items[1::2], strict=True))

    def reduce(self) -> None:
        function, args = self.popped(2)
        for value in (args, *arguments(args)):
            self.budget.spend_on(value)
        self.push(self.policy.call(function, args))

    def create(self) -> None:
        cls, args = self.popped(2)
        self.push(self.policy.create(cls, arguments(args)))

    def build(self) -> None:
        state = self.stack.pop()
        self.budget.spend_on(state)
        self.policy.build(self.stack[-1], state)

    def persistent(self) -> None:
        self.push(self.policy.persistent(self.stack.pop()))


def arguments(args: Any) -> tuple[Any, ...]:
    """args, if they are the tuple a call must have."""
    if type(args) is not tuple:
        raise Refused(f"it gives {described(args)} where a call has its arguments")
    return args


def keys(items: Any) -> Any:
    """items, if all can be keys: text and integers, whose hashes run no code and hardly collide."""
    for item in items:
        if not isinstance(item, str) and not (isinstance(item, int) and -(1 << 63) <= item < 1 << 63):
            raise Refused(f"it uses {described(item)} as a key; only text and 64-bit integers can be")
    return items


U8, U16, U32, U64 = (struct.Struct(form) for form in ("<B", "<H", "<I", "<Q"))
I32, F64 = struct.Struct("<i"), struct.Struct(">d")

STEPS: dict[int, Callable[[Machine], None]] = {
    # values
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    ord("J"): lambda m: m.push(m.number(I32)),
    ord("K"): lambda m: m.push(m.number(U8)),
    ord("M"): lambda m: m.push(m.number(U16)),
    0x8A: lambda m: m.integer(m.number(U8)),
    0x8B: lambda m: m.integer(m.number(I32)),
    ord("G"): lambda m: m.push(m.number(F64)),
    0x8C: lambda m: m.text(m.number(U8)),
    ord("X"): lambda m: m.text(m.number(U32)),
    0x8D: lambda m: m.text(m.number(U64)),
    ord("C"): lambda m: m.push(m.take(m.number(U8))),
    ord("B"): lambda m: m.push(m.take(m.number(U32))),
    0x8E: lambda m: m.push(m.take(m.number(U64))),
    # containers
    ord("("): Machine.mark,
    ord(")"): lambda m: m.push(()),
    ord("]"): lambda m: m.push([]),
    ord("}"): lambda m: m.push({}),
    0x8F: lambda m: m.push(set()),
    0x85: lambda m: m.push(m.popped(1)),
    0x86: lambda m: m.push(m.popped(2)),
    0x87: lambda m: m.push(m.popped(3)),
    ord("t"): lambda m: m.push(tuple(m.since_mark())),
    0x91: lambda m: m.push(frozenset(keys(m.since_mark()))),
    ord("a"): lambda m: m.append([m.stack.pop()]),
    ord("e"): lambda m: m.append(m.since_mark()),
    ord("s"): lambda m: m.set_items(m.popped(2)),
    ord("u"): lambda m: m.set_items(m.since_mark()),
    0x90: lambda m: m.add(m.since_mark()),
    # memo
    ord("q"): lambda m: m.remember(m.number(U8)),
    ord("r"): lambda m: m.remember(m.number(U32)),
    0x94: lambda m: m.remember(len(m.memo)),
    ord("h"): lambda m: m.push(m.memo[m.number(U8)]),
    ord("j"): lambda m: m.push(m.memo[m.number(U32)]),
    # framing
    0x80: Machine.protocol,
    0x95: Machine.frame,
    # what the policy decides
    ord("c"): lambda m: m.global_by_name(m.line(), m.line()),
    0x93: lambda m: m.global_by_name(*m.popped(2)),
    ord("R"): Machine.reduce,
    0x81: Machine.create,
    ord("b"): Machine.build,
    ord("Q"): Machine.persistent,
}
"""What each opcode does. Any other (EXT, INST, OBJ, PERSID, out-of-band buffers, ...) is refused by name."""
