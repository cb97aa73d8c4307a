"""Invented text, and a vocabulary made from it without any training."""

import math
from collections import Counter

from hypothesis import strategies as st

from rinsho import chat
from rinsho.segmentation import SPACE, alone_characters
from rinsho.tokenization.backend import CONTROLS

TERMS = ["急性骨髄性白血病", "間質性肺炎", "非小細胞肺癌", "心筋梗塞", "プレドニゾロン", "糖尿病性腎症"]
SENTENCES = [
    "患者は発熱と咳嗽を主訴に来院した。",
    "急性骨髄性白血病(AML)の疑い、CRP 12.5 mg/dL。",
    "「はい。」と答え、翌日には解熱したことを認めた。",
    "プレドニゾロン30mgを投与し、間質性肺炎は改善した。",
    "Patient had severe headache, 食欲不振を伴う。",
    "あああ、いいい、ーーー、---、ABAB、キロキロ。",
]
TEXTS = [
    *SENTENCES,
    SENTENCES[0] + "\n" + SENTENCES[1],
    "",
    " ",
    "\n\n",
    "𠮷野家で彁を食べた",
    "a  b",
    "１２．３ｍｇ　投与",
    "<0x41><unk>\n<|end_of_text|>",
    "ああああああああーーーーーABABABABAB",
    "彁彁𠮷a彁\u2028\u3000\r\nｶﾞ㎎",
]
LIKE_SPECIAL = [chat.BEGIN, chat.END, *chat.CHAT_TOKENS, "<unk>", "<0x0A>", "<0xE3>"]
JAPANESE = st.text(
    st.sampled_from("患者は発熱。、を認めた\n \u3000▁<|>_[]'\"0５．,ｱﾞabcABあー-℃𠮷é\u200b\x00\u2028心筋梗塞㎎😭")
    | st.characters(),
    max_size=60,
) | st.lists(st.sampled_from([*TEXTS, *LIKE_SPECIAL, "電話090-1234-5678", "https://a.jp/b "]), max_size=5).map("".join)


def vocabulary(byte_fallback: bool = True, split_digits: bool = True) -> list[tuple[str, float]]:
    """Substrings of the sentences with their frequencies; many cross the borders of words."""
    counts: Counter[str] = Counter()
    alone = alone_characters(split_digits)
    for sentence in SENTENCES:
        for start in range(len(sentence)):
            for end in range(start + 1, min(len(sentence), start + 4) + 1):
                piece = sentence[start:end].replace(" ", SPACE)
                if not any(char in alone for char in piece):
                    counts[piece] += 1
    for char in map(chr, range(0x21, 0x7F)):
        counts[char] += char not in alone
    fixed = [*CONTROLS, *(f"<0x{byte:02X}>" for byte in range(256) if byte_fallback), *alone]
    total = counts.total()
    rows = sorted(counts.items(), key=lambda row: (-row[1] * len(row[0]), row[0]))
    rows = [row for place, row in enumerate(rows) if len(row[0]) == 1 or place % 3]  # so that not all is one piece
    pieces = [(piece, math.log(count / total) - 3 / len(piece)) for piece, count in rows if count]
    return [(piece, 0.0) for piece in fixed] + pieces
