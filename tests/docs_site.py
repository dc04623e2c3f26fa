"""What mkdocs.yml hooks in: the site also has what docs/ links to outside of itself, such as the changelog.

Links are written for who reads the files; here they become those of the site. What is no page is copied as it is.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).resolve().parent.parent
DOCS: Final = ROOT / "docs"
NAMES: Final = {
    "CHANGELOG.md": "changelog.md",
    "README.md": "index.md",
    "src/sfumato/models/bundled/restyle/README.md": "restyle.md",
    "training/README.md": "training.md",
}
"""Pages outside docs/ → their names on the site."""
LINK: Final = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)(?=[)#\s])")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of NAMES, and every file outside docs/ that a page links to."""
    waiting = [Path(page.abs_src_path or "") for page in files.documentation_pages()]
    waiting += [ROOT / name for name in NAMES if (ROOT / name).is_file()]
    seen = set(waiting)
    for here in waiting:  # grows while it is gone through: what is linked to links on
        place = _place(here)
        if files.get_file_from_path(place) is None:
            files.append(File.generated(config, place, abs_src_path=str(here)))
        if here.suffix == ".md":
            found = [target for target in _targets(here) if target not in seen]
            seen.update(found)
            waiting += found
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with its links leading to where things are on the site."""
    here = Path(page.file.abs_src_path or "")

    def moved(link: re.Match[str]) -> str:
        target = (here.parent / link[1]).resolve()
        return _way(page.file.src_uri, _place(target)) if _is_ours(target) else link[1]

    return LINK.sub(moved, markdown)


def _targets(here: Path) -> Iterator[Path]:
    for link in LINK.findall(here.read_text()):
        target = (here.parent / link).resolve()
        if _is_ours(target) and not target.is_relative_to(DOCS):
            yield target


def _is_ours(target: Path) -> bool:
    return target.is_file() and target.is_relative_to(ROOT)


def _place(file: Path) -> str:
    """Where a file of the repository is on the site."""
    if file.is_relative_to(DOCS):
        return file.relative_to(DOCS).as_posix()
    name = file.relative_to(ROOT).as_posix()
    return NAMES.get(name, f"source/{name}")


def _way(here: str, there: str) -> str:
    return "../" * here.count("/") + there
