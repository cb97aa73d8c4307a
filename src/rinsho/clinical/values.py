"""Numbers with units and laboratory values in any Japanese clinical text, by rule: text to spans, no model.

A value is a number that says how much of something there is:

- a number with a unit of measure, whatever it measures: 38.5℃, 5mg/日, 120/80mmHg, 3×4cm, 2錠, 96%, 12万/μL;
- a number behind the name of a laboratory test or a vital sign, with the name, unit or not: CRP 12.3, 血圧 120/80;
- two numbers that can only be a blood pressure: 142/88.

What bounds or continues it goes with it: <0.3mg/dL, 5〜10mg, 36±2℃, 12.3→5.1mg/dL. No values are dates, times of day,
ages and spans of time (they say when, not how much), numbers of people, things and occasions (3回, 5例), numbers of
pages, figures, references and telephones, stages and grades (T1c, Grade 2).
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

# Half width: texts are looked at in half width. A unit of more than a character may stand behind a Latin letter, too
# (PSL5mg). Iu, m1 and d1 are how scanned reports come; the kana with U+309A and U+3099 are half-width ones.
_UNITS = (
    "mmHg cmH2O mmH2O Torr kPa hPa mOsm kcal cal mEq mmol μmol nmol pmol fmol mol kg mg μg mcg ng pg fg g Eq "
    "mL ml m1 dL dl μL μl uL ul cL fL fl L l cc mm cm μm um nm km m cm2 mm2 m2 cm3 mm3 m3 mIU μIU uIU IU Iu mU kU μU U "
    "mSv MBq cGy Gy Bq kHz MHz Hz kV mV mA msec ms bpm rpm fr Fr J W dB HU copies cpm "
    "㎎ ㎏ ㎍ ㎖ ㎗ ㎘ ㎕ ㎝ ㎜ ㎞ ㎡ ㎥ ㎠ ㎤ ㏄ ㎈ ㎉ ㎜Hg ㍑ ㌘ ㍉ ℃ °C % ‰ パーセント "
    "ミリグラム マイクログラム グラム キログラム ミリリットル リットル ミリ センチ メートル 国際単位 単位 秒 割 "
    "錠 包 カプセル カフ\u309aセル 袋 缶 滴 アンプル アンフ\u309aル バイアル ハ\u3099イアル 吸入 噴霧 プッシュ"
)
_PER = (  # behind a slash
    "1.73m2 1.73㎡ body Body BODY day Day DAY hour hr h H min sec week wk m2 ㎡ kg ㎏ L l dL dl d1 m1 ㎗ mL ml ㎖ "
    "μL μl uL ul ㎕ mm3 cm2 HPF hpf g gCr gCre Cr 日 秒 時間 時 分 回 週 月 年 視野 錠 包 カプセル 体重"
)
_FORMS = "錠 包 カプセル カフ\u309aセル 袋 アンプル バイアル"  # follow another value at once: 5mg1錠
_COUNTS = "回 拍 個 万 本"  # units only with what they are counted per: 96回/分
_TESTS = (
    "WBC RBC Hgb Hb Hct Ht PLT Plt MCV MCHC MCH CRP PCT ESR TP Alb ALB T-Bil D-Bil T-bil D-bil TB AST ALT GOT GPT LDH "
    "ALP γ-GTP γGTP γ-GT γGT GGT ChE CPK CK-MB AMY Amy BUN UN CRE Cre Cr eGFR Ccr UA Na Cl IP TIBC UIBC Glu BS FBS "
    "HbA1c TG LDL-C HDL-C LDL HDL T-Cho TC NH3 NT-proBNP BNP TnI TnT hsTnI D-dimer Ddimer Dダイマー D-ダイマー FDP "
    "PT-INR INR APTT TSH FT3 FT4 fT3 fT4 CEA CA19-9 CA125 CA15-3 AFP PIVKA-II PSA SCC CYFRA ProGRP NSE sIL-2R KL-6 "
    "SP-D SP-A IgG IgA IgM IgE IgG4 CH50 pH PaO2 PaCO2 PO2 PCO2 pO2 pCO2 HCO3- HCO3 SpO2 SPO2 SaO2 FiO2 AaDO2 A-aDO2 "
    "P/F BP sBP dBP SBP DBP HR BT KT BW BMI LVEF EF CTR GCS MMSE HDS-R NRS SUVmax SUV FEV1.0% FEV1% %VC "
    "フェリチン 血糖 血糖値 トロポニン フィブリノゲン 乳酸 白血球 赤血球 血小板 ヘモグロビン ヘマトクリット "
    "クレアチニン アルブミン 総蛋白 総ビリルビン 尿素窒素 尿酸 アミラーゼ リパーゼ アンモニア ナトリウム カリウム "
    "カルシウム クロール マグネシウム 中性脂肪 総コレステロール プロカルシトニン β-Dグルカン 白血球数 血小板数 "
    "血圧 収縮期血圧 拡張期血圧 脈拍 心拍数 心拍 体温 呼吸数 体重 身長 酸素飽和度 尿量 腹囲"
)
_SHORT_TESTS = "CK K P Ca Mg Fe PT RF RR PR C3 C4 BE Lac LAC T Fib"  # also other words: need a decimal point or a unit
_STAGES = "".join(f"(?<!{word})" for word in ("ステージ", "グレード", "タイプ", "クラス", "レベル"))


def find_values(text: str) -> list[tuple[int, int]]:
    """The half-open ranges of the values in a text, raw or clean, full-width or half-width; they do not overlap.

    Takes linear time. Source: SPEC "neither 1" (offsets into the raw text).

    >>> def values(text): return [text[start:end] for start, end in find_values(text)]
    >>> values("体温３８．５℃、ＢＰ １２０／８０ｍｍＨｇ、SpO2 96%、CRP 12.3→5.1mg/dL、WBC 12,300/μL。")
    ['体温３８．５℃', 'ＢＰ １２０／８０ｍｍＨｇ', 'SpO2 96%', 'CRP 12.3→5.1mg/dL', 'WBC 12,300/μL']
    >>> values("ﾌﾟﾚﾄﾞﾆﾝ５〜１０㎎／日を1日2回、3T 分3、28×15mmの結節、血圧は142/88、K 4.5、血小板12万。")
    ['５〜１０㎎／日', '3T', '28×15mm', '血圧は142/88', 'K 4.5', '血小板12万']
    >>> values("平成２年３月２８日、70歳、2023/10/12 10:30、3日間、5例中2例、図3、p.12、T1c、Grade 2、03-1234-5678")
    []
    """
    flat = text if text.isascii() else text.translate(_FLAT)
    found = []
    for match in _pattern().finditer(flat):
        if match.lastgroup == "value" or (match.lastgroup == "pressure" and _falls(match[0])):
            found.append((match.start(), match.start() + len(match[0].rstrip())))
    return found


@cache
def _pattern() -> re.Pattern[str]:
    """What is a value or may be a blood pressure (named), and what only looks like one, tried in this order."""
    year = r"(?:(?:19|20)\d\d|(?:令和|平成|昭和|[RHS])\d{1,2})"
    dates = (
        rf"{year}[ ]?[-/.年][ ]?\d{{1,2}}(?:[ ]?[-/.月][ ]?\d{{1,2}}日?)?(?![\d.])",
        r"\d{1,2}[:時]\d\d(?:[:分]\d\d)?(?!\d)",
        r"\d{1,2}月\d{1,2}日?",
    )
    telephone = r"0\d{1,4}-\d{1,4}-\d{3,4}"
    strong, unit, per = _unit()
    place = (
        rf"(?:図|表|[Ff]ig\.?|[Tt]able|[Pp]{{1,2}}\.|文献|第|No\.?|症例)[ ]?\d+(?:[-~〜,]\d+)*(?!\.?\d*[ ]?{strong})"
    )
    plain = r"(?:\d{1,3}(?:,\d{3})++|\d++)(?:\.\d++)?+"
    number = rf"{plain}(?:[ ]?[×x*][ ]?10(?:\^|E)?-?\d*)?(?:万|億)?"
    sign = r"(?:[<>≦≧≤≥]=?[ ]?|[±+-])?"
    # further numbers of the same value: ranges, pressures, sizes, courses; 5mg1錠
    joint = r"[ \t]?(?:[~〜∼~～‐–—−-]|から|±|[×xX*]|→|⇒|->|/)[ \t]?"
    more = (
        rf"(?:{joint}約?{number}(?:[ \t]?{unit})?|{number}[ \t]?(?:{_any(_FORMS)}{per}*|[TtCAPV](?![A-Za-z]))){{0,6}}"
    )
    with_unit = rf"{sign}{number}(?:[ \t]?{unit}|(?:{joint}{number}){{1,3}}?[ \t]?{unit}){more}"
    anything = rf"{sign}{number}(?:[ \t]?{unit})?{more}"
    link = r"[ \t]{0,2}(?:\([^()\d\n]{1,12}\)[ \t]?)?(?:値|数)?(?:[:=はがもを]|[ \t]で)?[ \t]{0,2}(?:約|およそ)?"
    test = rf"{_any(_TESTS)}(?:[/・]{_any(_TESTS)}){{0,3}}{link}{anything}"
    short = rf"{_any(_SHORT_TESTS)}{link}(?:{with_unit}|{sign}\d+\.\d+(?:{joint}{number}){{0,6}})"
    own_word = r"(?<![A-Za-z0-9])(?!(?<=[ァ-ヶー])[ァ-ヶー])"
    values = (
        rf"{own_word}(?:{test}|{short})(?![\d.]*\d)(?![年月日歳例名人週])(?:[ ]?点|度(?:\d分|台)?)?",
        rf"(?<![A-Za-z0-9.#])(?<!\d,){with_unit}",
        rf"(?<=[A-Za-z]){number}(?={strong}){unit}{more}",
        rf"(?<=[Oo]2){number}{unit}{more}",  # Ｏ２２Ｌ: two litres of oxygen
        rf"(?<=[ァ-ヶー]){_STAGES}\d(?:\.5)?[TtCAPV](?![A-Za-z\d])",  # a tablet or ampoule behind its name
        r"(?<![\d.])(?:3[4-9]|4[0-2])(?:\.\d)?度(?:\d分|台)?",  # a temperature; other degrees are angles and burns
    )
    pressure = r"(?<![\d./-])(?:[6-9]\d|1\d\d|2[0-5]\d)/(?:[3-9]\d|1[0-4]\d)(?![\d./]|[ ]?[例名人回歳年月日週個])"
    other = rf"(?<![A-Za-z0-9.]){number}"  # taken whole, so that no part of it is a value
    skipped = "|".join((*dates, telephone, place))
    return re.compile(rf"{skipped}|(?P<value>{'|'.join(values)})|(?P<pressure>{pressure})|{other}")


def _unit() -> tuple[str, str, str]:
    """Patterns of units that are no single Latin letter, of any unit with what it is per, and of per."""
    short = [word for word in _UNITS.split() if len(word) == 1 and word.isascii() and word.isalpha()]
    strong = rf"{_any(_UNITS, short)}(?![a-z])(?<!秒(?=[量率]))"
    weak = rf"(?:{'|'.join(short)})(?![A-WYZa-wyz]|[xX](?!\d))"
    per = rf"(?:[ \t]?/[ \t]?{_any(_PER)}(?![a-z]))"
    doses = r"[TCAPV](?=[/×x]|[ \t]*分[1-6](?!\d))"  # only where a dose goes on: 3T/日, 2C 分2
    return strong, rf"(?:(?:{strong}|{weak}){per}*+|{doses}{per}*|(?:{_any(_COUNTS)}?{per})+)", per


def _falls(pair: str) -> bool:
    systolic, _, diastolic = pair.partition("/")
    return int(systolic) > int(diastolic)


def _any(words: str, left_out: list[str] | None = None) -> str:
    """One of the words, the longest first; nothing in them is a pattern."""
    chosen = sorted(set(words.split()) - set(left_out or ()), key=lambda word: (-len(word), word))
    return f"(?:{'|'.join(map(re.escape, chosen))})"


class _Flat(dict[int, str]):
    """Code point -> its half-width character, worked out at its first use; itself where NFKC makes several of it."""

    def __missing__(self, point: int) -> str:
        character = unicodedata.normalize("NFKC", chr(point))
        self[point] = character = character if len(character) == 1 else chr(point)
        return character


_FLAT = _Flat()
