"""A font with Japanese characters for figures, where the machine has one."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

JAPANESE_FONTS = ("Noto Sans CJK JP", "IPAexGothic", "IPAGothic", "Hiragino Sans", "Yu Gothic", "MS Gothic")
PACKAGE = "matplotlib_fontja"  # of the extra `fonts`; it brings IPAexGothic
HOW = "install Debian's fonts-noto-cjk, or pip install 'rinsho[fonts]'"


def japanese_font() -> str | None:
    """The name of a font that matplotlib can draw Japanese with; None where there is none (`HOW` says what to do)."""
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    for name in JAPANESE_FONTS:
        if name in installed:
            return name
    spec = importlib.util.find_spec(PACKAGE)  # not imported: that would change matplotlib's settings for everything
    for folder in spec.submodule_search_locations or () if spec else ():
        for file in sorted(Path(folder).rglob("ipaexg.ttf")):
            fontManager.addfont(str(file))
            return "IPAexGothic"
    return None


@contextmanager
def fonts() -> Iterator[None]:
    """Figures drawn inside have their Japanese characters in a font that has them, where there is one."""
    import matplotlib

    japanese = japanese_font()
    family = ["DejaVu Sans", *([japanese] if japanese else [])]
    with matplotlib.rc_context({"font.family": family}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield
