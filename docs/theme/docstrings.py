"""Docstrings as this project writes them, for mkdocstrings: examples become blocks of code, and parameters that share
a line (``first, second: …``) get one each."""

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)
_SHARED = re.compile(r"^( {4})(\w+(?:, \w+)+):(.*(?:\n {5,}.+)*)", re.MULTILINE)


class Docstrings(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **others: Any) -> None:
        if obj.docstring is not None:
            text = _EXAMPLE.sub(lambda match: f"```pycon\n{match[0]}\n```", obj.docstring.value)
            text = _SHARED.sub(_one_each, text)
            obj.docstring.value = re.sub(r" *# doctest: .*", "", text)


def _one_each(match: re.Match[str]) -> str:
    indent, names, text = match.groups()
    return "\n".join(f"{indent}{name}:{text}" for name in names.split(", "))
