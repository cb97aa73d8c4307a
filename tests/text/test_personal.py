"""Personal data: planted in all forms it is found, and dates, doses, values and codes are left alone."""

import importlib.util
import random
from pathlib import Path
from types import ModuleType

import pytest

from rinsho.text import clean, personal

WIDE = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}
GROUPS = {
    "fixed": (
        ("03", "1234", "5678"),
        ("06", "6789", "0123"),
        ("045", "123", "4567"),
        ("0123", "45", "6789"),
        ("04992", "2", "1234"),
    ),
    "mobile": (("090", "1234", "5678"), ("080", "0000", "1111"), ("070", "9876", "5432"), ("050", "3456", "7890")),
    "service": (("0120", "123", "456"), ("0800", "123", "4567"), ("0570", "012", "345"), ("0120", "12", "3456")),
}
BEFORE = ("電話", "TEL:", "Tel ", "連絡先：", "", "FAX.", "☎", "（電話 ", "お問い合わせは", "TEL")
AFTER = ("。", "まで", "\n", "（平日）", "", "、FAX", "）")
DASHES = "-‐‑–—―−－ー"


def forms(groups: tuple[str, ...]) -> list[str]:
    first, second, third = groups
    made = [dash.join(groups) for dash in DASHES]
    made += [
        f"{first}({second}){third}",
        f"({first}){second}-{third}",
        f"（{first}）{second}−{third}",
        f"{first} - {second} - {third}",
    ]
    made += [f"{first} {second} {third}", f"+81-{first[1:]}-{second}-{third}", f"+81 {first[1:]} {second} {third}"]
    made += [f"+81(0){first[1:]}-{second}-{third}", f"+81{first[1:]}{second}{third}"]
    if first[2:] == "0" or first.startswith(("0120", "0800")):
        made.append("".join(groups))
    return made + [form.translate(WIDE).replace(" ", "　") for form in made if "（" not in form]


@pytest.mark.parametrize("kind", GROUPS)
def test_phone_numbers_in_all_forms(kind: str) -> None:
    rng = random.Random(1)
    missed = []
    for groups in GROUPS[kind]:
        for form in forms(groups):
            text = f"主訴は発熱、{rng.choice(BEFORE)}{form}{rng.choice(AFTER)}"
            if any(digit in clean(text).translate({ord("1"): None}) for digit in "23456789"):
                missed.append(text)
            spans = personal.find(text)
            if [(span.kind, text[span.start : span.end].strip()) for span in spans] != [("phone", form)]:
                missed.append(text)
    assert not missed


def test_bare_fixed_numbers_where_the_words_say_so() -> None:
    assert clean("電話0312345678、TEL：０４５１２３４５６７") == "電話 、TEL:"
    assert clean("患者番号0312345678") == "患者番号0312345678"


ADDRESSES = (
    "taro@example.jp", "t.yamada+news@mail.example.co.jp", "ｔａｒｏ＠ｅｘａｍｐｌｅ．ｃｏ．ｊｐ",
    "taro_y-1@sub.example.com", "mailto:a@example.org", "taro＠example.jp", "taro(at)example.jp",
    "taro[at]example.jp", "t..y.@docomo.example.jp", "T%Y@EXAMPLE.COM",
)  # fmt: skip
LINKS = (
    "http://example.jp/", "https://example.jp/a/b.html?x=1&y=%E3%81%82#top",
    "ｈｔｔｐｓ：／／ｅｘａｍｐｌｅ．ｊｐ／ａ？ｂ＝１", "www.example.co.jp/path", "ｗｗｗ．ｅｘａｍｐｌｅ．ｃｏｍ",
    "ttp://example.jp/a", "ftp://example.org/x.zip", "HTTP://EXAMPLE.COM", "https://ja.example.org/wiki/A_(b)",
    "http://user:pass@example.com:8080/~x/", "http://example.com/a,b;c", "https://[2001:db8::1]/",
)  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "values"), [("email", ADDRESSES), ("url", LINKS), ("account", ("@hanako_01", "＠ｔａｒｏ＿ｙ", "@_abc1"))]
)
def test_addresses(kind: str, values: tuple[str, ...]) -> None:
    for value in values:
        for before, after in (
            ("詳細は", "まで。"),
            ("", ""),
            ("（", "）"),
            ("「", "」"),
            ("連絡先：", "\n次"),
            ("a ", " b"),
        ):
            text = before + value + after
            spans = personal.find(text)
            assert [(span.kind, text[span.start : span.end]) for span in spans] == [(kind, value)], text
            cleaned = clean(text)
            assert cleaned == clean(f"{before} {after}") or value.startswith("http"), (text, cleaned)


def test_postal_codes() -> None:
    for text in ("〒100-0001", "〒１００−０００１", "〒 1000001", "100-0001 東京都千代田区", "060-0001北海道札幌市"):
        assert [span.kind for span in personal.find(text)] == ["postal_code"], text
    assert personal.find("基準値は100-2000である") == []


CARRIERS = (
    "主訴は発熱、咳嗽である。\n既往に高血圧症がある。アレルギーはなし。\n検査では白血球が増加していた。",
    "３日前より３８．５℃の発熱があり、近医を受診した．ＷＢＣ　１２，３００／μＬ、ＣＲＰ　８．４であった。",
    "#1 肺炎\n#2 高血圧\nアムロジピン5mg @1日1回 朝食後、プレドニゾロン0.4mg/kg。次回は2024年3月12日10:30に受診。",
)
PLANTED = 400  # of each kind; benchmarks/personal.py plants thousands in real text


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    """The generator of planted items lies with the benchmark that uses it for thousands of them."""
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "personal.py"
    spec = importlib.util.spec_from_file_location("personal_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", personal.PLACEHOLDERS)
