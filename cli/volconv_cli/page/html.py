"""HTML that cannot be broken by what stands in it: whatever is not :class:`Html` already is escaped."""

from __future__ import annotations

import html

from volconv.errors import printable


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, *content: object, **attributes: object) -> Html:
    """An element. Names of attributes: ``class_`` is ``class``, ``data_key`` is ``data-key``; None leaves one out.

    Examples
    --------
    >>> print(tag("p", "a < b ", tag("b", "&"), class_='"'))
    <p class="&quot;">a &lt; b <b>&amp;</b></p>
    """
    told = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_escaped(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{told}>{joined(*content)}</{name}>")


def joined(*content: object) -> Html:
    """Elements and text, one after the other."""
    return Html("".join(part if isinstance(part, Html) else _escaped(part) for part in content))


def _escaped(value: object) -> str:
    return html.escape(printable(str(value)))
