"""Makes deit_ablate/train/data/glyphs.npz from the fonts that matplotlib ships, and the picture of the data set that
the documentation shows: ``python docs/make_glyphs.py``. Another version of FreeType may draw an edge otherwise, and
then the data set is another one: it is for a new data set, not for every build.
"""

from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deit_ablate.train.data.glyphs import CLASSES, MASTER, draw_part

ROOT = Path(__file__).parents[1]
DEJAVU = ("DejaVuSans", "DejaVuSansMono"), ("", "-Bold", "-Oblique", "-BoldOblique")
SERIF = ("DejaVuSerif",), ("", "-Bold", "-Italic", "-BoldItalic")
STIX = ("STIXGeneral",), ("", "Bol", "Italic", "BolIta")
FONTS = [family + style for families, styles in (DEJAVU, SERIF, STIX) for family in families for style in styles]
FONTS += ["cmr10", "cmb10", "cmss10", "cmtt10", "cmti10"]
CAPITAL = 18  # height in pixels
FINER = 8  # drawn this many times larger, and averaged


def masters() -> np.ndarray:
    """(classes, fonts, MASTER, MASTER) uint8, each letter in the middle."""
    drawn = np.zeros((len(CLASSES), len(FONTS), MASTER, MASTER), np.uint8)
    for place, name in enumerate(FONTS):
        path = str(Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf"))
        basic = ImageFont.Layout.BASIC
        _, top, _, bottom = ImageFont.truetype(path, 1000, layout_engine=basic).getbbox("H")
        font = ImageFont.truetype(path, round(1000 * CAPITAL * FINER / (bottom - top)), layout_engine=basic)
        for label, letter in enumerate(CLASSES):
            image = Image.new("L", (MASTER * FINER, MASTER * FINER))
            left, top, right, bottom = font.getbbox(letter)
            corner = (image.width - left - right) / 2, (image.height - top - bottom) / 2
            ImageDraw.Draw(image).text(corner, letter, fill=255, font=font)
            drawn[label, place] = np.asarray(image.reduce(FINER))
    return drawn


def picture(rows: int = 6, columns: int = 20) -> Image.Image:
    """The first test images, in a grid."""
    pixels, _ = draw_part("test")
    side = pixels.shape[1]
    grid = pixels[: rows * columns].reshape(rows, columns, side, side).transpose(0, 2, 1, 3)
    return Image.fromarray(grid.reshape(rows * side, columns * side)).resize((columns * side * 2, rows * side * 2))


if __name__ == "__main__":
    np.savez_compressed(ROOT / "deit_ablate" / "train" / "data" / "glyphs.npz", pixels=masters())
    picture().save(ROOT / "docs" / "images" / "glyphs.png", optimize=True)
