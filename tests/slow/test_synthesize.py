"""Synthesis against a hostile teacher: killed and resumed, each (topic, teacher, sample) exactly once or listed as failed;
and against our own server with a small model."""

import csv
import json
import random
import time

import pytest

from rinsho.document import read_documents
from rinsho.instructions import read_instructions
from rinsho.prompting import read_template
from synthesize.hostile_endpoint import Hostile, paid, topics
from tiny_chain import kill, run_chain, start
from tiny_chain import write_recipe as write_chain

pytest.importorskip("httpx")
pytestmark = [pytest.mark.slow, pytest.mark.enable_socket, pytest.mark.allow_hosts(["127.0.0.1"])]
CONCURRENCY, KILLS = 8, 3
RECIPE = """
name: hostile
seed: 5
synthesize:
  teachers:
    one: {{base_url: {url}, model: one, max_concurrent_requests: 8, timeout_seconds: 2, max_retries: 2, max_failures_in_a_row: 40, license: CC0-1.0}}
    two: {{base_url: {url}, model: two, max_concurrent_requests: 8, timeout_seconds: 2, max_retries: 2, max_failures_in_a_row: 40, share: 3}}
  kinds: [textbook, physician_exam]
  textbook_samples: 5
  exercise_samples: 5
  max_failed_fraction: 0.1
"""


def write_recipe(folder, endpoint):
    (folder / "topics.csv").write_text(topics(100))
    path = folder / "hostile.yaml"
    path.write_text(RECIPE.format(url=endpoint.url))
    return path


def command(folder, recipe, out):
    return start("synthesize", folder / "topics.csv", "--recipe", recipe, "--out", out)


def finish(process):
    text, _ = process.communicate(timeout=600)
    assert process.returncode == 0, text
    return text


def table(out):
    with (out / "requests.csv").open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def kept(out):
    return [document for file in sorted((out / "texts").iterdir()) for document in read_documents(file)]


def timeless(out):
    """All products but for what tells of time."""
    rows = [{**document.meta, "id": document.id, "text": document.text, "time": 0} for document in kept(out)]
    asked = [{**row, "seconds": 0, "time": 0} for row in table(out)]
    return rows, asked


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """(the endpoint, the folder of a run that was killed three times, whether each kill met it at work)."""
    folder = tmp_path_factory.mktemp("hostile")
    with Hostile() as endpoint:
        recipe, out = write_recipe(folder, endpoint), folder / "killed" / "synthesize"
        draw, hits = random.Random(1), []
        for wanted in (150, 400, 700):
            process = command(folder, recipe, out)
            deadline = time.monotonic() + 240
            while sum(paid(endpoint).values()) < wanted + draw.randrange(60) and time.monotonic() < deadline:
                time.sleep(0.01)
            hits.append(process.poll() is None and not (out / "DONE").exists())
            kill(process)
        finish(command(folder, recipe, out))
        times_paid = paid(endpoint)
        again = command(folder, recipe, out)
        assert "unchanged, skipped" in finish(again)
        assert paid(endpoint) == times_paid
        whole = folder / "whole" / "synthesize"
        finish(command(folder, recipe, whole))
        yield endpoint, out, whole, hits, times_paid


def test_each_request_stands_there_once(ran):
    _, out, _, hits, _ = ran
    assert hits == [True] * KILLS, "every kill must meet a run at work"
    rows = table(out)
    assert len(rows) == 1000 and len({row["id"] for row in rows}) == 1000
    states = {state: {row["id"] for row in rows if row["state"] == state} for state in ("kept", "set_aside", "failed")}
    assert sum(map(len, states.values())) == 1000
    failed = [json.loads(line) for line in (out / "failed.jsonl").read_text().splitlines()]
    assert {row["id"] for row in failed} == states["failed"] and all(row["reason"] for row in failed)
    aside = [document for file in sorted((out / "set_aside").iterdir()) for document in read_documents(file)]
    assert {document.id for document in aside} == states["set_aside"] and len(aside) == len(states["set_aside"])
    assert all(document.meta["reason"] for document in aside)
    assert {document.id for document in kept(out)} == states["kept"] and len(kept(out)) == len(states["kept"])


def test_what_came_is_what_was_wanted(ran):
    endpoint, out, *_ = ran
    rows = table(out)
    assert sum(row["state"] == "failed" for row in rows) == len(endpoint.dead)
    assert sum(row["state"] == "set_aside" for row in rows) >= len(endpoint.useless)
    assert sum(row["state"] == "kept" for row in rows) > 700
    shares = [sum(row["teacher"] == name for row in rows) for name in ("one", "two")]
    assert 0.2 < shares[0] / sum(shares) < 0.3
    for document in kept(out):
        assert document.meta["synthetic"] is True and document.meta["prompt"] and document.meta["time"]
        assert document.meta["teacher"] in ("one", "two") and document.meta["seed"] is not None
    exercises = read_instructions(out / "exercises" / "physician_exam.jsonl", read_template("alpaca"))
    assert len(exercises) == sum(row["state"] == "kept" and row["id"].startswith("physician") for row in rows)


def test_nothing_is_paid_twice(ran):
    _, _, _, _, times_paid = ran
    twice = sum(count - 1 for count in times_paid.values())
    assert twice <= KILLS * 2 * CONCURRENCY, "only what was under way at a kill"


def test_killed_and_uninterrupted_are_the_same(ran):
    _, out, whole, *_ = ran
    assert timeless(out) == timeless(whole)


def test_no_text_in_log_and_report(ran):
    _, out, *_ = ran
    for name in ("log.txt", "report.md", "report.json", "manifest.json", "requests.csv"):
        assert "正しいのはどれか" not in (out / name).read_text(encoding="utf-8"), name


OURS = """
name: ours
synthesize:
  teachers:
    server: {{base_url: {url}/v1, model: {model}, max_tokens: 40, license: CC0-1.0}}
    folder: {{folder: {folder}, max_tokens: 40, license: CC0-1.0}}
  kinds: [textbook, physician_exam, instructions]
  assign: all
  exercise_samples: 2
  instructions: 20
"""


def test_our_own_server_and_a_folder_as_teachers(tmp_path):
    """A trained model of a few thousand parameters: it writes, and nothing of it is taken for an exercise."""
    pytest.importorskip("uvicorn")
    from serve.toy_server import Process

    run_chain(write_chain(tmp_path), tmp_path / "run")
    model = tmp_path / "run" / "finetune"
    (tmp_path / "topics.csv").write_text(topics(6))
    recipe, out = tmp_path / "ours.yaml", tmp_path / "made" / "synthesize"
    with Process(model) as server:
        recipe.write_text(OURS.format(url=server.url, model=model.name, folder=model))
        finish(command(tmp_path, recipe, out))
    rows = table(out)
    about_topics = [row for row in rows if row["kind"] != "instructions"]
    assert len(about_topics) == 6 * (1 + 2) * 2 and len({row["id"] for row in rows}) == len(rows)
    assert {row["teacher"] for row in about_topics} == {"server", "folder"}
    assert all(row["state"] in ("kept", "set_aside") for row in rows)
    assert not [row for row in about_topics if row["kind"] == "physician_exam" and row["state"] == "kept"]
    assert all(int(row["prompt_tokens"]) > 50 for row in rows if row["reason"] != "prompt_too_long")
    assert not (out / "failed.jsonl").exists()
    aside = [document for file in sorted((out / "set_aside").iterdir()) for document in read_documents(file)]
    assert any(document.text for document in aside)
