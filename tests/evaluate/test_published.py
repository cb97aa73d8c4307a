"""The data files of published scores: every row whole, with a source, and equal to what its table says."""

import re

import pytest

from rinsho.evaluate.published import FILES, HOW, read

ALL = [(name, score) for name in FILES for score in read(name).scores]


@pytest.mark.parametrize("name", FILES)
def test_file_names_its_columns_and_what_stands_behind_them(name):
    found = read(name)
    assert found.name == name
    assert len(found.columns) == len(found.items) == len(set(found.columns))


def test_every_row_has_a_source_a_way_of_asking_and_one_cell_a_column():
    for name, score in ALL:
        assert len(score.cells) == len(read(name).columns) == len(score.items), score.model
        assert score.how in HOW, score.model
        assert re.search(r"20\d\d", score.source), f"{score.model}: a source without a date"
        assert any(cell is not None for cell in score.cells) or score.share, score.model


def test_numbers_are_in_their_range():
    for name, score in ALL:
        for cell, items in zip(score.cells, score.items, strict=True):
            if name.startswith("igakuqa") and cell is not None:
                assert isinstance(cell, int), score.model
                assert 0 <= cell <= items, score.model
            elif isinstance(cell, tuple):
                assert -1 <= cell[0] <= 2, score.model
                assert 0 <= cell[1] <= 1, score.model
            elif cell is not None:
                assert 0 <= cell <= 1, score.model


def test_a_row_that_repeats_another_table_names_a_row_of_this_file():
    for name, score in ALL:
        if score.same_as:
            assert [s for s in read(name).scores if s.model == score.same_as and not s.same_as], score.model


@pytest.mark.parametrize(
    ("model", "total"),
    [
        ("GPT-4", 1944), ("ChatGPT (gpt-3.5-turbo)", 1366), ("GPT-4o", 2152), ("Preferred-MedLLM-Qwen-72B", 2156),
        ("GLM-5.1 (thinking)", 2283), ("Kimi K2.6 (thinking)", 2245), ("Qwen2.5-72B", 1992),
        ("Llama3-Preferred-MedSwallow-70B", 1976), ("NCVC-slm-1-instruct (seen 20B tokens)", 473),
        ("NCVC-slm-1-instruct (seen 50B tokens)", 448), ("NCVC-slm-1-base (seen 20B tokens)", 341),
        ("NCVC-slm-1-base (seen 50B tokens)", 343), ("NCVC-slm-1-instruct (seen 20B, with synthetic)", 174),
        ("NCVC-slm-1-instruct (seen 50B, with synthetic)", 343),
    ],
)  # fmt: skip
def test_points_of_the_years_add_up_to_the_stated_sum(model, total):
    found = [score for score in read("igakuqa").scores if score.model == model]
    assert {sum(score.cells) for score in found} == {total}


def test_points_to_be_had_are_2485():
    assert sum(read("igakuqa").items) == 2485


def test_tables_of_the_reports_are_whole():
    counts = {2: ("igakuqa", 15), 5: ("igakuqa", 4), 3: ("jmed_choice", 14), 6: ("jmed_choice", 4),
              4: ("jmed_entities", 14), 7: ("jmed_entities", 4)}  # fmt: skip
    for table, (name, count) in counts.items():
        assert sum(f"Table {table}," in score.source for score in read(name).scores) == count, table
    assert sum("MedAlpaca," in score.source for score in read("usmle").scores) == 12


def test_the_two_exact_f1_of_one_model_are_both_kept_and_told():
    rows = [s for s in read("jmed_entities").scores if s.model == "NCVC-slm-1-instruct (seen 50B tokens)"]
    assert [row.cells[0] for row in rows] == [(0.90, 0.24), (0.90, 0.34)]
    assert all("0.34 in Table 7" in row.remark for row in rows)


def test_models_tuned_on_the_pools_are_marked():
    for name in ("jmed_choice", "jmed_entities"):
        for score in read(name).scores:
            assert bool(score.leaked) == (score.how == "fine-tuned")
            assert score.how != "fine-tuned" or "NCVC" in score.model


def test_rows_on_all_items_of_the_pools_are_set_apart():
    apart = [score.model for score in read("jmed_choice").scores if score.apart]
    assert len(apart) == 6
    assert "Kimi K2.6 (thinking)" in apart
