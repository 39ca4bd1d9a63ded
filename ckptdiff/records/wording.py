"""Counts in words, as every sentence for people has them."""


def plural(count: int, noun: str, many: str = "") -> str:
    """`count` and its noun: 1 scheme, 2 schemes; `many` where it takes more than an s."""
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"
