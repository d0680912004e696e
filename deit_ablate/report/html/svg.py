"""A figure as part of a page: matplotlib's SVG, in a form that the page's policy and its colour schemes take."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib import rcParams
from matplotlib.figure import Figure

from deit_ablate.report.figures.style import BAND, GREY, LIGHT, METADATA, OKABE_ITO, PALE, TIPS, style

THEME = {
    "#000000": "--c0",
    **{colour.lower(): f"--c{number}" for number, colour in enumerate(OKABE_ITO[:-1], 1)},
    GREY.lower(): "--soft",
    LIGHT.lower(): "--line",
    BAND.lower(): "--margin",
    PALE.lower(): "--pale",
}
"""Our figures' colours -> the variables of the style sheet that stand for them, in light and in dark."""
NAMED = ("panel-", "area-")
"""What the ids begin with that the page's script looks for."""


def data_address(figure: Figure) -> str:
    """The figure as an image's address that holds all of it. The same figure gives the same text."""
    with style():
        svg = _svg(figure)
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"


def _svg(figure: Figure, **options: bool) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata=METADATA["svg"], **options)
    return buffer.getvalue()


def inline(name: str, figure: Figure, title: str) -> Markup:
    """The ``<svg>`` element: text stays text, a ``title`` names it, ids begin with ``name`` (a page has several).

    Styles become attributes, as the policy of a page refuses inline styles. The same figure gives the same text.
    """
    with style():
        rcParams["svg.fonttype"] = "none"
        root = ElementTree.fromstring(_svg(figure, transparent=True))
    for unwanted in ("metadata", "defs"):  # whose one content is a style element, which the policy refuses as well
        if (found := root.find(f"{{*}}{unwanted}")) is not None:
            root.remove(found)
    slug = re.sub(r"[^A-Za-z0-9]+", "-", name)
    for element in list(root.iter()):
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = dict(_attributes(element, slug))
        _tips(element)
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": title, "stroke-linejoin": "round"}
    # Ids that nothing refers to would only be in one another's way.
    written = ElementTree.tostring(root, encoding="unicode")
    used = {*re.findall(r'(?:href="#|url\(#)([^")]+)', written)}
    for element in root.iter():
        own = element.get("id", "")
        if own not in used and not own.startswith(tuple(f"{slug}-{kind}" for kind in NAMED)):
            element.attrib.pop("id", None)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _attributes(element: ElementTree.Element, slug: str) -> Iterator[tuple[str, str]]:
    for key, value in element.items():
        key = key.rpartition("}")[2]
        if key == "style":
            for part in value.split(";"):
                yield from _presentation(*(half.strip() for half in part.split(":", 1)))
        elif key == "id" and not value.startswith(TIPS):
            yield key, f"{slug}-{value}"
        elif key == "href" and value.startswith("#"):
            yield key, f"#{slug}-{value[1:]}"
        else:
            yield key, value.replace("url(#", f"url(#{slug}-")


def _presentation(name: str = "", value: str = "") -> Iterator[tuple[str, str]]:
    if name == "font" and (size := re.search(r"[\d.]+px", value)):
        yield "font-size", size[0]
    elif name in ("fill", "stroke") and value.lower() in THEME:
        yield name, f"var({THEME[value.lower()]})"
    elif name and name != "font-family":  # the page's
        yield name, value


def _tips(group: ElementTree.Element) -> None:
    """Give the marks of a group whose id lists what each stands for that as a title, which shows under the pointer."""
    texts = group.get("id", "")
    if texts.startswith(TIPS):
        marks = [element for element in group.iter() if element.tag.endswith("use")]
        for mark, text in zip(marks, texts.removeprefix(TIPS).split("|"), strict=False):
            ElementTree.SubElement(mark, "title").text = text
        group.attrib.pop("id")
