"""Texts as they are compared: what only differs in case, punctuation and spaces is the same."""

import re


def plain(text: str) -> str:
    """The words of a text in lower case, one space between them."""
    return " ".join(re.findall(r"\w+", text.casefold()))
