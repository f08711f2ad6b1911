"""Tables as Markdown and for a terminal, and the format of numbers in them."""

from collections.abc import Sequence

Rows = Sequence[Sequence[object]]


def show(value: object) -> str:
    """A value as text: floats with four significant digits, empty for None."""
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def interval(row: dict, digits: int = 2, sign: str = "") -> str:
    """A score and its interval as 'value (low to high)'; empty for an undefined score, {}. `sign` '+' is for a gain."""
    if "value" not in row:
        return ""
    value, low, high = (f"{row[key]:{sign}.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def is_number(value: object) -> bool:
    """Whether a value can be compared and subtracted; true and false cannot."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def markdown(titles: Sequence[str], rows: Rows, aligned: bool = False) -> str:
    """A Markdown table; `aligned` pads its columns for reading as plain text."""
    lines = [list(titles), ["---"] * len(titles), *([show(value) for value in row] for row in rows)]
    if aligned:
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        lines = [[text.ljust(width) for text, width in zip(line, widths, strict=True)] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def bullets(facts: dict[str, object]) -> str:
    """A Markdown list of named facts."""
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def terminal(
    titles: Sequence[str], rows: Rows, width: int = 100, optional: Sequence[str] = (), narrowest: int = 30
) -> str:
    """A table of at most `width` characters a line.

    A title such as 'challenge1.nrmse' takes two lines. Columns without any value are left out. If the others do not
    fit, columns in `optional` are left out, from the first on, until the last column has `narrowest` characters. An
    additional line names them. Text that is too long for the last column is cut.
    """
    cells = [[show(value) for value in row] for row in rows]
    shown = [i for i in range(len(titles)) if any(row[i] for row in cells)]
    heads = [_two_lines(title) for title in titles]
    widths = [max(map(len, (*heads[i], *(row[i] for row in cells)))) for i in range(len(titles))]

    def needed() -> int:
        """The width of the shown columns, the last of which may be cut."""
        last = min(widths[shown[-1]], narrowest)
        return sum(widths[i] + 2 for i in shown[:-1]) + last if shown else 0

    hidden = []
    for title in optional:
        if needed() > width and (place := titles.index(title)) in shown:
            shown.remove(place)
            hidden.append(title)
    room = width - sum(widths[i] + 2 for i in shown[:-1])
    lines = [
        _line([text[i] for i in shown], [widths[i] for i in shown], room)
        for text in (*zip(*heads, strict=True), *cells)
    ]
    if hidden:
        lines.append(f"Not shown, because they do not fit into {width} columns: {', '.join(hidden)}")
    return "\n".join(lines)


def _two_lines(title: str) -> tuple[str, str]:
    first, dot, second = title.rpartition(".")
    return (first + dot, second) if dot else ("", second)


def _line(texts: list[str], widths: list[int], room: int) -> str:
    """The texts of one line in their columns, the last cut to `room` characters."""
    if texts and len(texts[-1]) > room:
        texts = [*texts[:-1], texts[-1][: max(0, room - 1)] + "…"]
    return "  ".join(text.ljust(width) for text, width in zip(texts, widths, strict=True)).rstrip()
