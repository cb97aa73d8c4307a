"""What accelerators can do at most, by the name torch gives them: dense peaks and memory from the makers' data sheets.

A wrong peak is a wrong MFU, so names must match whole and unknown ones give None. Traps: marketing tables print
figures for 2:4 sparsity, twice the dense ones; GeForce cards multiply at half rate when they add up in float32, as
training does; a slice of a card (MIG) carries the card's name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

TERA = 1e12
GIB = 2**30


@dataclass(frozen=True)
class Card:
    """One accelerator.

    Attributes:
        name: short name, which `card` also knows.
        bf16: dense peak of bfloat16 matrix products with float32 sums, FLOP/s.
        fp8: the same for FP8; None where the card has none.
        memory_bytes: as the data sheet says; the driver keeps 1 to 6 % of it (error correction of GDDR included).
    """

    name: str
    bf16: float
    fp8: float | None
    memory_bytes: int


# short name, names given by torch (without the maker; regular expression, whole), bf16, fp8 (dense TFLOP/s), GB
_CARDS: tuple[tuple[str, str, float, float | None, int], ...] = (
    # NVIDIA A100 data sheet (2021): BFLOAT16 312 | 624 with sparsity, SXM and PCIe alike
    ("A100 SXM 40GB", r"a100-sxm4?-40gb", 312, None, 40),
    ("A100 SXM 80GB", r"a100-sxm4?-80gb", 312, None, 80),
    ("A100 PCIe 40GB", r"a100-pcie-40gb", 312, None, 40),
    ("A100 PCIe 80GB", r"a100 80gb pcie|a100-pcie-80gb", 312, None, 80),
    # NVIDIA A30, A40 and A10 data sheets: 165 | 330, 149.7 | 299.4 and 125 | 250. AWS's A10G is another card
    ("A30", r"a30", 165, None, 24),
    ("A40", r"a40", 149.7, None, 48),
    ("A10", r"a10", 125, None, 24),
    # NVIDIA Ampere GA102 whitepaper 2.0, table 3 (A6000: 154.8 | 309.6) and appendix A (3090: 71 | 142)
    ("RTX A6000", r"rtx a6000", 154.8, None, 48),
    ("RTX 3090", r"rtx 3090", 71, None, 24),
    # NVIDIA H100 data sheet, with sparsity: SXM 1,979 and 3,958; PCIe 1,513 and 3,026; NVL 1,671 and 3,341
    ("H100 SXM", r"h100 80gb hbm3|h100 sxm5", 989.5, 1979, 80),
    ("H100 PCIe", r"h100 pcie", 756.5, 1513, 80),
    ("H100 NVL", r"h100 nvl", 835.5, 1670.5, 94),
    # NVIDIA H200 data sheet, with sparsity: SXM 1,979 and 3,958; NVL 1,671 and 3,341
    ("H200 SXM", r"h200", 989.5, 1979, 141),
    ("H200 NVL", r"h200 nvl", 835.5, 1670.5, 141),
    # NVIDIA GH200 data sheet: 990 and 1,979 dense; torch's name tells the memory of the processor part
    ("GH200 96GB", r"gh200 480gb", 989.5, 1979, 96),
    ("GH200 144GB", r"gh200 144g hbm3e", 989.5, 1979, 144),
    # NVIDIA L4 data sheet, with sparsity: 242 and 485; L40 data sheet: 181.05 and 362; L40S: 362.05 and 733
    ("L4", r"l4", 121, 242.5, 24),
    ("L40", r"l40", 181.05, 362, 48),
    ("L40S", r"l40s", 362.05, 733, 48),
    # NVIDIA RTX 6000 Ada data sheet: 1,457 in FP8 with sparsity; a half is dense, a quarter bf16 (4 × 91.1 in float32)
    ("RTX 6000 Ada", r"rtx 6000 ada generation", 364.2, 728.5, 48),
    # NVIDIA Ada whitepaper 2.02, appendix A, float32 accumulation: 165.2 | 330.4 and 330.3 | 660.6
    ("RTX 4090", r"rtx 4090", 165.2, 330.3, 24),
    # NVIDIA RTX Blackwell whitepaper, float32 accumulation: 209.5 | 419 and 419 | 838; boosted cards measure above it
    ("RTX 5090", r"rtx 5090", 209.5, 419, 32),
    # NVIDIA RTX PRO Blackwell whitepaper: 503.8 | 1,007.6 and 1,007.6 | 2,015.2; server data sheet: 1 and 2 PFLOPS
    # with sparsity
    ("RTX PRO 6000 Blackwell", r"rtx pro 6000 blackwell workstation edition", 503.8, 1007.6, 96),
    ("RTX PRO 6000 Blackwell Server", r"rtx pro 6000 blackwell server edition", 500, 1000, 96),
    # NVIDIA HGX B200 data sheet: 36 and 72 PFLOPS with sparsity for eight; GB200: 5 and 10 with sparsity each
    ("B200", r"b200", 2250, 4500, 180),
    ("GB200", r"gb200", 2500, 5000, 186),
    # AMD Instinct MI300X data sheet: 1,307.4 and 2,614.9 dense
    ("MI300X", r"instinct mi300x", 1307.4, 2614.9, 192),
)


def card(device_name: str) -> Card | None:
    """The accelerator of `torch.cuda.get_device_name()`, or of a short name of `known_cards`; None when unknown.

    >>> card("NVIDIA H100 80GB HBM3").name
    'H100 SXM'
    >>> card("NVIDIA A100-SXM4-40GB MIG 1g.5gb") is None
    True
    """
    wanted = " ".join(device_name.lower().split())
    for maker in ("nvidia ", "amd ", "geforce ", "tesla "):
        wanted = wanted.removeprefix(maker)
    for name, names, bf16, fp8, memory in _CARDS:
        if wanted == name.lower() or re.fullmatch(names, wanted):
            return Card(name, bf16 * TERA, None if fp8 is None else fp8 * TERA, memory * GIB)
    return None


def peak_flops(device_name: str, dtype: Literal["bf16", "fp8"] = "bf16") -> float | None:
    """Dense peak of matrix products in FLOP/s; None for a processor, an unknown card, or FP8 on a card without it.

    >>> peak_flops("NVIDIA H200"), peak_flops("NVIDIA GeForce RTX 4090"), peak_flops("cpu")
    (989500000000000.0, 165200000000000.0, None)
    """
    known = card(device_name)
    if known is None:
        return None
    return known.bf16 if dtype == "bf16" else known.fp8


def known_cards() -> list[str]:
    """Short names of all cards in the table."""
    return [name for name, *_ in _CARDS]