def test_planted_items_go_whole_and_alone(kind: str, benchmark: ModuleType) -> None:
    rng = random.Random(f"test {kind}")
    missed = []
    for number in range(PLANTED):
        before, item, after = benchmark.planted(kind, rng, CARRIERS[number % len(CARRIERS)])
        if not benchmark.is_found(kind, before, item, after):
            missed.append((before[-12:], item, after[:12]))
    assert len(missed) <= 0.005 * PLANTED, missed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("電話03-1234-5678,090-1234-5678/0120-123-456", "電話[電話番号],[電話番号]/[電話番号]"),  # a list of numbers
        ("代表03-1234-5678（内線 123）まで", "代表[電話番号]まで"),
        ("1.090-1234-5678 2.03-1234-5678", "1.[電話番号] 2.[電話番号]"),
        ("0467-12-3456～8、TEL03-1234-5678FAX03-1234-5679", "[電話番号]、TEL[電話番号]FAX[電話番号]"),
        ("(+81)3-1234-5678、+81 90 1234 5678", "[電話番号]、[電話番号]"),
        ("[資料](https://example.jp/a_(b))と「https://example.jp/」。", "[資料]([URL])と「[URL]」。"),
        ("https://ja.example.org/wiki/高血圧を参照", "[URL]を参照"),
        ("見よ https://example.jp/a.次へ", "見よ [URL].次へ"),
        ("'taro@example.jp'、.@hanako_01", "'[メールアドレス]'、.[アカウント]"),
        ("@taro@social.example.jp", "[メールアドレス]"),
        ("〒100-0001\n東京都、100-0001\n東京都", "[郵便番号]\n東京都、[郵便番号]\n東京都"),
        ("https://例え.jp/a、https://example.jp/日本語/b.html?q=薬&r=1", "[URL]、[URL]"),
        ("https://example.jp/を参照", "[URL]を参照"),
        ("taro @ example.jp、taro<at>example[dot]jp", "[メールアドレス]、[メールアドレス]"),
        ("03--1234--5678、03一1234一5678、03˗1234˗5678", "[電話番号]、[電話番号]、[電話番号]"),
        ("mailto:a@example.jp?subject=b", "[メールアドレス]"),
    ],
)
def test_nothing_of_it_is_left(text: str, expected: str) -> None:
    assert personal.replace(text)[0] == expected
    kinds = tuple(personal.PLACEHOLDERS)
    assert clean(text, personal="placeholder", kinds=kinds) == clean(expected, personal="keep")


KEPT = """
2024-03-12 に入院、2024/03/12、03-12-2024、令和6年3月12日、12:30-13:00
ＷＢＣ 12,300/μL、Plt 15.4×10^4、CRP 0.03、Na 140、0.9-1.1、100-120 mg/dL、血圧120-80、SpO2 94-98%
アムロジピン5mg 1錠 分1 朝食後、0.4mg/kg、プレドニゾロン60-40-20mg、ロキソニン60mg@疼痛時、2T@1、10ml@h
ICD-10 I21.0、J18.9、DOI 10.1000/182、ISBN 978-4-00-000000-0、JAN 4987123456789、患者ID 00-123456、ID:0012345678
第123条の2第3項、1-2-3、3丁目4-5、図1-2、No. 0123-4、平成19年法律第30号、0-5-10、01-23-45、ISO 0000-0000
HbA1c 7.2→6.8、eGFR 45.6、体重 65.0 kg、身長 170 cm、受診番号 2024-0312-001、検体 0123-456-78、CAS 64-17-5
0101101011、00000000000、1234567890、00012345678901234、3.0123456789、0.1-234-5678、12.03-1234
12-345-6789、1-234-5678、第012-345-6789号、No.0120-123-456、ロット番号 0123-45-6789、検体番号:03-1234-5678、3.09012345678
550e8400-e29b-41d4-a716-09012345678a、1.2.03.1234.5678、v0.12.3456、12:03-1234、100-2000 mg、123-4567 mL、180-2000人
O2 3L@mask、SpO2 98% @room air、5mg@1tab、ゾビラックス@朝、@RA、2T@hs、10:30@3F
@Component({})、@media print、@param x、@@iterator、@angular/core、@Input()、import @font-face、icon@2x.png
Math.PI/180、Node.js/npm、CH3/H2O、mg/dL、AST/ALT、和/洋、1.2/3.4、ASP.NET/MVC、p.12/34、ext.4/5
""".strip()


@pytest.mark.parametrize("line", KEPT.split("\n"))
def test_dates_values_doses_and_codes_stay(line: str) -> None:
    assert personal.find(line) == []
    assert clean(line) == clean(line, personal="keep")


def test_replace() -> None:
    text = "〒100-0001 東京都、03-1234-5678、a@example.jp、https://example.jp、@hanako_01"
    replaced, counts = personal.replace(text)
    assert replaced == "[郵便番号] 東京都、[電話番号]、[メールアドレス]、[URL]、[アカウント]"
    assert counts == {"account": 1, "email": 1, "phone": 1, "postal_code": 1, "url": 1}
    assert personal.replace(replaced) == (replaced, {})
    assert personal.replace(text, "remove")[0] == " 東京都、、、、"
