"""Hundreds of jobs on one page."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.browsing import cards, live, opened, shot
from tests.sample_pictures import picture
from tests.service import SIMULATED, Service, post_picture

pytestmark = pytest.mark.server

MANY = 500


@pytest.fixture(scope="module")
def quick(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(Path(tmp_path_factory.mktemp("many")), models=SIMULATED) as started:
        yield started


@pytest.fixture(scope="module")
def filled(quick: Service) -> Service:
    """A service with 500 jobs, numbered in their prompts."""

    def send(number: int) -> int:
        return post_picture(quick.url, picture(), model_name="quick", prompt=f"number {number:03}")[0]

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(send, range(MANY))) == {202}
    return quick


def scroll_to_the_end(page: Page) -> None:
    """Scroll as people do until nothing more comes."""
    while page.locator("#more").is_visible():
        page.mouse.wheel(0, 4000)
        page.wait_for_timeout(50)


def test_five_hundred_cards_come_by_scrolling_each_once_and_newest_first(browser: Browser, filled: Service) -> None:
    with opened(browser, filled.url) as page:
        live(page)
        expect(cards(page)).not_to_have_count(0)
        assert cards(page).count() < 200  # not all at once
        page.mouse.move(900, 500)
        scroll_to_the_end(page)
        expect(cards(page, "succeeded")).to_have_count(MANY, timeout=60_000)
        ids = page.evaluate("[...document.querySelectorAll('.card')].map((card) => card.dataset.id)")
        times = page.evaluate("[...document.querySelectorAll('.card')].map((card) => Number(card.dataset.at))")
        assert len(set(ids)) == MANY
        assert times == sorted(times, reverse=True)
        shot(page, "many")


def test_five_hundred_pictures_given_at_once_all_become_jobs_and_end(browser: Browser, quick: Service) -> None:
    with opened(browser, quick.url) as page:
        live(page)
        page.evaluate(
            """async many => {
                const blob = await (await fetch("static/samples/rocket.jpg")).blob();
                const transfer = new DataTransfer();
                for (let i = 0; i < many; i++) transfer.items.add(new File([blob], `${i}.jpg`, { type: "image/jpeg" }));
                document.querySelector("#file").files = transfer.files;
                document.querySelector("#file").dispatchEvent(new Event("change"));
            }""",
            MANY,
        )
        page.locator("#prompt").fill("all at once")
        page.get_by_role("button", name=f"Make {MANY} pictures").click()
        expect(cards(page, "succeeded").filter(has_text="all at once")).to_have_count(MANY, timeout=100_000)
    count = json.loads(quick.get("/api/jobs?count=true&status=succeeded&limit=1")[1])["count"]
    assert count >= MANY


def test_a_filter_shows_only_those_and_reads_on_below_them(browser: Browser, filled: Service) -> None:
    with opened(browser, filled.url) as page:
        live(page)
        page.locator("#filter-status").select_option("canceled")
        expect(page.locator("#empty")).to_be_visible()
        page.locator("#filter-status").select_option("succeeded")
        expect(cards(page)).not_to_have_count(0)
        page.mouse.move(900, 500)
        scroll_to_the_end(page)
        assert cards(page).count() >= MANY
        assert cards(page, "succeeded").count() == cards(page).count()
