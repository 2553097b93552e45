"""A contact sheet: pictures down, settings of `segment` across, for eyes to judge.

python -m benchmarks.contact_sheet SHEET.jpg "before: backbone=efficientnet_lite0" "now:" [--pictures FILE…]
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import datasets as hf
from PIL import Image, ImageDraw, ImageFont

from diffcut_bench.config import instantiate, load_config
from diffcut_bench.escaping import counted
from diffcut_bench.segmentation import PictureSegmenter

_LINE = 20  # pixels that a caption takes


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the sheet, a JPEG."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sheet", type=Path)
    parser.add_argument("columns", nargs="+", metavar="CAPTION:OVERRIDES", help="overrides with spaces between")
    parser.add_argument("--pictures", nargs="+", type=Path, metavar="FILE", help="default: the sample data set's")
    parser.add_argument("--width", type=int, default=230, help="of a panel, in pixels")
    options = parser.parse_args(arguments)
    pictures = options.pictures or _samples()
    captions, settings = zip(*(column.split(":", 1) for column in options.columns), strict=True)
    segmenters = [PictureSegmenter(overrides.split()) for overrides in settings]
    rows = []
    for path in pictures:
        results = [segmenter(path) for segmenter in segmenters]
        panels = [(path.stem, Image.fromarray(results[0].image))]
        panels += [
            (f"{caption}: {counted(result.num_segments, 'segment')}", result.overlay())
            for caption, result in zip(captions, results, strict=True)
        ]
        rows.append(_row(panels, options.width))
    sheet = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    sheet.save(options.sheet, quality=70, optimize=True)


def _samples() -> list[Path]:
    records = instantiate("dataset", load_config(["dataset=sample"]).dataset).records
    return [Path(record["image"]["path"]) for record in records.cast_column("image", hf.Image(decode=False))]


def _row(panels: Sequence[tuple[str, Image.Image]], width: int) -> Image.Image:
    """Captioned pictures side by side."""
    height = round(width * panels[0][1].height / panels[0][1].width)
    row = Image.new("RGB", ((width + 6) * len(panels), height + _LINE), "white")
    pen, font = ImageDraw.Draw(row), ImageFont.load_default(size=13)
    for column, (caption, picture) in enumerate(panels):
        left = column * (width + 6)
        pen.text((left + 2, 3), caption, fill="black", font=font)
        row.paste(picture.resize((width, height), Image.Resampling.LANCZOS), (left, _LINE))
    return row


if __name__ == "__main__":
    main()
