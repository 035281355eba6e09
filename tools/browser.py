"""Open pages in headless Chromium and report what a reader would meet.

Speaks the DevTools protocol over a websocket, so that no driver has to be installed. One browser
and one tab serve all pages; outside addresses do not resolve.
"""

import asyncio
import base64
import functools
import http.server
import json
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tornado.websocket import websocket_connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
START_SECONDS = 60
PAGE_SECONDS = 60
#: Waits for MathJax, then counts; `wide` names what makes the page scroll sideways
PROBE = """
(async () => {
  if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
  await document.fonts.ready;
  const math = [...document.querySelectorAll('.math')];
  const page = document.documentElement;
  return {
    formulas: math.length,
    untypeset: math.filter(m => !m.querySelector('mjx-container')).map(m => m.textContent),
    math_errors: [...document.querySelectorAll('mjx-merror, [data-mjx-error]')]
      .map(m => m.getAttribute('data-mjx-error') || m.textContent),
    broken_images: [...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src),
    tables: document.querySelectorAll('.book-table').length,
    unreachable_tables: [...document.querySelectorAll('.book-table')]
      .filter(t => t.tabIndex < 0 || !t.getAttribute('aria-label')).length,
    search_fields: [...document.querySelectorAll(
      'input[type=search], .search-button-field, .search-button')]
      .filter(e => e.checkVisibility({visibilityProperty: true})).length,
    idle_maps: document.querySelectorAll('figure.explorer:not(.explorer-ready)').length,
    overflow: page.scrollWidth - page.clientWidth,
  };
})()
"""


@dataclass
class PageReport:
    """What one page did in the browser."""

    path: str
    console_errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    probe: dict = field(default_factory=dict)
    screenshot: bytes | None = None


def find_browser() -> str | None:
    """Path of an installed Chromium or Chrome, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder on a free loopback port; yields the address without a final slash."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def launch(program: str) -> Iterator[str]:
    """Start a headless browser with a throw-away profile; yields its DevTools address."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [
            program,
            "--headless=new",
            "--no-sandbox",  # CI runs as root, where Chromium's sandbox refuses to start
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            "--remote-debugging-port=0",
            f"--user-data-dir={profile}",
            "about:blank",
        ]
        with (Path(profile) / "stderr").open("wb") as log:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
        try:
            yield _devtools_address(process, Path(profile))
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _devtools_address(process: subprocess.Popen, profile: Path) -> str:
    port_file = profile / "DevToolsActivePort"
    pause = threading.Event()
    for _ in range(START_SECONDS * 10):
        lines = port_file.read_text().splitlines() if port_file.exists() else []
        if len(lines) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        if process.poll() is not None:
            break
        pause.wait(0.1)
    said = (profile / "stderr").read_text(errors="replace")[-2000:]
    raise RuntimeError(f"{process.args[0]} did not start within {START_SECONDS} s:\n{said}")


class _Tab:
    """One tab: numbered commands out, their answers and events in."""

    def __init__(self, socket):
        self.socket = socket
        self.session = None
        self.number = 0
        self.answers: dict[int, asyncio.Future] = {}
        self.report = PageReport("")
        self.loaded = asyncio.Event()

    async def listen(self) -> None:
        while (line := await self.socket.read_message()) is not None:
            message = json.loads(line)
            if "id" in message:
                self.answers.pop(message["id"]).set_result(message)
            else:
                self._event(message["method"], message.get("params", {}))

    def _event(self, method: str, params: dict) -> None:
        if method == "Page.loadEventFired":
            self.loaded.set()
        elif method == "Network.requestWillBeSent":
            self.report.requests.append(params["request"]["url"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            said = [str(a.get("value", a.get("description"))) for a in params["args"]]
            self.report.console_errors.append(" ".join(said))
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            said = details.get("exception", {}).get("description", details["text"])
            self.report.console_errors.append(said)
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            entry = params["entry"]
            self.report.console_errors.append(f"{entry['text']} {entry.get('url', '')}".strip())

    async def send(self, method: str, **params) -> dict:
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        answer = self.answers[self.number] = asyncio.get_running_loop().create_future()
        await self.socket.write_message(json.dumps(message))
        reply = await asyncio.wait_for(answer, PAGE_SECONDS)
        if "error" in reply:
            raise RuntimeError(f"{method}: {reply['error']['message']}")
        return reply["result"]

    async def visit(self, base: str, path: str, screenshot: bool) -> PageReport:
        self.report = report = PageReport(path)
        self.loaded.clear()
        await self.send("Page.navigate", url=f"{base}/{path}")
        await asyncio.wait_for(self.loaded.wait(), PAGE_SECONDS)
        answer = await self.send("Runtime.evaluate", expression=PROBE, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{path}: {answer['exceptionDetails']}")
        report.probe = answer["result"]["value"]
        if screenshot:
            await asyncio.sleep(0.5)  # the theme fades its colours in
            picture = await self.send("Page.captureScreenshot", format="png")
            report.screenshot = base64.b64decode(picture["data"])
        return report


async def _visit_all(address, base, paths, width, height, dark, screenshot) -> list[PageReport]:
    socket = await websocket_connect(address, max_message_size=64 * 2**20)
    tab = _Tab(socket)
    listener = asyncio.ensure_future(tab.listen())
    try:
        target = await tab.send("Target.createTarget", url="about:blank")
        attached = await tab.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        tab.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            await tab.send(f"{domain}.enable")
        await tab.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await tab.send("Emulation.setEmulatedMedia", features=[scheme])
        return [await tab.visit(base, path, screenshot) for path in paths]
    finally:
        listener.cancel()
        socket.close()


def visit(
    folder: Path,
    paths: list[str],
    *,
    program: str,
    width: int = 1280,
    height: int = 900,
    dark: bool = False,
    screenshot: bool = False,
) -> list[PageReport]:
    """Open each page of a built site, one after the other, in a window of width × height pixels.

    Raises RuntimeError if the browser does not start, TimeoutError if a page does not load.
    """
    with serve(folder) as base, launch(program) as address:
        return asyncio.run(_visit_all(address, base, paths, width, height, dark, screenshot))
