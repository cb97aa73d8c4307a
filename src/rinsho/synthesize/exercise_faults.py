"""What speaks against an exercise that can be read: its number of answers, its explanation, figures, marks.

Question and explanation are in normal form (NFKC) where nothing else is said.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping

_NUMBER = re.compile(r"([1-5一二三四五])(?:つ|個|肢)(?:を|お|、)*(?:選|挙げ|あげ|答え|はどれ)")
_SEVERAL = re.compile("すべて|全て|いくつでも|複数|[2-5二三四五](?:つ|個|肢)")  # else one is asked for

_SHOWN = r"(?:写真|図|画像|エックス線像?|X線像?|CT|MRI|標本|像|シンチグラム|グラフ|構造式|波形)(?:[(][^()]{1,20}[)])?"
_FIGURE = re.compile(
    r"別冊|別紙|別に示す|(?:図|写真)を?参照"
    rf"|{_SHOWN}を(?:(?:次|以下|下|別)に示す|示す(?=[\s。.(]|$))"  # not: すりガラス像を示す疾患
    r"|(?:下|次|以下)の(?:図|写真|画像|グラフ|構造式)|(?<![一-龥])[下上左右次]図"
    r"|(?<![一-龥])図に示す|(?<![一-龥])(?:図|写真)\s*(?:[1-9①-⑨](?![0-9枚種回])|[A-E](?![A-Za-z]))"
)
_THIS = re.compile(
    r"この(写真|図|画像|グラフ|標本|構造式|心電図|脳波|エックス線|X線|CT|MRI|超音波像)(?!所見|検査|変化|異常|値)"
)

# `正解はb`, `答えは「経過観察」`; `bが正しい` only where what is right is asked for.
_LABEL = r"(?:選択肢)?([a-j]|\d|[ア-コ])(?![a-z0-9ア-ンーつ個肢]|[.,][0-9])"
_NOT_MEANT = r"(?!(?:である|だ)?と(?:は|も|思|考え(?:が|や)|誤|勘|いう|限)|では?な|じゃな|か|よう)"
_SAID = re.compile(rf"(?:正(?:解|答)|答え)は、?\s?[「『(]?{_LABEL}{_NOT_MEANT}")
_TEXT = re.compile(r"(?:正(?:解|答)|答え)は、?[「『(]?")
_AFTER_TEXT = re.compile(rf"(?:[」』)。.、,(]|である|です|だ|とな|$){_NOT_MEANT}")
_RIGHT = re.compile(
    rf"(?<![a-z0-9ア-ンー.,-]){_LABEL}[」』)]?が(?:最も)?(?:正しい|正解|正答|適切|答え)(?:である|です|だ)?{_NOT_MEANT}"
)
_WRONG_ASKED = re.compile("誤|間違|正しくない|適切でない|不適切|ないのは|ないもの|禁忌|除")
_CONDITION = re.compile("あれば|ならば?(?![なび])|場合|れば|たら|もし|仮に|としても")
_SENTENCE = re.compile(r"[。\n!?]")

_GIVEN_AWAY = re.compile(
    r"[(\[【]\s*(?:正解|正答|不正解|誤答|誤り|正しい|correct|incorrect|answer)\s*[)\]】]$"
    r"|(?:←|⇐|<[-=]+|→|※|★|\s[-–—:])\s*(?:これが)?(?:正解|正答|答え)$|^[✓✔✅☑❌⭕✗✘]|[✓✔✅☑❌⭕✗✘]$"
)
_CIRCLE = re.compile(r"^[○◯〇◎]\s|(?:\s|\()[○◯〇◎]\)?$")
_CROSS = re.compile(r"^[×✕✖]\s|(?:\s|\()[×✕✖]\)?$")


def asked_number(question: str) -> int | None:
    """How many right options a question asks for; None where it does not tell.

    >>> asked_number("正しいのはどれか。"), asked_number("2つ選んでください。"), asked_number("すべて選べ。")
    (1, 2, None)
    """
    asked = {"一二三四五".find(mark) + 1 or int(mark) for mark in _NUMBER.findall(question)}
    if not asked and not _SEVERAL.search(question):
        return 1
    return asked.pop() if len(asked) == 1 else None


def needs_figure(question: str) -> bool:
    """Whether a question shows a figure; one that it describes in words before (この心電図) is there.

    >>> needs_figure("図1の所見はどれか。"), needs_figure("すりガラス像を示す疾患はどれか。")
    (True, False)
    """
    if _FIGURE.search(question):
        return True
    first = {found[1]: found.start(1) for found in reversed([*_THIS.finditer(question)])}
    return any(question.find(name) == place for name, place in first.items())


def contradicts(question: str, explanation: str, known: Mapping[str, str], answer: Collection[str]) -> bool:
    """Whether the explanation calls other options right, and none of the answer; `known` is of `cores`.

    Sentences with a condition (気胸であれば正解はd) do not count.
    """
    right_asked = not _WRONG_ASKED.search(question)
    texts = sorted(((text, label) for label, text in known.items() if len(text) > 1), reverse=True)
    said: set[str] = set()
    for sentence in _SENTENCE.split(explanation.lower()):
        if _CONDITION.search(sentence):
            continue
        said.update(_SAID.findall(sentence))
        said.update(_RIGHT.findall(sentence) if right_asked else ())
        bare = "".join(sentence.split())
        for lead in _TEXT.finditer(bare):
            options = (row for row in texts if bare.startswith(row[0], lead.end()))
            said.update(label for text, label in options if _AFTER_TEXT.match(bare, lead.end() + len(text)))
    said &= known.keys()
    return bool(said) and not said & set(answer)


def marked(options: Mapping[str, str], answer: Collection[str] | None = None) -> bool:
    """Whether an option says that it is right or wrong: `（正解）`, `← 正解`, `✓`.

    `○` and `×` also stand in options of their own right: they count where they mark just the right ones, or the others.

    >>> marked({"a": "肺炎（正解）", "b": "気胸"}), marked({"a": "肺炎 ○", "b": "気胸 ×"}, ["b"])
    (True, False)
    """
    plain = {label: unicodedata.normalize("NFKC", text).lower().strip(" *。.") for label, text in options.items()}
    if answer is None:
        return any(_GIVEN_AWAY.search(text) for text in plain.values())
    right = {label for label, text in plain.items() if _CIRCLE.search(text)}
    wrong = {label for label, text in plain.items() if _CROSS.search(text)}
    return right == set(answer) or wrong == options.keys() - set(answer)
