"""kill -9 at random moments of the whole chain: the products are those of an uninterrupted run (minutes)."""

import random
import subprocess
import time

import pytest

from tiny_chain import kill, products, run_chain, start, write_recipe

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", [1, 2])
def test_random_kills_leave_the_products_as_they_are(tmp_path, seed):
    recipe = write_recipe(tmp_path)
    started = time.monotonic()
    run_chain(recipe, tmp_path / "whole")
    whole_seconds = time.monotonic() - started
    draw = random.Random(seed)
    kills = 0
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        process = start("all", "--recipe", recipe, "--out", tmp_path / "killed")
        # the first kills come too soon for the chain to finish between them, whatever the machine's speed
        wait_fraction = draw.uniform(0.05, 0.25) if kills < 3 else draw.uniform(0.1, 0.7)
        try:
            process.wait(timeout=wait_fraction * whole_seconds)
            break
        except subprocess.TimeoutExpired:
            kill(process)
            kills += 1
    run_chain(recipe, tmp_path / "killed")
    assert kills >= 2
    assert products(tmp_path / "killed") == products(tmp_path / "whole")
