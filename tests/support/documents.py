"""The code blocks of README, CONTRIBUTING and docs/, and what a shell makes of their commands."""

import re
import subprocess
from dataclasses import dataclass

from tests.support.machine import ROOT

PAGES = ("README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in ROOT.glob("docs/*.md")))
_FENCE = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]*) -->\n)?"
    r'```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$',
    re.DOTALL | re.MULTILINE,
)
# The shell finds no command at all, and writes each as the number of its words and these, ended by zeros.
_RECORD = """
PATH=/nowhere
command_not_found_handle() { printf '%s\\0' "$#" "$@"; }
source() { :; }
"""


@dataclass(frozen=True)
class Block:
    """mark: the comment above it. title: of the file that it is."""

    place: str
    language: str
    text: str
    mark: str
    title: str

    @property
    def needs(self) -> bool:
        """Whether it can run on some machines alone."""
        return self.mark.startswith("needs ")

    @property
    def slow(self) -> bool:
        return self.mark.startswith("slow")

    @property
    def fails(self) -> bool:
        """Whether the page says that a cell of it fails."""
        return self.mark.endswith("a cell fails")


def blocks(page: str) -> list[Block]:
    """The code blocks of a page, in order."""
    text = (ROOT / page).read_text()
    found = []
    for one in _FENCE.finditer(text):
        line = text.count("\n", 0, one.start()) + 1
        parts = one["language"], one["text"], one["mark"] or "", one["title"] or ""
        found.append(Block(f"{page}:{line}", *parts))
    return found


def files() -> dict[str, str]:
    """Name -> text of every block that is a file."""
    return {block.title: block.text for page in PAGES for block in blocks(page) if block.title}


def commands(block: Block, folder) -> list[list[str]]:
    """The words of each command of a bash block, as a shell in that folder reads them; nothing runs."""
    script = ["bash", "--norc", "-ec", _RECORD + block.text]
    done = subprocess.run(script, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{block.place}: {done.stderr}"
    words, found = done.stdout.split("\0"), []
    while len(words) > 1:
        count = int(words[0])
        found.append(words[1 : count + 1])
        words = words[count + 1 :]
    return found
