"""How questions are put. User prompts: the benchmarks' own form.

System sentences are ours in the benchmark's sense; a model tuned to say text, then letter, gets the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Wording:
    r"""The words around a question: patterns with named places, which `user` fills.

    Attributes:
        system: the system turn.
        prompt: the user turn, with {question}, {options}, {letters} and {count}.
        option: one line of {options}, with {letter} and {text}.
        first_letter: of the options' letters.
        cue: ends the prompt of a base model, which knows no chat tokens.
        gap: stands between the cue and a base model's answer; English has a space there, Japanese nothing.

    >>> Wording("", "質問: {question}\n{options}").user("熱がありますか？", ["ある", "ない"])
    '質問: 熱がありますか？\nA. ある\nB. ない\n'
    """

    system: str
    prompt: str = "{question}"
    option: str = "{letter}. {text}\n"
    first_letter: str = "A"
    cue: str = "\n答え:"
    gap: str = ""

    def letters(self, number: int) -> tuple[str, ...]:
        """The letters of so many options.

        >>> Wording("", first_letter="a").letters(3)
        ('a', 'b', 'c')
        """
        return tuple(chr(ord(self.first_letter) + place) for place in range(number))

    def user(self, question: str, options: Sequence[str] = (), num_answers: int = 1) -> str:
        """The user turn."""
        letters = self.letters(len(options))
        lines = [self.option.format(letter=letter, text=text) for letter, text in zip(letters, options, strict=True)]
        return self.prompt.format(
            question=question, options="".join(lines), letters=",".join(letters), count=num_answers
        )


CHOICE = Wording(
    "医学に関する質問と選択肢を読み、最も適切な選択肢を一つ選んでください。"
    "回答は選択肢のアルファベット（例：A）だけを書き、ほかには何も書かないでください。",
    "質問: {question}\n選択肢:\n{options}",
)
ENTITIES = Wording(
    "医学に関する質問に答えてください。"
    "回答はPythonのリスト形式（例：['回答1', '回答2']）だけを書き、ほかには何も書かないでください。"
)
EXAM = Wording(
    "医師国家試験の問題を解いてください。",
    "問題: {question}\n{options}必ず{letters}の中からちょうど{count}個選んでください。\n答え:",
    "{letter}: {text}\n",
    "a",
)
USMLE = Wording(
    "You answer multiple-choice questions of medical licensing examinations. Read the question and its options and"
    " choose the one best option. Reply with its letter (for example: A) and nothing else.",
    "Question: {question}\nOptions:\n{options}",
    cue="\nAnswer:",
    gap=" ",
)
EXAM_NUMBER = Wording(EXAM.system, "問題: {question}\n数値で答えてください。\n答え:", first_letter="a")

PAIR = replace(CHOICE, prompt="質問: 以下の2つの文の意味の類似度は？\n{question}\n選択肢:\n{options}")

STS_QUESTION = "以下の2つの文の意味の類似度は？\nS1: {first}\nS2: {second}"
