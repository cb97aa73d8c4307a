"""How much planted personal data is found, and what of real text is taken for it by mistake.

Usage: python benchmarks/personal.py TEXT_FOLDER [MORE ...] [--mb MB] [--planted N]

Recall: N invented items of each kind, in all forms, stand at many places of real documents. An item counts as found
when nothing of it is left and the text around it is what it would be around a mark.

False removals: every span found in the documents of the folders (a sample by hash of the id with --mb) is looked at
by an independent check. Listed are ids and shapes (digits 9, letters a, kana and kanji あ), never text.
CSV files count one document a row, JSON lines without `text` one a line.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import random
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from rinsho.document import read_documents, shard_paths
from rinsho.text import clean, clean_counted, personal
from rinsho.text.characters import HYPHENS, WIDE
from rinsho.text.cleaning import KINDS

ALL_KINDS = (*KINDS, "postal_code")
DASHES = "".join(sorted({*HYPHENS, *"-‑－﹣﹘ーｰ"}))
AREA_CODES = ("03", "06", "04", "045", "011", "092", "0123", "0463", "0742", "0980", "04992", "01267", "09969")
NAMES = (
    "taro",
    "hanako.suzuki",
    "t-yamada",
    "ICU_staff",
    "k.sato+news",
    "info",
    "a1",
    "y_tanaka99",
    "x.y.z",
    "nurse-3f",
)
HOSTS = ("example.jp", "example.co.jp", "mail.example.ac.jp", "example.com", "sub.dept.example.or.jp", "ex-ample.net")
PATHS = ("", "/", "/a", "/a/b.html", "/index.php?id=12&x=%E3%81%82", "/~taro/#top", "/a_(b)", "/a,b;c", "/2024/03/12/",
         "/%E8%82%BA%E7%82%8E",
         "/q?tel=03-1234-5678", "/a/@taro", "/wiki/肺炎", "/a/[b]/{c}")  # fmt: skip
LABELS = ("電話", "電話番号：", "TEL", "TEL:", "Tel. ", "ＴＥＬ：", "携帯", "携帯電話番号は",
          "FAX:", "連絡先 ", "連絡先：",
          "緊急連絡先（", "お問い合わせ先：",
          "自宅電話：", "ファックス ", "TEL/FAX ", "電話（", "【電話】")  # fmt: skip
PLACES = ("東京都千代田区", "北海道札幌市", "京都府京都市", "大阪府大阪市", "神奈川県横浜市", "横浜市西区",
          "世田谷区北沢", "さいたま市大宮区",
          "つくば市天王台", "福岡市中央区", "三宅島三宅村")  # fmt: skip
Item = tuple[str, str, str]  # what stands before it, the item itself, what has to follow


def wide(text: str) -> str:
    """ASCII in full width."""
    return text.translate(WIDE).replace(" ", "　")


def _digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choice("0123456789") for _ in range(count))


def _phone_groups(rng: random.Random) -> tuple[str, str, str, bool]:
    """Area code, exchange, number; whether it may be written without anything between and before."""
    form = rng.randrange(6)
    if form < 3:
        area = rng.choice(AREA_CODES)
        return area, rng.choice("23456789") + _digits(rng, 5 - len(area)), _digits(rng, 4), False
    if form < 5:
        area = rng.choice(("090", "080", "070", "050"))
        return area, rng.choice("123456789") + _digits(rng, 3), _digits(rng, 4), True
    if rng.random() < 0.3:
        return "0800", _digits(rng, 3), _digits(rng, 4), True
    length = rng.choice((2, 3))
    return rng.choice(("0120", "0570", "0990")), _digits(rng, length), _digits(rng, 6 - length), True


def phone(rng: random.Random) -> Item:
    """A phone number in one of its Japanese forms."""
    first, second, third, free = _phone_groups(rng)
    dash, label = rng.choice(DASHES), rng.choice((*LABELS, "", "", "", "", ""))
    whole = f"{first}-{second}-{third}"
    forms = (
        dash.join((first, second, third)),
        dash.join((first, second, third)),
        dash.join((first, second, third)),
        rng.choice((f"{first}({second}){third}", f"{first}（{second}）{third}", f"{first} ({second}) {third}")),
        rng.choice(
            (f"({first}){second}{dash}{third}", f"（{first}）{second}{dash}{third}", f"({first}) {second}-{third}")
        ),
        rng.choice((" ", "　", ".", " - ")).join((first, second, third)),
        wide(rng.choice(("-", "−", "ー", " ", "．")).join((first, second, third))),
        _abroad(rng, first[1:], second, third),
        f"（{wide(first)}）{wide(second)}{rng.choice('－−ー')}{wide(third)}",
        whole
        + rng.choice(
            ("（内線 123）", "（内線1234）", " 内線123", "(内線:45)", "、内線 6789", "（内線番号：12）", " ext. 12")
        ),
        first + second + third,
        wide(first + second + third),
    )
    number = rng.randrange(len(forms))
    if number >= len(forms) - 2 and not (label or free):
        label = rng.choice(LABELS)
    return label, forms[number], "）" if label.endswith("（") else ""


def _abroad(rng: random.Random, first: str, second: str, third: str) -> str:
    start = rng.choice(("+81-", "+81 ", "+81", "+81(0)", "(+81)", "+81-(0)")) + first
    item = rng.choice(("-", " ", "")).join((start, second, third))
    return wide(item) if rng.random() < 0.3 else item


def email(rng: random.Random) -> Item:
    """An e-mail address."""
    name, host = rng.choice(NAMES) + rng.choice(("", "", _digits(rng, 2))), rng.choice(HOSTS)
    at = rng.choice(("@", "@", "@", "＠", "(at)", "[at]", "【at】", "（at）", " (at) ", "[アット]", "(アットマーク)"))
    item = name + at + (host if at != "(at)" or rng.random() < 0.8 else host.replace(".", "(dot)"))
    if at == "@" and rng.random() < 0.4:
        item = rng.choice((wide(item), f"mailto:{item}", item.upper(), wide(name) + "＠" + host))
    return rng.choice(("", "", "E-mail: ", "メール：", "アドレスは", "<", "「")), item, ""


def url(rng: random.Random) -> Item:
    """A URL."""
    host = rng.choice(
        (*HOSTS, "localhost:8080", "192.168.0.1", "[2001:db8::1]", "user:pass@example.com", "example.jp:8080")
    )
    path = rng.choice(PATHS)
    scheme = rng.choice(
        ("http://", "https://", "https://", "HTTP://", "ftp://", "hxxp://", "hxxps://", "ttp://", "ttps://", "sftp://")
    )
    form = rng.randrange(10)
    if form == 0:
        item = "www." + rng.choice(HOSTS) + path
    elif form == 1:
        item = rng.choice((*HOSTS, "twitter.com", "x.com", "youtu.be", "bit.ly")) + (path or "/abc")
    elif form == 2:
        item = "mongodb+srv://user:secret@" + rng.choice(HOSTS) + "/db"
    else:
        item = scheme + host + path
    if rng.random() < 0.25 and "[" not in item and "肺" not in item and "," not in item:
        item = wide(item)
    return rng.choice(("", "", "URL: ", "詳細は", "参照：", "<")), item, "を参照" if item.endswith("炎") else ""


def account(rng: random.Random) -> Item:
    """An account name."""
    name = rng.choice(("hanako", "taro_y", "Dr_Sato", "_abc1", "nurse2024", "ABCDEF", "hana.ko", "kenji-1"))
    item = rng.choice(("@", "＠")) + name + rng.choice(("", "_")) + _digits(rng, rng.randrange(4))
    item = item.rstrip("_")
    return rng.choice(("", "", "Twitter: ", "X（旧Twitter）", "返信 ")), wide(item) if rng.random() < 0.3 else item, ""


def postal_code(rng: random.Random) -> Item:
    """A postal code; without its mark only before an address."""
    code = _digits(rng, 3) + rng.choice(DASHES) + _digits(rng, 4)
    code = wide(code) if rng.random() < 0.3 else code
    place = rng.choice(("", "\n", " ", "　")) + rng.choice(PLACES)
    form = rng.randrange(8)
    if form < 4:
        item = rng.choice(("〒", "〒 ", "〒　", "〒：")) + (code if rng.random() < 0.85 else _digits(rng, 7))
        return rng.choice(("", "住所：", "（")), item, rng.choice(("", place))
    if form == 4:
        return rng.choice(("郵便番号", "郵便番号：", "郵便番号 ", "郵便番号は")), code, rng.choice(("", place))
    return rng.choice(("", "", "住所：", "住所 ")), code, place


GENERATORS: dict[str, Callable[[random.Random], Item]] = {
    "phone": phone, "email": email, "url": url, "account": account, "postal_code": postal_code
}  # fmt: skip
SPOTS = re.compile(r"(?<=[ぁ-んァ-ヶ一-龠])(?=[。、]|\n|[ぁ-んァ-ヶ一-龠])|(?<=[。、\n])(?=[ぁ-んァ-ヶ一-龠])")
AROUND = (("", ""), ("", ""), ("（", "）"), ("「", "」"), ("\n", "\n"), ("", "。"), ("\n・", ""), ("3 ", ""),
          ("12月、", ""), ("、", "、3日"), (" ", " "), ("(", ")"), ("令和6年3月12日　", "　38.5℃"), ("※", "まで"),
          ("", "\n"))  # fmt: skip


def planted(kind: str, rng: random.Random, carrier: str) -> tuple[str, str, str]:
    """What stands before, the item, what follows: an item of this kind in the middle of a text."""
    before, item, after = GENERATORS[kind](rng)
    spots = [match.start() for match in SPOTS.finditer(carrier)]
    spot = rng.choice(spots) if spots else len(carrier)
    left, right = rng.choice(AROUND)
    if kind == "postal_code" and after:
        right = ""
    return carrier[:spot] + left + before, item, after + right + carrier[spot:]


def is_found(kind: str, before: str, item: str, after: str) -> bool:
    """Whether the item goes whole and alone: cleaned, the text is as if a mark or nothing had stood there."""
    text = before + item + after
    span = personal.Span(len(before), len(before) + len(item), kind)
    marked = clean(before + personal.PLACEHOLDERS[kind] + after, personal="placeholder", kinds=ALL_KINDS)
    return (
        span in personal.find(text)
        and clean(text, personal="placeholder", kinds=ALL_KINDS) == marked
        and clean(text, kinds=ALL_KINDS) == clean(before + " " + after, kinds=ALL_KINDS)
    )


def shape(text: str) -> str:
    """The form of a text without its content.

    >>> shape("電話03-1234-5678")
    'ああ99-9999-9999'
    """
    text = re.sub("[0-9０-９]", "9", text)
    return re.sub("[A-Za-zＡ-Ｚａ-ｚ]", "a", re.sub(r"[^\x00-\x7f０-９Ａ-Ｚａ-ｚ！-／：-＠、。]", "あ", text))


# What must not be removed, found independently of `personal`: (class, pattern of the whole passage)
_UNIT = r"(?:/[uμ]L|mg/dL|g/dL|mEq/L|mmHg|IU/L|U/L|ng/mL|×10)"
PROTECTED = {
    "date": r"(?:19|20)[0-9]{2}[-/.年] ?[0-9]{1,2}[-/.月] ?[0-9]{1,2}日?|[0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?"
    r"|(?:明治|大正|昭和|平成|令和|[MTSHR])[0-9]{1,2}[年.][0-9]{1,2}[月.]",
    "laboratory value": r"(?:WBC|RBC|Hb|Plt|CRP|AST|ALT|LDH|BUN|Cr|Na|Cl|HbA1c|TP|Alb|血圧|脈拍|体温|SpO2)"
    r"[ :は]*[0-9.,/~-]+"
    rf"|[0-9][0-9,.]*(?:[-~][0-9.,]+)? ?{_UNIT}",
    "dose": r"[0-9][0-9.,-]* ?(?:mg|g|mL|ml|μg|mcg|単位|錠|カプセル|包|滴|回|日分|T|C|cap|tab)(?![A-Za-z])[^\n]{0,3}"
    r"[@＠]?[0-9A-Za-z]{0,4}",
    "code": r"(?:ISBN|ISSN|JAN|ICD|DOI|doi|CAS|MEDIS|YJ|No\.?|ID|RFC|PEP|CVE|KB|JIS|ISO|[Vv]er(?:sion)?\.?)"
    r"[-: ]?[0-9][0-9A-Za-z./-]+"
    r"|[vV]?[0-9]+(?:\.[0-9]+){2,}|[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}",
    "section number": r"第 ?[0-9一二三四五六七八九十百]+(?:[-・の][0-9]+)* ?[条項号章節款編部表図]"
    r"|[§図表][ .]?[0-9]+(?:[-.][0-9]+)*"
    r"|(?<![0-9-])[1-9][0-9]{0,2}(?:[-.][0-9]{1,4}){2,4}(?![0-9-])",
}
CODE_WORD = re.compile(r"@(?:[A-Z][a-z]+[A-Z]|[a-z]+\()|@[\w.-]+ ?(?:\(|\{|=|;|->|::)|@(?:[a-z]+\.[a-z_]+)")
REAL_DOMAIN = re.compile(
    r"\.(?:com|net|org|jp|edu|gov|io|dev|info|biz|eu|uk|de|fr|kr|cn|tw|int|me|tv|local|tld|ly|gl|ms|be|co|us|nl|se|ch|ca|au)\b",
    re.IGNORECASE,
)


def suspicion(kind: str, before: str, found: str, after: str, protected: str | None) -> str | None:
    """The class of text that a span may have been taken for by mistake, or None."""
    if kind == "phone":
        is_code = re.search(r"(?:第|番|No\.?|ID|ISBN|図|表|§|[=_])$", before) or re.match(r"[A-Za-z_]", after)
        return protected or ("code" if is_code else None)
    if kind == "postal_code":
        is_marked = "〒" in found or "郵便番号" in before[-6:]
        return protected or (None if is_marked else "postal code without a mark")
    if kind == "account":
        is_code = CODE_WORD.match(found + after) or re.search(r"[`'\"@$.\\{(<|=]\s?$", before) or "." in found
        dose = protected if protected in ("dose", "laboratory value") else ("dose" if before[-1:].isdigit() else None)
        return dose or ("account or code word" if is_code else "account or other word")
    is_address = REAL_DOMAIN.search(found) or "://" in found or "www" in found.lower()
    return None if is_address else "name with a path or an @"


def documents(paths: list[Path], limit: float | None) -> Iterator[tuple[str, str, str]]:
    """(group, id, text) of all documents, or of a sample of about `limit` bytes chosen by the hash of their ids."""
    files = [path for given in paths for path in ([given] if given.is_file() else sorted(given.rglob("*")))]
    shards = set(shard_paths([path for path in paths if path.is_dir() and any(path.rglob("*.jsonl.zst"))]) or [])
    total = sum(path.stat().st_size * (4 if path in shards else 1) for path in files if path.is_file())
    share = 1.0 if limit is None else min(1.0, limit / total)
    csv.field_size_limit(10**9)
    for path in files:
        for name, text in _texts(path, path in shards):
            if int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") < share * 2**64:
                yield path.name.split("-")[0].split(".")[0] if path in shards else path.parent.name, name, text


def _texts(path: Path, is_shard: bool) -> Iterator[tuple[str, str]]:
    if is_shard:
        yield from ((document.id, document.text) for document in read_documents(path))
    elif path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            yield from ((f"{path.name}:{number}", "\n".join(row)) for number, row in enumerate(csv.reader(file), 1))
    elif path.suffix == ".jsonl":
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            strings = [
                v for value in json.loads(line).values() for v in (value if isinstance(value, list) else [value])
            ]
            yield f"{path.name}:{number}", "\n".join(value for value in strings if isinstance(value, str))


def recall(carriers: list[str], count: int) -> None:
    """Prints how many planted items of each kind are found, and the shapes of those missed."""
    print("| kind | planted | different | found | recall |\n|---|---:|---:|---:|---:|")
    missed: list[str] = []
    for kind in GENERATORS:
        rng = random.Random(f"planted {kind}")
        items, found = set(), 0
        for number in range(count):
            before, item, after = planted(kind, rng, carriers[number % len(carriers)])
            items.add(item)
            if is_found(kind, before, item, after):
                found += 1
            else:
                missed.append(f"{kind}: {shape(before[-8:])} | {shape(item)} | {shape(after[:8])}")
        print(f"| {kind} | {count} | {len(items)} | {found} | {found / count:.4f} |", flush=True)
    print("".join(f"\nmissed {line!r}" for line in missed[:40]))


def false_removals(paths: list[Path], limit: float | None) -> None:
    """Prints spans by group and kind, and what an independent check doubts, by id and shape."""
    spans: Counter[tuple[str, str]] = Counter()
    counts: Counter[str] = Counter()
    cleaned: Counter[str] = Counter()
    doubted: dict[str, list[str]] = defaultdict(list)
    in_documents: dict[str, set[str]] = defaultdict(set)
    protected = {name: re.compile(pattern) for name, pattern in PROTECTED.items()}
    started = time.process_time()
    for group, name, text in documents(paths, limit):
        counts[group] += 1
        cleaned.update(clean_counted(text, kinds=ALL_KINDS)[1])
        for span in personal.find(text):
            spans[group, span.kind] += 1
            start = max(0, span.start - 20)
            near, inside = text[start : span.end + 20], (span.start - start, span.end - start)
            before, found, after = near[: inside[0]], near[inside[0] : inside[1]], near[inside[1] :]
            overlap = None
            for of_class, pattern in protected.items():
                if any(m.start() < inside[1] and m.end() > inside[0] for m in pattern.finditer(near)):
                    overlap = overlap or of_class
            if doubt := suspicion(span.kind, before, found, after, overlap):
                in_documents[doubt].add(name)
                shapes = " | ".join(map(shape, (before[-8:], found[:60], after[:8]))).replace("\n", "⏎")
                doubted[doubt].append(f"{name}  {span.kind}  {shapes}")
    total = sum(counts.values())
    print(f"\n{total:,} documents, {time.process_time() - started:.0f} s of CPU with cleaning\n")
    print("| group | documents | " + " | ".join(ALL_KINDS) + " |\n|---|---:|" + "---:|" * len(ALL_KINDS))
    for group, number in sorted(counts.items()):
        print(f"| {group} | {number:,} | " + " | ".join(f"{spans[group, kind]:,}" for kind in ALL_KINDS) + " |")
    print(f"| removed by cleaning | {total:,} | " + " | ".join(f"{cleaned[kind]:,}" for kind in ALL_KINDS) + " |")
    print("\n| doubted, taken for | spans | documents | per 10,000 documents |\n|---|---:|---:|---:|")
    for doubt in sorted({*doubted, *PROTECTED}):
        number = len(in_documents[doubt])
        print(f"| {doubt} | {len(doubted[doubt])} | {number} | {1e4 * number / max(1, total):.2f} |")
    for doubt, lines in sorted(doubted.items()):
        print(f"\n{doubt}, examples:")
        print("\n".join(f"  {line}" for line in lines[:12]))


def main() -> None:
    """Both measurements."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--mb", type=float, help="look at about this many MB of text only")
    parser.add_argument("--planted", type=int, default=2000, help="items of each kind")
    given = parser.parse_args()
    carriers = []
    for _, _, text in documents(given.paths, 60e6):
        if 100 < len(text) < 2000 and not personal.find(text):
            carriers.append(text)
        if len(carriers) == 500:
            break
    if not carriers:
        sys.exit("no document of 100 to 2,000 characters in these folders")
    print(f"Recall, {len(carriers)} real documents as carriers\n")
    recall(carriers, given.planted)
    false_removals(given.paths, None if given.mb is None else given.mb * 1e6)


if __name__ == "__main__":
    main()
