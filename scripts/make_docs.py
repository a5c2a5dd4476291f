"""What the documentation site has beside docs/*.md, as a hook of mkdocs: nothing here is committed.

- Tables made from the code, where a page says `<!-- generated: solvers -->` or `configuration`.
- README, as the front page, and all that the pages link to in the repository: results, figures, SECURITY.

    mkdocs build --strict
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from seedsbench import registry
from seedsbench.cli.choices import ChoiceFacts, choice_facts
from seedsbench.cli.command import GROUPS

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig  # pyright: ignore[reportMissingImports]
    from mkdocs.structure.files import Files  # pyright: ignore[reportMissingImports]
    from mkdocs.structure.pages import Page  # pyright: ignore[reportMissingImports]

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)#\s]+)")
INSTEAD = {
    "README.md": "index.md",
    "seedsbench/solvers/README.md": "solvers.md",
    "results/example": "results/example/table.md",
}
"""Where the site has another page in place of what the repository has there."""


ALONGSIDE = ("README", "CONTRIBUTING", "SECURITY")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what lies outside docs/: the front page, and whatever a page links to."""
    from mkdocs.structure.files import File  # pyright: ignore[reportMissingImports]

    files.append(File.generated(config, "index.md", abs_src_path=str(ROOT / "README.md")))
    for path in linked():
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A page's text with its tables, and with links as the site has them."""
    for mark, made in MADE.items():
        if mark in markdown:
            markdown = markdown.replace(mark, "\n".join(made()))
    source = page.file.src_uri
    folder = Path("docs" if (ROOT / "docs" / source).is_file() else ".", source).parent
    return LINK.sub(lambda link: site_link(link[1], folder, Path(source).parent), markdown)


def linked() -> list[str]:
    """Files of the repository outside docs/ that the pages link to, and that these link to; sorted."""
    found: set[str] = set()
    pages = [*(ROOT / f"{name}.md" for name in ALONGSIDE), *(ROOT / "docs").glob("*.md")]
    while pages:
        page = pages.pop()
        for link in LINK.findall(page.read_text(encoding="utf-8")):
            path = repository_path(link, page.relative_to(ROOT).parent)
            if path.startswith("docs/") or path in found or not (ROOT / path).is_file():
                continue
            found.add(path)
            if path.endswith(".md"):
                pages.append(ROOT / path)
    return sorted(found)


def repository_path(link: str, folder: Path) -> str:
    """Where a link leads that is written in a page of this folder; what the site has instead, if it does."""
    path = Path(ROOT / folder / link).resolve().relative_to(ROOT).as_posix()
    path = INSTEAD.get(path, path)
    return path if (ROOT / path).is_file() else f"docs/{path}"


def site_link(link: str, folder: Path, site_folder: Path) -> str:
    """The link from a page in `folder` of the repository, which the site has in `site_folder`."""
    path = repository_path(link, folder).removeprefix("docs/")
    return "../" * len(site_folder.parts) + path


def solver_pages() -> Iterator[str]:
    """A section a solver: paper, cost, options."""
    papers = papers_of((ROOT / "seedsbench" / "solvers" / "README.md").read_text(encoding="utf-8"))
    for name in registry.names("solver"):
        facts = choice_facts("solver", name)
        yield f"### `{name}`\n\n{escaped(facts.summary)}\n"
        yield f"*Paper*: {papers[name]}.\n"
        if (solver := facts.solver) is not None:
            weak = "" if solver.weak_order is None else f", weak order {solver.weak_order}"
            noise = "draws noise" if solver.stochastic else "deterministic"
            each, least, ten = solver.nfe(9) - solver.nfe(8), solver.total_nfe(1), solver.total_nfe(10)
            yield f"*Order* {solver.order}{weak}; {noise}. *Evaluations*: {each} a step;"
            yield f"with the final one {least} at least, {ten} for ten steps.\n"
        yield option_table(facts)


def papers_of(table: str) -> dict[str, str]:
    """Solver -> paper, of the table in seedsbench/solvers."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {row[0].strip("`"): row[2] for row in rows if len(row) == 7}


def configuration_pages() -> Iterator[str]:
    """The keys of a cell, and every choice of every group with its options."""
    config = (registry.conf_dir() / "config.yaml").read_text(encoding="utf-8")
    keys = re.findall(r"^(\w+): +([^#\n]*?) *# (.*)$", config, re.MULTILINE)
    yield "## Keys of a cell\n"
    yield table(
        ("key", "default", ""), ((code(key), code(default), escaped(note)) for key, default, note in keys)
    )
    for group in (group for group in GROUPS if group != "solver"):
        yield f"## `{group}`\n"
        for name in registry.names(group):
            facts = choice_facts(group, name)
            yield f"#### `{group}={name}`\n\n{escaped(facts.summary)}\n"
            yield option_table(facts, told=group == "model")  # others are facts about the model
            if facts.sets:
                yield "\n".join(["```yaml", *facts.sets, "```", ""])
    yield "## `solver`\n\nSee [each solver](solvers.md#each-solver).\n"


def option_table(facts: ChoiceFacts, told: bool = False) -> str:
    """The options of a choice as a table. told: only those that its file comments on."""
    rows = (
        (code(f"{facts.group}.{one.name}"), code(one.default), escaped(one.allowed), escaped(one.note))
        for one in facts.options
        if one.note or not told
    )
    return table(("option", "default", "may be", ""), rows)


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table in Markdown, "" if it has no rows."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *lines, ""]) if lines else ""


def code(text: str) -> str:
    return f"`{text}`"


def escaped(text: str) -> str:
    """Plain text as Markdown, in a table's cell too."""
    return re.sub(r"([\\*_\[\]|])", r"\\\1", text).replace("<", "&lt;")


MADE = {"<!-- generated: solvers -->": solver_pages, "<!-- generated: configuration -->": configuration_pages}
"""Where in a page a table goes, and what makes it."""
