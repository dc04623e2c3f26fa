"""A real browser before a real service: Chromium, driven by Playwright, headless."""

import base64
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

__all__ = ["SCREENSHOTS", "card", "cards", "chromium", "drop", "opened", "shot", "taken_sample"]

PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
SCREENSHOTS: Final = Path(__file__).parents[2] / "out" / "screenshots"
DESK: Final = {"width": 1400, "height": 900}
ENDS_WITHIN_MS: Final = 60_000


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser of this machine; the tests that want it are skipped where there is none."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("no Chromium is installed; on Debian and Ubuntu: apt install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, url: str, **context: Any) -> Iterator[Page]:
    """The page at `url` in a window of its own, once it is live; whatever it complains of fails the test."""
    complaints: list[str] = []
    with browser.new_context(**({"viewport": DESK} | context)) as window:
        page = window.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        # What a request was refused with is told on the page itself; the console repeats it.
        page.on("console", lambda said: _complain(complaints, said.type, said.text))
        page.goto(url)
        yield page
    assert complaints == []


def _complain(complaints: list[str], kind: str, text: str) -> None:
    if kind in ("error", "warning") and not text.startswith("Failed to load resource"):
        complaints.append(text)


def live(page: Page) -> None:
    """Wait until the page hears of what happens."""
    expect(page.locator("#connection")).to_have_attribute("data-state", "live")


def cards(page: Page, status: str = "") -> Locator:
    """All cards, or those of this status."""
    return page.locator(f'.card[data-status="{status}"]' if status else ".card")


def card(page: Page, prompt: str, status: str) -> Locator:
    """The one card with this prompt, once it has come to this status."""
    found = cards(page, status).filter(has=page.locator(".prompt", has_text=prompt))
    expect(found).to_have_count(1, timeout=ENDS_WITHIN_MS)
    return found


def taken_sample(page: Page, name: str = "cat") -> None:
    """Choose one of the samples."""
    page.get_by_role("button", name=f"Sample: {name}").click()
    expect(page.locator(".chosen")).not_to_have_count(0)


def drop(page: Page, files: Sequence[tuple[str, str, bytes]]) -> None:
    """Drop files (name, type, bytes) on the page, as from a file manager."""
    told = [{"name": name, "type": kind, "data": base64.b64encode(data).decode()} for name, kind, data in files]
    transfer = page.evaluate_handle(
        """files => {
            const transfer = new DataTransfer();
            for (const { name, type, data } of files) {
                const bytes = Uint8Array.from(atob(data), (each) => each.charCodeAt(0));
                transfer.items.add(new File([bytes], name, { type }));
            }
            return transfer;
        }""",
        told,
    )
    for kind in ("dragenter", "dragover", "drop"):
        page.dispatch_event("#drop", kind, {"dataTransfer": transfer})


def shot(page: Page, name: str, **how: Any) -> None:
    """Keep how the page looks, for people."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", **how)
