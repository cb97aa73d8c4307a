"""What the model writes when it is asked, or when it continues a text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import Field

from rinsho.analyse.page import fragment
from rinsho.analyse.part import Part
from rinsho.chat import Message
from rinsho.chat_template import has_chat
from rinsho.conversation import asked, tuned_template
from rinsho.errors import UserError
from rinsho.files import write_atomic
from rinsho.model_folder import MANIFEST, read_manifest
from rinsho.packing import number_of
from rinsho.recipe import Settings, read_yaml

if TYPE_CHECKING:
    from rinsho.generate.engine import Generator

REPORT_PROMPT = "脳卒中と循環器病について教えてください。"
PROMPTS = (  # the report's, and invented ones
    REPORT_PROMPT,
    "急性心筋梗塞の初期治療について説明してください。",
    "次の所見を患者に分かる言葉で説明してください。胸部X線で右下肺野に浸潤影を認める。",
    "高血圧の患者の生活指導で大切なことを三つ挙げてください。",
    "発熱と咳嗽を主訴に来院した患者の鑑別診断を挙げてください。",
    "糖尿病とは、",
    "症例は68歳男性。主訴は労作時の胸痛である。現病歴：",
    "本剤の重大な副作用として、",
)
MAX_PROMPTS = 1000
GRAM = 4  # tokens in a row that count as said again
Row = dict[str, Any]


class SampleSettings(Settings):
    """What is asked, and how answers are drawn."""

    prompts: Path | None = Field(
        None, description="file of prompts: one a line (.txt), or a YAML list; null: eight, first the report's (NA-5)"
    )
    max_new_tokens: int = Field(200, ge=1, description="length of an answer, at most, in tokens (NA-5)")
    count: int = Field(1, ge=0, le=100, description="drawn answers to each prompt, beside the likeliest one (NA-5)")
    temperature: float = Field(0.8, gt=0, le=5, description="of the drawn answers (NA-5)")


def read_prompts(path: Path | None) -> tuple[str, ...]:
    """The prompts of a file, or the built-in ones.

    Raises:
        UserError: the file is missing, is not UTF-8, holds no prompt, more than 1,000, or something that is no text.
    """
    if path is None:
        return PROMPTS
    expected = "one prompt a line, or a YAML list of texts (.yaml), in UTF-8"
    try:
        text = path.read_text(encoding="utf-8-sig")
        found = read_yaml(text) if path.suffix.lower() in (".yaml", ".yml") else text.split("\n")
    except OSError as error:
        raise UserError("the prompts cannot be read", where=path, expected=expected, todo="check the path") from error
    except (UnicodeDecodeError, yaml.YAMLError):
        raise UserError("no prompts that can be read", where=path, expected=expected) from None
    if not isinstance(found, list):
        raise UserError("no list of prompts", where=path, expected=expected)
    for number, prompt in enumerate(found, 1):
        if not isinstance(prompt, str):
            raise UserError("a prompt that is no text", where=f"{path}, prompt {number}", expected=expected)
    prompts = tuple(dict.fromkeys(prompt.strip() for prompt in found if prompt.strip()))
    if not 0 < len(prompts) <= MAX_PROMPTS:
        raise UserError(f"{len(prompts)} prompts", where=path, expected=f"1 to {MAX_PROMPTS}: {expected}")
    return prompts


def samples(model: Path, folder: Path, settings: SampleSettings, seed: int) -> Part:
    """The chapter of answers: to each prompt the likeliest one and `count` drawn ones.

    A model with a chat form is asked in it, in the prompt template it was tuned with; any other continues the prompt.
    The texts stand in the page and in `samples.jsonl` alone; `samples.csv` has the figures.

    Args:
        model: model or adapter folder.
        folder: for the files.
        settings: what is asked.
        seed: of the draws; another file of prompts with the same first ones gives the same answers to these.

    Raises:
        UserError: prompts that cannot be read or that leave no room in the window, or a model that does not fit.

    Source: NA-5; report Appendix A.1.
    """
    prompts = read_prompts(settings.prompts)
    generator = _open(model, len(prompts))
    chat = has_chat(generator.tokenizer)
    ids = [_ids(generator, model, prompt, chat) for prompt in prompts]
    fitting = [place for place, each in enumerate(ids) if len(each) <= generator.window - 1]
    if not fitting:
        raise UserError(
            "every prompt is longer than the model's window", where=settings.prompts or "analyse.samples",
            expected=f"at most {generator.window - 1} tokens", todo="shorten them",
        )  # fmt: skip
    rows: list[Row] = []
    for sample in range(settings.count + 1):
        found = generator.generate(
            [ids[place] for place in fitting], settings.max_new_tokens,
            temperature=settings.temperature if sample else 0.0, seed=number_of(f"{seed}/samples/{sample}"),
        )  # fmt: skip
        for place, answer in zip(fitting, found, strict=True):
            text = generator.tokenizer.decode(answer, skip_special_tokens=True)
            room = min(settings.max_new_tokens, generator.window + 1 - len(ids[place]))
            rows.append({
                "prompt": place + 1, "sample": sample, "how": "drawn" if sample else "likeliest",
                "prompt_tokens": len(ids[place]), "tokens": len(answer), "ended": len(answer) < room,
                "repeated": repeated_share(answer), "text": text,
            })  # fmt: skip
    rows.sort(key=lambda row: (row["prompt"], row["sample"]))
    left_out = [place + 1 for place in range(len(prompts)) if place not in fitting]
    return _part(prompts, rows, folder, {
        "form": "chat" if chat else "continuation", "max_new_tokens": settings.max_new_tokens,
        "temperature": settings.temperature, "seed": seed, "too_long": left_out,
    })  # fmt: skip


def repeated_share(ids: Sequence[int]) -> float:
    """The share of runs of four tokens in an answer that stood in it before; 0 for less than five tokens.

    >>> repeated_share([1, 2, 3, 4, 5]), repeated_share([7] * 13)
    (0.0, 0.9)
    """
    grams = [tuple(ids[place : place + GRAM]) for place in range(len(ids) - GRAM + 1)]
    return round(1 - len(set(grams)) / len(grams), 4) if grams else 0.0


def _open(model: Path, slots: int) -> Generator:
    """The model in float32, in bfloat16 where memory has no room for that; an adapter as it was trained."""
    from rinsho.adapters import is_adapter
    from rinsho.generate.engine import Generator
    from rinsho.memory import settle

    dtype = None if is_adapter(model) else "float32"
    try:
        settle(model, dtype, slots)
    except UserError:
        if dtype is None:
            raise
        dtype = "bfloat16"
        settle(model, dtype, slots)
    return Generator(model, dtype=dtype)


def _ids(generator: Generator, model: Path, prompt: str, chat: bool) -> list[int]:
    if chat:
        template = tuned_template(read_manifest(model), model / MANIFEST)
        return list(generator.prompt(asked([Message("user", prompt)], template)))
    begin = generator.tokenizer.bos_token_id  # as the model met texts in training
    return ([] if begin is None else [int(begin)]) + generator.encode(prompt)


def _part(prompts: Sequence[str], rows: Sequence[Row], folder: Path, about: Row) -> Part:
    lines = (json.dumps({**row, "prompt_text": prompts[row["prompt"] - 1]}, ensure_ascii=False) for row in rows)
    write_atomic(folder / "samples.jsonl", "".join(f"{line}\n" for line in lines))
    figures = [{name: value for name, value in row.items() if name != "text"} for row in rows]
    header = list(figures[0])
    table = [header, *([str(value) for value in row.values()] for row in figures)]
    write_atomic(folder / "samples.csv", "".join(",".join(line) + "\n" for line in table))
    means = {how: _means([row for row in rows if row["how"] == how]) for how in ("likeliest", "drawn")}
    groups = [(prompt, [row for row in rows if row["prompt"] == place]) for place, prompt in enumerate(prompts, 1)]
    html = fragment("samples.html.j2", groups=groups, means=means, **about)
    numbers = {**about, "means": means, "samples": figures}
    return Part("samples", "Samples", html, numbers, _markdown(means, about), ("samples.jsonl", "samples.csv"))


def _means(rows: Sequence[Row]) -> Row | None:
    if not rows:
        return None
    return {
        "answers": len(rows),
        "tokens": round(sum(row["tokens"] for row in rows) / len(rows), 1),
        "ended": sum(row["ended"] for row in rows),
        "repeated": round(sum(row["repeated"] for row in rows) / len(rows), 4),
    }


def _markdown(means: Mapping[str, Row | None], about: Mapping[str, Any]) -> str:
    asked_as = "asked in its chat form" if about["form"] == "chat" else "a base model: it continues the prompts"
    lines = [f"The model is {asked_as}; the texts are in report.html and samples/samples.jsonl.", "",
             "| answers | number | tokens | ended by themselves | share repeated |",
             "| --- | ---: | ---: | ---: | ---: |"]  # fmt: skip
    lines += [
        f"| {how} | {row['answers']} | {row['tokens']:.1f} | {row['ended']} | {row['repeated']:.1%} |"
        for how, row in means.items() if row
    ]  # fmt: skip
    lines += [f"Prompts {about['too_long']} are longer than the model's window and were left out."] * bool(
        about["too_long"]
    )
    return "\n".join(lines) + "\n"
