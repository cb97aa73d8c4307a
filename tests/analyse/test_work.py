"""The room as a whole: parts made once, a part that fails, an interruption, the page."""

import json
import re
import sys
from pathlib import Path

import pytest

import rinsho.analyse.work as room
from analyse.made_runs import made_evaluation, made_run, score_row
from rinsho.analyse import Recipe, check, describe, projection, run
from rinsho.analyse.part import Part
from rinsho.errors import UnsuitedError, UserError
from rinsho.run import NOT_PRODUCT, read_done
from toy_models import toy_folder

SECRET = "患者は七十歳の男性"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return toy_folder(tmp_path_factory.mktemp("models") / "toy", chat=False)


@pytest.fixture
def makers(monkeypatch):
    """Parts that only write their name; tests put others in their place."""
    made = []

    def maker(name):
        def make(folder):
            made.append(name)
            (folder / f"{name}.csv").write_text("a\n1\n")
            return Part(
                name, f"The {name}", f"<p>about {name} &amp; more</p>", {"n": len(name)}, f"of {name}", (f"{name}.csv",)
            )

        return make

    table = {name: maker(name) for name in room.TITLES}
    monkeypatch.setattr(room, "makers", lambda recipe, given: table)
    monkeypatch.setattr(room, "give_back", lambda: None)  # no model was opened
    table["made"] = made
    return table


def products(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in NOT_PRODUCT
    }


def test_every_part_stands_in_the_report_with_its_files(tmp_path, model, makers):
    report = run(Recipe(), [model], tmp_path / "out")
    assert makers["made"] == list(room.TITLES)
    assert report.numbers["parts"]["curves"] == {"n": 6}
    assert "of attention" in report.markdown
    text = (tmp_path / "out" / "report.html").read_text()
    for name in room.TITLES:
        assert f'<section id="{name}">' in text and f'href="#{name}"' in text
        assert f"<p>about {name} &amp; more</p>" in text
    links = re.findall(r'(?:href|src)="([^"#]+)"', text)
    later = {"manifest.json", "report.json", "recipe.resolved.yaml"}
    assert later <= set(links)
    assert all((tmp_path / "out" / link).exists() for link in links)
    assert not re.search(r"(https?:)?//\w", text)
    assert run(Recipe(), [model], tmp_path / "out").numbers == report.numbers
    assert len(makers["made"]) == 5  # skipped


def test_an_interrupted_run_makes_only_what_is_left(tmp_path, model, makers):
    def stopped(folder):
        (folder / "half.csv").write_text("a")
        raise KeyboardInterrupt

    whole = run(Recipe(), [model], tmp_path / "whole")
    makers["made"].clear()
    attention, makers["attention"] = makers["attention"], stopped
    with pytest.raises(KeyboardInterrupt):
        run(Recipe(), [model], tmp_path / "out")
    assert makers["made"] == ["embeddings", "analogies"]
    assert read_done(tmp_path / "out") is None
    makers["attention"] = attention
    report = run(Recipe(), [model], tmp_path / "out")
    assert makers["made"] == ["embeddings", "analogies", "attention", "curves", "samples"]
    assert report == whole
    assert products(tmp_path / "out") == products(tmp_path / "whole")
    assert (tmp_path / "out" / "report.html").read_bytes() == (tmp_path / "whole" / "report.html").read_bytes()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UserError("no such layer", where="analyse.attention"), "analyse.attention: no such layer"),
        (ModuleNotFoundError("No module named 'umap'", name="umap"), "the package umap is not installed"),
        (RuntimeError(SECRET), "RuntimeError at test_work.py"),
    ],
)
def test_a_part_that_failed_is_told_and_made_by_the_same_command(tmp_path, model, makers, error, said, monkeypatch):
    def fails(folder):
        raise error

    given_back = []
    monkeypatch.setattr(room, "give_back", lambda: given_back.append(list(makers["made"])))
    attention, makers["attention"] = makers["attention"], fails
    with pytest.raises(UserError, match=r"out: not made: attention; .* run the same command again"):
        run(Recipe(), [model], tmp_path / "out")
    assert given_back == [["embeddings", "analogies"], list(makers["made"])]  # after attention, after samples
    assert read_done(tmp_path / "out") is None
    text = (tmp_path / "out" / "report.html").read_text()
    assert "Not made: " + said.split(":")[0] in text and room.AGAIN in text and "about samples" in text
    assert said in (tmp_path / "out" / "log.txt").read_text()
    assert not (tmp_path / "out" / "attention").exists()
    everything = "".join(path.read_text() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert SECRET not in everything
    makers["attention"] = attention
    makers["made"].clear()
    report = run(Recipe(), [model], tmp_path / "out")
    assert makers["made"] == ["attention"]
    assert list(report.numbers["parts"]) == list(room.TITLES) and report.numbers["not_made"] == {}
    assert "Not made" not in (tmp_path / "out" / "report.html").read_text()


def test_a_part_that_the_model_has_nothing_for_is_told_and_the_run_is_done(tmp_path, model, makers):
    def fails(folder):
        raise UnsuitedError("no attention maps of this model", where="analyse.attention")

    makers["attention"] = fails
    report = run(Recipe(), [model], tmp_path / "out")
    assert set(report.numbers["parts"]) == {"embeddings", "analogies", "curves", "samples"}
    assert report.numbers["not_made"] == {"attention": "analyse.attention: no attention maps of this model"}
    assert "Not made: analyse.attention: no attention maps of this model." in report.markdown
    assert read_done(tmp_path / "out") is not None


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), AssertionError("ours")])
def test_what_concerns_the_whole_run_ends_it(tmp_path, model, makers, error):
    def fails(folder):
        raise error

    makers["curves"] = fails
    with pytest.raises((UserError, AssertionError)):
        run(Recipe(), [model], tmp_path / "out")
    assert read_done(tmp_path / "out") is None


