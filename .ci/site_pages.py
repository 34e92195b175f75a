"""A hook of mkdocs: documents outside docs/ become pages of the site, and links between all of them lead there."""

import re
from pathlib import Path
from posixpath import dirname, join, normpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

PAGES = {
    "data/README.md": "data.md",
    "checkpoints/README.md": "checkpoints.md",
    "checkpoints/mini/README.md": "mini_card.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changes.md",
    "README.md": "index.md",
}
"""Path in the repository -> page; README.md has its counterpart in docs/ itself."""
LINK = re.compile(r"\[([^\]]*)\]\((?!https?:|#|mailto:)([^)#\s]*)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents of `PAGES` that docs/ lacks."""
    root = Path(config.config_file_path).parent
    for source, page in PAGES.items():
        if files.get_file_from_path(page) is None:
            text = relinked((root / source).read_text(encoding="utf-8"), dirname(source))
            files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links of the pages in docs/."""
    generated = page.file.src_uri in PAGES.values() and page.file.src_uri != "index.md"
    return markdown if generated else relinked(markdown, "docs")


def relinked(markdown: str, folder: str) -> str:
    """Links of a document in `folder` of the repository, made those of the site; to what is no page, plain text."""

    def link(match: re.Match) -> str:
        text, target, anchor = match[1], normpath(join(folder, match[2])), match[3] or ""
        page = PAGES.get(target, target.removeprefix("docs/") if target.startswith("docs/") else None)
        return text if page is None else f"[{text}]({page}{anchor})"

    return LINK.sub(link, markdown)
