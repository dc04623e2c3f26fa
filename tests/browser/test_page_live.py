"""What happens is seen as it happens, whatever dies meanwhile."""

import os
import re
import signal
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.browser.browsing import card, cards, live, opened, shot, taken_sample
from tests.sample_pictures import picture
from tests.service import Service, post_picture
from tests.support import poll

pytestmark = pytest.mark.server

CAT = (Path(__file__).parents[2] / "images" / "cat.jpg").read_bytes()
HALF = CAT[: len(CAT) // 2]


def send(page: Page, prompt: str, model: str = "slow", **more: str) -> None:
    """Make one picture of the sample that is chosen."""
    page.locator("#model").select_option(model)
    page.locator("#prompt").fill(prompt)
    for name, value in more.items():
        field = page.locator(f"#{name}")
        if not field.is_visible():
            page.locator("summary", has_text="More settings").click()
        field.fill(value)
    page.locator("#submit").click()


def step_of(page: Page, prompt: str) -> int:
    """How many steps the card of this prompt says are done."""
    said = cards(page, "running").filter(has_text=prompt).locator(".standing").inner_text()
    found = re.match(r"Step (\d+) of \d+", said)
    return int(found[1]) if found else 0


def load(service: Service, prompt: str) -> None:
    """Another program sends a job that takes two seconds."""
    post_picture(service.url, picture(), model_name="slow", prompt=prompt, num_inference_steps="20", strength="1")


def kill_gateway(service: Service) -> None:
    os.kill(service.roles()["gateway"], signal.SIGKILL)


@pytest.fixture
def sampled(page: Page) -> Page:
    taken_sample(page)
    return page


def test_steps_are_counted_and_the_picture_is_seen_coming(sampled: Page) -> None:
    send(sampled, "coming, mosaic", "restyle", num_inference_steps="120", strength="1")
    running = card(sampled, "coming, mosaic", "running")
    image = running.locator("img")
    expect(image).to_have_attribute("src", re.compile("^data:image/jpeg"), timeout=30_000)
    before = step_of(sampled, "coming, mosaic")
    expect(running.locator(".standing")).not_to_have_text(re.compile(f"^Step {before} of"))
    assert step_of(sampled, "coming, mosaic") > before
    assert float(str(running.locator("progress").get_attribute("value"))) > 0
    shot(sampled, "coming")
    running.get_by_role("button", name="Cancel").click()


def test_a_job_that_waits_says_its_place(sampled: Page) -> None:
    for number in range(12):
        send(sampled, f"in line {number:02}", num_inference_steps="40", strength="1")
    last = cards(sampled, "queued").filter(has_text="in line 11")
    expect(last.locator(".standing")).to_have_text(re.compile(r"Number \d+ in line, about .+ s"), timeout=30_000)
    shot(sampled, "waiting")
    for number in range(11, 7, -1):
        cards(sampled).filter(has_text=f"in line {number:02}").get_by_role("button", name="Cancel", exact=True).click()
    expect(cards(sampled, "canceled").filter(has_text="in line")).to_have_count(4)


def test_cancel_ends_the_job_and_says_so(sampled: Page, service: Service) -> None:
    # Kept, since the end of another job may be said right behind it.
    sampled.evaluate("""() => {
        const announcer = document.querySelector("#announcer");
        window.said = [];
        const keep = () => window.said.push(announcer.textContent);
        new MutationObserver(keep).observe(announcer, { childList: true, characterData: true, subtree: true });
    }""")
    send(sampled, "to be stopped", num_inference_steps="200", strength="1")
    card(sampled, "to be stopped", "running").get_by_role("button", name="Cancel").click()
    canceled = card(sampled, "to be stopped", "canceled")
    expect(canceled.get_by_role("button", name="Cancel", exact=True)).to_have_count(0)
    assert service.job(str(canceled.get_attribute("data-id")))["status"] == "canceled"
    poll(lambda: "Canceled: to be stopped" in sampled.evaluate("window.said"))


def test_jobs_that_another_program_sends_appear_by_themselves(page: Page, service: Service) -> None:
    load(service, "from elsewhere, at once")
    card(page, "from elsewhere, at once", "running")  # and not only when its end is told, which says all of it
    for number in range(3):
        assert post_picture(service.url, picture(), model_name="slow", prompt=f"from elsewhere {number}")[0] == 202
    for number in range(3):
        card(page, f"from elsewhere {number}", "succeeded")


def test_a_failed_job_says_why(page: Page, service: Service) -> None:
    assert post_picture(service.url, HALF, media_type="image/jpeg", model_name="slow", prompt="cut off")[0] == 202
    expect(card(page, "cut off", "failed").locator(".reason")).to_contain_text("decoded")
    card(page, "cut off", "failed").locator(".open").click()
    expect(page.locator("#detail-reason")).to_contain_text("decoded")
    shot(page, "failed")


def test_a_killed_gateway_is_waited_for_and_nothing_that_runs_is_lost(sampled: Page, service: Service) -> None:
    sampled.evaluate("window.stayed = true")
    send(sampled, "outlives its gateway", num_inference_steps="40", strength="1")
    card(sampled, "outlives its gateway", "running")
    kill_gateway(service)
    expect(sampled.locator("#connection")).to_have_attribute("data-state", "lost")
    shot(sampled, "connection-lost")
    live(sampled)
    card(sampled, "outlives its gateway", "succeeded")
    assert sampled.evaluate("window.stayed") is True


def test_a_picture_sent_while_the_gateway_is_away_is_sent_again_as_one_job(sampled: Page, service: Service) -> None:
    lost: list[int] = []

    def swallow(route: Route) -> None:
        """The first time the job is accepted, and its answer gets lost."""
        if lost:
            route.continue_()
        else:
            lost.append(route.fetch().status)
            route.abort("connectionreset")

    sampled.route("**/api/diffusion", swallow)
    kill_gateway(service)
    expect(sampled.locator("#connection")).to_have_attribute("data-state", "lost")
    live(sampled)
    send(sampled, "sent twice, one job")
    card(sampled, "sent twice, one job", "succeeded")
    assert lost == [202]
    sampled.reload()
    card(sampled, "sent twice, one job", "succeeded")


def test_a_page_that_was_hidden_is_told_what_it_missed(sampled: Page, service: Service) -> None:
    hide = """hidden => {
        Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    send(sampled, "unseen", num_inference_steps="20", strength="1")
    job_id = card(sampled, "unseen", "running").get_attribute("data-id")
    sampled.evaluate(hide, True)
    expect_ended(service, str(job_id))
    expect(cards(sampled, "running").filter(has_text="unseen")).to_have_count(1)
    sampled.evaluate(hide, False)
    card(sampled, "unseen", "succeeded")


def expect_ended(service: Service, job_id: str) -> None:
    """Wait, as anybody may, for the job's end."""
    assert service.get(f"/api/jobs/{job_id}/result")[0] in (200, 202)
    poll(lambda: service.job(job_id)["status"] == "succeeded", within_s=60)


def test_the_service_view_follows_workers_and_queues(browser: Browser, service: Service) -> None:
    with opened(browser, f"{service.url}/#service") as other:
        model = other.locator(".model").filter(has_text="slow")
        expect(model).to_be_visible()
        for number in range(16):
            load(service, f"load {number}")
        waiting = model.locator("dd").nth(2)
        expect(waiting).not_to_have_text("0", timeout=15_000)
        shot(other, "service-busy")
        expect(waiting).to_have_text("0", timeout=60_000)
        expect(model.locator(".state")).to_have_text("ready")
        points = str(model.locator("polyline").get_attribute("points")).split()
        assert len({point.split(",")[1] for point in points}) > 1
