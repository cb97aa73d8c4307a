"""Names on the drug price list to the names that clinical notes use: no maker, no strength, no salt."""

from __future__ import annotations

import re
from functools import cache

MIN_NAME_CHARS = 3


def _words(text: str) -> list[str]:
    return text.split()


_BRACKETS = re.compile(r"「[^」]*」?|\([^()]*\)|\[[^\[\]]*\]|〈[^〉]*〉")
_UNITS = _words(
    """
    mg mcg μg ng kg g mL μL dL L % 億単位 万単位 千単位 万国際単位 国際単位 単位 IU mEq mmol mol MBq GBq kBq
    cm mm ppm 枚 回 錠 噴霧 吸入 日用 包
    """
)
# words that say how a drug is given; what stands before them is its name
_FORMS = _words(
    """
    錠 カプセル 散 細粒 顆粒 丸 末 原末 ドライシロップ シロップ シロップ用 DS エリキシル トローチ ゼリー 内用液
    内服液 経口液 液 注射液 注射用 注 静注液 静注用 静注 点滴静注液 点滴静注用 点滴静注 点滴用 皮下注射液
    皮下注用 皮下注 筋注用 筋注 髄注 動注 動注用 膀注用 硝子体内注射液 輸液 軟膏 眼軟膏 注入軟膏 クリーム
    ローション ゲル テープ パップ パッチ シップ 貼付剤 スプレー エアゾール 点眼液 点鼻液 点耳液 点眼 点鼻
    眼粘弾剤 吸入液 吸入用 吸入 坐剤 坐薬 腟錠 腟用錠 腟坐剤 注腸 浣腸 シリンジ ペン キット バッグ 水 外用液
    消毒液 洗眼液 含嗽液 うがい液 内用剤 内用懸濁液 経腸用液 フィルム シート オイル 粉末 腹膜透析液 透析液
    灌流液 フォーム デポ
    """
)
_MODIFIERS = _words(
    """
    配合 徐放 徐放性 持続性 腸溶 腸溶性 口腔内崩壊 糖衣 チュアブル 舌下 発泡 小児用 成人用 懸濁用 懸濁 内服 内用
    外用 経口 口腔用 経腸用 水性懸濁 水懸 油性 粒状 分散 軟 硬 耳鼻科用 眼科用 歯科用 皮膚科用 静脈注射用 点滴
    ビーズ エキス 料エキス OD SR CR LA XR ER MR RM
    """
)
_SALTS = _words(
    """
    ナトリウム カリウム カルシウム マグネシウム アルミニウム リチウム 亜鉛 メグルミン トロメタミン リジン
    アルギニン 塩酸塩 硫酸塩 硝酸塩 リン酸塩 酢酸塩 乳酸塩 酒石酸塩 クエン酸塩 コハク酸塩 フマル酸塩
    マレイン酸塩 メシル酸塩 ベシル酸塩 トシル酸塩 エシル酸塩 臭化水素酸塩 ヨウ化水素酸塩 臭化物 塩化物 ヨウ化物
    キシナホ酸塩 パモ酸塩 安息香酸塩 シュウ酸塩 グルコン酸塩 リン酸 コハク酸 プロピオン酸 酢酸 吉草酸
    フランカルボン酸 ピバル酸 酪酸 リン酸水素 メドキソミル シレキセチル エチル ピボキシル プロキセチル アセチル
    エステル 水和物 付加物 配合剤
    """
)
_COUNTS = _words("一 二 三 四 五 六 半 1/2 ヘミ セスキ ヘミペンタ")
_VARIANT = re.compile(r"(?<=[ァ-ヶー]{3})[・ -]?[A-Z]?[A-Za-z]{0,2}\d*号?[A-Z]?[・ -]*$")
_KATAKANA_FORM = re.compile(r"[ァ-ヶー]+")


def product_forms(name: str) -> list[str]:
    """The product without maker and strength: with its form, without, and without salt; `name` is cleaned text.

    >>> product_forms("アムロジピン錠5mg「サワイ」"), product_forms("ユーロジン1mg錠")
    (['アムロジピン錠', 'アムロジピン'], ['ユーロジン錠', 'ユーロジン'])
    >>> product_forms("アダラートCR錠20mg"), product_forms("リトドリン塩酸塩点滴静注液50mg「あすか」")[1:]
    (['アダラートCR錠', 'アダラートCR', 'アダラート'], ['リトドリン塩酸塩', 'リトドリン'])
    >>> product_forms("ロサルヒド配合錠LD「三和」"), product_forms("五苓散エキス顆粒(医療用)")
    (['ロサルヒド配合錠', 'ロサルヒド'], ['五苓散エキス顆粒', '五苓散'])
    """
    strength, form, first_form = _patterns()
    bare = re.sub(r"\s+", " ", _BRACKETS.sub("", name)).strip()
    bare = bare[leading.end() :] if (leading := strength.match(bare)) else bare
    cut = strength.search(bare)
    head, tail = (bare[: cut.start()], bare[cut.end() :]) if cut else (bare, "")
    if found := form.search(head):  # X錠5mg, X錠LD
        product, stem = head[: found.end()], head[: found.start()]
    else:  # X5mg錠, or no form at all
        found = first_form.match(tail)
        product, stem = head + (found.group() if found else ""), head
    latin = stem + (match.group() if (match := re.match(r"(?:OD|SR|CR|LA|XR|ER)(?=錠)", product[len(stem) :])) else "")
    names = [product.strip(), latin, stem.strip(" ・-"), _short(stem), without_salt(_short(stem))]
    return [name for name in dict.fromkeys(names) if _sane(name, product=name == names[0])]


