"""Our docstrings are plain text; the documentation site shows them as Markdown with their lines kept apart.

An extension of griffe, which mkdocstrings reads the package with (mkdocs.yml).
"""

import re
from typing import Any

from griffe import Extension, Object  # pyright: ignore[reportMissingImports]

ENTRY = re.compile(r"^(\w+(?:, \w+)*): ")
"""How the lines begin that tell of a parameter, or of several."""


class PlainDocstrings(Extension):
    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(text: str) -> str:
    """A docstring as Markdown: parameters as a list, signs that Markdown would take for its own escaped."""
    return "\n\n".join(map(_paragraph, re.split(r"\n\s*\n", text)))


def _paragraph(text: str) -> str:
    lines = text.split("\n")
    if all(line.startswith("    ") for line in lines):  # an example
        return text
    code = re.split(r"(`[^`]*`)", text)
    text = "".join(part if part.startswith("`") else re.sub(r"([*_\[<])", r"\\\1", part) for part in code)
    if not any(ENTRY.match(line) for line in lines):
        return text
    listed = []
    for line, plain in zip(text.split("\n"), lines, strict=True):
        if found := ENTRY.match(plain):
            names = ", ".join(f"`{name}`" for name in found[1].split(", "))
            rest = line[len(re.sub(r"([*_\[<])", r"\\\1", found[0])) :]
            listed.append(f"- {names}: {rest}")
        else:
            listed.append(f"  {line.strip()}" if listed else line)
    return "\n".join(listed)
