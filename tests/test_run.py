import errno
import json
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from rinsho.errors import UserError
from rinsho.recipe import Settings, to_yaml
from rinsho.run import Report, digest, perform, read_done, read_metrics, unchanged, write_atomic


class Recipe(Settings):
    seed: int = 1
    size: int = 3


def make(out, recipe=Recipe(), inputs=(), calls=None, name="corpus", text="x"):  # noqa: B008
    def work(stage):
        if calls is not None:
            calls.append(stage)
        write_atomic(stage.out / "product.txt", text * recipe.size)
        stage.metric(step=1, loss=2.5)
        return Report({"size": recipe.size}, "done\n")

    return perform(name, recipe, inputs, out, work)


def test_run_folder_holds_what_docs_files_promises(tmp_path):
    report = make(tmp_path / "run")
    assert report.numbers == {"size": 3}
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {
        ".lock",
        "recipe.resolved.yaml",
        "manifest.json",
        "metrics.jsonl",
        "log.txt",
        "report.json",
        "report.md",
        "product.txt",
        "DONE",
    }
    assert set(read_done(tmp_path / "run")["products"]) == {"product.txt"}
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert {
        "stage",
        "identity",
        "inputs",
        "seed",
        "packages",
        "machine",
        "started",
        "finished",
        "seconds",
        "peak_memory_gib",
    } <= set(manifest)


def test_unchanged_stage_is_skipped_and_gives_the_same_report(tmp_path):
    calls = []
    first = make(tmp_path / "run", calls=calls)
    assert make(tmp_path / "run", calls=calls) == first
    assert len(calls) == 1


def test_lost_product_is_made_again(tmp_path):
    calls = []
    make(tmp_path / "run", calls=calls)
    (tmp_path / "run/product.txt").unlink()
    make(tmp_path / "run", calls=calls)
    assert len(calls) == 2
    assert (tmp_path / "run/product.txt").exists()


def test_folder_of_another_recipe_stage_or_input_is_refused_and_untouched(tmp_path):
    (tmp_path / "in.txt").write_text("a")
    make(tmp_path / "run", inputs=[tmp_path / "in.txt"])
    before = (tmp_path / "run/product.txt").read_text()
    with pytest.raises(UserError, match="another recipe"):
        make(tmp_path / "run", Recipe(size=4), inputs=[tmp_path / "in.txt"])
    with pytest.raises(UserError, match="the stage corpus"):
        make(tmp_path / "run", name="pretrain", inputs=[tmp_path / "in.txt"])
    (tmp_path / "in.txt").write_text("b")
    with pytest.raises(UserError, match="other inputs"):
        make(tmp_path / "run", inputs=[tmp_path / "in.txt"])
    assert (tmp_path / "run/product.txt").read_text() == before


def test_folder_with_strange_files_is_refused(tmp_path):
    (tmp_path / "thesis.docx").write_text("mine")
    with pytest.raises(UserError, match=r"holds other files \(1\)"):
        make(tmp_path)


def test_a_run_that_came_to_nothing_frees_its_folder(tmp_path):
    def fail(stage):
        stage.log("looking")
        raise UserError("wrong setting", where="corpus.x")

    with pytest.raises(UserError, match="wrong setting"):
        perform("corpus", Recipe(), [], tmp_path / "run", fail)
    perform("corpus", Recipe(seed=9), [], tmp_path / "run", lambda stage: Report({}, ""))
    assert read_done(tmp_path / "run")


def test_a_run_that_made_something_keeps_its_folder(tmp_path):
    def fail(stage):
        write_atomic(stage.out / "answers.jsonl", "{}")
        raise UserError("a wrong corpus", where="x")

    with pytest.raises(UserError, match="a wrong corpus"):
        perform("corpus", Recipe(), [], tmp_path / "run", fail)
    perform("corpus", Recipe(), [], tmp_path / "run", lambda stage: Report({}, ""))
    assert "answers.jsonl" in read_done(tmp_path / "run")["products"]


def test_what_else_decides_the_product_is_part_of_the_run(tmp_path):
    for also in ((), ("model a",)):
        perform("corpus", Recipe(), [], tmp_path / f"run{len(also)}", lambda stage: Report({}, ""), also=also)
    with pytest.raises(UserError, match=r"other inputs.*give the old ones"):
        perform("corpus", Recipe(), [], tmp_path / "run1", lambda stage: Report({}, ""), todo="give the old ones")


def test_failed_work_leaves_no_done_and_continues(tmp_path):
    def fail(stage):
        write_atomic(stage.partial / "piece", "1")
        raise UserError("bad record", where="a.jsonl:3")

    with pytest.raises(UserError, match="bad record"):
        perform("corpus", Recipe(), [], tmp_path / "run", fail)
    assert read_done(tmp_path / "run") is None
    seen = []
    perform(
        "corpus",
        Recipe(),
        [],
        tmp_path / "run",
        lambda stage: seen.append((stage.partial / "piece").exists()) or Report({}, ""),
    )
    assert seen == [True]
    assert not (tmp_path / "run/partial").exists()


def test_full_disk_is_one_line(tmp_path):
    def fail(stage):
        raise OSError(errno.ENOSPC, "No space left on device", "shard")

    with pytest.raises(UserError, match=r"the disk is full.*continues where it stopped"):
        perform("corpus", Recipe(), [], tmp_path / "run", fail)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_really_full_disk_is_one_line(tmp_path):
    def fail(stage):
        with Path("/dev/full").open("w") as file:
            file.write("x" * 100_000)
        return Report({}, "")

    with pytest.raises(UserError, match="the disk is full"):
        perform("corpus", Recipe(), [], tmp_path / "run", fail)


