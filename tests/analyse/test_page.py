"""The page's frame: facts of a model's files, escaping, maps inside and beside."""

import json

from rinsho.analyse import page
from rinsho.analyse.part import Part
from toy_models import toy_folder


def chapter(html="<p>fine</p>", files=(), problem=""):
    part = None if problem else Part("embeddings", "Maps", html, {}, "told", files)
    return {"id": "embeddings", "title": "Maps", "part": part, "problem": problem}


def test_names_are_escaped_and_fragments_are_not(tmp_path):
    page.write(tmp_path / "r.html", "<i>m", [("learned from", "<script>")], [chapter("<p>fine</p>")])
    text = (tmp_path / "r.html").read_text()
    assert "&lt;i&gt;m" in text and "&lt;script&gt;" in text and "<p>fine</p>" in text
    assert "<i>m" not in text and "<script>" not in text


def test_maps_are_shown_inside_and_other_files_are_linked(tmp_path):
    files = ("map_tsne.html", "map_tsne.csv", "a b.png")
    page.write(tmp_path / "r.html", "m", [], [chapter(files=files)])
    text = (tmp_path / "r.html").read_text()
    assert text.count("<iframe") == 1 and 'src="embeddings/map_tsne.html"' in text
    assert 'href="embeddings/a%20b.png"' in text and 'href="embeddings/map_tsne.csv"' in text


def test_a_chapter_that_is_missing_says_why(tmp_path):
    page.write(tmp_path / "r.html", "m", [], [chapter(problem="no <layer> 99")])
    assert "Not made: no &lt;layer&gt; 99." in (tmp_path / "r.html").read_text()
    assert "Not made: no <layer> 99." in page.markdown("m", [], [chapter(problem="no <layer> 99")])


def test_facts_of_ours_and_of_others(tmp_path):
    folder = toy_folder(tmp_path / "m")
    assert dict(page.facts_of(folder))["kind"] == "llama"
    sources = [{"source": f"s{n}", "documents": 1, "tokens": n * 10**6, "licenses": None} for n in range(1, 8)]
    manifest = {"stage": "finetune", "base": {"stage": "pretrain", "seen_tokens": 2_000_000, "steps": 488},
                "parameters": 15_079_680, "data": [{"stage": "pretrain", "sources": sources}],
                "finetune": {"objective": "sft", "prompt_template": {"name": "alpaca_ja"}}}  # fmt: skip
    (folder / "rinsho.json").write_text(json.dumps(manifest))
    facts = dict(page.facts_of(folder))
    assert facts["parameters"] == "15,079,680"
    assert facts["base"] == "pretrain: 2,000,000 tokens, 488 steps"
    assert facts["tuned with"] == "sft, prompt template alpaca_ja"
    assert (
        facts["learned from"]
        == "s7 (7M tokens), s6 (6M tokens), s5 (5M tokens), s4 (4M tokens), s3 (3M tokens), 2 more"
    )


def test_an_adapter_without_its_base_still_has_facts(tmp_path):
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": "nowhere/base"})
    )
    facts = dict(page.facts_of(tmp_path))
    assert facts["kind"] == "adapter (LORA)" and facts["base"] == "nowhere/base"
