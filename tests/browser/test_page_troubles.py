"""What goes wrong around the page: lists that fail, events missed for good, keys that come late, odd settings."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.browser.browsing import card, cards, live, opened, taken_sample
from tests.browser.conftest import MODELS
from tests.sample_pictures import picture
from tests.service import Service, post_picture

pytestmark = pytest.mark.server

PROBLEM = {"Content-Type": "application/problem+json", "Retry-After": "1"}


def refuse(route: Route, status: int, slug: str) -> None:
    """Answer as the service does."""
    body = {"type": f"urn:sfumato:problem:{slug}", "title": slug, "status": status, "detail": f"{slug} it is."}
    route.fulfill(status=status, headers=PROBLEM, body=json.dumps(body))


@pytest.fixture(scope="module")
def named(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose links lead to a name that is not known here."""
    folder = Path(tmp_path_factory.mktemp("named"))
    with Service(folder, models=MODELS, environment={"SFUMATO_PUBLIC_URL": "https://pictures.example.com"}) as started:
        yield started


def test_results_are_shown_wherever_the_links_of_others_lead(browser: Browser, named: Service) -> None:
    with opened(browser, named.url) as page:
        live(page)
        taken_sample(page)
        page.locator("#prompt").fill("by another name, neon")
        page.locator("#submit").click()
        image = card(page, "by another name, neon", "succeeded").locator("img")
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


def test_a_job_that_waits_knows_all_that_was_asked(page: Page) -> None:
    taken_sample(page)
    page.locator("#model").select_option("slow")
    page.locator("#prompt").fill("asked in full")
    page.locator("summary", has_text="More settings").click()
    for name, value in {"seed": "7", "num_inference_steps": "60", "copies": "6"}.items():
        page.locator(f"#{name}").fill(value)
    page.locator("#strength").fill("1")
    page.locator("#submit").click()
    found = cards(page).filter(has_text="asked in full")
    expect(found).to_have_count(6)
    expect(found.first).to_have_attribute("data-status", re.compile("queued|running"))
    found.first.locator(".open").click()
    expect(page.locator("#detail-curl")).to_contain_text(re.compile(r"num_inference_steps=60.*seed=(7|8|9|1[0-2])"))
    page.get_by_role("button", name="Use these settings").click()
    expect(page.locator("#num_inference_steps")).to_have_value("60")
    for each in range(6):
        found.nth(each).get_by_role("button", name="Cancel", exact=True).click()


def test_the_largest_seed_is_shown_as_it_is(page: Page, service: Service) -> None:
    most = 2**63 - 1
    post_picture(service.url, picture(), model_name="slow", prompt="large seed", seed=str(most))
    card(page, "large seed", "succeeded").locator(".open").click()
    expect(page.locator("#detail-curl")).to_contain_text(f"seed={most}")
    expect(page.locator("#detail-python")).to_contain_text(f"seed={most},")
    page.get_by_role("button", name="Use these settings").click()
    expect(page.locator("#seed")).to_have_value(str(most))


def test_keys_that_are_held_down_send_once(page: Page) -> None:
    taken_sample(page)
    page.locator("#model").select_option("slow")
    page.locator("#prompt").fill("held down")
    for _ in range(5):
        page.keyboard.down("Control")
        page.keyboard.down("Enter")
    page.keyboard.up("Enter")
    page.keyboard.up("Control")
    card(page, "held down", "succeeded")


def test_settings_taken_over_survive_a_new_list_of_models(page: Page, service: Service) -> None:
    post_picture(service.url, picture(), model_name="slow", prompt="odd", strength="0.333", num_inference_steps="9")
    card(page, "odd", "succeeded").locator(".open").click()
    page.get_by_role("button", name="Use these settings").click()

    def one_more(route: Route) -> None:
        told = route.fetch().json()
        told["models"].append(told["models"][0] | {"name": "another"})
        route.fulfill(json=told)

    page.route("**/api/models", one_more)
    expect(page.locator("#model option")).to_have_count(3, timeout=20_000)
    expect(page.locator("#model")).to_have_value("slow")
    expect(page.locator("#strength")).to_have_value("0.333")
    expect(page.locator("#num_inference_steps")).to_have_value("9")


def test_a_list_that_is_refused_for_a_moment_is_asked_for_again(browser: Browser, service: Service) -> None:
    post_picture(service.url, picture(), model_name="slow", prompt="listed late")
    refused: list[str] = []

    def twice(route: Route) -> None:
        if len(refused) < 2:
            refused.append(route.request.url)
            refuse(route, 429, "rate-exceeded")
        else:
            route.continue_()

    with browser.new_context() as window:
        page = window.new_page()
        page.route("**/api/jobs?*", twice)
        page.goto(service.url)
        card(page, "listed late", "succeeded")
        assert len(refused) == 2


def test_events_that_are_lost_for_good_leave_no_job_running_for_ever(browser: Browser, service: Service) -> None:
    running: dict[str, Any] = {}

    def reset(route: Route) -> None:
        """The stream forgot what happened: a `reset`, and nothing of the end."""
        route.fulfill(content_type="text/event-stream", body="event: reset\nid: 1.0\ndata: {}\n\n")

    with opened(browser, service.url) as page:
        live(page)
        post_picture(
            service.url, picture(), model_name="slow", prompt="lost end", num_inference_steps="30", strength="1"
        )
        running["id"] = card(page, "lost end", "running").get_attribute("data-id")
        page.locator("#filter-status").select_option("running")  # a list in which it will not be once it has ended
        card(page, "lost end", "running")
        page.route("**/api/events*", reset)
        page.evaluate(
            """() => {
                for (const hidden of [true, false]) {
                    Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
                    document.dispatchEvent(new Event("visibilitychange"));
                }
            }"""
        )
        expect(cards(page).filter(has_text="lost end")).to_have_count(0, timeout=30_000)
        assert service.job(running["id"])["status"] == "succeeded"


def test_what_was_refused_for_want_of_a_key_is_sent_once_there_is_one(page: Page) -> None:
    def wanting(route: Route) -> None:
        if route.request.headers.get("authorization"):
            route.continue_()
        else:
            refuse(route, 401, "unauthorized")

    page.route("**/api/diffusion", wanting)
    taken_sample(page)
    page.locator("#model").select_option("slow")
    page.locator("#prompt").fill("sent with a key")
    page.locator("#submit").click()
    expect(card(page, "sent with a key", "refused")).to_contain_text("unauthorized it is.")
    page.locator("#key-field").fill("sfu_any")  # the service itself is open
    page.get_by_role("button", name="Use it").click()
    card(page, "sent with a key", "succeeded")


def test_a_job_deleted_elsewhere_is_taken_away_and_the_focus_goes_on(page: Page, service: Service) -> None:
    for prompt in ("stays beside", "deleted elsewhere"):
        post_picture(service.url, picture(), model_name="slow", prompt=prompt)
        card(page, prompt, "succeeded")
    gone = card(page, "deleted elsewhere", "succeeded")
    job_id = gone.get_attribute("data-id")
    gone.locator(".open").click()
    page.evaluate("id => fetch(`api/jobs/${id}`, { method: 'DELETE' })", job_id)
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Really delete?").click()
    expect(gone).to_have_count(0)
    expect(card(page, "stays beside", "succeeded").locator(".open")).to_be_focused()
