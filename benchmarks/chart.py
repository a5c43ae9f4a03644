"""Draws the table as a bar chart. Each bar is a figure as a share of its goal."""

import io

from PIL import Image, ImageDraw, ImageFont

from benchmarks.measure import Row, shown

ROW, LEFT, WIDTH, TOP = 26, 470, 1180, 40
MOST = 2.0  # times the goal; longer bars are cut
REACHED, MISSED, INK, PAPER, RULE = "#2a9d8f", "#e76f51", "#222222", "#ffffff", "#999999"


def drawn(rows: list[Row]) -> bytes:
    """A PNG."""
    picture = Image.new("RGB", (WIDTH, TOP + ROW * len(rows) + 20), PAPER)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    pen.text((10, 10), "How far each figure is from its goal (right of the line: better)", fill=INK, font=ImageFont.load_default(15))
    scale = (WIDTH - LEFT - 150) / MOST
    for number, row in enumerate(rows):
        top = TOP + ROW * number
        end = LEFT + scale * min(MOST, better(row))
        pen.text((10, top + 4), row.name, fill=INK, font=font)
        pen.rectangle((LEFT, top + 4, end, top + ROW - 6), fill=REACHED if row.reached else MISSED)
        pen.text((max(end, LEFT + scale) + 6, top + 4), f"{shown(row.value)} {row.unit}", fill=INK, font=font)
    pen.line((LEFT + scale, TOP, LEFT + scale, TOP + ROW * len(rows)), fill=RULE, width=2)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def better(row: Row) -> float:
    """1 at the goal, more when better."""
    if not row.value or not row.goal:
        return 0.0
    return row.value / row.goal if row.at_least else row.goal / row.value