def test_second_process_in_the_same_folder_is_refused(tmp_path):
    def work(stage):
        with pytest.raises(UserError, match="another rinsho process"):
            make(tmp_path / "run")
        return Report({}, "")

    perform("corpus", Recipe(), [], tmp_path / "run", work)


def test_unfinished_stage_is_no_input(tmp_path):
    with pytest.raises(ZeroDivisionError):
        perform("corpus", Recipe(), [], tmp_path / "run", lambda stage: 1 / 0)
    with pytest.raises(UserError, match="has not finished"):
        digest(tmp_path / "run")


def test_digest_of_a_stage_follows_its_products_not_its_log_or_times(tmp_path):
    make(tmp_path / "a")
    make(tmp_path / "b")
    make(tmp_path / "c", Recipe(size=4))
    assert digest(tmp_path / "a") == digest(tmp_path / "b") != digest(tmp_path / "c")


def test_metrics_rewind_and_a_line_cut_off_by_a_kill(tmp_path):
    def work(stage):
        for step in range(1, 6):
            stage.metric(step=step, loss=1.0)
        stage.rewind_metrics(3)
        return Report({}, "")

    perform("pretrain", Recipe(), [], tmp_path / "run", work)
    with (tmp_path / "run/metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "lo')
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == [1, 2, 3]


def test_kill_at_any_moment_then_the_same_product(tmp_path):
    script = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from rinsho.recipe import Settings
        from rinsho.run import Report, perform, write_atomic
        def work(stage):
            for piece in range(20):
                path = stage.partial / f"{piece:02}"
                if not path.exists():
                    time.sleep(0.02)
                    write_atomic(path, str(piece) * 1000)
            write_atomic(stage.out / "product", "".join(p.read_text() for p in sorted(stage.partial.iterdir())))
            return Report({}, "")
        perform("corpus", Settings(), [], Path(sys.argv[1]), work)
        """
    )

    def start(out):
        return subprocess.Popen([sys.executable, "-c", script, out], stderr=subprocess.DEVNULL)

    for wait in (0.15, 0.3, 0.45):
        process = start(tmp_path / "killed")
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert start(tmp_path / "killed").wait() == 0
    assert start(tmp_path / "whole").wait() == 0
    assert (tmp_path / "killed/product").read_bytes() == (tmp_path / "whole/product").read_bytes()


def test_a_changed_product_of_an_earlier_stage_counts_by_its_content(tmp_path):
    make(tmp_path / "a")
    before = digest(tmp_path / "a")
    (tmp_path / "a/product.txt").write_text("edited by hand")
    assert digest(tmp_path / "a") != before


def test_hidden_files_do_not_change_an_input(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.txt").write_text("a")
    before = digest(tmp_path / "in")
    (tmp_path / "in/.DS_Store").write_text("x")
    assert digest(tmp_path / "in") == before


def test_a_strange_file_named_done_is_not_ours(tmp_path):
    (tmp_path / "DONE").write_text("homework: yes")
    (tmp_path / "in.txt").write_text("a")
    make(tmp_path / "run", inputs=[tmp_path / "in.txt"])


def test_settings_that_cannot_change_the_product_may_differ(tmp_path):
    class WithWorkers(Recipe):
        workers: int = 1

    calls = []
    make(tmp_path / "run", WithWorkers(), calls=calls)
    make(tmp_path / "run", WithWorkers(workers=4), calls=calls)
    assert len(calls) == 1


class Teacher(Settings):
    license: str = "L"
    url: str = ""


class Asking(Recipe):
    teachers: dict[str, Teacher] = {"a": Teacher()}  # noqa: RUF012
    limit: float = 0.01


def ask(out, **changes):
    """A stage that knows more of what decides nothing: `limit`, and where a teacher is."""
    recipe = Asking(**changes)
    teachers = {name: teacher.model_copy(update={"url": ""}) for name, teacher in recipe.teachers.items()}
    same = recipe.model_copy(update={"limit": 0.0, "teachers": teachers})
    perform("corpus", recipe, [], out, lambda stage: Report({}, ""), identity=same)
    return recipe, same


def test_only_what_decides_the_product_is_blamed_down_to_the_setting(tmp_path):
    moved = {"teachers": {"a": Teacher(url="http://here")}, "limit": 0.5}
    recipe, same = ask(tmp_path / "run", **moved)
    assert (tmp_path / "run/recipe.resolved.yaml").read_text() == to_yaml(recipe)  # as the user gave it
    ask(tmp_path / "run")  # skipped
    assert unchanged("corpus", same, [], tmp_path / "run")
    assert not unchanged("corpus", same, [], tmp_path / "run", also=["x"])
    with pytest.raises(UserError) as refused:
        ask(tmp_path / "run", teachers={"a": Teacher(license="L2")})
    assert "another recipe (teachers.a.license: L there, L2 here)" in str(refused.value)
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    del manifest["settings"]  # an older one: what the user gave is compared
    (tmp_path / "run/manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"\(size: 3 there, 4 here\)"):
        ask(tmp_path / "run", **moved, size=4)
