"""Reads pages as a browser does, for tests of what they contain."""

from html.parser import HTMLParser


class Parsed(HTMLParser):
    """`elements` are (tag, attributes) in order, `text` is what a person reads."""

    def __init__(self, source):
        super().__init__()
        self.elements, self._texts = [], []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self._texts.append(data)

    @property
    def text(self):
        return " ".join("".join(self._texts).split())

    @property
    def tags(self):
        return [tag for tag, _ in self.elements]

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def values(self):
        """{name of an input: its value}"""
        return {one["name"]: one.get("value", "") for one in self.all("input") if "name" in one}
