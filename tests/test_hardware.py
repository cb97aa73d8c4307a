"""Names of accelerators and their dense peaks."""

import pytest

from rinsho.hardware import card, known_cards, peak_flops


@pytest.mark.parametrize(
    ("name", "bf16", "fp8"),
    [
        ("NVIDIA A100-SXM4-40GB", 312, None),
        ("A100-SXM4-80GB", 312, None),
        ("NVIDIA A100 80GB PCIe", 312, None),
        ("NVIDIA A10", 125, None),
        ("NVIDIA H100 80GB HBM3", 989.5, 1979),
        ("NVIDIA H100 PCIe", 756.5, 1513),
        ("NVIDIA H100 NVL", 835.5, 1670.5),
        ("NVIDIA H200", 989.5, 1979),
        ("NVIDIA H200 NVL", 835.5, 1670.5),
        ("NVIDIA GH200 480GB", 989.5, 1979),
        ("NVIDIA L4", 121, 242.5),
        ("NVIDIA L40", 181.05, 362),
        ("NVIDIA L40S", 362.05, 733),
        ("NVIDIA RTX 6000 Ada Generation", 364.2, 728.5),
        ("NVIDIA RTX A6000", 154.8, None),
        ("NVIDIA GeForce RTX 3090", 71, None),
        ("NVIDIA GeForce RTX 4090", 165.2, 330.3),
        ("NVIDIA GeForce RTX 5090", 209.5, 419),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 503.8, 1007.6),
        ("NVIDIA B200", 2250, 4500),
    ],
)
def test_dense_peaks(name, bf16, fp8):
    assert peak_flops(name) == pytest.approx(bf16 * 1e12)
    assert peak_flops(name, "fp8") == (None if fp8 is None else pytest.approx(fp8 * 1e12))


@pytest.mark.parametrize(
    "name",
    [
        "cpu",
        "",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",  # a slice of the card
        "NVIDIA A100-SXM-64GB",  # a custom one, faster
        "NVIDIA A10G",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition",
        "NVIDIA H100",
        "Tesla V100-SXM2-16GB",
    ],
)
def test_nothing_is_guessed(name):
    assert card(name) is None and peak_flops(name) is None


def test_short_names_find_the_card_itself():
    for name in known_cards():
        found = card(name.upper())
        assert found is not None and found.name == name
        assert found.fp8 is None or 1.9 < found.fp8 / found.bf16 < 2.1
        assert 20 * 2**30 < found.memory_bytes < 300 * 2**30
