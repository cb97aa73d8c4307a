"""`rinsho finetune data`: what data sets hold for a model, before anything is trained. Prints texts, writes nothing."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rinsho.errors import UserError
from rinsho.finetune import Recipe

if TYPE_CHECKING:
    from rinsho.chat_template import Renderer
    from rinsho.finetune.data import Data, Example
    from rinsho.finetune.feed import Plan

ENDLESS = 1 << 40  # a row so long that no conversation is cut: the true lengths
BAR = 30  # characters of the longest bar
SHOWN_IDS = 5  # of conversations that are left out
MARKS = ("⟦", "⟧")  # around what is learned
COLORS = ("\x1b[32m", "\x1b[0m")  # the same on a terminal: green
HEAD = ("", "rows", "tokens", "mean", "median", "95 %", "longest", "learned", "shortened", "left out")


@dataclass(frozen=True)
class Look:
    """Data as it would be trained on, and its true lengths.

    Attributes:
        whole: every conversation at its full length, those that do not fit into a row included.
        data: what is trained on.
        refused: `too_long: refuse` would end the run at these.
    """

    recipe: Recipe
    whole: Sequence[Example]
    data: Data
    plan: Plan
    refused: bool


def show(recipe: Recipe, inputs: Sequence[Path], count: int = 1, color: bool = False) -> str:
    """Sizes, lengths, mixture and plan of the data inputs as text, and `count` rendered conversations of each task.

    Args:
        recipe: settings of the tuning.
        inputs: a model's folder, or one with a tokenizer alone; then data folders and files.
        count: conversations to show of each task. They are document text: the caller prints them where it was asked to.
        color: mark what is learned by colour instead of ⟦ and ⟧.

    Raises:
        UserError: no tokenizer, or whatever reading the data and checking the settings finds.
    """
    from rinsho.chat_template import set_form

    inputs = [Path(path) for path in inputs]
    tokenizer = _tokenizer(inputs)
    for problem in _problems(recipe, inputs):
        raise problem
    render, marks = set_form(tokenizer, recipe.chat, inputs[0]), COLORS if color else MARKS
    if recipe.objective == "dpo":
        return _pairs(recipe, inputs[1:], render, count, marks)
    look = _look(recipe, inputs[1:], render)
    parts = [_summary(look, inputs[0], render), _table(look), _mixture(look), _splits(look.data), _run(look)]
    if count:
        parts += _samples(look, render, count, marks)
    return "\n\n".join(part for part in parts if part)


def marked(
    ids: Sequence[int], mask: Sequence[int], tokenizer: Any, marks: tuple[str, str] = MARKS, seam: int = 0
) -> str:
    """A conversation as text with its special tokens, a line a turn, what is learned between the marks.

    A turn begins at a special token that text follows; line breaks inside it are shown as ↵, and ✂ stands before the
    place `seam`, if that is not 0, where the middle of a question was cut out.
    """
    special = {*tokenizer.all_special_ids, *(n for n, t in tokenizer.added_tokens_decoder.items() if t.special)}
    begins = {
        place + (token == tokenizer.eos_token_id)  # which ends a turn: the next one begins behind it
        for place, token in enumerate(ids)
        if token in special and _text_follows(ids[place + 1 :], special, tokenizer)
    }
    lines, seen, plain = [""], "", False  # plain: the line holds more than special tokens
    for (_, learned, _), group in groupby(range(len(ids)), lambda at: (at in begins, mask[at], at >= seam)):
        places = list(group)
        if places[0] in begins and plain:
            lines.append("")
            plain = False
        whole = _decode(tokenizer, ids[: places[-1] + 1])  # of all so far: a piece alone may lose its leading space
        text = safe(
            whole[len(seen) :] if whole.startswith(seen) else _decode(tokenizer, [ids[place] for place in places])
        )
        seen = whole
        plain = plain or any(ids[place] not in special for place in places)
        lines[-1] += "✂" if seam and places[0] == seam else ""
        lines[-1] += marks[0] + text + marks[1] if learned and text else text
    return "\n".join(lines).replace(marks[1] + marks[0], "")


def safe(text: str) -> str:
    r"""Text on one line that a terminal shows and does not obey.

    >>> safe("咳\x1b[2J\n\u3000痛")
    '咳\\x1b[2J↵\u3000痛'
    """
    return "".join(
        "↵" if character == "\n"
        else character if character.isprintable() or character == "\u3000"
        else character.encode("unicode_escape", "surrogatepass").decode()
        for character in text
    )  # fmt: skip


def _text_follows(ids: Sequence[int], special: set[int], tokenizer: Any) -> bool:
    """Whether text comes next, not another special token or a line break: so a turn begins, and ends do not."""
    for token in ids:
        text = "" if token in special else _decode(tokenizer, [token])
        if token in special or "\n" in text or text.strip():
            return bool(text.partition("\n")[0].strip())
    return False  # a tokenizer's own space before a text was skipped


def _tokenizer(inputs: Sequence[Path]) -> Any:
    """The tokenizer of the first input."""
    from rinsho.adapters import is_adapter
    from rinsho.bases import readable
    from rinsho.generate.loading import load_tokenizer

    usage = "MODEL DATA...: the model's folder, or one with its tokenizer alone, comes first"
    if not inputs:
        raise UserError("inputs are missing", where="rinsho finetune data", expected=usage)
    if not any((inputs[0] / name).is_file() for name in ("tokenizer_config.json", "tokenizer.json")):
        raise UserError("no tokenizer in here", where=inputs[0], expected=usage, todo="check the path")
    if len(inputs) < 2:
        raise UserError("no data was given", where="rinsho finetune data", expected=usage)
    if is_adapter(inputs[0]) or (inputs[0] / "config.json").is_file():
        return load_tokenizer(inputs[0])
    import transformers

    from rinsho import tokenization  # noqa: F401 - so that AutoTokenizer knows ours

    with readable(inputs[0], "the tokenizer cannot be opened", "a complete tokenizer folder"):
        return transformers.AutoTokenizer.from_pretrained(inputs[0], local_files_only=True, trust_remote_code=False)


def _problems(recipe: Recipe, inputs: Sequence[Path]) -> list[UserError]:
    """What is wrong with settings and data; a folder without weights is enough here."""
    from rinsho.finetune.checks import problems

    return [problem for problem in problems(recipe, inputs) if problem.where != str(inputs[0])]


def _look(recipe: Recipe, data: Sequence[Path], render: Renderer) -> Look:
    from rinsho.finetune.data import read
    from rinsho.finetune.feed import make_plan

    whole = read(recipe.model_copy(update={"sequence_length": ENDLESS}), data, render)
    long = any(len(example.ids) > recipe.sequence_length + 1 for example in whole.examples)
    refused = long and recipe.too_long == "refuse"
    if refused:
        recipe = recipe.model_copy(update={"too_long": "leave_out"})
    found = read(recipe, data, render) if long else whole
    plan = make_plan(recipe, found, render)
    return Look(recipe, whole.examples, found, plan, refused)


# ---------------------------------------------------------------------- the parts of the page


def _summary(look: Look, model: Path, render: Renderer) -> str:
    tokens = sum(len(example.ids) for example in look.whole)
    learned = sum(map(_learned, look.whole))
    template = look.recipe.prompt_template
    facts = [f"chat form {render.form}", f"learn: {look.recipe.learn}"]
    if template != "none":
        facts.insert(1, f"prompt template {template}")
    return (
        f"{len(look.whole):,} conversations, {tokens:,} tokens by the tokenizer in {model}, {learned:,} of them learned"
        f"\n{', '.join(facts)}; lengths are those before anything is shortened"
    )


def _table(look: Look) -> str:
    kept = {example.id: len(example.ids) for example in look.data.examples}
    rows: list[Sequence[str]] = [HEAD]
    tasks = list(dict.fromkeys(example.group[0] for example in look.whole))
    for task in [*tasks, None] if len(tasks) > 1 else tasks:
        own = [example for example in look.whole if task in (None, example.group[0])]
        shortened = sum(1 for example in own if kept.get(example.id, len(example.ids)) < len(example.ids))
        left_out = sum(1 for example in own if example.id not in kept)
        learned = sum(map(_learned, own))
        rows.append(
            (
                task or "all",
                *_lengths([len(example.ids) for example in own]),
                f"{learned:,}",
                f"{shortened:,}",
                f"{left_out:,}",
            )
        )
    gone = look.data.left_out
    text = _aligned(rows)
    if gone:
        names = ", ".join(gone[:SHOWN_IDS]) + (" …" if len(gone) > SHOWN_IDS else "")
        what = "too_long: refuse ends the run at" if look.refused else "left out, too long for a row:"
        text += f"\n{what} {names}"
    return text


def _learned(example: Example) -> int:
    return int(example.mask[1:].sum())  # nothing comes before the first token that could predict it


def _lengths(lengths: Sequence[int]) -> tuple[str, ...]:
    """How many, their sum, and mean, median, 95 % and longest of them."""
    sizes = np.array(lengths)
    figures = (sizes.mean(), np.median(sizes), np.percentile(sizes, 95), sizes.max())
    return (f"{len(sizes):,}", f"{sizes.sum():,}", *(f"{figure:,.0f}" for figure in figures))


def _mixture(look: Look) -> str:
    """What the tasks have of an epoch, as bars of tokens; means over epochs, so rows may be parts."""
    feed = look.plan.tasks
    groups: dict[Any, list[int]] = {}
    for example in feed.examples:
        groups.setdefault(example.group, []).append(len(example.ids))
    sizes: dict[str, list[float]] = {}  # rows, tokens
    for group, lengths in groups.items():
        rows, mean = feed.quotas[group], sum(lengths) / len(lengths)
        before = sizes.get(group[0], [0.0, 0.0])
        sizes[group[0]] = [before[0] + rows, before[1] + rows * mean]
    rows, everything = (sum(column) for column in zip(*sizes.values(), strict=True))
    largest = max(tokens for _, tokens in sizes.values())
    lines = [("", "", "rows", "tokens", "share")]
    for task, (count, tokens) in sorted(sizes.items(), key=lambda row: -row[1][1]):
        bar = "█" * max(1, round(BAR * tokens / largest))
        lines.append((task, bar, f"{count:,.0f}", f"{tokens:,.0f}", f"{tokens / everything:.1%}"))
    head = f"An epoch, after weights and balance: {rows:,.0f} rows, {everything:,.0f} tokens"
    return head + "\n" + _aligned(lines, left=2)


def _splits(data: Data) -> str:
    """Which rows of the benchmarks are for training, and what was held out of them."""
    lines = []
    for split in data.splits:
        lines.append(f"Split {split['split']}")
        for pool, counts in split.get("pools", {}).items():
            facts = [f"{name.replace('_', ' ')} {count:,}" for name, count in counts.items() if isinstance(count, int)]
            lines.append(f"  {pool}: {', '.join(facts)}")
        lines += [f"  warning: {warning}" for warning in split["warnings"]]
    lines += [f"Warning: {warning}" for warning in data.warnings]
    items, conversations = data.held
    if items or conversations:
        lines.append(f"Held out for validation: {len(items):,} questions, {len(conversations):,} conversations")
    return "\n".join(lines)


def _run(look: Look) -> str:
    recipe, plan = look.recipe, look.plan
    rows, tokens = plan.tasks.rows(1), sum(len(plan.tasks.examples[index].ids) - 1 for index in plan.tasks.epoch(0))
    epochs = (plan.steps - plan.copy_steps) * plan.rows_per_step / max(1, rows)
    copying = f" ({plan.copy_steps:,} of them copying)" if plan.copy_steps else ""
    padding = 1 - tokens / max(1, rows * recipe.sequence_length)
    return (
        f"The run: {plan.steps:,} steps{copying} of {recipe.batch_tokens:,} tokens, {plan.rows_per_step:,} rows of "
        f"{recipe.sequence_length:,}; {plan.steps * recipe.batch_tokens:,} tokens, {epochs:.2f} epochs; "
        f"{padding:.1%} of an epoch's places are padding"
    )


def _samples(look: Look, render: Renderer, count: int, marks: tuple[str, str]) -> list[str]:
    """The first conversations of each task in the order of training."""
    feed = look.plan.tasks
    left = dict.fromkeys((example.group[0] for example in feed.examples), count)
    whole = {example.id: example.ids for example in look.whole}
    parts = []
    for index in dict.fromkeys([*feed.epoch(0), *range(len(feed.examples))]):
        example = feed.examples[index]
        ids, full = example.ids, whole[example.id]
        if left[example.group[0]] > 0:
            left[example.group[0]] -= 1
            name, seam = f"{example.group[0]}  {example.id}: {len(ids):,} tokens", 0
            if len(full) > len(ids):
                name, seam = f"{name}, shortened from {len(full):,} at ✂", int((ids != full[: len(ids)]).argmax())
            parts.append(_sample(name, (ids, [0, *example.mask[1:]]), render, marks, seam=seam))
    return parts


def _sample(
    name: str, conversation: tuple[Any, Any], render: Renderer, marks: tuple[str, str], *, seam: int = 0
) -> str:
    ids, mask = ([int(number) for number in numbers] for numbers in conversation)
    said = f"between {marks[0]} and {marks[1]}" if marks == MARKS else "in green"
    shown = marked(ids, mask, render.tokenizer, marks, seam)
    return f"{name}, {sum(mask):,} of them learned ({said})" + "".join(f"\n  {line}" for line in shown.split("\n"))


def _pairs(recipe: Recipe, inputs: Sequence[Path], render: Renderer, count: int, marks: tuple[str, str]) -> str:
    """Pairs of a better and a worse answer (objective dpo): lengths of both, steps, and some of them."""
    from rinsho.chat import Message
    from rinsho.finetune.preference import make_feed
    from rinsho.instructions import instruction_files, read_pairs

    rows: list[Sequence[str]] = [("", "pairs", "tokens", "mean", "median", "95 %", "longest")]
    everything, samples = [], []
    for file in [file for path in inputs for file in instruction_files(path)]:
        pairs = read_pairs(file)
        everything += pairs
        for side in ("chosen", "rejected"):
            made = [render([*pair.messages, Message("assistant", getattr(pair, side))]) for pair in pairs]
            rows.append((f"{file.stem} {side}", *_lengths([len(ids) for ids, _ in made])))
            for pair, (ids, mask) in list(zip(pairs, made, strict=True))[:count]:
                name = f"{pair.id} {side}: {len(ids):,} tokens"
                samples.append(_sample(name, (ids, _last_answer(mask)), render, marks))
    refused = recipe.too_long == "refuse"
    feed = make_feed(recipe.model_copy(update={"too_long": "leave_out"} if refused else {}), everything, render)
    gone = len(everything) - len(feed.pairs)
    run = (
        f"Too long for {recipe.sequence_length:,} tokens: {feed.shortened:,} shortened, "
        f"{gone:,} {'end the run' if refused else 'left out'}\n"
        f"The run: {feed.steps:,} steps of {feed.pairs_per_step:,} pairs"
    )
    return "\n\n".join([f"Pairs of answers, chat form {render.form}", _aligned(rows), run, *samples])


def _last_answer(mask: Sequence[int]) -> list[int]:
    """Of all answers in the mask the last one alone: that is what DPO compares."""
    after = len(mask) - list(mask)[::-1].index(1)
    begin = after
    while begin and mask[begin - 1]:
        begin -= 1
    return [0] * begin + [1] * (after - begin) + [0] * (len(mask) - after)


# ---------------------------------------------------------------------- text


def _decode(tokenizer: Any, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _aligned(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Rows as a table; the first `left` columns begin at the left."""
    widths = [max(_width(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell + " " * (width - _width(cell)) if column < left else " " * (width - _width(cell)) + cell
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _width(text: str) -> int:
    """Columns on a terminal: a kanji takes two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
