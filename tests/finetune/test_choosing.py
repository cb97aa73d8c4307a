"""The best step by the held-out part, early stopping, several seeds; instructions and pairs through whole runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rinsho.errors import UserError
from rinsho.finetune import Recipe, check, run
from rinsho.run import read_metrics

TALKS = [("発熱とは。", "体温が上がること。"), ("咳嗽とは。", "せきのこと。"), ("下痢とは。", "便がゆるいこと。")]


def small(**changes: object) -> Recipe:
    values: dict[str, object] = dict(  # noqa: C408
        max_tokens=8 * 512, sequence_length=128, batch_tokens=512, dtype="fp32", threads=1, prompt_form="short",
        answer_form="letter", save_every_steps=3, log_every_steps=1, warmup_steps=2, validation_fraction=0.25,
        validate_every_steps=2, validation_rows_per_task=8,
    )  # fmt: skip
    return Recipe(**(values | changes))


def files(folder: Path) -> dict[str, bytes]:
    skipped = {"metrics.jsonl", "manifest.json", "report.json", "report.md", "log.txt", "recipe.resolved.yaml", "DONE"}
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in skipped and not path.name.startswith(".")
    }


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory, base: Path, data: Path) -> Path:
    out = tmp_path_factory.mktemp("chosen") / "out"
    run(small(), [base, data], out)
    return out


def test_the_best_step_is_published_and_the_last_one_kept(chosen: Path) -> None:
    from rinsho.generate.engine import Generator

    numbers = json.loads((chosen / "report.json").read_text())["numbers"]
    looks = numbers["validation"]
    assert [look["step"] for look in looks] == [2, 4, 6, 8]
    best = max(looks, key=lambda look: (look["score"], -look["step"]))
    assert numbers["best_step"] == best["step"]
    facts = json.loads((chosen / "rinsho.json").read_text())["finetune"]
    assert facts["steps"] == best["step"] and facts["validation"]["value"] == best["score"]
    assert (chosen / "last").is_dir() == (best["step"] != 8)
    if (chosen / "last").is_dir():
        assert json.loads((chosen / "last/rinsho.json").read_text())["finetune"]["steps"] == 8
        Generator(chosen / "last")
    rows = [row for row in read_metrics(chosen) if "validation_score" in row]
    assert [row["step"] for row in rows] == [2, 4, 6, 8] and {"validation_smdis", "validation_nrner"} <= rows[0].keys()


def test_held_out_documents_are_not_trained_on(base: Path, data: Path) -> None:
    from rinsho.finetune.data import gather
    from rinsho.tasks import documents

    source = gather(small(), [data])
    held = {key for item in source.held[0] for key in documents(item)}
    assert held and not held & {key for item in source.items for key in documents(item)}


def test_stopped_in_the_middle_the_choice_is_the_same(
    chosen: Path, base: Path, data: Path, tmp_path: Path, interrupted_at_5: Callable[..., None]
) -> None:
    interrupted_at_5(small(), [base, data], tmp_path / "out")
    run(small(), [base, data], tmp_path / "out")
    assert files(tmp_path / "out") == files(chosen)


def test_without_a_better_score_it_stops_early(base: Path, data: Path, tmp_path: Path) -> None:
    still = small(learning_rate=1e-9, muon_learning_rate=1e-9, patience=2, max_tokens=40 * 512, validate_every_steps=1)
    numbers = run(still, [base, data], tmp_path / "out").numbers
    assert numbers["steps"] == 3 and numbers["best_step"] == 1 and numbers["planned_steps"] == 40


def test_seeds_are_runs_of_their_own_and_the_best_one_is_published(base: Path, data: Path, tmp_path: Path) -> None:
    recipe = small(seeds=(3, 4), max_tokens=4 * 512, validate_every_steps=4)
    numbers = run(recipe, [base, data], tmp_path / "out").numbers
    rows = {row["seed"]: row for row in numbers["seeds"]}
    assert rows.keys() == {3, 4} and rows[3]["loss"] != rows[4]["loss"]
    assert numbers["loss_mean_sd"][0] == pytest.approx((rows[3]["loss"] + rows[4]["loss"]) / 2)
    best = tmp_path / f"out/seed-{numbers['published_seed']}"
    assert (tmp_path / "out/model.safetensors").read_bytes() == (best / "model.safetensors").read_bytes()
    assert numbers["score_mean_sd"] is not None and "±" in (tmp_path / "out/report.md").read_text()
    alone = tmp_path / "alone"
    run(recipe.model_copy(update={"seed": 4, "seeds": ()}), [base, data], alone)
    assert (alone / "model.safetensors").read_bytes() == (tmp_path / "out/seed-4/model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "out/seed-4/")
    products = json.loads((tmp_path / "out/DONE").read_text())["products"]
    assert not [name for name in products if name.startswith("seed-")]


def test_instructions_are_learned_beside_the_tasks(base: Path, data: Path, tmp_path: Path) -> None:
    rows = [{"instruction": question, "input": "", "output": answer} for question, answer in TALKS * 4]
    (tmp_path / "talks.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    recipe = small(task_weights={"talks": 2.0}, prompt_template="alpaca_ja", max_tokens=2 * 512)
    numbers = run(recipe, [base, data, tmp_path / "talks.json"], tmp_path / "out").numbers
    assert numbers["tasks"].keys() == {"smdis", "nrner", "talks"}
    assert numbers["tasks"]["talks"]["rows_per_epoch"] == 2 * numbers["tasks"]["talks"]["rows"]
    assert "unknown task 'talk'" in str(check(small(task_weights={"talk": 1.0}), [base, data])[0])


def test_too_long_conversations(base: Path, tmp_path: Path) -> None:
    rows = [*TALKS, ("長い。" * 200, "はい。"), ("問い。", "長い。" * 200)]
    lines = [json.dumps({"instruction": q, "output": a}, ensure_ascii=False) for q, a in rows]
    (tmp_path / "talks.jsonl").write_text("\n".join(lines), encoding="utf-8")
    few = {"max_tokens": 512, "validation_fraction": 0.0}

    def left_out(too_long: str) -> tuple[int, int]:
        numbers = run(small(too_long=too_long, **few), [base, tmp_path / "talks.jsonl"], tmp_path / too_long).numbers
        return numbers["shortened"], numbers["left_out"]

    assert left_out("shorten") == (1, 1) and left_out("leave_out") == (0, 2)
    with pytest.raises(UserError, match=r"talks/00003: a conversation has \d+ tokens; expected at most 129"):
        left_out("refuse")


def test_settings_that_do_not_go_together(base: Path, data: Path) -> None:
    wrong = Recipe(
        quantization="int8", base_dtype="bfloat16", patience=2, seeds=(1, 1), chat="alpaka", prompt_template="x.json",
        sequence_length=128,
    )  # fmt: skip
    problems = " ".join(map(str, check(wrong, [base, data])))
    for part in ("quantization int8 without", "base_dtype bfloat16", "patience without", "seed stands twice", "alpaka"):
        assert part in problems
    assert "x.json" in problems
    dpo = " ".join(map(str, check(Recipe(objective="dpo", copy_tokens=2048, sequence_length=128), [base, data])))
    assert "copy_tokens with objective dpo" in dpo and "pairs of answers" in dpo
    adapter = Recipe(adapter={"method": "lora"}, residual_dropout=0.1, sequence_length=128, optimizer="muon")
    assert ["optimizer muon" in str(p) or "residual_dropout" in str(p) for p in check(adapter, [base, data])] == [
        True
    ] * 2


def test_a_second_tuning_remembers_the_first(base: Path, data: Path, tmp_path: Path) -> None:
    """SFT, then DPO: documents, test parts and the forms of asking are those of both."""
    from rinsho.evaluate.facts import read_facts

    first = Recipe(
        max_tokens=512, sequence_length=128, batch_tokens=512, dtype="fp32", threads=1, prompt_form="short",
        answer_form="letter",
    )  # fmt: skip
    run(first, [base, data], tmp_path / "one")
    (tmp_path / "pairs.jsonl").write_text(
        json.dumps({"prompt": "咳嗽とは。", "chosen": "せき。", "rejected": "胃癌。"}, ensure_ascii=False),
        encoding="utf-8",
    )
    second = Recipe(objective="dpo", sequence_length=128, batch_tokens=256, max_tokens=256, dtype="fp32", threads=1)
    run(second, [tmp_path / "one", tmp_path / "pairs.jsonl"], tmp_path / "two")
    one, two = read_facts(tmp_path / "one"), read_facts(tmp_path / "two")
    assert one.documents and two.documents and one.documents < two.documents
    assert (two.test_hashes, two.splitting, two.form, two.prompt_form) == (
        one.test_hashes, one.splitting, "letter", "short",
    )  # fmt: skip


def test_conversations_that_quote_a_test_passage_are_left_out(base: Path, data: Path, tmp_path: Path) -> None:
    from rinsho.finetune.data import document_keys, gather
    from rinsho.overlap import key
    from rinsho.tasks import read_data

    asked = [item for item in read_data([data], "test") if item.task == "nrner"]
    rows = [
        *({"instruction": item.prompt, "output": "はい。"} for item in asked),
        *({"instruction": question, "output": answer} for question, answer in TALKS),
    ]
    (tmp_path / "talks.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    for split in ("row", "document"):
        source = gather(small(split=split, validation_fraction=0.0), [data, tmp_path / "talks.json"])
        assert len(source.conversations) == len(TALKS)
        assert f"talks: {len(asked)} rows hold a test passage" in " ".join(source.splits[0]["warnings"])
    assert key(asked[0].passage) in document_keys(asked[0].prompt)


def test_a_benchmark_and_a_file_in_one_folder_are_both_read(data: Path, tmp_path: Path) -> None:
    from rinsho.finetune.data import gather

    shutil.copytree(data, tmp_path / "both")
    (tmp_path / "both/talks.json").write_text(
        json.dumps([{"instruction": q, "output": a} for q, a in TALKS], ensure_ascii=False), encoding="utf-8"
    )
    source = gather(small(validation_fraction=0.0), [tmp_path / "both"])
    assert len(source.items) > 50 and len(source.conversations) == len(TALKS)


def test_a_gradient_that_is_not_finite_stops_before_it_does_harm(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rinsho.finetune.loop import Supervised

    backward = Supervised.backward

    def broken(self: Supervised, step: int) -> object:
        done = backward(self, step)
        if step == 3:
            next(p for p in self.model.parameters() if p.grad is not None).grad[0] = float("nan")
        return done

    monkeypatch.setattr(Supervised, "backward", broken)
    with pytest.raises(UserError, match="the gradient of step 4 is not finite"):
        run(small(), [base, data], tmp_path / "out")
    assert not (tmp_path / "out/DONE").exists()


def test_the_published_step_is_the_reported_one_whatever_a_killed_run_left(
    chosen: Path, base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rinsho.finetune.validation import Score, Validation

    values = iter([0.3, 0.9, 0.2, 0.1, 0.1])  # a later look was better, and is worse when it is repeated

    def score(self: Validation, model: object) -> Score:
        value = next(values)
        if value == 0.2:
            raise KeyboardInterrupt
        return Score(value, {})

    monkeypatch.setattr(Validation, "score", score)
    with pytest.raises(KeyboardInterrupt):
        run(small(), [base, data], tmp_path / "out")  # checkpoint of step 3 knows the look of step 2 only
    values = iter([0.1, 0.1, 0.1])
    numbers = run(small(), [base, data], tmp_path / "out").numbers
    steps = json.loads((tmp_path / "out/rinsho.json").read_text())["finetune"]["steps"]
    assert numbers["best_step"] == steps == 2
