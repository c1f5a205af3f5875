"""Number and noun in the singular or plural."""


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Return a count with its noun: `1 file`, `2 files`, `1,200 rows`.

    Args:
        count: Number of things.
        noun: The noun in the singular.
        plural: Its plural. Default: with an s.
    """
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"
