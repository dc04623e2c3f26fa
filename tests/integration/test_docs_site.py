"""`make docs`: the site builds without a warning, and asks nobody for anything while it is read."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
FETCHED: Final = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "object": "data"}
"""Elements that a browser fetches something for by itself, and the attribute that says what."""
LINKS_FOLLOWED_BY_READERS: Final = {"canonical", "next", "prev"}


class Fetches(HTMLParser):
    """Collects the addresses that a browser asks by itself, and what the theme would fetch a library for."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.diagrams = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = {name: value or "" for name, value in attrs}
        if tag == "link" and said.get("rel") not in LINKS_FOLLOWED_BY_READERS:
            self.addresses.append(said["href"])
        if tag in FETCHED and FETCHED[tag] in said:
            self.addresses.append(said[FETCHED[tag]])
        self.diagrams += "mermaid" in said.get("class", "").split()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does."""
    folder = tmp_path_factory.mktemp("site")
    ended = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env=dict(os.environ) | {"NO_MKDOCS_2_WARNING": "1"},  # noqa: TID251 - the child's, handed through
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    told = [line for line in (ended.stdout + ended.stderr).splitlines() if not line.startswith("INFO ")]
    assert (ended.returncode, told) == (0, [])
    return folder


def _pages(site: Path) -> Iterator[tuple[Path, Fetches]]:
    for page in sorted(site.rglob("*.html")):
        fetches = Fetches()
        fetches.feed(page.read_text())
        yield page, fetches


def test_no_page_has_a_browser_ask_another_host(site: Path) -> None:
    pages = dict(_pages(site))
    assert len(pages) > len(list((ROOT / "docs").rglob("*.md")))
    addresses = {address for fetches in pages.values() for address in fetches.addresses}
    assert any(address.endswith(".js") for address in addresses)
    assert any(address.endswith(".css") for address in addresses)
    assert sorted(address for address in addresses if re.match(r"(https?:)?//", address)) == []


def test_no_style_has_a_browser_ask_another_host(site: Path) -> None:
    styles = {path.name: path.read_text() for path in (*site.rglob("*.css"), *site.rglob("*.html"))}
    asking = re.compile(r"url\([\"']?(?:https?:)?//|@import[^;]*//")
    assert sorted(name for name, text in styles.items() if asking.search(text)) == []


def test_no_page_has_a_diagram_that_the_theme_fetches_a_library_for(site: Path) -> None:
    assert [page.name for page, fetches in _pages(site) if fetches.diagrams] == []


def test_all_that_a_page_shows_is_there(site: Path) -> None:
    missing = {
        f"{page.relative_to(site)}: {address}"
        for page, fetches in _pages(site)
        for address in fetches.addresses
        if not (site if address.startswith("/") else page.parent).joinpath(address.split("?")[0].lstrip("/")).is_file()
    }
    assert missing == set()


def test_the_search_knows_every_page_also_from_a_folder(site: Path) -> None:
    script = (site / "search" / "search_index.js").read_text()
    index = json.loads(script.removeprefix("var __index = "))
    found = {entry["location"].partition("#")[0] for entry in index["docs"]}
    assert found == {str(page.relative_to(site)) for page, _ in _pages(site)} - {"404.html"}


def test_what_lies_outside_docs_is_on_the_site(site: Path) -> None:
    assert "The first version" in (site / "changelog.html").read_text()
    assert 'href="restyle.html"' in (site / "models.html").read_text()
    assert 'href="source/docker-compose.yaml"' in (site / "production.html").read_text()
    assert (site / "source" / "docker-compose.yaml").read_text() == (ROOT / "docker-compose.yaml").read_text()


def test_the_readme_links_to_what_is_there() -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", (ROOT / "README.md").read_text())
    assert len(links) > 20
    assert [link for link in links if not (ROOT / link).exists()] == []
