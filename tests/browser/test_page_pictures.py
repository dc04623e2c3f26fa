"""From a picture to what becomes of it, by hand: choosing, asking, looking, taking away."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Browser, FilePayload, Page, expect

from tests.browser.browsing import card, cards, drop, live, opened, shot, taken_sample
from tests.sample_pictures import picture
from tests.service import Service, post_picture

pytestmark = pytest.mark.server

IMAGES = Path(__file__).parents[2] / "images"
CAT = (IMAGES / "cat.jpg").read_bytes()


def choose(page: Page, model: str) -> None:
    page.locator("#model").select_option(model)


def test_dropped_pictures_become_results(page: Page) -> None:
    drop(page, [("cat.jpg", "image/jpeg", CAT), ("rocket.jpg", "image/jpeg", (IMAGES / "rocket.jpg").read_bytes())])
    page.get_by_role("button", name="mosaic", exact=True).click()
    page.get_by_role("button", name="night", exact=True).click()
    shot(page, "form-filled")
    page.get_by_role("button", name="Make 2 pictures").click()

    done = cards(page, "succeeded").filter(has_text="mosaic, night")
    expect(done).to_have_count(2, timeout=60_000)
    for image in done.locator("img").all():
        expect(image).to_have_js_property("complete", value=True)
        assert image.evaluate("image => image.naturalWidth") >= 192
    shot(page, "gallery-light")


def test_a_pasted_picture_is_taken(page: Page) -> None:
    page.evaluate(
        """async () => {
            const blob = await (await fetch("static/samples/cat.jpg")).blob();
            const clipboardData = new DataTransfer();
            clipboardData.items.add(new File([blob], "image.png", { type: "image/png" }));
            document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true }));
        }"""
    )
    expect(page.locator(".chosen")).to_have_count(1)
    page.locator("#prompt").fill("pasted neon")
    page.locator("#submit").click()
    card(page, "pasted neon", "succeeded")  # named .png, a JPEG inside: what it is stands in its bytes


def test_a_name_that_claims_another_type_stops_nothing(page: Page) -> None:
    page.locator("#file").set_input_files(FilePayload(name="photo.png", mimeType="image/png", buffer=CAT))
    page.locator("#prompt").fill("misnamed, sepia")
    page.locator("#submit").click()
    card(page, "misnamed, sepia", "succeeded")


def test_a_line_between_before_and_after_is_moved_by_keys_and_pointer(page: Page) -> None:
    taken_sample(page)
    page.locator("#prompt").fill("compared, stained glass")
    page.locator("#submit").click()
    card(page, "compared, stained glass", "succeeded").locator(".open").click()

    before = page.locator(".compare .before")
    line = page.get_by_role("slider", name="Line between before and after")
    expect(before).to_have_js_property("complete", value=True)
    assert before.evaluate("image => getComputedStyle(image).clipPath") == "inset(0px 50% 0px 0px)"
    line.focus()
    page.keyboard.press("Home")
    assert before.evaluate("image => getComputedStyle(image).clipPath") == "inset(0px 100% 0px 0px)"
    box = line.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] * 0.75, box["y"] + box["height"] / 2)
    assert 70 <= int(line.input_value()) <= 80
    shot(page, "compare")


def test_what_was_before_is_there_after_the_page_is_loaded_anew(page: Page) -> None:
    taken_sample(page, "coffee")
    page.locator("#prompt").fill("kept, watercolor")
    page.locator("#submit").click()
    card(page, "kept, watercolor", "succeeded")
    page.reload()
    live(page)
    card(page, "kept, watercolor", "succeeded").locator(".open").click()
    expect(page.locator(".compare .before")).to_have_attribute("src", re.compile("^blob:"))
    assert page.locator(".compare .before").evaluate("image => image.decode().then(() => image.naturalWidth)") == 320


def test_once_more_has_another_seed_and_the_same_settings(page: Page, service: Service) -> None:
    taken_sample(page)
    page.locator("#prompt").fill("again, comic")
    page.locator("#strength").fill("0.6")
    page.locator("#submit").click()
    card(page, "again, comic", "succeeded")
    page.reload()  # so that the picture comes from the service
    live(page)
    card(page, "again, comic", "succeeded").locator(".open").click()
    page.get_by_role("button", name="Run again with another seed").click()
    expect(cards(page, "succeeded").filter(has_text="again, comic")).to_have_count(2, timeout=60_000)

    listed = json.loads(service.get("/api/jobs")[1])["jobs"]
    one, other = [each for each in listed if each["prompt"] == "again, comic"]
    assert one["params"]["seed"] != other["params"]["seed"]
    assert {**one["params"], "seed": 0} == {**other["params"], "seed": 0}
    assert one["params"]["strength"] == 0.6


def test_the_command_and_the_program_shown_make_the_very_same_picture(
    page: Page, service: Service, tmp_path: Path
) -> None:
    prompt = 'it\'s "neon", 50 % & ü'
    taken_sample(page)
    page.locator("#prompt").fill(prompt)
    page.locator("#strength").fill("0.45")
    page.locator("summary", has_text="More settings").click()
    page.locator("#num_inference_steps").fill("9")
    page.locator("#submit").click()
    opened_card = card(page, prompt, "succeeded")
    opened_card.locator(".open").click()
    page.locator("#detail-request summary").click()
    command, program = page.locator("#detail-curl").inner_text(), page.locator("#detail-python").inner_text()
    shot(page, "detail-request")
    made = service.get(f"/{opened_card.locator('img').get_attribute('src')}")[1]

    (tmp_path / "cat.jpg").write_bytes(service.get("/static/samples/cat.jpg")[1])
    answer = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    waited = f'curl -sL -H "Prefer: wait=30" "{json.loads(answer)["result_url"]}"'
    assert subprocess.run(["bash", "-c", waited], capture_output=True, check=True).stdout == made
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "result.png").read_bytes() == made


def test_settings_of_a_job_are_taken_over_into_the_form(page: Page) -> None:
    taken_sample(page)
    choose(page, "slow")
    page.locator("#prompt").fill("settings, taken over")
    page.get_by_text("low", exact=True).click()
    page.locator("summary", has_text="More settings").click()
    page.locator("#num_inference_steps").fill("3")
    page.locator("#submit").click()
    card(page, "settings, taken over", "succeeded").locator(".open").click()
    page.locator("#prompt").evaluate("field => { field.value = 'something else' }")
    page.get_by_role("button", name="Use these settings").click()
    expect(page.locator("#detail")).to_be_hidden()
    expect(page.locator("#prompt")).to_have_value("settings, taken over")
    expect(page.locator("#model")).to_have_value("slow")
    expect(page.locator("#num_inference_steps")).to_have_value("3")
    expect(page.get_by_role("radio", name="low")).to_be_checked()


def test_a_link_is_copied_and_a_picture_is_downloaded_and_deleted(browser: Browser, service: Service) -> None:
    with opened(browser, service.url, permissions=["clipboard-read", "clipboard-write"]) as page:
        taken_sample(page)
        page.locator("#prompt").fill("taken away, blueprint")
        page.locator("#submit").click()
        card(page, "taken away, blueprint", "succeeded").locator(".open").click()
        page.get_by_role("button", name="Copy link").click()
        link = page.evaluate("navigator.clipboard.readText()")
        with page.expect_download() as downloading:
            page.get_by_role("link", name="Download").click()
        assert Path(downloading.value.path()).read_bytes() == service.get(link)[1]
        assert downloading.value.suggested_filename.endswith(".png")
        page.get_by_role("button", name="Delete").click()
        page.get_by_role("button", name="Really delete?").click()
        expect(cards(page).filter(has_text="taken away, blueprint")).to_have_count(0)
        assert service.get(link)[0] == 410


@pytest.mark.parametrize(
    ("name", "kind", "data", "said"),
    [
        ("notes.txt", "text/plain", b"no picture", "notes.txt: this is text/plain; send PNG, JPEG or WebP."),
        ("empty.png", "image/png", b"", "empty.png: the file is empty."),
    ],
)
def test_a_bad_file_is_refused_in_words_beside_the_chooser(
    page: Page, name: str, kind: str, data: bytes, said: str
) -> None:
    drop(page, [(name, kind, data), ("cat.jpg", "image/jpeg", CAT)])
    expect(page.locator("#pictures-error")).to_have_text(said)
    expect(page.locator(".chosen")).to_have_count(1)  # the good one was taken
    shot(page, f"refused-{name.partition('.')[0]}")


def test_what_only_the_service_can_tell_of_a_file_is_said_in_the_same_place(page: Page) -> None:
    drop(page, [("broken.png", "image/png", b"not a picture at all")])
    page.locator("#prompt").fill("broken file")
    page.locator("#submit").click()
    refused = card(page, "broken file", "refused")
    expect(refused).to_contain_text("PNG, JPEG or WebP")
    expect(page.locator("#pictures-error")).to_contain_text("PNG, JPEG or WebP")
    shot(page, "refused-by-the-service")
    refused.get_by_role("button", name="Remove").click()
    expect(refused).to_have_count(0)


def test_a_value_out_of_range_is_told_beside_its_field_and_nothing_is_sent(page: Page) -> None:
    taken_sample(page)
    before = cards(page).count()
    page.locator("summary", has_text="More settings").click()
    for field, value, said in [
        ("num_inference_steps", "0", "Steps is 1 to 200."),
        ("width", "100", "Width is a multiple of 32."),
        ("seed", "nine", f"Seed is a whole number from 0 to {2**63 - 1}, or empty."),
        ("width", "256", "Give both width and height, or neither."),
    ]:
        page.locator(f"#{field}").fill(value)
        page.locator("#submit").click()
        expect(page.locator(f"#{field}-error")).to_have_text(said)
        expect(page.locator(f"#{field}")).to_be_focused()
        expect(page.locator(f"#{field}")).to_have_attribute("aria-invalid", "true")
        page.locator(f"#{field}").fill("")
        expect(page.locator(f"#{field}-error")).to_be_empty()
    assert cards(page).count() == before


def test_without_a_picture_the_page_says_how_to_give_one(page: Page) -> None:
    page.locator("#submit").click()
    expect(page.locator("#pictures-error")).to_contain_text("Choose a picture first")
    expect(page.locator("#file")).to_be_focused()


def test_a_prompt_is_text_wherever_it_is_shown(page: Page) -> None:
    prompt = '<img src=x onerror="document.title=1"><b>bold</b>'
    drop(page, [("<i>cat</i>.png", "image/png", picture())])
    choose(page, "slow")
    page.locator("#prompt").fill(prompt)
    page.locator("#submit").click()
    found = card(page, prompt, "succeeded")
    found.locator(".open").click()
    expect(page.locator("#detail-title")).to_have_text(prompt)
    assert page.title() == "Sfumato"
    assert page.locator(".card b, #detail b").count() == 0


def test_the_page_looks_as_the_docs_show_it(browser: Browser, service: Service) -> None:
    """docs/page.jpg is this screenshot."""
    prompts = ("watercolor", "stained glass", "neon", "comic, at sunset", "pencil sketch", "autumn")
    for number, prompt in enumerate(prompts * 2):
        name = ("cat", "coffee", "astronaut", "rocket")[number * 3 % 4]
        photo = (IMAGES / f"{name}.jpg").read_bytes()
        assert post_picture(service.url, photo, media_type="image/jpeg", model_name="restyle", prompt=prompt)[0] == 202
    with opened(browser, service.url, viewport={"width": 1400, "height": 860}) as page:
        live(page)
        for name in ("cat", "rocket"):
            taken_sample(page, name)
        page.get_by_role("button", name="mosaic", exact=True).click()
        expect(cards(page, "succeeded").filter(has_text="autumn")).to_have_count(2, timeout=60_000)
        page.evaluate("Promise.all([...document.images].filter((each) => each.src).map((each) => each.decode()))")
        page.wait_for_timeout(700)  # until the pictures have come into focus
        shot(page, "page")
