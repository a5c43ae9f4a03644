"""Visitors of the pages: a browser without scripts, and Chromium. Both open links, fill in forms and send them."""

from urllib.parse import urljoin, urlsplit

import httpx

from tests.rigs.html import Parsed


class FormVisitor:
    """Sends the form of a page as a browser does, with its hidden fields and the cookies of the site. One form on each page is enough."""

    def __init__(self):
        self._http = httpx.Client(follow_redirects=True, timeout=30)
        self._url, self._page = "", Parsed("")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._http.close()

    @property
    def text(self):
        return self._page.text

    def open(self, url):
        self._show(self._http.get(url))

    def send(self, button, **fields):
        assert button in self.text, self.text
        form = self._page.all("form")[0]
        origin = "{0.scheme}://{0.netloc}".format(urlsplit(self._url))
        values = self._page.values | fields
        self._show(self._http.post(urljoin(self._url, form["action"]), data=values, headers={"Origin": origin}))

    def _show(self, answer):
        self._url, self._page = str(answer.url), Parsed(answer.text)


class ChromiumVisitor:
    """A person at a tab of Chromium, as `browser` in tests/rigs/browser.py opens it."""

    def __init__(self, tab):
        self._tab = tab

    @property
    def text(self):
        return " ".join(self._tab.text.split())

    def open(self, url):
        self._tab.open(url)

    def send(self, button, **fields):
        for field, text in fields.items():
            self._tab.type(field, text)
        self._tab.click(button)
