"""The page at / in a real browser, on a real gateway and a real Triton."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

pytest.importorskip("selenium")
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from .page import CHROMIUM, DRIVER, Page, answer, run_browser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .conftest import Gateway

pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium with chromedriver here")

CORNERS = """
const canvas = document.querySelector(".card:nth-child(3) canvas");
const { data, width, height } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
const isRed = (right, down) => data[4 * (Math.floor(height * down) * width + Math.floor(width * right)) + 1] < 50;
return [0.1, 0.9].map((down) => [0.1, 0.9].map((right) => isRed(right, down)));
"""
# The photo as `object-fit: contain` places it in the frame, and the map: left, top, width and height.
MAP = """
const frame = document.querySelector(".frame").getBoundingClientRect();
const { width, height } = document.querySelector(".frame canvas");
const scale = Math.min(frame.width / width, frame.height / height);
const photo = [frame.x + (frame.width - width * scale) / 2, frame.y + (frame.height - height * scale) / 2,
  width * scale, height * scale];
return [...document.querySelectorAll(".frame .map image")].map((image) => {
  const map = image.getBoundingClientRect();
  return { photo, map: [map.x, map.y, map.width, map.height] };
});
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    yield from run_browser(tmp_path_factory)


@pytest.fixture
def page(browser: webdriver.Chrome, gateway: Gateway) -> Page:
    return Page(browser, gateway.url)


def test_shows_the_verdicts(page: Page, sample_photos: list[Path]) -> None:
    page.give(*sample_photos)
    cards = page.finished()
    assert [card["name"] for card in cards] == [path.name for path in sample_photos]
    for card in cards:
        cleanliness, condition = card["name"].split("_")[:2]
        assert card["labels"] == {"cleanliness": cleanliness.capitalize(), "condition": condition.capitalize()}
        assert len(card["shares"]) == 2
        assert all(50 <= float(share.rstrip("%")) <= 100 for share in card["shares"])
        assert " ms · model version 1" in card["text"]
    assert page.id("count").text == "8 of 8 done"
    assert page.wait(lambda: "8 of 8" in page.id("announcer").get_attribute("textContent"))
    assert page.complaints() == []


def test_demo_models_are_announced(page: Page, sample_photos: list[Path]) -> None:
    page.wait(page.id("demo").is_displayed)
    assert page.id("demo").text.startswith("Demo models: do not rely on their answers. Two small networks")
    # Then a service whose models say nothing about themselves.
    page.stub(answer(condition="intact", conditionConfidence=0.9))
    page.give(sample_photos[0])
    page.finished()
    page.wait(lambda: not page.id("demo").is_displayed())


def test_errors_stand_beside_their_photo(page: Page, sample_photos: list[Path], tmp_path: Path) -> None:
    text = tmp_path / "notes.jpg"
    text.write_text("not a photo")
    page.give(sample_photos[0], text)
    good, bad = page.finished()
    assert (good["state"], bad["state"]) == ("done", "failed")
    assert "not a photo" in bad["text"]
    assert page.id("count").text == "2 of 2 done, 1 failed"
    page.browser.find_element(By.CSS_SELECTOR, "[data-language=ru]").click()
    assert page.cards()[1]["text"].startswith("Это фото не удалось прочитать.")
    assert page.complaints(400) == []


def test_few_are_sent_at_once(page: Page, sample_photos: list[Path]) -> None:
    page.browser.execute_script(
        "const send = fetch; let now = 0; let goOn; window.most = 0;"
        # The first are held until there are four, or they could be answered one by one.
        "const four = new Promise((resolve) => { goOn = resolve; });"
        "window.fetch = async (...request) => { if (request[0] === 'health') return send(...request);"
        "  window.most = Math.max(window.most, ++now); if (now === 4) goOn();"
        "  await four; return send(...request).finally(() => now--); };"
    )
    # The browser notes it itself: photos are answered faster than it can be asked from here.
    page.browser.execute_script(
        "window.seen = []; new MutationObserver(() => seen.push(document.getElementById('count').textContent))"
        ".observe(document.getElementById('count'), {childList: true, characterData: true, subtree: true});"
    )
    page.give(*sample_photos * 3)
    assert all(card["state"] == "done" for card in page.finished())
    assert page.browser.execute_script("return window.most") == 4
    assert page.id("count").text == "24 of 24 done"
    assert len(set(page.browser.execute_script("return window.seen"))) > 2, "progress was not shown"
    assert page.id("progress").get_attribute("value") == "24"


