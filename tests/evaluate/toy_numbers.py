"""Invented numbers of an evaluation, as `rinsho.evaluate` writes them."""

from typing import Any

CHOICE = ("jmmlu_med", "crade", "rrtnm", "smdis", "jcsts")
POINTS = {2018: 499, 2019: 496, 2020: 496, 2021: 500, 2022: 494}


def row(task: str, mode: str = "free", n: int = 100, score: float = 0.5, **more: Any) -> dict[str, Any]:
    """A row of scores."""
    return {
        "task": task, "mode": mode, "n": n, "metric": "accuracy", "score": score, "interval": [score - 0.1, score + 0.1],
        "interval_kind": "Wilson", "chance": 0.25, "chance_kind": "uniform", "above_chance": score > 0.35,
        "baselines": {}, "also": {}, "kappa_interval": None, "rotation": None, "leaked": None, "clean": None, **more,
    }  # fmt: skip


def choice(task: str, mode: str = "free", kappa: float = 0.4, score: float = 0.5, **more: Any) -> dict[str, Any]:
    also = {"kappa": kappa, "accuracy_official": score, "kappa_official": kappa, "accuracy_strict": score,
            "kappa_strict": kappa, "answer_rate": 1.0}  # fmt: skip
    plain: dict[str, Any] = {"baselines": {"majority": 0.25, "naive_bayes": 0.6}}
    return row(task, mode, score=score, also=also, kappa_interval=[kappa - 0.1, kappa + 0.1], **(plain | more))


def entities(task: str, mode: str = "free", exact: float = 0.3, official: float = 0.3) -> dict[str, Any]:
    also = {"overlap_f1": 0.45, "official_exact_f1": official, "official_partial_f1": 0.8, "answer_rate": 0.9,
            "entities_per_answer": 2.0}  # fmt: skip
    return row(task, mode, score=exact, metric="exact_f1", chance=0.0, also=also, baselines={"copy_lexicon": 0.35})


def exam(year: int, points: int = 100, mode: str = "free", total: int | None = None, n: int = 400) -> dict[str, Any]:
    total = POINTS[year] if total is None else total
    also = {"points": points, "points_total": total, "points_chance": 0.187 * total, "points_official": points,
            "points_tolerant": points, "points_text_only": 80, "points_text_only_total": 370, "forbidden_chosen": 1,
            "answer_rate": 1.0}  # fmt: skip
    return row(f"igakuqa-{year}", mode, n=n, score=0.2, also=also)


def numbers(scores: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Numbers of an evaluation with these rows of scores."""
    return {
        "model": "ours-1b", "how": "fine-tuned", "seen_tokens": None, "answer_form": "letter",
        "prompt_form": "benchmark", "few_shot": 0, "split": "document", "test_part": "published", "split_seed": 1,
        "seed": 1, "scores": scores, "tags": [], "cases": [], "classes": [], "leakage": [],
        "leakage_source": "documents listed in the model folder", "training": [], "training_note": None,
        "left_out": {}, "samples": [], "boards": [],
        "answers": {"count": 3, "of_unknown_questions": 0, "shortened_prompts": 0, "mean_free_tokens": {},
                    "mean_free_chars": {}}, **more,
    }  # fmt: skip
