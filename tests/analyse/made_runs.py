"""Training runs and evaluations as their stages leave them, a few lines each."""

import json


def made_run(folder, stage="pretrain", steps=60, tokens=4096, inputs=(), start=7.0, done=True):
    """A run folder with a falling loss at every step, held-out loss at every tenth."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "metrics.jsonl").open("w", encoding="utf-8") as file:
        for step in range(1, steps + 1):
            row = {"step": step, "seen_tokens": step * tokens, "loss": start - 3 * step / steps, "learning_rate": 1e-3}
            file.write(json.dumps(row) + "\n")
            if step % 10 == 0:
                held = {"validation_loss": row["loss"] + 0.25, "validation_bits_per_character": row["loss"] - 1}
                file.write(json.dumps({"step": step, "seen_tokens": step * tokens} | held) + "\n")
    (folder / "manifest.json").write_text(json.dumps({"stage": stage, "inputs": list(inputs)}))
    (folder / "recipe.resolved.yaml").write_text("{}\n")
    if done:
        (folder / "DONE").write_text(json.dumps({"identity": folder.name, "products": {}}))
    return folder


def score_row(task="igakuqa-2018", mode="free", score=0.25, n=100):
    """A row as `rinsho evaluate` writes it."""
    return {"task": task, "mode": mode, "metric": "accuracy", "n": n, "score": score,
            "interval": [score - 0.05, score + 0.05], "chance": 0.2}  # fmt: skip


def made_evaluation(folder, model, seen_tokens, rows):
    """The folder of one model's evaluation."""
    folder.mkdir(parents=True)
    (folder / "scores.json").write_text(json.dumps({"model": model, "seen_tokens": seen_tokens, "scores": rows}))
    return folder


def made_checkpoints(folder, run, points):
    """The folder of an evaluation of several checkpoints: (seen tokens, score)."""
    folder.mkdir(parents=True)
    over = [
        {**score_row(score=score), "run": run, "model": f"step-{seen}", "seen_tokens": seen} for seen, score in points
    ]
    models = [{"name": row["model"], "folder": row["model"], "numbers": {"scores": [score_row()]}} for row in over]
    (folder / "scores.json").write_text(json.dumps({"models": models, "over_tokens": over}))
    return folder
