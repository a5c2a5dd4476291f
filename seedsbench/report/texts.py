"""Text that anyone may have written, made data of each kind of file: what it may hold is shown, never run."""

import re

import pandas as pd

LONGEST = 100  # characters of a name that is drawn, or part of a file's name

# Controls (those of terminals too), halves of surrogate pairs, and what XML and so SVG forbids.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_FORMULA = re.compile(r"[=+\-@\t\r]")
# An underscore within a word is none of Markdown's own: seeds3_asreleased stays as it is.
_MARKDOWN = re.compile(r"[\\`*\[\]|~$]|^#|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_ENTITY = re.compile(r"&(?=#?\w+;)")
_LATEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    # After the end of a line LaTeX would take these two for options of it.
    | {"[": "{[}", "*": "{*}"}
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "·": r"$\cdot$"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''"}
)


def printable(text: str) -> str:
    """Text that can be written, printed and drawn; what cannot is shown as the replacement character."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


def shown_name(text: str) -> str:
    """A name as it is drawn: in one line of at most LONGEST characters.

    >>> shown_name("he\\nun"), shown_name(" "), len(shown_name("x" * 1000))
    ('he un', 'unnamed', 100)
    """
    line = " ".join(printable(text[: 2 * LONGEST]).split()) or "unnamed"
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def markdown(text: str) -> str:
    r"""Text as Markdown that shows it: in one line, without markup, HTML, or the end of a table's cell.

    >>> markdown("# seeds3_asreleased <b>*x*</b> | `y`\n")
    '\\# seeds3_asreleased &lt;b&gt;\\*x\\*&lt;/b&gt; \\| \\`y\\`'
    """
    told = _MARKDOWN.sub(r"\\\g<0>", " ".join(text.splitlines()))
    return _ENTITY.sub("&amp;", told).replace("<", "&lt;").replace(">", "&gt;")


def latex(text: str) -> str:
    r"""Text as LaTeX that prints it, in one line.

    >>> latex("[a_b]\n\\input{x}")
    '{[}a\\_b] \\textbackslash{}input\\{x\\}'
    """
    return " ".join(text.split()).translate(_LATEX)


def csv_bytes(df: pd.DataFrame) -> bytes:
    """A table as CSV in UTF-8. Text that a spreadsheet would run as a formula (it begins with = + - @, a tab
    or a carriage return) has an apostrophe before it; numbers are as they are."""
    made = df.copy()
    for column in (name for name in df if not pd.api.types.is_numeric_dtype(df[name])):
        made[column] = pd.Series([_defused(value) for value in df[column]], index=df.index, dtype=object)
    made.columns = pd.Index([_defused(name) for name in df], dtype=object)
    return made.to_csv(index=False, lineterminator="\n").encode()


def _defused(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value
