"""A real browser, and the gateway's page in it."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.conftest import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    # A tab that Chromium takes for hidden draws nothing, and gets no drag events.
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1280,900",
]

CARDS = """
return [...document.querySelectorAll(".card")].map((card) => ({
  name: card.querySelector(".name").textContent,
  state: card.dataset.state,
  hidden: card.hidden,
  labels: Object.fromEntries([...card.querySelectorAll(".head")].map((head) =>
    [head.dataset.head, [...head.querySelectorAll(".pill")].map((pill) => pill.textContent).join(", ")])),
  shares: [...card.querySelectorAll(".share")].map((share) => share.lastChild.textContent),
  text: card.querySelector(".content").innerText,
  canvas: [...card.querySelectorAll("canvas")].flatMap(({ width, height }) => [width, height]),
}));
"""
# Answers of a service that is not at hand; what is sent is counted.
STUB = """
const answers = arguments[0];
window.sent = 0;
window.fetch = async (url, { signal }) => {
  if (url === "health") return new Response('{"status": "OK", "feedback": true}');
  const answer = answers[Math.min(window.sent++, answers.length - 1)];
  if (answer === null) await new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  return new Response(answer.body, { status: answer.status, headers: answer.headers ?? {} });
};
"""


class Page:
    """The page as its users have it."""

    def __init__(self, browser: webdriver.Chrome, url: str) -> None:
        self.browser = browser
        self.url = url
        browser.get(url)
        browser.execute_script("localStorage.clear(); sessionStorage.clear()")
        browser.get_log("browser")
        browser.get(url)

    def give(self, *photos: Path) -> None:
        self.id("files").send_keys("\n".join(str(photo) for photo in photos))

    def id(self, name: str) -> Any:
        return self.browser.find_element(By.ID, name)

    def cards(self) -> list[dict[str, Any]]:
        cards: list[dict[str, Any]] = self.browser.execute_script(CARDS)
        return cards

    def wait(self, condition: Callable[[], Any]) -> Any:
        return WebDriverWait(self.browser, PATIENCE_S, 0.05).until(lambda _: condition())

    def finished(self) -> list[dict[str, Any]]:
        self.wait(lambda: self.id("results").get_attribute("data-busy") == "false" and self.cards())
        return self.cards()

    def stub(self, *answers: Any) -> None:
        self.browser.execute_script(STUB, answers)

    def press(self, *keys: str) -> None:
        webdriver.ActionChains(self.browser).send_keys(*keys).perform()

    def complaints(self, *expected: int) -> list[str]:
        """What the console says, but for the statuses that the test asked for."""
        lines = [line["message"] for line in self.browser.get_log("browser")]
        return [line for line in lines if not any(f"status of {status}" in line for status in expected)]


def answer(**content: Any) -> dict[str, Any]:
    return {"status": 200, "body": json.dumps(content)}


def run_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """Chromium, until the caller goes on."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    downloads = str(tmp_path_factory.mktemp("downloads"))
    preferences = {"intl.accept_languages": "en", "download.default_directory": downloads}
    options.add_experimental_option("prefs", preferences)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(PATIENCE_S)
    try:
        yield driver
    finally:
        driver.quit()
