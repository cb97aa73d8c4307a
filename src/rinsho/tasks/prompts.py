"""The sentences that questions are asked with. User prompts: the benchmarks' own form.

System sentences are ours in the benchmark's sense; a model tuned to say text, then letter, gets the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence

CHOICE_SYSTEM = (
    "医学に関する質問と選択肢を読み、最も適切な選択肢を一つ選んでください。"
    "回答は選択肢のアルファベット（例：A）だけを書き、ほかには何も書かないでください。"
)
ENTITIES_SYSTEM = (
    "医学に関する質問に答えてください。"
    "回答はPythonのリスト形式（例：['回答1', '回答2']）だけを書き、ほかには何も書かないでください。"
)
EXAM_SYSTEM = "医師国家試験の問題を解いてください。"

STS_QUESTION = "以下の2つの文の意味の類似度は？\nS1: {first}\nS2: {second}"
BASE_CUE = "\n答え:"  # ends the prompt of a base model, which knows no chat tokens


def choice_prompt(question: str, options: Sequence[str]) -> str:
    r"""The user prompt of JMED-LLM's choice tasks, with its final line feed.

    >>> choice_prompt("熱がありますか？", ["熱がある", "熱がない"])
    '質問: 熱がありますか？\n選択肢:\nA. 熱がある\nB. 熱がない\n'
    """
    lines = "".join(f"{chr(ord('A') + number)}. {option}\n" for number, option in enumerate(options))
    return f"質問: {question}\n選択肢:\n{lines}"


def exam_prompt(text: str, choices: Sequence[str], num_answers: int) -> str:
    r"""The user prompt of IgakuQA: the problem, lettered choices, and how many letters to give.

    >>> exam_prompt("正しいのはどれか。", ["肝", "腎"], 1)
    '問題: 正しいのはどれか。\na: 肝\nb: 腎\n必ずa,bの中からちょうど1個選んでください。\n答え:'
    """
    if not choices:
        return f"問題: {text}\n数値で答えてください。\n答え:"
    letters = [chr(ord("a") + number) for number in range(len(choices))]
    lines = "".join(f"{letter}: {choice}\n" for letter, choice in zip(letters, choices, strict=True))
    return f"問題: {text}\n{lines}必ず{','.join(letters)}の中からちょうど{num_answers}個選んでください。\n答え:"
