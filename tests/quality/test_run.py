"""The whole room: label file, endpoint, floret and a causal model; preview, kills, reruns, wrong input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from quality.made import documents_in, is_bad, make_corpus, product
from quality.toy_endpoint import Endpoint
from rinsho.document import read_documents, shard_paths
from rinsho.errors import UserError
from rinsho.quality import Recipe, check, describe, run
from rinsho.run import read_done

pytest.importorskip("floret")
pytestmark = [pytest.mark.enable_socket, pytest.mark.allow_hosts(["127.0.0.1"])]
SMALL = {
    "vector_size": 8, "trees": 10, "workers": 1, "folds": 3, "vector_documents": 200, "label_documents": 90,
    "preview_documents": 40,
}  # fmt: skip


def recipe(**changes: Any) -> Recipe:
    return Recipe.model_validate({**SMALL, **changes})


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return make_corpus(tmp_path / "corpus")


@pytest.fixture
def labels(tmp_path: Path, corpus: Path) -> str:
    rows = [document for path in shard_paths([corpus]) for document in read_documents(path)][::2]
    lines = [f"{row.id},{'低' if is_bad(row.text) else '高'}\n" for row in rows]
    (tmp_path / "labels.csv").write_text("id,label\n" + "".join(lines) + "elsewhere,低\n", encoding="utf-8")
    return str(tmp_path / "labels.csv")


def judge(text: str, attempt: int) -> Any:
    """Mostly labels; some answers are of no use, some requests fail at first."""
    number = crc32(text.encode())
    if number % 7 == 0 and attempt == 1:
        return {"status": 503}
    odd = {0: "High", 1: "", 2: "申し訳ありませんが判断できません。", 3: "どちらとも言えます。"}
    return odd.get(number % 41, "低" if is_bad(text) else "「高」")


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    from rinsho.client import asking

    monkeypatch.setattr(asking, "FIRST_WAIT_SECONDS", 0.01)
    with Endpoint(judge) as found:
        yield found


def asking(endpoint: Endpoint, **changes: Any) -> Recipe:
    return recipe(**{"endpoint": {"base_url": endpoint.url, "model": "toy"}, **changes})


def test_label_file_and_floret(corpus: Path, labels: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = run(recipe(labels=labels), [corpus], out)
    kept = documents_in(out / "shards") + documents_in(out / "validation")
    dropped = documents_in(out / "dropped")
    assert len(kept) + len(dropped) == 240
    assert sum(is_bad(row.text) for row in dropped) >= 0.9 * 48 and not any(is_bad(row.text) for row in kept[:10])
    assert sum(not is_bad(row.text) for row in dropped) <= 3
    assert all(row.meta["reason"] == "low_quality" and row.meta["value"] > 0.5 for row in dropped)
    assert kept[0].meta == {"source": "見本"} and kept[0].id == "doc-0-001"
    assert {row.id.split("-")[1] for row in documents_in(out / "validation")} == {"3"}
    assert [path.name for path in shard_paths([out])] == [f"{n:05d}.jsonl.zst" for n in (0, 1, 2, 0)]
    numbers = report.numbers
    assert numbers["documents_dropped"] == len(dropped)
    assert numbers["dropped"]["low_quality"]["bytes"] == sum(len(row.text.encode()) for row in dropped)
    assert numbers["bytes_kept"] == sum(len(row.text.encode()) for row in kept)
    assert numbers["documents_validation"] == len(documents_in(out / "validation"))
    assert numbers["labels"]["low"] == 24 and numbers["labels"]["left_out"] == {"not_in_corpus": 1}
    assert sum(numbers["probability_counts"]) == 240
    assert numbers["cross_validation"]["accuracy"]["value"] > numbers["cross_validation"]["majority_accuracy"] == 0.8
    assert set(numbers["seconds"]) == {"sample", "labels", "vectors", "forest", "pass"}
    assert f"{len(dropped)} of 240 documents dropped as of low quality" in report.markdown
    assert "about 1 % of the data was dropped" in report.markdown and "always the majority" in report.markdown
    assert sorted(path.name for path in (out / "classifier").iterdir()) == [
        "classifier.json", "floret.bin", "forest.npz", "labels.csv"
    ]  # fmt: skip
    again = run(recipe(labels=str(out / "classifier/labels.csv"), cache="x"), [corpus], tmp_path / "again")
    assert product(tmp_path / "again")["classifier/forest.npz"] == product(out)["classifier/forest.npz"]
    assert again.numbers["documents_dropped"] == len(dropped)
    for name in ("log.txt", "report.json", "report.md", "classifier/classifier.json"):
        text = (out / name).read_text(encoding="utf-8")
        assert "患者" not in text and str(tmp_path) not in text.replace(str(out), ""), name


def test_labels_from_an_endpoint(corpus: Path, endpoint: Endpoint, tmp_path: Path, capfd: Any) -> None:
    given = asking(endpoint, label_documents=200, max_prompt_chars=60)
    report = run(given, [corpus], tmp_path / "runs/out")
    row = report.numbers["labels"]
    assert row["requests"] == 200 and row["labelled"] + sum(row["left_out"].values()) == 200
    assert set(row["left_out"]) <= {"not_japanese", "empty", "refused", "other"} and len(row["left_out"]) >= 2
    assert row["retries"] > 0 and row["prompt_tokens"] == 11 * 200
    assert "label requests of 2,200 prompt tokens" in report.markdown
    assert all(len(body["messages"]) == 2 and body["max_tokens"] == 16 for body in endpoint.bodies)
    assert endpoint.bodies[0]["messages"][0]["content"].endswith("回答は'高'または'低'のみを出力してください。")
    assert max(len(body["messages"][1]["content"]) for body in endpoint.bodies) == 60
    assert "on this machine" in (tmp_path / "runs/out/log.txt").read_text()
    # other settings need another folder, but no label is paid again
    asked = sum(endpoint.asked.values())
    other = run(given.model_copy(update={"max_low_probability": 0.2}), [corpus], tmp_path / "runs/other")
    assert sum(endpoint.asked.values()) == asked
    assert other.numbers["labels"]["cached"] == 200 and other.numbers["labels"]["low"] == row["low"]
    assert "患者" not in capfd.readouterr().err


def test_preview_then_full_run_in_the_same_folder(corpus: Path, endpoint: Endpoint, tmp_path: Path) -> None:
    out, given = tmp_path / "out", asking(endpoint, max_failed_fraction=0.5)
    report = run(given.model_copy(update={"preview": True}), [corpus], out)
    numbers = report.numbers
    assert numbers["preview"] and numbers["corpus"]["documents"] == 240
    assert numbers["labels"]["requests"] == 40 == len(endpoint.asked)
    assert numbers["cost"]["label_requests"] == 50
    assert numbers["cost"]["prompt_tokens"] == 50 * 11
    assert numbers["cost"]["label_hours"] > 0 and numbers["cost"]["documents_per_second"] > 1
    assert numbers["cost"]["pass_hours"] > 0 and numbers["cost"]["forest_hours"] > 0
    expected = numbers["expected_dropped"]
    assert expected["sample"] == 160
    assert expected["documents"]["interval"][0] < 0.2 < expected["documents"]["interval"][1]
    assert expected["bytes"]["interval"][0] <= expected["bytes"]["value"] <= expected["bytes"]["interval"][1]
    assert read_done(out) is None and not (out / "shards").exists() and not (out / "classifier").exists()
    assert (out / "report.md").read_text(encoding="utf-8") == report.markdown
    for text in ("further label requests, at most | 50", "expected to be dropped", "Nothing was dropped", "1 % of"):
        assert text in report.markdown
    full = run(given, [corpus], out)
    assert read_done(out) is not None and len(endpoint.asked) == 90
    assert max(endpoint.answered.values()) == 1  # what the preview paid for is not paid again
    assert "preview" not in full.numbers
    fresh = run(given, [corpus], tmp_path / "fresh")
    assert product(out) == product(tmp_path / "fresh")
    assert fresh.numbers["cross_validation"] == full.numbers["cross_validation"]
    assert run(given.model_copy(update={"preview": True}), [corpus], out) == full  # done is done


def test_preview_where_all_labels_are_alike(corpus: Path, tmp_path: Path) -> None:
    with Endpoint(lambda *_: "高") as endpoint:
        given = asking(endpoint)
        report = run(given.model_copy(update={"preview": True}), [corpus], tmp_path / "out")
        assert "No forest could be trained: 0 documents are labelled 低 and 40 高." in report.markdown
        assert report.numbers["cost"]["pass_hours"] > 0
        with pytest.raises(UserError, match=r"0 documents are labelled 低 and 90 高.*nothing that a classifier could"):
            run(given, [corpus], tmp_path / "out")
        assert sum(endpoint.asked.values()) == 90


def test_failing_requests_stop_the_run_only_above_the_limit(corpus: Path, tmp_path: Path) -> None:
    def reply(text: str, attempt: int) -> Any:
        return {"status": 500} if crc32(text.encode()) % 9 == 0 else judge(text, 2)

    with Endpoint(reply) as endpoint:
        server = {"base_url": endpoint.url, "model": "toy", "max_retries": 0, "max_failures_in_a_row": 50}
        with pytest.raises(
            UserError, match=r"of 90 label requests failed \(http_500 \d+\).*only what was not answered"
        ):
            run(recipe(endpoint=server), [corpus], tmp_path / "out")
        numbers = run(recipe(endpoint=server, max_failed_fraction=0.5), [corpus], tmp_path / "out").numbers
    assert numbers["labels"]["left_out"]["request_http_500"] > 0


def test_features_of_a_causal_model(corpus: Path, labels: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from toy_models import toy_folder

    folder = toy_folder(tmp_path / "model")
    given = recipe(labels=labels, model=str(folder), max_feature_tokens=64, device="cpu", batch_tokens=2048)
    report = run(given, [corpus], tmp_path / "out")
    assert report.numbers["cross_validation"]["auc"]["value"] > 0.8
    about = json.loads((tmp_path / "out/classifier/classifier.json").read_text(encoding="utf-8"))["features"]
    assert (about["kind"], about["size"], about["model"]) == ("last_hidden_state", 32, "model")
    assert not (tmp_path / "out/classifier/floret.bin").exists()
    run(given, [corpus], tmp_path / "again")
    assert product(tmp_path / "out") == product(tmp_path / "again")
    preview = run(given.model_copy(update={"preview": True}), [corpus], tmp_path / "preview").numbers
    assert preview["cost"]["processes"] == 1 and preview["expected_dropped"]["sample"] == 160
    toy_folder(folder, seed=2)  # another model at the same path is another input
    with pytest.raises(UserError, match="other inputs"):
        run(given, [corpus], tmp_path / "out")


def test_same_product_for_any_number_of_workers(
    corpus: Path, labels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(recipe(labels=labels), [corpus], tmp_path / "one")
    monkeypatch.setattr("rinsho.quality.passing.SMALL_DOCUMENTS", 0)
    run(recipe(labels=labels, workers=2), [corpus], tmp_path / "two")
    assert product(tmp_path / "one") == product(tmp_path / "two")


@pytest.mark.parametrize("target", ["answers", pytest.param("pieces", marks=pytest.mark.slow)])
def test_killed_and_started_again(corpus: Path, tmp_path: Path, target: str, endpoint: Endpoint) -> None:
    """kill -9 among the labels or in the full pass: the same bytes, and no answer that was kept is asked again."""
    endpoint.delay = 0.02
    code = f"""
