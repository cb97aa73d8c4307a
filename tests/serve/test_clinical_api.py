"""The routes of clinicians: the same answers as rinsho.clinical gives by itself, and their forms."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest

from rinsho import clinical
from rinsho.generate.batcher import Batcher
from rinsho.generate.jobs import choice_job
from rinsho.serve.clinical_api import counted
from rinsho.serve.service import Usage
from serve.toy_server import Inside, ScriptedDecoder, scripted

pytestmark = [pytest.mark.enable_socket, pytest.mark.allow_hosts(["127.0.0.1"])]
WINDOW = 2000
TEXT = "患者は発熱と咳嗽。\n肺癌の疑い、体温38.5℃、血圧120/80mmHg。肺癌あり。"


class Listing(ScriptedDecoder):
    """Prefers what it has not said yet, so that lists of spans are written; the same logits for the same ids."""

    def _logits(self, part: Any) -> np.ndarray:
        ids = part.ids if part.wanted == "every" else part.ids[-1:]
        return np.stack([np.random.default_rng(int(index)).normal(0, 3, self.vocab_size) for index in ids]).astype("f4")


@pytest.fixture(scope="module")
def server():
    opened = scripted(window=WINDOW)
    opened.decoder.__class__ = Listing
    with Inside(opened, slots=2) as running:
        yield running


def alone(server: Inside, jobs: Any) -> Any:
    """The results of jobs without a server, on a decoder of its own."""
    return Batcher(Listing(window=WINDOW)).run(jobs)


def test_entities_are_those_of_the_package(server: Inside) -> None:
    answer = server.http.post("/v1/extract", json={"text": TEXT, "threshold": 0.2})
    assert answer.status_code == 200
    said = answer.json()
    task = clinical.Extraction(server.opened, TEXT)
    expected = [entity.row(0.2) for entity in task.entities(alone(server, task.jobs))]
    assert said["entities"] == expected and expected
    assert {"value"} <= {entity["kind"] for entity in said["entities"]}
    for entity in said["entities"]:
        assert TEXT[entity["start"] : entity["end"]] == entity["text"]
        assert entity["unsure"] == (entity["source"] == "model" and entity["probability"] < 0.2)
    assert (said["object"], said["model"], said["threshold"]) == ("extraction", "toy", 0.2)
    assert said["cut"] is task.cut
    used = said["usage"]
    assert used["prompt_tokens"] == task.prompt_tokens and used["completion_tokens"] > 0
    assert used["total_tokens"] == used["prompt_tokens"] + used["completion_tokens"]


def test_values_alone_need_no_model(server: Inside) -> None:
    steps = server.opened.decoder.steps
    said = server.http.post("/v1/extract", json={"text": TEXT, "kinds": ["value"]}).json()
    assert [(entity["start"], entity["end"]) for entity in said["entities"]] == clinical.find_values(TEXT) != []
    assert server.opened.decoder.steps == steps and said["usage"]["total_tokens"] == 0


def test_a_long_text_is_asked_in_passages(server: Inside) -> None:
    text = TEXT * 80
    said = server.http.post("/v1/extract", json={"text": text, "kinds": ["disease", "medicine", "value"]}).json()
    task = clinical.Extraction(server.opened, text, ["disease", "medicine", "value"])
    assert len(task.jobs) > server.opened.decoder.slots
    assert said["entities"] == [entity.row() for entity in task.entities(alone(server, task.jobs))]
    assert server.idle() and server.engine._places == 0


def test_options_have_their_probabilities(server: Inside) -> None:
    options = ["肺癌", "発熱のみ", "その他"]
    for more in ({}, {"question": "どれですか。"}):
        said = server.http.post("/v1/classify", json={"text": TEXT, "options": options, **more}).json()
        task = clinical.Classification(server.opened, TEXT, options, more.get("question"))
        shares = task.shares(alone(server, [task.job])[0])
        assert [row["option"] for row in said["options"]] == options
        assert [row["probability"] for row in said["options"]] == pytest.approx(shares)
        assert sum(shares) == pytest.approx(1) and said["best"] == options[shares.index(max(shares))]
        assert said["shortened"] is False and "tuning on this question" in said["note"]
        assert said["usage"]["prompt_tokens"] == task.prompt_tokens


def test_tokens_and_their_places(server: Inside) -> None:
    said = server.http.post("/v1/tokens", json={"text": TEXT}).json()
    assert said["tokens"] == clinical.tokens(server.opened, TEXT) and said["count"] == len(said["tokens"])
    assert said["characters"] == len(TEXT)
    assert [token["piece"] for token in server.http.post("/v1/tokens", json={"text": "発熱"}).json()["tokens"]] == [
        "発熱"
    ]
    assert server.http.post("/v1/tokens", json={"text": ""}).json()["tokens"] == []


def test_corrections_become_training_rows(server: Inside) -> None:
    rows = [
        {"text": TEXT, "kind": "disease", "entities": ["肺癌"]},
        {"text": "咳。", "kind": "medicine", "entities": []},
    ]
    said = server.http.post("/v1/training-rows", json={"rows": rows}).json()
    made = [json.loads(line) for line in said["jsonl"].splitlines()]
    expected = [made for row in rows for made in clinical.training_rows(server.opened, *row.values())]
    assert said["object"] == "training_rows" and made == expected
    assert made[0]["messages"][-1] == {"role": "assistant", "content": "['肺癌']"}


def test_about(server: Inside) -> None:
    said = server.http.get("/v1/about").json()
    assert said["name"] == "toy" and said["chat"] is True and said["window"] == WINDOW
    assert said["kinds"] == list(clinical.kinds_of(server.opened)) and "医療機器ではなく" in said["notice"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("extract", {"text": TEXT, "kinds": ["dragon"]}),
        ("extract", {"text": TEXT, "kinds": []}),
        ("extract", {"text": None}),
        ("classify", {"text": TEXT, "options": ["同じ", "同じ"]}),
        ("classify", {"text": TEXT, "options": ["a"]}),
        ("classify", {"options": ["a", "b"]}),
        ("training-rows", {"rows": [{"text": TEXT, "kind": "dragon", "entities": []}]}),
        ("training-rows", {"rows": [{"text": TEXT, "kind": "value", "entities": ["1"]}]}),
        ("tokens", {"txt": TEXT}),
    ],
)
def test_what_cannot_be_asked(server: Inside, path: str, body: Any) -> None:
    answer = server.http.post(f"/v1/{path}", json=body)
    assert answer.status_code == 400 and "肺癌" not in answer.text
    assert set(answer.json()["error"]) == {"message", "type", "code", "param"}
    assert server.engine._places == 0


def test_a_base_model_finds_values_and_refuses_the_rest() -> None:
    opened = scripted()
    opened.tokenizer.chat_template = None
    with Inside(opened) as server:
        assert server.http.post("/v1/extract", json={"text": TEXT}).json()["entities"]
        assert server.http.post("/v1/extract", json={"text": TEXT, "kinds": ["disease"]}).status_code == 400
        assert server.http.post("/v1/classify", json={"text": TEXT, "options": ["a", "b"]}).status_code == 400


def test_work_beside_the_model_has_its_time_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with Inside(max_seconds=0.2) as server:
        monkeypatch.setattr(clinical, "tokens", lambda *_: [time.sleep(1.0)])
        start = time.monotonic()
        answer = server.http.post("/v1/tokens", json={"text": TEXT})
        assert answer.status_code == 504 and time.monotonic() - start < 0.9
        assert server.engine._places == 0


def test_counting_changes_no_result() -> None:
    prompt, options = [5, 6, 7], [[8, 9, 10], [8, 9, 11], [12]]
    used = Usage()
    decoder = Listing(window=WINDOW)
    assert Batcher(decoder).run([counted(choice_job(prompt, options), used)]) == Batcher(decoder).run(
        [choice_job(prompt, options)]
    )
    assert (used.prompt, used.completion) == (3, 2)
    with pytest.raises(Exception, match="window"):
        Batcher(Listing(window=2)).run([counted(choice_job(prompt, options), Usage())])
