"""The mess a web crawl has, around otherwise good text: adverts, notices, contacts, cut-off lines, mixed width."""

from __future__ import annotations

import unicodedata
from random import Random

from rinsho.samples.bank import Bank
from rinsho.samples.passage import FULL_WIDTH
from rinsho.samples.pattern import fill

NARROW = ("menu", "advert", "notice", "contact", "comment")


def messy(bank: Bank, rng: Random, body: str) -> str:
    """The text as a crawler finds it: with menus, adverts, notices and contacts around, and some of it damaged."""
    lines = body.split("\n")
    lines[0:0] = [line_of(bank, rng, "menu") for _ in range(rng.randint(0, 3))]
    for section in NARROW:
        for _ in range(rng.choice((0, 0, 1, 1, 2))):
            lines.insert(rng.randrange(len(lines) + 1), line_of(bank, rng, section))
    damage = rng.random()
    if damage < 0.25:
        lines = [line.translate(FULL_WIDTH) for line in lines]
    elif damage < 0.4:
        lines = [line.translate(_characters(bank, "half_kana")) for line in lines]
    elif damage < 0.6:
        lines = [line.translate(_characters(bank, "punctuation")) for line in lines]
    if rng.random() < 0.35:
        place = rng.randrange(len(lines))
        lines[place] = lines[place][: max(3, len(lines[place]) // 2)]
    if rng.random() < 0.3:
        lines.append(line_of(bank, rng, "cut"))
    lines += [line_of(bank, rng, "notice") for _ in range(rng.randint(0, 2))]
    return rng.choice(("\n", "\n", "\n\n", "\u3000\n", "\r\n")).join(lines)


def junk(bank: Bank, rng: Random) -> str:
    """A page without any text worth keeping."""
    sections = rng.choice((("advert",), ("menu", "notice"), ("contact",), ("comment",), NARROW))
    return "\n".join(line_of(bank, rng, rng.choice(sections)) for _ in range(rng.randint(3, 12)))


def letter(bank: Bank, rng: Random, body: str) -> str:
    """A message with a name, a telephone number or a mail address in it."""
    return "\n".join((line_of(bank, rng, "letter"), body, line_of(bank, rng, "contact")))


def nearly(bank: Bank, rng: Random, body: str) -> str:
    """The same text with one line gone, doubled or touched: a near duplicate."""
    lines = body.split("\n")
    place = rng.randrange(len(lines))
    kind = rng.randrange(3)
    if kind == 0 and len(lines) > 3:
        del lines[place]
    elif kind == 1:
        lines.insert(place, lines[place])
    else:
        before, after = bank.words["near_duplicate"]
        lines[place] = lines[place].replace(before, after).translate(_characters(bank, "punctuation"))
    return "\n".join(lines)


def line_of(bank: Bank, rng: Random, section: str) -> str:
    """One line of web clutter, with made-up numbers and addresses in example domains."""
    return fill(bank.choose("web", section, rng), rng, lambda name: _value(bank, rng, name))


def _characters(bank: Bank, name: str) -> dict[int, str]:
    """What stands for what, voiced kana included (in half width they are two characters)."""
    table: dict[int, str] = {}
    for wide, half in zip(bank.words[f"{name}_from"][0], bank.words[f"{name}_to"][0], strict=True):
        table[ord(wide)] = half
        for mark, sign in (("\u3099", "\uff9e"), ("\u309a", "\uff9f")):
            voiced = unicodedata.normalize("NFC", wide + mark)
            if len(voiced) == 1:
                table[ord(voiced)] = half + sign
    return table


def _value(bank: Bank, rng: Random, name: str) -> str:
    digits = "".join(rng.choice("0123456789") for _ in range(8))
    user = "sample" + digits[:3]
    made = {
        "tel": rng.choice(("03-0000-", "0120-000-", "090-0000-", "0000-00-")) + digits[:4],
        "mail": f"{user}@{rng.choice(('example.com', 'example.jp', 'mail.example.org'))}",
        "url": f"https://{rng.choice(('www', 'shop', 'health'))}.example.{rng.choice(('com', 'jp'))}/{digits[:5]}",
        "zip": f"000-{digits[:4]}",
        "id": f"00-{digits[:6]}",
        "account": f"@{user}_test",
        "n": str(rng.randint(2, 30)),
        "k": str(rng.randint(1, 20)),
    }
    if name in made:
        return made[name]
    if name == "person":
        return bank.choose("web", "person", rng).text
    disease = rng.choice(bank.seen_diseases)
    return {"field": disease.field, "tag": f"#{disease.name}", "tag2": "#" + disease.field}.get(name, disease.name)