import sys, time
from pathlib import Path
from rinsho import quality
from rinsho.quality import passing
judge = passing.judge_file
def slow(task, *rest):
    if {target == "pieces"}: time.sleep(0.15)
    return judge(task, *rest)
passing.judge_file = slow
quality.run(quality.Recipe.model_validate_json(sys.argv[1]), [Path(sys.argv[2])], Path(sys.argv[3]))
"""
    given, out = asking(endpoint, label_documents=60), tmp_path / "runs/out"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, given.model_dump_json(), str(corpus), str(out)]
    child = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    answers, pieces = tmp_path / "runs/answers/quality.jsonl", out / "partial/pieces"

    def ready() -> bool:
        if target == "answers":
            return answers.exists() and answers.read_bytes().count(b"\n") >= 15
        return pieces.exists() and any(path.name[0] != "." for path in pieces.iterdir())

    while not ready():
        assert child.poll() is None, child.stderr.read()  # type: ignore[union-attr]
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert read_done(out) is None
    time.sleep(0.1)
    kept = answers.read_bytes().count(b"\n")
    assert kept == 60 if target == "pieces" else kept < 60
    before = sum(endpoint.answered.values())
    report = run(given, [corpus], out)
    assert sum(endpoint.answered.values()) - before == 60 - kept
    assert report.numbers["labels"]["requests"] == 60
    run(given, [corpus], tmp_path / "runs/whole")
    assert product(out) == product(tmp_path / "runs/whole")


def test_what_does_not_decide_the_product_may_change(corpus: Path, endpoint: Endpoint, tmp_path: Path) -> None:
    given = asking(endpoint, label_documents=30)
    run(given, [corpus], tmp_path / "out")
    server = {"base_url": "http://127.0.0.1:1/v1", "model": "toy", "max_concurrent_requests": 2, "max_retries": 1}
    run(recipe(endpoint=server, label_documents=30, workers=2), [corpus], tmp_path / "out")
    with pytest.raises(UserError, match="another recipe"):
        run(recipe(endpoint={**server, "model": "b"}, label_documents=30), [corpus], tmp_path / "out")
    assert endpoint.url in (tmp_path / "out/recipe.resolved.yaml").read_text()


def test_own_prompt(corpus: Path, endpoint: Endpoint, tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("次の文章を評価せよ。\n{text}\n高か低で。", encoding="utf-8")
    given = asking(endpoint, label_documents=30, prompt=str(tmp_path / "own.txt"))
    run(given, [corpus], tmp_path / "out")
    (message,) = endpoint.bodies[0]["messages"]
    assert message["role"] == "user" and message["content"].startswith("次の文章を評価せよ。\n")


def test_check_and_describe(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [problem.where for problem in check(recipe(), [corpus])] == [
        "quality.endpoint.base_url", "quality.endpoint.model"
    ]  # fmt: skip
    wrong = recipe(labels=str(tmp_path / "no.csv"), model=str(tmp_path), prompt=str(tmp_path / "no.txt"))
    found = [str(problem) for problem in check(wrong, [tmp_path / "none"])]
    for text in ("none: not there", "no.txt: no prompt", "no.csv: not there", "not a model folder"):
        assert any(text in line for line in found), text
    monkeypatch.delenv("TOY_KEY", raising=False)
    server = {"base_url": "https://api.example.com/v1", "model": "m", "api_key_variable": "TOY_KEY"}
    given = recipe(endpoint=server)
    assert "TOY_KEY holds no key" in str(check(given, [corpus])[0])
    assert describe(given, [corpus]).startswith("DOCUMENT TEXT: LEAVES THIS MACHINE, sent to api.example.com")
    assert "up to 90 documents" in describe(given, [corpus])
    assert describe(recipe(labels="a.csv"), [corpus]) == ""
    with pytest.raises(UserError, match="TOY_KEY"):
        run(given, [corpus], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_labels_of_another_corpus(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("id,label\nx,高\ny,低\n", encoding="utf-8")
    with pytest.raises(UserError, match="none of its ids is in the corpus"):
        run(recipe(labels=str(tmp_path / "l.csv")), [corpus], tmp_path / "out")
