"""Names of devices, from the User-Agent header of a sign-in. The header proves nothing: a client sends what it likes."""

import re
from typing import Final

from domain.events import ERASED

UNKNOWN: Final = "Unknown device"
PROGRAMS: Final = {
    "bioscope": "bioscope command line",
    "python-httpx": "Python program",
    "python-requests": "Python program",
    "python-urllib": "Python program",
    "aiohttp": "Python program",
    "curl": "curl",
    "wget": "wget",
    "postmanruntime": "Postman",
    "insomnia": "Insomnia",
    "okhttp": "Android app",
    "java": "Java program",
    "go-http-client": "Go program",
    "node": "Node.js program",
    "libcurl": "curl",
    "powershell": "PowerShell",
}
BROWSERS: Final = (  # the first that is found counts: most browsers also name those whose form they imitate
    (r"\bEdgA?/|\bEdgiOS/|\bEdge/", "Edge"),
    (r"\bOPR/|\bOpera\b", "Opera"),
    (r"\bVivaldi/", "Vivaldi"),
    (r"\bSamsungBrowser/", "Samsung Internet"),
    (r"\bFirefox/|\bFxiOS/", "Firefox"),
    (r"\bHeadlessChrome/", "Chrome without a window"),
    (r"\bChrome/|\bCriOS/|\bChromium/", "Chrome"),
    (r"\bSafari/", "Safari"),
)
SYSTEMS: Final = (
    (r"\biPhone\b", "iPhone"),
    (r"\biPad\b", "iPad"),
    (r"\bAndroid\b", "Android"),
    (r"\bWindows\b", "Windows"),
    (r"\bCrOS\b", "ChromeOS"),
    (r"\bMac OS X\b|\bMacintosh\b|\bDarwin\b", "macOS"),
    (r"\bLinux\b|\bX11\b", "Linux"),
)


def device_of(agent: str) -> str:
    """The device in plain words, such as "Firefox on Windows" or "bioscope command line"."""
    if agent == ERASED:
        return ERASED
    product = agent.split("/", 1)[0].strip().casefold()
    browser, system = _first(BROWSERS, agent), _first(SYSTEMS, agent)
    if product in PROGRAMS:
        return f"{PROGRAMS[product]} on {system}" if system else PROGRAMS[product]
    if browser and system:
        return f"{browser} on {system}"
    return browser or system or UNKNOWN


def _first(names: tuple[tuple[str, str], ...], agent: str) -> str | None:
    return next((name for pattern, name in names if re.search(pattern, agent)), None)
