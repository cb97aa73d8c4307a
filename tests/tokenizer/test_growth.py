"""rinsho.tokenizer.growth: Heaps' law and its picture."""

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rinsho.tokenizer.growth import ahead, growth_svg, heaps

SVG = "{http://www.w3.org/2000/svg}"
CURVE = [(2.0**power, round(9000 * 2.0 ** (0.55 * power))) for power in range(-3, 9)]


@settings(max_examples=50)
@given(st.floats(10, 1e5), st.floats(0.05, 1.0), st.integers(3, 40))
def test_the_law_is_found_again(k: float, beta: float, points: int) -> None:
    curve = [(0.5 * 1.3**step, 10**6 * k * (0.5 * 1.3**step) ** beta) for step in range(points)]
    found = heaps(curve)  # type: ignore[arg-type]
    assert found == pytest.approx((10**6 * k, beta), rel=1e-6)


def test_the_start_of_the_text_does_not_bend_the_line() -> None:
    odd = [(0.01, 900), (0.1, 901), *[(10.0 * step, round(1000 * (10.0 * step) ** 0.5)) for step in range(1, 11)]]
    assert heaps(odd) == pytest.approx((1000, 0.5), rel=0.01)


def test_larger_corpora_follow_the_line() -> None:
    k, beta = heaps(CURVE)
    rows = ahead(CURVE, [1000.0, 1e5])
    assert [(size, words) for size, words, _ in rows] == [
        (1000.0, round(k * 1000**beta)),
        (1e5, round(k * 1e5**beta)),
    ]
    assert rows[0][2] < rows[1][2]


@pytest.mark.parametrize("points", [[], [(0.0, 0)], [(0.001, 7)], [(1.0, 10), (2.0, 10)], CURVE, CURVE * 1])
def test_any_curve_makes_a_picture_inside_its_frame(points: list[tuple[float, int]]) -> None:
    svg = growth_svg(points)
    usable = [point for point in points if point[1]]
    if not usable:
        assert svg == ""
        return
    root = ElementTree.fromstring(svg)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for line in root.iter(SVG + "polyline"):
        pairs = [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]
        assert all(0 <= x <= width and 0 <= y <= height for x, y in pairs)
    dots = [title.text or "" for title in root.iter(SVG + "title")]
    assert sum("about" not in dot for dot in dots) == len(usable)
    assert "nan" not in svg
    assert "inf" not in svg


def test_the_picture_holds_the_points_and_the_outlook() -> None:
    svg = growth_svg(CURVE)
    k, beta = heaps(CURVE)
    assert f"{CURVE[-1][0]:,.1f} MB: {CURVE[-1][1]:,} distinct words" in svg
    assert re.search(r"dashed: 9k · MB\^0\.55", svg), (k, beta)
    assert svg.count("MB: about") == 3
    xs = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', svg)]
    assert xs == sorted(xs)