def test_speaks_two_languages(page: Page, sample_photos: list[Path]) -> None:
    assert page.id("choose").text == "Choose photos"
    page.give(sample_photos[0])
    page.finished()
    page.browser.find_element(By.CSS_SELECTOR, "[data-language=ru]").click()
    assert page.cards()[0]["labels"] == {"cleanliness": "Чистая", "condition": "Повреждённая"}
    assert "," in page.cards()[0]["shares"][0]
    assert page.browser.find_element(By.TAG_NAME, "html").get_attribute("lang") == "ru"
    page.browser.refresh()
    assert page.id("choose").text == "Выбрать фото"
    assert page.complaints() == []


def test_works_by_keyboard(page: Page, sample_photos: list[Path]) -> None:
    page.browser.execute_script("document.getElementById('files').click = () => { window.asked = true }")
    names = []
    for _ in range(4):
        page.press(Keys.TAB)
        names.append(page.browser.switch_to.active_element.text)
    assert names == ["For developers", "EN", "РУ", "Choose photos"]  # noqa: RUF001
    assert page.browser.switch_to.active_element.value_of_css_property("outline-style") == "solid"
    page.press(Keys.ENTER)
    assert page.browser.execute_script("return window.asked")

    page.give(*sample_photos[:2])
    page.finished()
    remove = f"Remove {sample_photos[0].name}"
    for _ in range(20):
        page.press(Keys.TAB)
        if page.browser.switch_to.active_element.accessible_name == remove:
            break
    page.press(Keys.SPACE)
    assert [card["name"] for card in page.cards()] == [sample_photos[1].name]
    assert page.browser.switch_to.active_element.accessible_name == f"Remove {sample_photos[1].name}"


def test_shows_heads_and_labels_it_never_heard_of(page: Page, sample_photos: list[Path]) -> None:
    page.stub(
        answer(
            cleanliness="unsure", cleanlinessConfidence=0.55, tyre="<b>flat</b>", tyreConfidence=0.7,
            marks=["taxi", "dirty"], marksConfidence=0.8, note="no head", processingTime=41.3,
        )
    )  # fmt: skip
    page.give(sample_photos[0])
    (card,) = page.finished()
    assert card["labels"] == {"cleanliness": "Not sure", "tyre": "<b>flat</b>", "marks": "taxi, Dirty"}
    assert card["shares"] == ["55.0%", "70.0%", "80.0%"]
    assert "41 ms" in card["text"]


def test_waits_while_the_service_is_busy(page: Page, sample_photos: list[Path]) -> None:
    page.stub(
        {"status": 503, "body": '{"error": "busy"}', "headers": {"Retry-After": "1"}},
        answer(condition="intact", conditionConfidence=0.9),
    )
    # The browser notes it itself: it may be over before it can be asked from here.
    page.browser.execute_script(
        "window.seen = []; new MutationObserver(() => seen.push(document.getElementById('cards').innerText))"
        ".observe(document.getElementById('cards'), {childList: true, characterData: true, subtree: true});"
    )
    started = time.monotonic()
    page.give(sample_photos[0])
    assert page.finished()[0]["labels"] == {"condition": "Intact"}
    assert time.monotonic() - started >= 1
    assert any("trying again in 1 s" in text for text in page.browser.execute_script("return window.seen"))
    assert page.browser.execute_script("return window.sent") == 2


def test_can_be_cancelled_and_tried_again(page: Page, sample_photos: list[Path]) -> None:
    page.stub(None, None, None, None, answer(condition="intact", conditionConfidence=0.9))
    page.give(*sample_photos)
    page.wait(lambda: [card["state"] for card in page.cards()] == ["sending"] * 4 + ["waiting"] * 4)
    page.id("cancel").send_keys(Keys.ENTER)
    assert {card["state"] for card in page.finished()} == {"cancelled"}
    assert page.browser.execute_script("return window.sent") == 4
    page.browser.find_element(By.CSS_SELECTOR, ".content button").click()
    assert page.finished()[0]["state"] == "done"


def test_asks_for_a_token(
    browser: webdriver.Chrome, server: Any, start_gateway: Callable[..., Gateway], sample_photos: list[Path]
) -> None:
    page = Page(browser, start_gateway(server.grpc_url, CAR_ANALYZER_TOKEN="the-right-one").url)
    page.give(*sample_photos[:2])
    page.wait(page.id("token").is_displayed)
    field = page.id("token-field")
    field.send_keys("a-wrong-one", Keys.ENTER)
    page.wait(lambda: "not accepted" in page.id("token").text)
    field.send_keys("the-right-one", Keys.ENTER)
    assert {card["state"] for card in page.finished()} == {"done"}
    assert not page.id("token").is_displayed()
    page.browser.refresh()
    page.give(sample_photos[0])
    assert page.finished()[0]["state"] == "done"
    assert page.complaints(401) == []


def test_hands_out_the_answers(page: Page, sample_photos: list[Path]) -> None:
    page.browser.execute_script(
        "window.saved = []; const make = URL.createObjectURL;"
        "URL.createObjectURL = (blob) => { blob.text().then((text) => window.saved.push(text)); return make(blob); };"
        "navigator.clipboard.writeText = async (text) => { window.saved.push(text) };"
    )
    page.give(*sample_photos[:2])
    page.finished()
    page.id("copy").click()
    page.id("download").click()
    copied, downloaded = page.wait(lambda: len(saved := page.browser.execute_script("return saved")) == 2 and saved)
    assert copied == downloaded
    entries = json.loads(copied)
    assert [entry["photo"] for entry in entries] == [path.name for path in sample_photos[:2]]
    assert entries[0]["cleanliness"] == "clean"
    assert page.complaints() == []


def test_shows_large_photos_small(page: Page, large_photo: bytes, sample_photos: list[Path], tmp_path: Path) -> None:
    large, scan, turned = tmp_path / "large.jpg", tmp_path / "scan.tiff", tmp_path / "turned.jpg"
    large.write_bytes(large_photo)
    Image.open(sample_photos[0]).save(scan)
    orientation = Image.Exif()
    orientation[274] = 6
    with Image.new("RGB", (1200, 900), "white") as picture:
        picture.paste("red", (0, 0, 600, 900))
        picture.save(turned, exif=orientation)
    page.give(large, scan, turned)
    page.wait(lambda: page.cards()[0]["canvas"] == [480, 360])
    page.wait(lambda: page.cards()[2]["canvas"])
    assert page.browser.execute_script(CORNERS) == [[True, True], [False, False]], "it does not stand upright"
    cards = page.finished()
    assert [card["state"] for card in cards] == ["done"] * 3
    assert ["networks see it as stored" in card["text"] for card in cards] == [False, False, True]
    page.wait(lambda: page.browser.find_elements(By.CSS_SELECTOR, ".card:nth-child(2) .frame.blank"))
    assert page.complaints() == []


def test_shows_where_an_answer_comes_from(page: Page, sample_photos: list[Path], tmp_path: Path) -> None:
    tall = tmp_path / "tall.jpg"
    with Image.open(sample_photos[0]) as photo:
        photo.resize((300, 500)).save(tall)
    page.give(tall)
    page.finished()
    page.wait(lambda: page.cards()[0]["canvas"])
    assert page.browser.execute_script(MAP) == []
    cleanliness, condition = page.browser.find_elements(By.CSS_SELECTOR, ".maps button")
    assert condition.accessible_name == "Show where: Condition"

    cleanliness.click()
    page.wait(lambda: page.browser.execute_script(MAP))
    page.press(Keys.TAB, Keys.ENTER)
    assert [button.get_attribute("aria-pressed") for button in (cleanliness, condition)] == ["false", "true"]
    # The demo's networks see the whole photo.
    ((photo_place, map_place),) = [shown.values() for shown in page.browser.execute_script(MAP)]
    assert map_place == pytest.approx(photo_place, abs=1)
    assert min(map_place) > 0
    page.press(Keys.TAB, Keys.END)
    assert page.browser.execute_script("return document.querySelector('.map').style.opacity") == "1"
    condition.send_keys(Keys.SPACE)
    assert page.browser.execute_script(MAP) == []
    assert page.complaints() == []

    # A service of an earlier version does not have the parameter, and models of earlier versions cannot explain.
    code = json.dumps({"error": "cannot", "code": "model.not_explainable"})
    analysis = answer(condition="intact", conditionConfidence=0.9)
    page.stub(analysis, analysis, {"status": 502, "body": code})
    page.give(sample_photos[0])
    page.finished()
    for sentence in ("This service does not show where", "The model cannot show where"):
        page.browser.find_element(By.CSS_SELECTOR, ".card:nth-child(2) .maps button").click()
        page.wait(lambda sentence=sentence: sentence in page.cards()[1]["text"])


