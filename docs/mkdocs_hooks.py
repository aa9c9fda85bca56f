"""Hooks of MkDocs: pages that lie outside docs/, such as the README, with links that hold on the site too."""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarks.md",
    "experiments/README.md": "experiments.md",
}
# what these pages link to beside pages
FILES = ("CITATION.cff", "LICENSE", "benchmarks/*.py", "experiments/*.yaml", "notebooks/*.ipynb")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside docs/, and the files that they link to."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=move_links((ROOT / source).read_text(), source)))
    for pattern in FILES:
        for path in sorted(ROOT.glob(pattern)):
            where = f"files/{path.relative_to(ROOT).as_posix()}"
            files.append(File.generated(config, where, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let the links of a page in docs/ that lead out of docs/ lead to the site's pages."""
    return markdown if page.file.generated_by else move_links(markdown, f"docs/{page.file.src_uri}")


def move_links(text: str, source: str) -> str:
    """The text of a file of the repository, whose links are relative to it, with the links of a page of the site."""

    def move(link: re.Match[str]) -> str:
        target, hash_, anchor = link[1].partition("#")
        if not target or "://" in target:
            return link[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        return f"]({place_of(path)}{hash_}{anchor})"

    return re.sub(r"\]\(([^)\s]+)\)", move, text)


def place_of(path: str) -> str:
    """Where the site has a file or folder of the repository."""
    if path == "conf" or path.startswith("conf/"):
        return "reference.md"
    if path in ("benchmarks", "experiments"):
        path += "/README.md"
    return PAGES.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else f"files/{path}")
