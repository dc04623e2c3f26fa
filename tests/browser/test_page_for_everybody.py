"""The page for those who use it otherwise: by keyboard, by screen reader, at night, on a phone, without motion."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.browser.browsing import card, cards, live, opened, shot, taken_sample
from tests.service import Service

pytestmark = pytest.mark.server

PHONES = [(390, 844), (320, 640)]


def serious(page: Page) -> list[str]:
    """What axe-core finds that is serious or worse, in words."""
    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {node['html'][:200]} {node['failureSummary']}"
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_any_view(browser: Browser, service: Service, scheme: str) -> None:
    # The tool is a script that is put into the page, which the page's own policy would not have.
    with opened(browser, service.url, color_scheme=scheme, bypass_csp=True) as page:
        live(page)
        assert serious(page) == []
        page.locator("#submit").click()  # with an error
        taken_sample(page)
        page.locator("summary", has_text="More settings").click()
        page.get_by_role("button", name="neon", exact=True).click()
        page.locator("#prompt").fill(f"looked at, neon, {scheme}")
        page.locator("#submit").click()
        card(page, f"looked at, neon, {scheme}", "succeeded")
        page.wait_for_timeout(700)  # until the picture has come into focus
        assert serious(page) == []
        shot(page, f"pictures-{scheme}")
        cards(page, "succeeded").first.locator(".open").click()
        page.locator("#detail-request summary").click()
        assert serious(page) == []
        shot(page, f"detail-{scheme}")
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Key").click()
        assert serious(page) == []
        shot(page, f"key-{scheme}")
        page.keyboard.press("Escape")
        page.get_by_role("link", name="Service").click()
        expect(page.locator(".model")).not_to_have_count(0)
        assert serious(page) == []
        shot(page, f"service-{scheme}")


@pytest.mark.parametrize(("width", "height"), PHONES)
def test_on_a_phone_nothing_is_wider_than_the_screen(
    browser: Browser, service: Service, width: int, height: int
) -> None:
    size = {"width": width, "height": height}
    with opened(browser, service.url, viewport=size, has_touch=True, is_mobile=True) as page:
        live(page)
        taken_sample(page, "rocket")
        page.locator("#prompt").fill(f"on a phone, comic {width}")
        page.locator("summary", has_text="More settings").tap()
        assert too_wide(page) == []
        shot(page, f"phone-{width}", full_page=True)
        page.locator("#submit").tap()
        card(page, f"on a phone, comic {width}", "succeeded").locator(".open").tap()
        page.locator("#detail-request summary").tap()
        assert too_wide(page) == []
        shot(page, f"phone-{width}-detail")
        page.get_by_role("button", name="Close").tap()
        page.get_by_role("link", name="Service").tap()
        expect(page.locator(".model")).not_to_have_count(0)
        assert too_wide(page) == []
        shot(page, f"phone-{width}-service")


def too_wide(page: Page) -> list[str]:
    """What reaches beyond the right edge, of the page or of what is open above it; as tags."""
    found: list[str] = page.evaluate(
        """() => {
            const scrolled = [document.documentElement, ...document.querySelectorAll("dialog[open]")];
            if (scrolled.every((each) => each.scrollWidth <= each.clientWidth)) return [];
            const beyond = (each) => each.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5;
            return [...document.querySelectorAll("*")].filter(beyond).map((each) => each.outerHTML.slice(0, 90));
        }"""
    )
    return found


def test_all_is_done_by_keyboard_alone(page: Page) -> None:
    page.locator(".brand").focus()
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('aria-label')") == "Sample: cat":
            break
    page.keyboard.press("Enter")
    expect(page.locator(".chosen")).to_have_count(1)
    page.locator("#prompt").focus()
    page.keyboard.type("typed, watercolor")
    page.keyboard.press("Control+Enter")
    made = card(page, "typed, watercolor", "succeeded")
    made.locator(".open").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#detail")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#detail")).to_be_hidden()
    expect(made.locator(".open")).to_be_focused()


def test_arrows_lead_from_one_picture_to_the_next(page: Page) -> None:
    taken_sample(page)
    for prompt in ("first of two, mosaic", "second of two, mosaic"):
        page.locator("#prompt").fill(prompt)
        page.locator("#submit").click()
        card(page, prompt, "succeeded")
    card(page, "second of two, mosaic", "succeeded").locator(".open").click()
    page.locator("#detail-close").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#detail-title")).to_have_text("first of two, mosaic")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#detail-title")).to_have_text("second of two, mosaic")


def test_the_end_of_a_job_is_told_to_screen_readers(page: Page) -> None:
    taken_sample(page)
    page.locator("#prompt").fill("heard, sepia")
    page.locator("#submit").click()
    expect(page.locator("#announcer")).to_have_text("Done: heard, sepia", timeout=60_000)
    expect(page.get_by_role("button", name="Done: heard, sepia, restyle")).to_be_visible()


def test_who_wants_no_motion_gets_none(browser: Browser, service: Service) -> None:
    with opened(browser, service.url, reduced_motion="reduce") as page:
        taken_sample(page)
        page.locator("#model").select_option("slow")
        page.locator("#prompt").fill("without motion")
        page.locator("#strength").fill("1")
        page.locator("#submit").click()
        card(page, "without motion", "running")
        assert page.evaluate("document.getAnimations().length") == 0
        moving = "getComputedStyle(document.querySelector('.frame img')).transitionDuration"
        assert page.evaluate(moving) == "0s"
