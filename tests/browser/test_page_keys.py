"""The page of a service that wants keys."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.browsing import card, cards, live, opened, shot, taken_sample
from tests.browser.conftest import MODELS
from tests.service import Service

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def guarded(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = Path(tmp_path_factory.mktemp("guarded"))
    with Service(folder, models=MODELS, environment={"SFUMATO_AUTH": "keys"}) as started:
        yield started


def new_key(service: Service, owner: str, *more: str) -> str:
    """What `sfumato keys create` prints."""
    command = [sys.executable, "-m", "sfumato", "keys", "create", owner, *more, "--data-dir", str(service.data_dir)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return next(word for word in printed.split() if word.startswith("sfu_"))


def give(page: Page, key: str) -> None:
    page.locator("#key-field").fill(key)
    page.get_by_role("button", name="Use it").click()


def test_a_refused_key_is_told_in_words_and_a_good_one_opens_the_page(browser: Browser, guarded: Service) -> None:
    with opened(browser, guarded.url) as page:
        expect(page.get_by_role("dialog", name="This service wants a key")).to_be_visible()
        shot(page, "key")
        give(page, "two words")
        expect(page.locator("#key-error")).to_have_text("A key is one word that begins with sfu_.")
        give(page, "sfu_wrong")
        expect(page.locator("#key-error")).to_contain_text("This key is not good any more, or never was.")
        shot(page, "key-refused")
        give(page, new_key(guarded, "alice"))
        live(page)
        taken_sample(page)
        page.locator("#prompt").fill("for alice, neon")
        page.locator("#submit").click()
        card(page, "for alice, neon", "succeeded").locator(".open").click()
        expect(page.locator("#detail-curl")).to_contain_text('"Authorization: Bearer $SFUMATO_API_KEY"')
        assert "sfu_" not in page.locator("#detail").inner_text()


def test_the_key_stays_in_the_tab_and_goes_to_this_service_alone(browser: Browser, guarded: Service) -> None:
    key = new_key(guarded, "bob")
    with opened(browser, guarded.url) as page:
        addresses: list[str] = []
        page.on("request", lambda request: addresses.append(request.url))
        give(page, key)
        live(page)
        taken_sample(page)
        page.locator("#prompt").fill("for bob, sepia")
        page.locator("#submit").click()
        card(page, "for bob, sepia", "succeeded")
        assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
        assert page.evaluate("Object.values(sessionStorage)") == [key]
        assert addresses
        assert all(address.startswith((guarded.url, "blob:", "data:")) for address in addresses)
        assert not any(key in address for address in addresses)
        expect(cards(page).filter(has_text="for alice")).to_have_count(0)  # hers, not his

        page.get_by_role("button", name="Key").click()
        page.get_by_role("button", name="Forget the key").click()
        expect(page.get_by_role("dialog", name="This service wants a key")).to_be_visible()
        expect(cards(page)).to_have_count(0)
        assert page.evaluate("sessionStorage.length") == 0


def test_another_key_shows_nothing_of_whose_the_first_was(browser: Browser, guarded: Service) -> None:
    with opened(browser, guarded.url) as page:
        give(page, new_key(guarded, "carol"))
        live(page)
        taken_sample(page)
        page.locator("#prompt").fill("for carol, sepia")
        page.locator("#submit").click()
        card(page, "for carol, sepia", "succeeded")
        page.get_by_role("button", name="Key").click()
        give(page, new_key(guarded, "dave"))
        expect(page.locator("#empty")).to_be_visible()
        expect(cards(page)).to_have_count(0)


def test_what_a_key_may_not_do_is_said_by_the_job_that_was_not_taken(browser: Browser, guarded: Service) -> None:
    with opened(browser, guarded.url) as page:
        give(page, new_key(guarded, "reader", "--scope", "read"))
        live(page)
        taken_sample(page)
        page.locator("#prompt").fill("not allowed")
        page.locator("#submit").click()
        expect(card(page, "not allowed", "refused")).to_contain_text("This needs a key with the scope submit")
