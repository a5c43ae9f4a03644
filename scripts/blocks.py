"""Generated parts of documents, each between two comments."""


def with_block(text: str, begin: str, end: str, block: str) -> str:
    """`text` with `block` between the lines `begin` and `end`. Raises ValueError where one of them is missing."""
    before, found, rest = text.partition(begin)
    _, also_found, after = rest.partition(end)
    if not found or not also_found:
        raise ValueError(f"the document has no lines {begin.strip()} and {end.strip()}")
    return f"{before}{begin}\n{block}\n{end}{after}"
