"""Docstrings as the site shows them: without roles of Sphinx's, and with each parameter's own default."""

from __future__ import annotations

import re
from typing import Any

from griffe import DocstringSectionKind, Extension

import volconv


class Plain(Extension):
    """Changes docstrings of what was loaded."""

    def on_package(self, *, pkg: Any, **_: Any) -> None:
        """Go through all of a package."""
        self._visit(pkg)

    def _visit(self, item: Any) -> None:
        for member in item.members.values():
            if not member.is_alias:
                self._visit(member)
        if item.docstring is None:
            return
        item.docstring.value = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", item.docstring.value)
        if not {item.name, item.parent.name if item.parent else ""} & set(volconv.__all__):
            return  # only what is shown is parsed
        defaults = {each.name: each.default for each in getattr(item, "parameters", ())}
        for section in item.docstring.parsed if defaults else ():
            if section.kind is DocstringSectionKind.parameters:
                for each in section.value:  # one entry may be of several parameters, with the first one's default
                    each.value = defaults.get(each.name.lstrip("*"), each.value)
