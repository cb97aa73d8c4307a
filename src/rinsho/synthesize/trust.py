r"""What is wrong with a text that a language model wrote, by cheap looks at the text alone; and what is trimmed.

A model that was asked for a textbook page sometimes refuses, goes on in another language, runs in circles until its
room is used up, or stops in the middle of a sentence. `problem` names the first of these; `tidy` takes away what stands
around a good text (`もちろんです！`, thoughts, code fences, `（約600字）`). Whether the text is true cannot be seen in
this way.

Source: SPEC N2.1-5, N2.1-6; repetition after Rae et al. 2021 (Gopher).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rinsho.overlap.codes import codes, compact, window_hashes
from rinsho.text import clean

if TYPE_CHECKING:
    from rinsho.contamination import Index

REASONS = {
    "empty": "nothing was written",
    "refused": "the teacher declines, does not know the topic, or speaks of itself as a machine",
    "garbled": "characters that stand for broken bytes",
    "not_japanese": "too little Japanese, or a passage in another language",
    "template": "a placeholder of the prompt or a mark of the chat form was left in",
    "repetitive": "the same again and again",
    "cut_off": "ends for want of room or within a sentence",
    "too_short": "fewer characters than wanted",
    "echo": "mostly the wording of the prompt",
    "contaminated": "holds half of a benchmark's question, or more",
}
DECLINED = ("content_filter", "refusal")  # how endpoints say that they would not answer
WINDOW_CHARS = 16  # names and terms that recur are shorter
LOOP_CHARS = 60  # a loop at the end is at least so long,
LOOP_COPIES = 4  # comes so often
LONGEST_LOOP = 400  # and one round of it is no longer
HEAD_CHARS = 200  # where a refusal stands
SHORT_CHARS = 300  # an answer in which a refusal may stand anywhere
FEW_KANJI = 20
FOREIGN_PASSAGE_CHARS = 300
MIN_HELD = 0.5  # of a benchmark's item
MAX_ECHO = 0.5  # an exercise of reading quotes its passage in the explanation
LINE_CHARS = 30  # a last line of this length without a full stop is no heading


@dataclass(frozen=True, slots=True)
class Limits:
    """What a text must keep to; the recipe's settings of the same names.

    `min_chars` does not count white space. Repeated are the windows of 16 characters that stood in the text before.
    An answer to a question, other than a page on a topic, `may_not_know` what is asked about.
    """

    min_chars: int = 80
    max_repeated_fraction: float = 0.3
    min_japanese_fraction: float = 0.3
    may_not_know: bool = False


def problem(text: str, finish_reason: str, limits: Limits) -> tuple[str, float | str] | None:
    """Why a text is not used, as (reason of REASONS, measured value), or None. The text comes from `tidy`.

    `finish_reason` is as the endpoint says it (stop, length, content_filter, ...; may be empty). A loop that used up
    its room is `repetitive`, not `cut_off`: more room would not help. Takes any str, in linear time.

    >>> problem("肺炎は肺の感染症で、発熱と咳嗽を認める。", "stop", Limits(min_chars=10))
    >>> problem("肺炎は肺の感染症で、発熱と", "length", Limits(min_chars=10))
    ('cut_off', 'length')
    >>> problem("申し訳ありませんが、その質問にはお答えできません。", "stop", Limits())
    ('refused', 'apology')

    Source: SPEC N2.1-5, N2.1-6.
    """
    bare = text.strip()
    if finish_reason in DECLINED:
        return "refused", finish_reason
    if not bare:
        return ("cut_off", "length") if finish_reason == "length" else ("empty", 0)
    looks = (
        ("refused", _refusal(bare) or (None if limits.may_not_know else _unknown(bare))),
        ("garbled", _garbled(bare)),
        ("not_japanese", _foreign(bare, limits.min_japanese_fraction)),
        ("template", _template(bare)),
        ("repetitive", _repetition(bare, limits.max_repeated_fraction)),
        ("cut_off", "length" if finish_reason == "length" else _unfinished(bare)),
    )
    for reason, value in looks:
        if value is not None:
            return reason, value
    chars = len("".join(bare.split()))
    return ("too_short", chars) if chars < limits.min_chars else None


_THOUGHT = re.compile(r"\A\s*<(think|thinking|thought|reasoning)>(?:.*?</\1>|.*\Z)", re.DOTALL)
_END_MARK = re.compile(r"<\|(?:im_end|eot_id|end|endoftext|end_of_text|end_of_turn|eom_id)\|>|</s>|<end_of_turn>|<eos>")
_FENCE = re.compile(r"\A```(?:markdown|md|text|txt|plaintext)?[ \t]*\n(.*?)\n?```\s*\Z", re.DOTALL)
_HAPPY = (
    r"(?:もちろんです|承知(?:いた)?しました|かしこまりました|了解(?:いた)?しました|わかりました|分かりました|喜んで)"
)
_SAYS = r"(?:示|説明|解説|紹介|作成|記述|提示|記載|まとめ|回答|執筆|お答え|ご説明|ご紹介)"
_DOES = r"(?:します|いたします|しました|いたしました|ました|ます|していきます|させていただきます)"
_THANKS = r"(?:ご(?:依頼|質問|相談)|お問い?合わせ)[^\n。！!]{0,20}ありがとうございま(?:す|した)"
_CHARACTERS = r"[0-9０-９,，]{2,6}(?:文字|字)"
_OPENING = re.compile(
    rf"\A(?:(?:はい|ええ)[、，。！!]\s*)?"
    rf"(?:{_THANKS}[。！!]*\s*"
    rf"(?:[^\n。：:]{{0,80}}?(?:の(?:とおり|通り)(?:です|になります)|{_SAYS}{_DOES})[。．：:]*[ \t]*(?:\n|\Z))?"
    rf"|[^\n。]{{0,40}}(?:{_CHARACTERS}|「である」調)[^\n。]{{0,40}}(?:書き|{_SAYS}(?:し|いたし)?)ます[。．：:]+"
    rf"|{_HAPPY}[。．、！!ね]*\s*(?:[^\n。：:]{{0,80}}?{_SAYS}{_DOES}(?:ね)?[。．：:！!]*[ \t]*(?:\n|\Z))?"
    rf"|(?:以下|次|それでは|では|ここでは)[^\n。]{{0,80}}?(?:{_SAYS}{_DOES}|です)[。．：:]*[ \t]*\n"
    rf"|(?:Sure|Certainly|Of course|Absolutely|Here (?:is|are))\b[^\n]{{0,150}}\n)\s*"
)
_RULES = re.compile(r"\A[-*_=]{3,}[ \t]*\n\s*"), re.compile(r"\n\s*[-*_=]{3,}\s*\Z")
_TAIL_CHARS = 250  # where an offer stands
_CLOSING = re.compile(
    r"\n\s*(?:以上です|以上になります|(?:他|ほか)に[^\n]{0,60}(?:質問|要望|ご不明)[^\n]{0,60}|(?:ご)?(?:参考|お役)に[^\n]{0,30}(?:幸い|嬉しい|うれしい)です"
    r"|(?:ご)?不明な?点[^\n]{0,60}(?:ください|下さい)|[^\n]{0,60}お(?:知らせ|聞かせ|尋ね|気軽に)[^\n]{0,20}(?:ください|下さい)"
    r"|(?:I hope|Let me know|Feel free)\b[^\n]{0,200})[。．！!]*\s*\Z"
)
_ABOUT = r"(?:この|本|上記の?|以上の?)(?:文章|内容|回答|記事|記述|情報|説明|解説|テキスト|項)?は、?"
_REMARK = re.compile(  # how long it is, who wrote it, what it is not meant for
    r"(?:\n\s*|(?<=[。．]))[（(【\[](?:(?:総|本文)?(?:文字数|字数)[ ：:]*)?(?:約|およそ|全|計|合計)? ?"
    rf"{_CHARACTERS}(?:程度|以内)?[）)】\]]\s*\Z"
    rf"|\n\s*(?:[※*＊（(]\s*)*(?:(?:総|本文)?(?:文字数|字数)[ ：:]*約? ?[0-9０-９,，]{{2,6}}(?:文字|字)?(?:程度)?"
    rf"|{_ABOUT}(?:生成)?(?:AI|ＡＩ|人工知能|(?:大規模)?言語モデル)[^\n。]{{0,30}}(?:生成|作成|執筆|書)[^\n]{{0,100}}"
    rf"|{_ABOUT}[^\n。]{{0,60}}(?:(?:医学|医療)(?:的な?|上の)?(?:助言|アドバイス)|一般的な(?:情報|知識)|情報提供を目的)"
    r"[^\n]{0,150}"
    rf")[。．）)*]*\s*\Z"
)


def tidy(text: str) -> str:
    r"""The text without what a chat model puts around it; nothing inside is changed.

    Away go thoughts in <think>, what stands behind an end mark, a code fence around the whole, announcements before the
    text, and behind it offers and remarks (its length, that a machine wrote it, that it is no medical advice). Thoughts
    that never end leave nothing.

    >>> tidy("もちろんです！以下に説明します。\n\n肺炎は肺の感染症である。\n\n他にご質問があればお知らせください。")
    '肺炎は肺の感染症である。'
    """
    text = _THOUGHT.sub("", text, count=1)
    end = _END_MARK.search(text)
    if end and text[: end.start()].strip():
        text = text[: end.start()]
    text = text.replace("\r\n", "\n").strip()
    if fenced := _FENCE.match(text):
        text = fenced[1].strip()
    opening = _OPENING.match(text)
    if opening and text[opening.end() :].strip():
        text = text[opening.end() :]
    text = _RULES[0].sub("", text)
    for pattern in (_CLOSING, _REMARK, _RULES[1]) * 3:  # an offer, the rule above it, and what stands above that
        tail = pattern.search(text, max(0, len(text) - _TAIL_CHARS))
        if tail and text[: tail.start()].strip():
            text = text[: tail.start()].rstrip()
    return text


def repeated_fraction(text: str) -> float:
    """The share of the text's windows of 16 characters, white space not counted, that stood in it before; 0 to 1.

    >>> repeated_fraction("今日も一日頑張ります。" * 4), repeated_fraction("発熱と咳嗽を認める。")
    (0.621, 0.0)
    """
    units = compact(" ".join(text.split()))
    if len(units) <= WINDOW_CHARS:
        return 0.0
    hashes = np.sort(window_hashes(units, WINDOW_CHARS))
    return round(float(np.count_nonzero(hashes[1:] == hashes[:-1])) / len(hashes), 3)


def echo(text: str, prompt: str) -> tuple[str, float] | None:
    """("echo", share) when more than half of the text's windows of 16 characters stand in the prompt; else None.

    Small models give back the worked example of the prompt, or its wording, instead of a text of their own.

    >>> example = "問題: 発熱と咳嗽がみられる。考えられるのはどれか。"
    >>> echo(example, f"見本は次の通り。{example}"), echo("腹痛と下痢がみられる。何をするか。", example)
    (('echo', 1.0), None)
    """
    own, given = (compact(" ".join(one.split())) for one in (text, prompt))
    if len(own) < WINDOW_CHARS or len(given) < WINDOW_CHARS:
        return None
    share = float(np.isin(window_hashes(own, WINDOW_CHARS), window_hashes(given, WINDOW_CHARS)).mean())
    return ("echo", round(share, 3)) if share > MAX_ECHO else None


def benchmark_items(text: str, index: Index, question: str = "") -> str:
    """Up to three items of benchmarks of which the text holds half or more, joined by ", "; empty without any.

    An exercise is given as question (with its passage) and options, and its `question` alone once more: a benchmark's
    question that is shorter than the runs that count is found when it is the same. `index` is that of the recipe's
    `decontaminate`. The reason that goes with it is `contaminated`. One shared passage is not enough, as it is for the
    corpus: every examination has "身長…体重…体温…脈拍…", and a quarter of the questions of one year share 30
    characters with other years.

    Source: SPEC N2.1-2.
    """
    return ", ".join(index.held(clean(text), MIN_HELD)) or index.same(clean(question))


_SORRY = re.compile(
    r"[「『\"*\s]{0,3}(?:大変|誠に|まことに)?(?:申し訳(?:あり|ござい|ない|御座い)|すみません|ごめんなさい|恐れ入りますが)"
)
_NOT_ABLE = re.compile(
    r"(?:でき|出来|いたしかね|致しかね|しかね|かね|差し控え|控えさせ|応じられ|答えられ|存じ|分かり|わかり|ありません|持って(?:い|お))"
)
_MACHINE = re.compile(
    r"(?:私|わたし|当方|僕)は[^\n。]{0,20}(?:AI|ＡＩ|人工知能|言語モデル|アシスタント)[^\n。]{0,12}(?:です|であり|なので|のため|として)"
    r"|(?:AI|ＡＩ|人工知能|言語モデル)(?:アシスタント|言語モデル|モデル)?(?:である私|として(?:、|の)?(?:私|お答え|回答|提供|医療))"
    r"|\b(?:[Aa]s an AI|I am an AI|I'm an AI)\b"
)
_DECLINES = re.compile(
    r"(?:お答え|回答|お手伝い|ご提供|提供|お?応じ|対応|生成|作成|ご?説明|お伝え|お力に)(?:を|は|も|する|することは|することが|なること)?"
    r"(?:は|が|を)?(?:でき(?:ません|ない|かねます)|出来(?:ません|ない)|いたしかねます|致しかねます|しかねます|られません|差し控え|控えさせ)"
)
_ENGLISH = re.compile(
    r"[\"*\s]{0,3}(?:I(?:'|’)?m (?:really |very )?sorry|I am (?:really |very )?sorry|Sorry,|I apologi[sz]e"
    r"|I (?:cannot|can(?:'|’)?t|can not|am unable|(?:'|’)?m unable|won(?:'|’)?t|do not|don(?:'|’)?t)\b"
    r"|Unfortunately, I\b|As an AI)"
)


_DECLINES_TO_WRITE = re.compile(
    r"(?:執筆|記載|記述|解説|紹介)(?:を|する|を行う)?(?:こと)?(?:は|が|も)?"
    r"(?:(?:でき|出来)ません|(?:いた|致)?しかねます|差し控え|控えさせ|(?:適切|適当)では(?:ありません|ない)|(?:困難|不可能|不適切)です)"
    r"|項[^。\n]{0,20}(?:執筆|記載|記述|作成|書く)(?:を|する)?(?:こと)?(?:は|が|も)?(?:でき|出来)ない"
)
_NAMED = r"(?:疾患名?|病名|病気|症候群|名称|名前|用語|言葉|薬剤名?|医薬品名?|薬|検査|概念)"
_UNKNOWN = re.compile(  # not 原因については不明である
    r"\A[「『\"*#\s]{0,4}[^。、\n]{1,50}?(?<![因序度歴細後期間量])(?:について|に関して)(?:は|の(?:情報|詳細)は)?、?[^。、\n]{0,20}"
    r"(?:不明(?:です|である|。)|(?:情報|知識)[^。、\n]{0,15}ません|存じ(?:上げ)?ません|[分わ]かりません)"
    r"|\A[「『][^」』\n]{1,60}[」』][^。\n]{0,12}(?:は|が|か)、?不明"
    rf"|(?:という|との|なる)(?:{_NAMED}|もの)[^。\n]{{0,50}}"
    r"(?:確認(?:が|は|することが|することは)?(?:でき|取れ|とれ)ません|見(?:当た|つか)りません|存じ(?:上げ)?ません)"
    rf"|実在し(?:ない|ません){_NAMED}?[^。\n]{{0,8}}(?:と(?:思われ|考えられ)|可能性|よう(?:です|である)|ため)"
    r"|存在し(?:ない|ません)(?:よう(?:です|である)|と思われます)"
    rf"|(?:確立|認知|定義)され(?:た|ている){_NAMED}[^。\n]{{0,10}}では(?:ない|なく|ありません)"
    rf"|(?:正式な|正しい|別の|(?:他|ほか)の){_NAMED}[^。\n]{{0,15}}"
    r"(?:お(?:知らせ|教え|示し)|ご(?:提供|指定|教示|提示)|教えて|指定して)"
)


def _unknown(text: str) -> str | None:
    return "unknown" if len(text) <= SHORT_CHARS and _UNKNOWN.search(text) else None


def _refusal(text: str) -> str | None:
    head = text[:HEAD_CHARS]
    if _ENGLISH.match(head):
        return "english"
    if _SORRY.match(head) and _NOT_ABLE.search(head):
        return "apology"
    if _MACHINE.search(head):
        return "machine"
    if len(text) > SHORT_CHARS:
        return None
    return "declines" if _DECLINES.search(text) or _DECLINES_TO_WRITE.search(text) else None


def _garbled(text: str) -> int | None:
    return text.count("\ufffd") + len(_CONTROL.findall(text)) or None


_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_KANA = re.compile("[ぁ-ゖァ-ヺー-ヿㇰ-ㇿｦ-ﾟ]+")
_KANJI = re.compile("[々〆一-鿿㐀-䶿\U00020000-\U0003ffff]+")
_OTHER_SCRIPT = re.compile(
    "[\u0400-\u058f\u0590-\u08ff\u0900-\u0fff\u1100-\u11ff\u1780-\u17ff\u3130-\u318f\uac00-\ud7af]+"
)
_ENGLISH_PASSAGE = re.compile(rf"[\x00-\u2fff]{{{FOREIGN_PASSAGE_CHARS},}}")
_LATIN = re.compile("[A-Za-z\u00c0-\u024f]+")


def _foreign(text: str, min_fraction: float) -> float | str | None:
    """The share of Japanese letters where it is too small, or what else shows another language."""
    kana, kanji_runs = _length(_KANA, text), _KANJI.findall(text)
    kanji = sum(map(len, kanji_runs))
    seen = len("".join(text.split()))
    if kana + kanji < min_fraction * seen:
        return round((kana + kanji) / seen, 3)
    if kanji >= FEW_KANJI:
        unusual = kanji - len("".join(kanji_runs).encode("cp932", "ignore")) // 2
        if kana * 10 < kanji or (unusual >= 5 and unusual * 20 > kanji):
            return "chinese"
    if _length(_OTHER_SCRIPT, text) > max(5, seen // 100):
        return "script"
    passages = (_length(_LATIN, match[0]) * 2 > len(match[0]) for match in _ENGLISH_PASSAGE.finditer(text))
    return "passage" if any(passages) else None


_PLACEHOLDER = re.compile(
    r"[［\[<＜{｛〈《](?:対象の?)?(?:病名|疾患名|薬剤名|薬品名|医薬品名|薬名|検査名|トピック名?|主題|テーマ"
    r"|ここに[^\n\]］>＞}｝]{0,40}|(?i:insert|enter|your|topic|disease name)[^\n\]］>＞}｝]{0,40})[］\]>＞}｝〉》]"
    r"|[（(](?:問題文|選択肢|解説|記号だけ[^\n）)]{0,40})[）)]"
    r"|\{(?:topic|topic_kind|reading|text|examples|count|question|options|aspect)\}"
)
_CHAT_MARK = re.compile(
    r"<\|[a-z_]{2,30}\|>|\[/?INST\]|<</?SYS>>|</?(?:think|thinking)>|<(?:start|end)_of_turn>"
    r"|^#{2,4} ?(?:Instruction|Response|Human|Assistant|User)\b ?:?|^(?:USER|ASSISTANT|User|Assistant|Human): ",
    re.MULTILINE,
)


def _template(text: str) -> str | None:
    if _PLACEHOLDER.search(text):
        return "placeholder"
    return "chat" if _CHAT_MARK.search(text) else None


def _repetition(text: str, most: float) -> float | str | None:
    """The share of repeated windows where it is too large, or `loop` where the text ends in one."""
    share = repeated_fraction(text)
    if share > most:
        return share
    return "loop" if share and _loops(text) else None


def _loops(text: str) -> bool:
    """Whether the text ends in four copies of something or more, with letters in it.

    >>> _loops("治療は安静である。" + "経過観察とする。" * 9), _loops("治療は安静である。経過観察とする。")
    (True, False)
    """
    units = codes("".join(text[-LOOP_COPIES * LONGEST_LOOP :].split()))[::-1]
    for period in range(1, min(LONGEST_LOOP, len(units) // LOOP_COPIES) + 1):
        need = max(LOOP_CHARS, LOOP_COPIES * period) - period
        if need > len(units) - period:
            continue
        if units[0] == units[period] and bool((units[:need] == units[period : period + need]).all()):
            return any(chr(unit).isalnum() for unit in units[:period].tolist())
    return False


_CLOSERS = " \t*_~`"
_FINISHED = '。．.！!？?…‥♪」』）)】〉》]］}｝"”’|'
_ITEM = re.compile(
    r"\s*(?:[-*+・●○■◆□◇▶※#|>]|[（(]?[0-9０-９a-zA-Zａ-ｅＡ-Ｅ①-⑳]{1,3}[.)．）:：、 　])|[^。\n]{1,20}[:：]"
)
_HANGING = re.compile(  # not お大事に, とのこと, ひと, もの, まで, けが
    r"(?:[をは、，・：:;；「『（(【〈《\[［{｛-]|(?<!大事)に|(?<![こひ])と|(?<!も)の|(?<!ま)で|(?<!け)が)\Z"
)


def _unfinished(text: str) -> str | None:
    """`sentence` when the last line breaks off: prose without its full stop, or a particle or colon at the end."""
    *above, line = text.rstrip(_CLOSERS + "\n").split("\n")
    line = line.strip(_CLOSERS)
    if not line or line[-1] in _FINISHED:
        return None
    if _HANGING.search(line) and len(line) >= 8:
        return "sentence"
    if _ITEM.match(line):
        return "sentence" if "。" in line else None
    prose = "。" in line or (len(line) >= LINE_CHARS and any(other.rstrip(_CLOSERS).endswith("。") for other in above))
    return "sentence" if prose else None


def _length(pattern: re.Pattern[str], text: str) -> int:
    return sum(map(len, pattern.findall(text)))
