"""Conversations as ids with their loss mask, for every tokenizer: ours by ids, any other by its own chat template.

Foreign tokenizers are rendered as text and then encoded, as `apply_chat_template` does it, so that a model meets in
training what any program gives it later. The characters of a special token in a message are defused first (N2.2-6).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from rinsho import chat
from rinsho.chat import Message
from rinsho.errors import UserError

# No marks: for base models without chat tokens (M-2's Alpaca form). The answer stands on a line of its own.
PLAIN = (
    "{% if bos_token %}{{ bos_token }}{% endif %}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ '\\n' }}{% generation %}{{ message['content'] | trim + eos_token }}{% endgeneration %}"
    "{% else %}"
    "{% if not loop.first and messages[loop.index0 - 1]['role'] != 'assistant' %}{{ '\\n\\n' }}{% endif %}"
    "{{ message['content'] | trim }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n' }}{% endif %}"
)
FORMS = ("auto", "rinsho", "own", "plain")
BREAK = "\u200b"  # zero-width space: makes ordinary text of the characters of a special token

_PROBE = (Message("user", "rinsho-question"), Message("assistant", "rinsho-answer"))
# `strftime_now` for templates that write the date: on Llama 3's default day, whatever day a run is continued.
_DAY = (
    "{% macro strftime_now(form) %}{{ form | replace('%Y', '2024') | replace('%m', '07') | replace('%d', '26') "
    "| replace('%B', 'July') | replace('%b', 'Jul') | replace('%A', 'Friday') }}{% endmacro %}{{ '' }}"
)
_MARKUP = re.compile(r"[<\[].*[>\]]", re.DOTALL)
_WHITE = "ĠĊĉč"  # space, line feed, tab and return as byte-level pieces spell them

Span = tuple[int, int]  # half-open range of characters


class Renderer(Protocol):
    """What renders the conversations of one tokenizer.

    Attributes:
        tokenizer: whose ids come out.
        form: "rinsho", "own", "plain" or "file".
        pad_id: fills up rows.
        end_id: ends an answer; the tokenizer's end-of-text id where the form has none of its own.
    """

    tokenizer: Any
    form: str
    pad_id: int
    end_id: int

    def __call__(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> tuple[list[int], list[int]]:
        """Ids, and a mask that is 1 where an answer is learned, its end token included.

        With `add_generation_prompt` the assistant is to answer next, and nothing is learned: the mask is 0.
        """
        ...


def has_chat(tokenizer: Any) -> bool:
    """Whether conversations can be put to the model of this tokenizer; a base model only continues texts."""
    if not _is_ours(tokenizer):
        return bool(getattr(tokenizer, "chat_template", None))
    known = tokenizer.convert_tokens_to_ids(chat.ASSISTANT)
    return known is not None and known != getattr(tokenizer, "unk_token_id", None)


def renderer(tokenizer: Any, where: Path | str) -> Renderer:
    """What renders conversations in the form that the tokenizer came with.

    Raises:
        UserError: it has no chat tokens or no template, or the template has no assistant part.

    Source: N2.2-6, N2.4-2, M-1.
    """
    if _is_ours(tokenizer):
        return _ByIds(tokenizer, where)
    return _ByTemplate(tokenizer, where)


def set_form(tokenizer: Any, form: str, where: Path | str) -> Renderer:
    """What renders conversations in `form` (auto, rinsho, own, plain or FILE.jinja); changes the tokenizer in place.

    The tokenizer gets the tokens and the chat template of the form, and a token to fill up rows. `auto` is `rinsho`
    for our tokenizers, `own` where there is a chat template, else `plain`. Ours have one form (N2.2-6): for them `own`
    is `rinsho` too.

    Raises:
        UserError: an unknown form, a form that this tokenizer cannot have, or as `renderer`.

    Source: N2.4-2, M-1, M-2.
    """
    if form not in FORMS and not form.endswith(".jinja"):
        raise UserError(f"unknown chat form {form}", where="chat", expected=", ".join(FORMS) + ", or a file FILE.jinja")
    if _is_ours(tokenizer):
        return _ours(tokenizer, form, where)
    if form == "auto":
        form = "own" if tokenizer.chat_template else "plain"
    if form in ("rinsho", "plain") and tokenizer.eos_token is None:
        raise _no_end(f"the tokenizer has no end-of-text token, which the chat form {form} ends answers with", where)
    if form == "rinsho":
        known = tokenizer.get_added_vocab()
        tokenizer.add_tokens([token for token in chat.CHAT_TOKENS if token not in known], special_tokens=True)
        tokenizer.chat_template = _rinsho_template(tokenizer)
    elif form == "plain":
        tokenizer.chat_template = PLAIN
    elif form != "own":
        tokenizer.chat_template = _template_file(Path(form))
    if tokenizer.pad_token is None and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
    made = _ByTemplate(tokenizer, where)
    made.form = form if form in FORMS else "file"
    _check_learned(made)
    return made


class _ByIds:
    """Our tokenizers: contents by themselves, marks as ids (`rinsho.chat.render`)."""

    form = "rinsho"

    def __init__(self, tokenizer: Any, where: Path | str) -> None:
        if not has_chat(tokenizer):
            raise _no_chat(where)
        self.tokenizer = tokenizer
        self.end_id = chat.token_id(tokenizer, chat.END)
        self.pad_id = _pad_id(tokenizer, self.end_id)

    def __call__(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> tuple[list[int], list[int]]:
        ids, mask = chat.render(messages, self.tokenizer, add_generation_prompt)
        return ids, [0] * len(ids) if add_generation_prompt else mask


class _ByTemplate:
    """Any other tokenizer: the text that its chat template makes, encoded as a whole."""

    def __init__(self, tokenizer: Any, where: Path | str) -> None:
        if not tokenizer.chat_template:
            raise _no_chat(where)
        self.tokenizer, self.where = tokenizer, where
        self._template = _template_text(tokenizer.chat_template, where)
        self.form = {PLAIN: "plain", _rinsho_template(tokenizer): "rinsho"}.get(self._template, "own")
        if "strftime_now" in self._template:
            self._template = _DAY + self._template
        self._specials, self._markup = _pattern(tokenizer), _pattern(tokenizer, markup=True)
        self._joins_system = False
        text = self._text(_PROBE)
        answer = _PROBE[-1].content
        if answer not in text:
            raise UserError(
                "the chat template has no assistant part", where=where,
                expected="a template that writes the assistant's content",
                todo="give another one (chat: rinsho, plain or FILE.jinja)",
            )  # fmt: skip
        self._joins_system = not self._takes_system()
        end = self._specials.search(text, text.rindex(answer) + len(answer))
        found = tokenizer.convert_tokens_to_ids(end[0]) if end else tokenizer.eos_token_id
        if found is None:
            raise _no_end("no token ends an answer, neither in the chat template nor in the tokenizer", where)
        self.end_id: int = int(found)
        self.pad_id = _pad_id(tokenizer, self.end_id)

    def __call__(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> tuple[list[int], list[int]]:
        messages = self._prepared(messages)
        text = self._text(messages, add_generation_prompt)
        spans = [] if add_generation_prompt else self._answers(messages, text)
        return self._marked(messages) if spans is None else _masked(text, spans, self.tokenizer)

    def _prepared(self, messages: Sequence[Message]) -> list[Message]:
        """The messages with special tokens defused; a system turn that the template refuses joins the user's.

        Tokens that are markup without being special, as <think> is, only the assistant may write.
        """
        found = [
            Message(row.role, _defused(row.content, self._specials if row.role == "assistant" else self._markup))
            for row in messages
        ]
        if self._joins_system and len(found) > 1 and found[0].role == "system" and found[1].role == "user":
            found[:2] = [Message("user", f"{found[0].content}\n\n{found[1].content}")]
        return found

    def _answers(self, messages: Sequence[Message], text: str) -> list[Span] | None:
        """The learned parts of the text; None where the questions alone are no beginnings of it."""
        spans = []
        for place, message in enumerate(messages):
            if message.role != "assistant":
                continue
            before = self._text(messages[:place], True)
            upto = text if place + 1 == len(messages) else self._text(messages[: place + 1])
            span = self._answer(message.content.strip(), text, before, upto) if text.startswith(before) else None
            if span is None:
                return None
            spans.append(span)
        return spans

    def _answer(self, content: str, text: str, before: str, upto: str) -> Span | None:
        """From the end of `before` to the last special token of the turn, or to its last character without one.

        Some templates write an earlier turn otherwise than the last one (thoughts left out, an end mark for the last
        turn only). There the answer goes to the first special token after its content.
        """
        start = len(before)
        at = text.find(content, start)
        after = at + len(content) if at >= 0 else start
        if text.startswith(upto):
            ends = [found.end() for found in self._specials.finditer(upto, after)]
            end = ends[-1] if ends else len(upto.rstrip())
        else:
            found = self._specials.search(text, after)
            end = found.end() if found and at >= 0 else 0
        return (start, end) if end > start else None

    def _marked(self, messages: Sequence[Message]) -> tuple[list[int], list[int]]:
        """Ids and mask by the template's generation marks."""
        if not re.search(r"\{%-?\s*generation\b", self._template):
            raise UserError(
                "the chat template does not tell where an answer begins: the turns before it, rendered alone, are no "
                "beginning of the whole conversation", where=self.where,
                expected="a template with {% generation %} marks, or one that writes each turn by itself",
                todo="give another one (chat: rinsho, plain or FILE.jinja), or conversations with one answer",
            )  # fmt: skip
        made = self._apply(messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
        ids, mask = list(made["input_ids"]), list(made["assistant_masks"])
        if not any(mask):  # a mark before a space that the tokenizer leaves out of its offsets
            raise UserError(
                "the generation marks of the chat template mark no token", where=self.where,
                expected="marks that begin and end where tokens do",
                todo="move a space before {% generation %} out of it or into the turn before",
            )  # fmt: skip
        return ids, mask

    def _text(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
        return str(self._apply(messages, tokenize=False, add_generation_prompt=add_generation_prompt))

    def _apply(self, messages: Sequence[Message], **options: Any) -> Any:
        rows = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return self.tokenizer.apply_chat_template(rows, chat_template=self._template, **options)
        except Exception as error:  # whatever the code in a template can raise
            first_line = (str(error).splitlines() or [""])[0][:200]
            raise UserError(
                f"the chat template fails ({type(error).__name__}: {first_line})", where=self.where,
                expected="a template that takes these turns: " + ", ".join(row["role"] for row in rows),
                todo="give another one (chat: rinsho, plain or FILE.jinja), or other conversations",
            ) from None  # fmt: skip

    def _takes_system(self) -> bool:
        """Whether the template writes a system turn, and not beside the last question only, as some of Mistral do."""
        system = Message("system", "rinsho-system")
        try:
            return system.content in self._text([system, *_PROBE, *_PROBE]).partition(_PROBE[-1].content)[0]
        except UserError:
            return False


def _ours(tokenizer: Any, form: str, where: Path | str) -> Renderer:
    if form not in ("auto", "rinsho", "own"):
        raise UserError(f"a rinsho tokenizer has one chat form, not {form}", where=where, expected="auto or rinsho")
    known = tokenizer.get_added_vocab()  # the same as rinsho.tokenization.add_chat_tokens, which lies above this module
    new = [token for token in chat.CHAT_TOKENS if token not in known]
    tokenizer.add_special_tokens({"extra_special_tokens": new}, replace_extra_special_tokens=False)
    tokenizer.chat_template = chat.TEMPLATE
    return _ByIds(tokenizer, where)


def _check_learned(render: _ByTemplate) -> None:
    """Finds a template that nothing good can be learned from before the data is read."""
    ids, mask = render(_PROBE)
    if render.end_id not in [index for index, learned in zip(ids, mask, strict=True) if learned]:
        raise UserError(
            "the chat template writes no end after an answer: a model would never learn to stop", where=render.where,
            expected="a template that ends answers with a special token, inside its generation marks if it has them",
            todo="write {{ eos_token }} after the assistant's content (chat: FILE.jinja), or take another form",
        )  # fmt: skip


def _masked(text: str, spans: Sequence[Span], tokenizer: Any) -> tuple[list[int], list[int]]:
    """Ids of the text, and 1 for every token that begins inside one of the spans."""
    if not (spans and tokenizer.is_fast):
        return _masked_by_encoding(text, spans, tokenizer)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids, offsets = list(encoded["input_ids"]), encoded["offset_mapping"]
    across = [at for at in offsets if any(at[0] < first < at[1] for first, _ in spans)]
    if len(across) > len(set(across)):  # byte fallback: one offset for a whole run of characters, the mark's included
        return _masked_by_encoding(text, spans, tokenizer)
    starts = [start for start, _ in offsets]
    mask = [0] * len(ids)
    for first, last in spans:
        places = [place for place, start in enumerate(starts) if first <= start < last]
        # Some byte-level tokenizers leave a piece's space out of its offsets: such a piece begins before the answer.
        if places and places[0] and starts[places[0]] == first > offsets[places[0] - 1][1]:
            places = places[tokenizer.convert_ids_to_tokens(ids[places[0]])[0] in _WHITE :]
        for place in places:
            mask[place] = 1
    return ids, mask


def _masked_by_encoding(text: str, spans: Sequence[Span], tokenizer: Any) -> tuple[list[int], list[int]]:
    """The same where a tokenizer gives no offsets: as many tokens stand before a character as its text before has."""

    def encode(part: str) -> list[int]:
        return list(tokenizer(part, add_special_tokens=False, verbose=False)["input_ids"])

    ids = encode(text)
    mask = [0] * len(ids)
    for first, last in spans:
        begin, end = len(encode(text[:first])), len(encode(text[:last]))
        mask[begin:end] = [1] * (end - begin)
    return ids, mask[: len(ids)]


def _defused(content: str, pattern: re.Pattern[str]) -> str:
    """The text without any token of the pattern: a zero-width space stands behind its first character.

    >>> _defused("発熱<s>あり", re.compile("<s>")) == "発熱<" + BREAK + "s>あり"
    True
    """
    while found := pattern.search(content):
        content = content[: found.start() + 1] + BREAK + content[found.start() + 1 :]
    return content


def _pattern(tokenizer: Any, markup: bool = False) -> re.Pattern[str]:
    """The tokenizer's special tokens as they can stand in a text; with `markup` its other added ones in <> and [], too.

    Where a tokenizer looks for a token in normalised text, full-width and other-case spellings count too. A token of
    one character cannot be defused and is left out.
    """
    added = list(tokenizer.added_tokens_decoder.values())
    forms = {str(token): re.escape(str(token)) for token in tokenizer.all_special_tokens}
    for token in added:
        if token.special or (markup and _MARKUP.fullmatch(str(token))):
            wide = "(?i:" + "".join(map(_wide, str(token))) + ")"
            forms[str(token)] = wide if token.normalized else re.escape(str(token))
    wanted = sorted((token for token in forms if len(token) > 1), key=lambda token: (-len(token), token))
    return re.compile("|".join(forms[token] for token in wanted) or r"(?!)")


def _wide(character: str) -> str:
    """A pattern of an ASCII character and its full-width form.

    >>> _wide("s"), _wide("は")
    ('[sｓ]', 'は')
    """
    if "!" <= character <= "~":
        return f"[{re.escape(character)}{chr(ord(character) + 0xFEE0)}]"
    return re.escape(character)


def _rinsho_template(tokenizer: Any) -> str | None:
    """Our template with the tokenizer's own begin and end; None where it has no end."""
    end = tokenizer.eos_token
    return end and chat.TEMPLATE.replace(chat.BEGIN, tokenizer.bos_token or end).replace(chat.END, end)


def _template_text(template: Any, where: Path | str) -> str:
    """The template of conversations; tokenizers can have several by name, for tools and the like."""
    found = template.get("default") if isinstance(template, dict) else template
    if not isinstance(found, str):
        raise UserError("no chat template named default", where=where, expected="one that takes plain conversations")
    return found


def _template_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError:
        raise UserError("no such chat template", where=path, expected="a Jinja file", todo="check the path") from None
    except UnicodeDecodeError:
        raise UserError("not UTF-8", where=path, expected="a Jinja file in UTF-8", todo="convert the file") from None


def _pad_id(tokenizer: Any, end_id: int) -> int:
    found = (getattr(tokenizer, name, None) for name in ("pad_token_id", "eos_token_id"))
    return next((int(index) for index in found if index is not None), end_id)


def _no_chat(where: Path | str) -> UserError:
    return UserError(
        "the model has no chat form: no chat tokens and no chat template", where=where, expected="an instruct model",
        todo="tune it first (rinsho finetune)",
    )  # fmt: skip


def _no_end(what: str, where: Path | str) -> UserError:
    return UserError(
        what, where=where, expected="an eos_token in tokenizer_config.json",
        todo="name it there, or give a template that ends answers with a special token (chat: FILE.jinja)",
    )  # fmt: skip


def _is_ours(tokenizer: Any) -> bool:
    return hasattr(tokenizer, "encode_text")
