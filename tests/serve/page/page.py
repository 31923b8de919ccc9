"""The page in a real browser: headless Chromium, driven over WebDriver, which is plain HTTP.

usage: page.py PROGRAM TESTS_GOLDEN [PICTURE.png]
Ends with 77 (ctest: skipped) where chromedriver is not installed (Debian: chromium-driver). With a third argument the page
is pictured at its end.
"""
import base64
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "clients"))
from tiny_server import Server, make_model  # noqa: E402

ENTER = "\ue007"
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # WebDriver's name of an element


class Browser:
    def __init__(self, width: int = 1280, height: int = 800):
        self.driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
        for line in self.driver.stdout:
            if "started successfully on port" in line:
                self.base = "http://127.0.0.1:" + line.split()[-1].rstrip(".")
                break
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                 f"--window-size={width},{height}"]
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": {"args": flags},
                                                   "goog:loggingPrefs": {"browser": "ALL"}}}}
        self.session = self.call("POST", "/session", wanted, "")["sessionId"]

    def call(self, method: str, path: str, body: object = None, within: str | None = None) -> object:
        prefix = f"/session/{self.session}" if within is None else within
        data = json.dumps(body if body is not None else {}).encode() if method == "POST" else None
        request = urllib.request.Request(self.base + prefix + path, data, {"Content-Type": "application/json"},
                                         method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from None

    def open(self, url: str) -> None:
        self.call("POST", "/url", {"url": url})

    def script(self, text: str) -> object:
        return self.call("POST", "/execute/sync", {"script": text, "args": []})

    def element(self, selector: str) -> str:
        return self.call("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT]

    def click(self, selector: str) -> None:
        self.call("POST", f"/element/{self.element(selector)}/click")

    def type(self, selector: str, text: str) -> None:
        self.call("POST", f"/element/{self.element(selector)}/value", {"text": text})

    def wait(self, condition: str) -> None:
        for _ in range(600):
            if self.script(f"return Boolean({condition})"):
                return
            time.sleep(0.05)
        raise AssertionError(f"never became true: {condition}\n{self.script('return document.body.innerText')}")

    def picture(self, path: str) -> None:
        pathlib.Path(path).write_bytes(base64.b64decode(self.call("GET", "/screenshot")))

    def complaints(self) -> list:
        return [entry for entry in self.call("POST", "/se/log", {"type": "browser"}) if entry["level"] == "SEVERE"]

    def close(self) -> None:
        self.call("DELETE", "")
        self.driver.terminate()
        self.driver.wait()


ANSWERED = "document.querySelector('#stop').hidden && document.querySelectorAll('.message.assistant').length == {}"


def chat(page: Browser) -> None:
    page.wait("document.querySelector('#status').textContent == 'tiny'")
    page.script("document.querySelector('.settings').open = true")
    for name, value in (("max_tokens", "12"), ("temperature", "1"), ("seed", "5")):
        page.script(f"const f = document.querySelector('[name={name}]'); f.value = {value};"
                    "f.dispatchEvent(new Event('change'))")
    page.type("#prompt", "it is" + ENTER)
    page.wait(ANSWERED.format(1))
    text = page.script("return document.querySelector('.message.assistant').innerText")
    assert "12 tokens" in text and "tokens/s" in text, text


def token_probabilities(page: Browser) -> None:
    page.script("document.querySelector('.settings').open = false")
    token = page.element(".token[data-tip]")
    page.call("POST", "/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": [
        {"type": "pointerMove", "duration": 0, "x": 0, "y": 0, "origin": {ELEMENT: token}}]}]})
    page.wait("!document.querySelector('#tip').hidden")
    assert page.script("return document.querySelector('#tip').textContent").count("%") == 6


def stop(page: Browser) -> None:
    for name, value in (("max_tokens", 3500), ("temperature", 0)):  # greedy, it goes round and round
        page.script(f"const f = document.querySelector('[name={name}]'); f.value = {value};"
                    "f.dispatchEvent(new Event('change'))")
    # The key comes from within the page: a tiny model may have ended before the driver hears of its first tokens.
    page.script("""
        new MutationObserver((changes, observer) => {
          if (document.querySelectorAll('.message.assistant:last-child .token').length <= 3) return;
          observer.disconnect();
          const escape = new KeyboardEvent('keydown', {key: 'Escape', bubbles: true});
          document.querySelector('#prompt').dispatchEvent(escape);
        }).observe(document.body, {childList: true, subtree: true})""")
    page.type("#prompt", "it is" + ENTER)
    page.wait(ANSWERED.format(2))
    assert "stopped" in page.script("return document.querySelector('.messages').lastElementChild.innerText")


def kept_in_the_browser(page: Browser) -> None:
    page.script("const f = document.querySelector('[name=max_tokens]'); f.value = 12;"
                "f.dispatchEvent(new Event('change'))")
    page.call("POST", "/refresh")
    page.wait("document.querySelectorAll('#conversations li').length == 2")
    page.click("#conversations li:last-child .title")
    page.wait("document.querySelectorAll('.message').length == 4")


def side_by_side(page: Browser) -> None:
    page.click("#new")
    page.click("#compare")
    page.wait("document.querySelectorAll('.lane').length == 2")
    for lane, seed in ((1, 7), (2, 8)):
        page.script(f"for (const [name, value] of [['seed', {seed}], ['temperature', 1], ['max_tokens', 12]]) {{"
                    f"const f = document.querySelector(`.lane:nth-child({lane}) [name=${{name}}]`); f.value = value;"
                    "f.dispatchEvent(new Event('change')) }")
    page.type("#prompt", "it is" + ENTER)
    page.wait(ANSWERED.format(2))
    texts = page.script("return [...document.querySelectorAll('.message.assistant')]"
                        ".map(m => [...m.querySelectorAll('.token')].map(t => t.textContent).join(''))")
    assert texts[0] != texts[1], texts


def charts(page: Browser) -> None:
    page.click("#show-charts")
    page.wait("document.querySelectorAll('#charts polyline[points]').length == 6")


def phone(page: Browser) -> None:
    page.call("POST", "/window/rect", {"width": 390, "height": 800})
    page.wait("innerWidth < 720 && document.documentElement.scrollWidth <= innerWidth")
    page.click("#show-charts")
    page.click("#show-list")
    page.wait("document.querySelector('#list').classList.contains('open')")
    page.click("#new")
    page.wait("document.querySelectorAll('.message').length == 0")


def main() -> None:
    if shutil.which("chromedriver") is None:
        print("skipped: chromedriver is not installed (Debian: chromium-driver)")
        sys.exit(77)
    program, golden = sys.argv[1], pathlib.Path(sys.argv[2])
    with tempfile.TemporaryDirectory() as name:
        server = Server(program, make_model(golden, pathlib.Path(name)), "--max_model_len", "4096")
        page = Browser()
        try:
            page.open(server.url + "/")
            for check in (chat, token_probabilities, stop, kept_in_the_browser, side_by_side, charts):
                check(page)
                print("passed:", check.__name__)
            if len(sys.argv) > 3:
                page.picture(sys.argv[3])
            phone(page)
            print("passed: phone")
            assert page.complaints() == [], page.complaints()
        except AssertionError:
            if len(sys.argv) > 3:
                page.picture(sys.argv[3])
            raise
        finally:
            page.close()
            server.stop()


if __name__ == "__main__":
    main()
