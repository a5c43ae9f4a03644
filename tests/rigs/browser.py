"""A real browser without a window: Chromium, driven by its protocol as a person would, with keys and the mouse."""

import base64
import json
import re
import shutil
import subprocess
from contextlib import contextmanager

from websockets.sync.client import connect

from tests.rigs.waiting import wait_until

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--remote-debugging-port=0",
    "--hide-scrollbars",
)


class Page:
    """One tab. Scripts of the page do not run if `scripts` is false; the methods work in either case."""

    def __init__(self, browser, target, session):
        self._browser, self._target, self._session = browser, target, session

    def call(self, method, **parameters):
        return self._browser.call(method, session=self._session, **parameters)

    def open(self, url):
        self.loading(lambda: self.call("Page.navigate", url=url))

    def loading(self, act):
        """Do what loads another page, and wait until it is there."""
        before = self._loader()
        act()
        wait_until(lambda: self._loader() != before and self.evaluate("document.readyState") == "complete", ignoring=[RuntimeError])

    def _loader(self):
        return self.call("Page.getFrameTree")["frameTree"]["frame"]["loaderId"]

    def evaluate(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"].get("description"))
        return answer["result"].get("value")

    @property
    def path(self):
        return self.evaluate("location.pathname + location.search")

    @property
    def text(self):
        return self.evaluate("document.body.innerText")

    @property
    def title(self):
        return self.evaluate("document.title")

    @property
    def focused(self):
        """The id or class of the element with the focus."""
        return self.evaluate("document.activeElement.id || document.activeElement.className")

    def type(self, field, text):
        """Type into the field with this id, instead of what it contains."""
        self.evaluate(f"document.getElementById({json.dumps(field)}).select()")
        self.call("Input.insertText", text=text)

    def key(self, name, code):
        """Press a key. `code` is its virtual key code."""
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if name == "Enter" and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code, **text)

    def click(self, text):
        """Click the button or link with this text, which loads another page."""
        place = self.evaluate(
            f"""(() => {{ const found = [...document.querySelectorAll("button, a")].find(one => one.innerText === {json.dumps(text)});
              found.scrollIntoView({{block: "center"}}); const box = found.getBoundingClientRect();
              return [box.x + box.width / 2, box.y + box.height / 2] }})()"""
        )
        self.loading(lambda: self._press(*place))

    def _press(self, x, y):
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def emulate(self, *, width=800, dark=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500)
        scheme = "dark" if dark else "light"
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def controls(self):
        """(role, name) of each control, as the browser shows them to a screen reader."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        of_people = [node for node in nodes if node.get("role", {}).get("value") in {"textbox", "button", "link", "alert", "heading"}]
        return [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in of_people]

    def screenshot(self, path):
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]))

    def cookies(self):
        return self.call("Network.getCookies")["cookies"]

    def messages(self):
        """What the browser complained about, such as something that the policy of the page forbids. Statuses of answers are left out."""
        entries = [event["params"]["entry"] for event in self._browser.events if event["method"] == "Log.entryAdded"]
        return [entry["text"] for entry in entries if entry["source"] != "network"]


class Browser:
    def __init__(self, socket):
        self._socket, self._number, self.events = socket, 0, []

    def call(self, method, *, session=None, **parameters):
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        self._socket.send(json.dumps(message | ({"sessionId": session} if session else {})))
        while True:
            answer = json.loads(self._socket.recv(timeout=30))
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(answer["error"]["message"])
                return answer["result"]
            if "method" in answer:
                self.events.append(answer)

    @contextmanager
    def page(self, *, scripts=True):
        """A tab with its own cookies."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, target, session)
        for domain in ("Page", "Network", "Log", "Runtime"):
            page.call(f"{domain}.enable")
        page.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.events.clear()
        try:
            yield page
        finally:
            self.call("Target.disposeBrowserContext", browserContextId=context)


@contextmanager
def browser(folder):
    """Chromium, with its files in `folder`."""
    port_file = folder / "DevToolsActivePort"
    with subprocess.Popen([PROGRAM, *OPTIONS, f"--user-data-dir={folder}", "about:blank"], stderr=subprocess.DEVNULL) as process:
        try:
            port, path = wait_until(lambda: re.fullmatch(r"(\d+)\n(\S+)", port_file.read_text()), within=60, ignoring=[OSError]).groups()
            with connect(f"ws://127.0.0.1:{port}{path}", max_size=2**26, proxy=None) as socket:
                yield Browser(socket)
        finally:
            process.terminate()