def test_no_part_at_all_is_an_error(tmp_path, model):
    with pytest.raises(UserError, match=r"no part could be made; curves: analyse\.curves: no training run"):
        run(Recipe(parts=("curves",)), [model], tmp_path / "out")


def test_real_parts_of_a_run_folder(tmp_path, model):
    """Curves and samples, made by the room as it is; the name, the facts and the pictures are there."""
    pytest.importorskip("matplotlib")
    folder = toy_folder(made_run(tmp_path / "x" / "pretrain"), chat=False)
    (folder / "rinsho.json").write_text(json.dumps({"stage": "pretrain", "seen_tokens": 245760, "parameters": 31168}))
    evaluation = made_evaluation(tmp_path / "ev", "x", 245760, [score_row()])
    recipe = Recipe.model_validate({"parts": ["curves", "samples"], "samples": {"max_new_tokens": 6}})
    for path in (folder, evaluation):
        (path / "DONE").unlink(missing_ok=True)
        (path / "recipe.resolved.yaml").unlink(missing_ok=True)
    report = run(recipe, [folder, evaluation], tmp_path / "out")
    assert report.numbers["model"] == "x/pretrain"
    assert report.numbers["facts"]["seen tokens"] == "245,760"
    assert report.numbers["facts"]["attention heads"] == "4 (2 of keys and values)"
    text = (tmp_path / "out" / "report.html").read_text()
    assert text.count("<svg") == 2 and "脳卒中と循環器病" in text
    assert "脳卒中" not in (tmp_path / "out" / "log.txt").read_text() + (tmp_path / "out" / "metrics.jsonl").read_text()
    assert (tmp_path / "out" / "curves" / "pretrain_loss.png").stat().st_size > 10_000


def test_layers_and_packages_that_are_not_there_are_told_before_the_start(tmp_path, model, monkeypatch):
    pytest.importorskip("fugashi")

    def told(**settings):
        return [str(problem) for problem in check(Recipe.model_validate(settings), [model])]

    assert told() == told(attention={"layers": [2], "heads": [4]}) == []
    (problem,) = told(attention={"layers": [1, 99]})
    assert problem == "analyse.attention.layers: the model has no number 99; expected 1 to 2"
    assert "heads: the model has no number 5" in told(attention={"heads": [5]})[0]
    assert told(attention={"heads": [5]}, parts=["samples"]) == []
    monkeypatch.setitem(projection.PACKAGES, "umap", ("no_such_package", "umap"))
    assert told() == [] and "no UMAP: not installed" in describe(Recipe(), [model])
    assert "UMAP is not installed" in told(embeddings={"projections": ["umap"]})[0]
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "no figures: matplotlib" in describe(Recipe(parts=("curves",)), [model])
    monkeypatch.setitem(sys.modules, "torch", None)
    assert [problem.partition(";")[0] for problem in told()] == [
        "analyse.parts: the part attention needs torch", "analyse.parts: the part samples needs torch",
    ]  # fmt: skip


def test_check_tells_all_that_is_wrong_before_the_start(tmp_path):
    recipe = Recipe.model_validate({
        "samples": {"prompts": tmp_path / "nowhere.txt"}, "analogies": {"file": tmp_path / "none.tsv", "expressions": ["- -"]},
    })  # fmt: skip
    problems = check(recipe, [Path("nowhere")])
    assert len(problems) == 4
    assert check(recipe.model_copy(update={"parts": ("curves",)}), []) != []


def test_settings_by_name():
    recipe = Recipe.model_validate({"parts": ["samples"], "samples": {"count": 3}, "embeddings": {"perplexity": 30}})
    assert recipe.samples.count == 3 and recipe.embeddings.perplexity == 30
    with pytest.raises(ValueError, match="parts"):
        Recipe.model_validate({"parts": ["sample"]})
    assert [problem.what for problem in check(Recipe(parts=()), [])][:1] == ["no part"]


@pytest.mark.slow
def test_all_five_parts_of_a_model(tmp_path):
    for package in ("matplotlib", "sklearn", "fugashi"):
        pytest.importorskip(package)
    folder = toy_folder(made_run(tmp_path / "x" / "pretrain", done=False), chat=False)
    (folder / "recipe.resolved.yaml").unlink()
    words = tmp_path / "words.csv"
    words.write_text("surface,kind\n肺癌,disease\n発熱,finding\n", encoding="utf-8")
    recipe = Recipe.model_validate({
        "embeddings": {"projections": ["tsne"], "permutations": 99}, "analogies": {"permutations": 2},
        "attention": {"sequence_length": 64, "rows": 2}, "samples": {"max_new_tokens": 8},
    })  # fmt: skip
    report = run(recipe, [folder, words], tmp_path / "out")
    assert set(report.numbers["parts"]) == set(room.TITLES) and report.numbers["not_made"] == {}
    text = (tmp_path / "out" / "report.html").read_text()
    assert 'src="embeddings/map_tsne.html"' in text
    links = {link for link in re.findall(r'(?:href|src)="([^"#]+)"', text) if not link.startswith("data:")}
    assert all((tmp_path / "out" / link).exists() for link in links)
    for name, files in report.numbers["files"].items():
        assert any(file.endswith(".csv") for file in files)
        assert sorted(files) == sorted(path.name for path in (tmp_path / "out" / name).iterdir())
    again = run(recipe, [folder, words], tmp_path / "again")
    assert products(tmp_path / "out") == products(tmp_path / "again")
    assert again == report
