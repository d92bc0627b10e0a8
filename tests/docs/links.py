"""The links of built pages: which of them lead nowhere, and which lead outside."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The ids of a page, and what it links to."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if attributes.get("id"):
            self.ids.add(attributes["id"])
        for name in ("href", "src"):
            # A link of <link> may be to what a browser never loads.
            if attributes.get(name):
                self.links.add(attributes[name])


def check(folder):
    """The links that lead nowhere, as (page, link), and those that lead outside, sorted."""
    folder = Path(folder).resolve()
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}
    broken, outside = [], set()
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme == "data":
                continue
            if parts.scheme or parts.netloc:
                outside.add(link)
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            if not target.is_file() or folder not in target.parents or (
                    anchor and target in pages and anchor not in pages[target].ids):
                broken.append((str(path.relative_to(folder)), link))
    return sorted(broken), sorted(outside)