def ingredient_forms(name: str) -> list[str]:
    """The ingredient, the parts of a compound, and each without salt, water and the like; `name` is cleaned text.

    >>> ingredient_forms("アムロジピンベシル酸塩"), ingredient_forms("ロサルタンカリウム・ヒドロクロロチアジド")[2:]
    (['アムロジピンベシル酸塩', 'アムロジピン'], ['ロサルタン', 'ヒドロクロロチアジド'])
    >>> ingredient_forms("塩化ナトリウム"), ingredient_forms("六君子湯エキス")
    (['塩化ナトリウム'], ['六君子湯エキス', '六君子湯'])
    >>> ingredient_forms("インフリキシマブ(遺伝子組換え)[インフリキシマブ後続1]")
    ['インフリキシマブ']
    """
    whole = _BRACKETS.sub("", name).strip()
    parts = whole.split("・") if "・" in whole else [whole]
    names = [form for part in parts for form in (part, without_salt(part))]
    return [whole, *(form for form in dict.fromkeys(names) if form != whole and _sane(form))]


def without_salt(name: str) -> str:
    """The drug proper: what is written in katakana (and perhaps 酸) before the salt, or a formula before エキス.

    >>> [without_salt(name) for name in ("プラミペキソール塩酸塩水和物", "炭酸水素ナトリウム", "エポエチン ベータ")]
    ['プラミペキソール', '炭酸水素ナトリウム', 'エポエチン']
    """
    if match := re.fullmatch(r"(.+[湯散丸飲])料?エキス", name):
        return match.group(1)
    if match := re.match(r"([ァ-ヶー]{4,}) ", name):
        return match.group(1)
    match = _salted().fullmatch(name)
    return match.group(1) if match else name


def _short(stem: str) -> str:
    """A product's name without the letters and numbers that tell its variants apart (アダラートL, ソリタ-T3号)."""
    return _VARIANT.sub("", stem.strip(" ・-")).strip(" ・-")


def _sane(name: str, product: bool = False) -> bool:
    """Long enough for a name, and nothing of a strength, a bracket or a half word left in it."""
    if len(name) < MIN_NAME_CHARS or " " in name or name in _FORMS:
        return False
    if not product and (name.endswith(("用", "の", "加", "配合", "エキス")) or not re.search(r"[^A-Za-z\d-]", name)):
        return False
    return re.search(r"\d[\d.,]*(?:mg|μg|mL|g|%)|\d[.,]|[%「」()\[\]/]|^[A-Z]\d", name) is None


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """A strength; modifiers and form behind a name; the same at the start of what follows a strength."""
    number = r"\d[\d.,]*(?:億|万|千)?"
    unit = f"(?:{_any(_UNITS)})"
    with_unit = rf"(?<![\d.-]){number}{unit}(?![a-z])(?:[/×・]?\s?{number}?{unit})*"
    after_form = r"(?<=[錠散粒液注用ルプ膏])\d[\d.,]*(?![A-Za-z\d])"
    katakana = [form for form in _FORMS if _KATAKANA_FORM.fullmatch(form)]
    others = [form for form in _FORMS if form not in katakana]
    form = rf"(?:{_any(others)})(?!和物)|(?:{_any(katakana)})(?![ァ-ヶー])"
    modified = rf"(?:{_any(_MODIFIERS)}|[・ -])*(?:{form})"
    return (
        re.compile(f"{with_unit}|{after_form}"),
        re.compile(rf"(?<=[ァ-ヶーA-Za-z\d号塩物酸鉛湯散丸飲]){modified}"),
        re.compile(modified),
    )


@cache
def _salted() -> re.Pattern[str]:
    return re.compile(rf"(.*?[ァ-ヶー]{{3}}酸?)(?:(?:{_any(_COUNTS)})?(?:{_any(_SALTS)}))+")


def _any(words: list[str]) -> str:
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))
