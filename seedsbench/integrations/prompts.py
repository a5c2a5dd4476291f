"""What an image is made for, as rows for a network: classes, or prompts that a pipeline has encoded."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from unicodedata import category

import torch
from torch import Tensor

from seedsbench.exact.blocks import map_blocks
from seedsbench.files.archives import shown
from seedsbench.files.regular import read_ordinary

MOST_PROMPTS = 10**5
MOST_PROMPT_BYTES = 2**25
"""Of a file of prompts: 335 bytes for each of the most prompts."""
LONGEST_PROMPT = 10**4
"""Characters of a prompt."""
KEPT_BYTES = 2 * 2**30
"""Of encoded prompts: 9,000 of Stable Diffusion 1.5, 250 of Flux. Those of one call are kept in any case."""


def read_prompts(path: Path) -> tuple[str, ...]:
    """The prompts in a file: one a line, UTF-8, 1 to 100,000 of them.

    Raises ValueError, in one line, for any other file; blank lines are refused by their number.
    """
    where = f"model.prompts={path}"
    try:
        data = read_ordinary(path, max_bytes=MOST_PROMPT_BYTES)
        lines = data.decode("utf-8-sig").removesuffix("\n").split("\n")
    except FileNotFoundError:
        raise ValueError(f"{where} is not there: give a file with one prompt a line") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not UTF-8 text (byte {error.start}): save it as UTF-8") from error
    except ValueError as error:
        raise ValueError(f"{where} cannot be read: {error}; give a file with one prompt a line") from error
    if len(lines) > MOST_PROMPTS:
        raise ValueError(f"{where} has {len(lines)} lines: at most {MOST_PROMPTS} prompts can be read")
    prompts = tuple(line.removesuffix("\r") for line in lines)
    for number, prompt in enumerate(prompts, start=1):
        if not prompt.strip():
            raise ValueError(f"{where}: line {number} is blank: write a prompt on each line")
        if len(prompt) > LONGEST_PROMPT:
            raise ValueError(f"{where}: line {number} has {len(prompt)} characters: at most {LONGEST_PROMPT}")
        if any(category(letter) == "Cc" and letter != "\t" for letter in prompt):
            raise ValueError(f"{where}: line {number} has control characters: {shown(prompt, 60)}")
    return prompts


def numbers_of(labels: Tensor | None, batch: int, null: int) -> Tensor:
    """(B,) the class of each row of labels (B, K), `null` for a zero row and where there are none."""
    if labels is None:
        return torch.full((batch,), null)
    return torch.where(labels.any(dim=1), labels.argmax(dim=1), null)


class NoConditions:
    """Of a network that is told of neither classes nor prompts."""

    label_dim = 0

    def __call__(self, labels: Tensor | None, x: Tensor) -> Tensor | None:
        return None

    def to(self, device: torch.device | str) -> None:
        pass


class Classes:
    """Class numbers (B,) int64; after the last class comes the one that stands for none."""

    def __init__(self, label_dim: int) -> None:
        self.label_dim = label_dim

    def __call__(self, labels: Tensor | None, x: Tensor) -> Tensor | None:
        return numbers_of(labels, len(x), self.label_dim).to(x.device)

    def to(self, device: torch.device | str) -> None:
        pass


class Prompts:
    """Encoded prompts, (B, N) float32: a prompt is a class.

    encode: (prompt, device) -> (N,) of one prompt, so that no prompt depends on another; None is the empty
    one. Those encoded are kept, up to KEPT_BYTES. move: moves the text encoders. Threads may call it
    together.
    """

    def __init__(
        self,
        prompts: Sequence[str],
        encode: Callable[[str | None, torch.device], Tensor],
        move: Callable[[torch.device], object],
    ) -> None:
        self.label_dim = len(prompts)
        self._prompts, self._encode, self._move = [*prompts, None], encode, move
        self._device = torch.device("cpu")
        self._kept: OrderedDict[int, Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, labels: Tensor | None, x: Tensor) -> Tensor | None:
        numbers = numbers_of(labels, len(x), self.label_dim).tolist()
        with self._lock:
            rows = [self._row(number) for number in numbers]
            self._shrink(len(set(numbers)))
        return torch.stack(rows)

    def to(self, device: torch.device | str) -> None:
        """Move the text encoders; what they made is made again."""
        with self._lock:
            self._device = torch.device(device)
            self._move(self._device)
            self._kept.clear()

    def _row(self, number: int) -> Tensor:
        if number not in self._kept:
            with torch.inference_mode(False), torch.no_grad():
                given = [self._prompts[number]]
                (self._kept[number],) = map_blocks(lambda prompt: self._encode(prompt, self._device), given)
        self._kept.move_to_end(number)
        return self._kept[number]

    def _shrink(self, least: int) -> None:
        one = next(iter(self._kept.values())).nbytes  # as all others
        while len(self._kept) > max(least, KEPT_BYTES // one):
            self._kept.popitem(last=False)
