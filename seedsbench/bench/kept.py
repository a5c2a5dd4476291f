"""What a process keeps for its next cells: the things used last, so many and no more."""

from collections.abc import Callable, Hashable
from typing import TypeVar

Thing = TypeVar("Thing")


def kept(things: dict[Hashable, Thing], key: Hashable, make: Callable[[], Thing], most: int) -> Thing:
    """things[key], made if it is not there; then what was not used for longest makes room for it."""
    if key in things:
        things[key] = things.pop(key)  # now the last to go
        return things[key]
    made = make()
    while len(things) >= most:
        del things[next(iter(things))]
    things[key] = made
    return made