def test_takes_feedback(
    browser: webdriver.Chrome,
    server: Any,
    start_gateway: Callable[..., Gateway],
    sample_photos: list[Path],
    tmp_path: Path,
) -> None:
    collected = tmp_path / "collected"
    page = Page(
        browser, start_gateway(server.grpc_url, CAR_ANALYZER_COLLECT=str(collected), CAR_ANALYZER_COLLECT_SHARE="1").url
    )
    page.wait(lambda: "keeps some photos" in page.id("kept").text)
    page.give(*sample_photos[:2])
    page.finished()

    def find(selector: str) -> Any:
        return page.wait(lambda: browser.find_elements(By.CSS_SELECTOR, selector))

    # Sent again, with the same id, for the map: the collection does not count it as another photo.
    find(".card:nth-child(1) .maps button")[0].click()
    find(".card:nth-child(1) .map")
    find(".card:nth-child(1) [data-feedback=right]")[0].click()
    page.wait(lambda: "Thank you" in page.cards()[0]["text"])
    find(".card:nth-child(2) [data-feedback=wrong]")[0].send_keys(Keys.ENTER)
    cleanliness, condition = find(".card:nth-child(2) select")
    assert browser.switch_to.active_element == cleanliness
    assert [Select(head).first_selected_option.text for head in (cleanliness, condition)] == ["Clean", "Damaged"]
    Select(cleanliness).select_by_visible_text("Cannot tell")
    Select(condition).select_by_visible_text("Intact")
    condition.submit()
    page.wait(lambda: "Thank you" in page.cards()[1]["text"])
    labels = {"cleanliness/clean/condition/damaged", "condition/intact"}
    page.wait(
        lambda: labels == {str(path.parent.relative_to(collected / "labelled")) for path in collected.rglob("*.jpg")}
    )
    assert page.complaints() == []

    # The service has forgotten the photo.
    page.stub(answer(condition="intact", conditionConfidence=0.9), {"status": 404, "body": '{"error": "too long ago"}'})
    page.give(sample_photos[2])
    page.finished()
    find(".card:nth-child(3) [data-feedback=wrong]")[0].click()
    page.wait(lambda: "too long ago" in page.cards()[2]["text"])


def test_takes_what_is_dropped_or_pasted(page: Page, sample_photos: list[Path], tmp_path: Path) -> None:
    inner = tmp_path / "lot" / "row"
    inner.mkdir(parents=True)
    shutil.copy(sample_photos[0], inner)
    shutil.copy(sample_photos[1], tmp_path / "lot")
    (tmp_path / "lot" / "list.txt").write_text("no photo")
    data = {"items": [], "files": [str(tmp_path / "lot"), str(sample_photos[2])], "dragOperationsMask": 1}
    for step in ("dragEnter", "dragOver", "drop"):
        page.browser.execute_cdp_cmd("Input.dispatchDragEvent", {"type": step, "x": 600, "y": 300, "data": data})
    page.wait(lambda: len(page.cards()) == 3)
    assert {card["name"] for card in page.finished()} == {path.name for path in sample_photos[:3]}
    assert not page.id("drop").is_displayed()

    page.browser.execute_script(
        "const clipboardData = new DataTransfer(); clipboardData.items.add(new File(['x'], 'image.png'));"
        "document.body.dispatchEvent(new ClipboardEvent('paste', { clipboardData, bubbles: true }));"
    )
    assert page.finished()[3]["name"] == "image.png"
    assert page.complaints(400) == []


def test_shows_only_what_is_asked_for(page: Page, sample_photos: list[Path]) -> None:
    page.give(*sample_photos)
    page.finished()
    page.browser.find_element(By.CSS_SELECTOR, "[data-tag='condition:damaged']").click()
    shown = [card["name"] for card in page.cards() if not card["hidden"]]
    assert shown == [path.name for path in sample_photos if "_damaged_" in path.name]


def test_fits_a_phone(page: Page, sample_photos: list[Path]) -> None:
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    page.browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    try:
        page.give(*sample_photos[:2])
        page.finished()
        assert page.browser.execute_script("return document.documentElement.scrollWidth") == 390
        assert page.id("shoot").is_displayed()
        assert page.id("camera").get_attribute("capture") == "environment"
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
