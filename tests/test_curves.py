"""Picture, page and `rinsho curves`: what is drawn, that nothing comes from outside, and what the readers get."""

import json
import re
import sys
import threading
import time
import types
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rinsho.curves import MARKERS, PANELS, _draw, _tick, drawn_sources, headline, loss_png, loss_svg, page
from rinsho.curves_cli import SILENT_SETTINGS, curves
from rinsho.errors import UserError
from rinsho.metrics import as_run, read_runs
from rinsho.run import read_metrics
from toy_metrics import LINES, finish, lock, write_run

PNG = b"\x89PNG\r\n\x1a\n"


class Addresses(HTMLParser):
    """Everything in a page that would be fetched."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [(tag, key, value) for key, value in attrs if key in ("src", "href", "srcset", "data", "action")]


def page_data(html):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[1])


def test_picture_is_written_whole_of_one_run_and_of_several(tmp_path):
    first, second = write_run(tmp_path / "a", LINES), write_run(tmp_path / "b_$x", LINES[:9], done=True)
    assert loss_png([first], tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(PNG)
    assert loss_png([first, second], tmp_path / "both.png")
    assert [path.name for path in tmp_path.glob("*.png")] and not list(tmp_path.glob(".*aside"))


@pytest.mark.parametrize(
    "lines",
    [
        [{"step": 1, "seen_tokens": 10, "loss": 2.0}],
        [{"step": 1, "loss": 2.0}, {"step": 2, "loss": None}, {"step": 3, "loss": 1.0}],
        [{"step": 1, "seen_tokens": 10, "validation_loss": 2.0, "validation_bits_per_character": 1.0}],
        [{"step": 1, "seen_tokens": 10, "loss": 2.0, "grad_norm": 0.0, "learning_rate": 0.0, "mfu": 0.0}],
        [{"step": 5, "seen_tokens": 10, "learned_tokens": 3, "loss": 0.5, "learning_rate": 1e-5}, LINES[-1]],
    ],
    ids=["one point", "no tokens", "held out only", "zeros", "finetune"],
)
def test_thin_runs_are_drawn(tmp_path, lines):
    folder = write_run(tmp_path, lines)
    assert loss_png([folder], tmp_path / "loss.png")
    assert page_data(page([folder]))["panels"]


def test_nothing_to_draw_leaves_no_picture(tmp_path):
    assert not loss_png([write_run(tmp_path, [])], tmp_path / "loss.png")
    assert not loss_png([tmp_path / "not begun"], tmp_path / "loss.png")
    assert not (tmp_path / "loss.png").exists()
    assert loss_svg([{"step": 1, "loss": None, "seen_tokens": 5}], "x") == ""


def test_small_svg_draws_training_and_held_out_and_is_the_same_every_time():
    picture = loss_svg(LINES, "pretrain")
    assert picture.startswith("<svg")
    assert "held out" in picture and "not shown" in picture and "1 spike (1 skip)" in picture
    assert picture == loss_svg(LINES, "pretrain")


def test_page_needs_nothing_from_outside_and_escapes_names(tmp_path):
    folders = [write_run(tmp_path / "<b>a&amp;", LINES), write_run(tmp_path / "two", LINES, done=True)]
    html = page(folders)
    addresses = Addresses()
    addresses.feed(html)
    assert addresses.found == []
    assert not re.search(r"https?:|//\w+\.|@import|url\((?!#)|fetch\(|import\(", html)
    assert "default-src 'none'" in html and 'http-equiv="refresh"' not in html
    assert "<b>a" not in html and "病院<記録>" not in html and "&lt;b&gt;a&amp;amp;" in html
    assert "stopped at step 120" in html and "2 runs, 1 finished, 1 stopped" in html and html == page(folders)


def test_page_has_the_numbers_of_the_file(tmp_path):
    folder = write_run(tmp_path / "x", LINES)
    html = page([folder])
    (run,) = page_data(html)["runs"]
    rows = [row for row in LINES if "loss" in row]
    assert run["series"]["train/loss"][0] == [row["step"] for row in rows]
    assert run["series"]["train/loss"][1] == [row["seen_tokens"] for row in rows]
    assert run["series"]["train/loss"][2] == pytest.approx([row["loss"] for row in rows], rel=1e-5)
    assert run["spikes"] == [[60, 60 * 2048, "grad_norm", "skip", 7]]
    assert run["sources"] == ["web", "病院<記録>"]
    last = [row for row in LINES if "validation" in row][-1]
    assert f"{last['validation']['web']['bits_per_character']:.4f}" in html


def test_command_writes_beside_the_run_and_never_into_it(tmp_path):
    run = write_run(tmp_path / "x/pretrain", LINES, done=True)
    before = sorted(run.iterdir())
    assert curves([tmp_path / "x"]).splitlines() == [
        str(tmp_path / "x/curves" / name) for name in ("curves.html", "curves.csv")
    ]
    assert curves([run], to="png").splitlines()[0] == str(tmp_path / "x/curves/loss.png")
    assert curves([run], to="csv", out=tmp_path / "out") == str(tmp_path / "out/curves.csv")
    assert sorted(run.iterdir()) == before
    with pytest.raises(UserError, match="lies inside a run folder"):
        curves([run], out=run / "curves")


def test_packages_that_are_missing_are_named_with_their_extra(tmp_path, monkeypatch):
    run = write_run(tmp_path / "x", LINES)
    for to, package, extra in (
        ("png", "matplotlib", "report"), ("tensorboard", "tensorboard", "tensorboard"), ("wandb", "wandb", "wandb"),
    ):  # fmt: skip
        for name in [name for name in sys.modules if name.partition(".")[0] == package] + [package]:
            monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(UserError, match=rf"package {package} is not installed.*rinsho\[{extra}\]"):
            curves([run], to=to)


def test_follow_writes_at_changes_and_stops_at_done(tmp_path):
    run = tmp_path / "x/pretrain"
    run.mkdir(parents=True)
    told = {}
    thread = threading.Thread(
        target=lambda: told.update(paths=curves([tmp_path / "x"], follow=True, every_seconds=0.02)), daemon=True
    )
    thread.start()
    target = tmp_path / "x/curves/curves.html"
    time.sleep(0.1)
    assert thread.is_alive() and not target.exists()  # nothing is there yet: it waits
    with lock(run):
        write_run(run, LINES[:5])
        for _ in range(500):
            if target.exists():
                break
            time.sleep(0.01)
        assert 'http-equiv="refresh"' in target.read_text() and "going on" in target.read_text()
    with lock(run):
        write_run(run, LINES)
        time.sleep(0.2)
        assert thread.is_alive()
        finish(run)
        thread.join(10)
    assert not thread.is_alive()
    html = target.read_text()
    assert 'http-equiv="refresh"' not in html and page_data(html)["runs"][0]["series"]["train/loss"][0][-1] == 120
    assert told["paths"].splitlines()[0] == str(target)


def test_follow_ends_when_a_run_was_stopped_and_says_so(tmp_path, capsys):
    run = write_run(tmp_path / "x/pretrain", LINES)
    (page_path, _) = curves([run], follow=True, every_seconds=0.01).splitlines()
    html = Path(page_path).read_text()
    assert 'http-equiv="refresh"' not in html and "stopped at step 120" in html
    assert "some did not finish: no longer followed" in capsys.readouterr().err


def test_picture_says_nothing_of_the_state_since_it_is_drawn_before_the_end(tmp_path):
    (run,) = read_runs([write_run(tmp_path, LINES)])
    assert headline([run])[1].startswith("stopped at step 120, ")
    assert headline([run], states=False)[1].startswith("step 120, ")
    assert headline([run, run], states=False)[1] == "2 runs"


def loss_axes(runs):
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    _draw(axes, PANELS[0], runs)
    return axes


def test_a_source_has_one_mark_in_all_runs_and_in_the_legend():
    def run(name, *sources):
        figures = {source: {"loss": 2.0, "tokens": tokens} for source, tokens in sources}
        return as_run([{"step": 1, "loss": 2.0, "validation_loss": 2.0, "validation": figures}], name)

    runs = [run("a", ("one", 9), ("two", 5)), run("b", ("two", 5), ("three", 7))]
    assert drawn_sources(runs) == ["one", "three", "two"]
    axes = loss_axes(runs)
    marks = dict(zip(["one", "three", "two"], MARKERS, strict=False))
    drawn = [line.get_marker() for line in axes.lines if line.get_linestyle() == ":"]
    assert drawn == [marks[name] for name in ("one", "two", "three", "two")]
    legend = axes.get_legend()
    shown = {
        text.get_text().strip(): line.get_marker()
        for text, line in zip(legend.texts, legend.legend_handles, strict=True)
    }
    assert {name: shown[name] for name in marks} == marks
    assert len(set(MARKERS)) == len(MARKERS) and not {"o", "v"} & set(MARKERS)


def test_one_diverged_run_does_not_flatten_the_others_and_the_legend_covers_nothing():
    wild = as_run([{"step": n, "seen_tokens": n * 2048, "loss": 9.0 + n * n} for n in range(1, 100)], "wild")
    axes = loss_axes([as_run([{**row, "validation": None} for row in LINES], "calm"), wild])
    assert axes.get_ylim()[1] < 10 and "highest 9.81k" in axes.get_title(loc="left")
    axes.figure.canvas.draw()
    assert not axes.get_legend().get_window_extent().overlaps(axes.get_window_extent())


def test_spikes_at_one_step_are_counted():
    back = {"step": 60, "spike": "loss", "spike_step": 70, "action": "rollback"}
    axes = loss_axes([as_run([*LINES, back, back], "x")])
    assert [text.get_text() for text in axes.texts] == ["×2"]


@pytest.mark.parametrize(
    ("value", "words"),
    [(4.885e13, "4.88e13"), (1e13, "1e13"), (5e11, "500G"), (1350.0, "1.35k"), (1e-4, "1e-4"), (0, "0")],
)
def test_numbers_at_axes_are_short(value, words):
    assert _tick(value) == words


def test_tensorboard_reads_back_every_number_and_a_second_call_changes_nothing(tmp_path):
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = write_run(tmp_path / "x/pretrain", LINES[:40])
    folder = tmp_path / "x/curves/tensorboard/x/pretrain"
    curves([run], to="tensorboard")
    (events,) = folder.iterdir()
    part, place = events.read_bytes(), events.stat().st_ino
    write_run(run, LINES)
    curves([run], to="tensorboard")
    assert events.stat().st_ino == place and events.read_bytes().startswith(part)  # what TensorBoard has open goes on
    whole = events.read_bytes()
    curves([run], to="tensorboard")
    assert events.read_bytes() == whole and list(folder.iterdir()) == [events]
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    (read,) = read_runs([run])
    assert set(reader.Tags()["scalars"]) == {*read.series, "spike/grad_norm/skip"}
    for tag, points in read.series.items():
        scalars = reader.Scalars(tag)
        assert [event.step for event in scalars] == [point.step for point in points]
        assert [event.value for event in scalars] == pytest.approx([point.value for point in points], rel=1e-6)
    write_run(run, LINES[:10])  # the run went back: the file is made anew
    curves([run], to="tensorboard")
    assert len(events.read_bytes()) < len(part)


def test_wandb_gets_every_step_offline_and_only_its_data_stays(tmp_path, monkeypatch):
    """With a stand-in for the package, which is large; docs/watching.md tells what the real one was seen to do."""
    logged, started = {}, []

    class Log:
        def __init__(self, key, folder):
            self.folder = folder / f"wandb/offline-run-20260101_000000-{key}"
            (self.folder / "logs").mkdir(parents=True)
            (self.folder / f"run-{key}.wandb").write_bytes(b"data")

        def log(self, values, step):
            logged[step] = values

        def finish(self):
            started.append("finished")

    def init(**given):
        started.append(given)
        return Log(given["id"], Path(given["dir"]))

    stand_in = types.SimpleNamespace(Settings=dict, init=init, teardown=lambda: None)
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    for name in ("CACHE_DIR", "CONFIG_DIR", "DATA_DIR", "ERROR_REPORTING"):
        monkeypatch.setenv(f"WANDB_{name}", "")
    run = write_run(tmp_path / "x", LINES)
    (target,) = curves([run], to="wandb").splitlines()
    assert started[0]["settings"] == SILENT_SETTINGS and SILENT_SETTINGS["mode"] == "offline"
    assert sorted(logged) == sorted({row["step"] for row in LINES})
    assert logged[60]["spike/grad_norm/skip"] == 7 and logged[60]["seen_tokens"] == 60 * 2048
    assert logged[120]["validation/web/loss"] == read_metrics(run)[-1]["validation"]["web"]["loss"]
    assert curves([run], to="wandb") == target
    left = [path.relative_to(tmp_path / "curves/wandb").as_posix() for path in (tmp_path / "curves/wandb").rglob("*")]
    assert len(left) == 2 and left[1].endswith(".wandb")
