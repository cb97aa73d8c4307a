import pytest
from pydantic import Field

from rinsho.errors import UserError
from rinsho.recipe import Settings, load, settings, to_yaml, with_overrides


class Inner(Settings):
    hidden_size: int = Field(64, ge=1)


class Recipe(Settings):
    max_tokens: int = Field(10, ge=1, description="how many")
    learning_rate: float = 0.1
    model: Inner = Inner()
    models: tuple[Inner, ...] = ()
    names: tuple[str, ...] = ()


def test_defaults_types_and_freezing():
    recipe = settings(Recipe, {"learning_rate": 1, "model": {"hidden_size": 8}}, "r.yaml corpus")
    assert (recipe.max_tokens, recipe.learning_rate, recipe.model.hidden_size) == (10, 1.0, 8)
    with pytest.raises(ValueError, match="frozen"):
        recipe.max_tokens = 3


def test_unknown_key_is_refused_with_a_suggestion():
    with pytest.raises(UserError, match=r"r\.yaml corpus: unknown key 'max_token' \(did you mean 'max_tokens'\?\)"):
        settings(Recipe, {"max_token": 3}, "r.yaml corpus")


def test_unknown_nested_key_is_refused_with_a_suggestion_of_its_own_level():
    with pytest.raises(UserError, match=r"'model\.hiden_size' \(did you mean 'hidden_size'\?\)"):
        settings(Recipe, {"model": {"hiden_size": 3}}, "r.yaml corpus")


def test_unknown_key_within_a_list_is_refused_with_a_suggestion_of_its_own_level():
    with pytest.raises(UserError, match=r"'models\.1\.hiden_size' \(did you mean 'hidden_size'\?\)"):
        settings(Recipe, {"models": [{}, {"hiden_size": 3}]}, "r.yaml corpus")


def test_a_single_value_for_a_list_is_told_in_yaml_terms():
    with pytest.raises(UserError, match=r"names is 'a': a list is expected, for instance \[notes\]"):
        settings(Recipe, {"names": "a"}, "r.yaml corpus")


def test_all_problems_come_at_once_in_one_line():
    with pytest.raises(UserError) as caught:
        settings(Recipe, {"max_tokens": "many", "learning_rate": [], "x": 1}, "r.yaml corpus")
    line = str(caught.value)
    assert "max_tokens is 'many'" in line
    assert "learning_rate is []" in line
    assert "unknown key 'x'" in line
    assert "\n" not in line


def test_out_of_range_is_refused():
    with pytest.raises(UserError, match="max_tokens is 0: input should be greater than or equal to 1"):
        settings(Recipe, {"max_tokens": 0}, "r.yaml corpus")


def test_to_yaml_writes_every_default_and_reads_back():
    import yaml

    assert Recipe(**yaml.safe_load(to_yaml(Recipe()))) == Recipe()


def test_overrides_do_not_change_their_source():
    raw = {"corpus": {"a": 1}}
    assert with_overrides(raw, ["corpus.a=2", "seed=7"]) == {"corpus": {"a": 2}, "seed": 7}
    assert raw == {"corpus": {"a": 1}}


@pytest.mark.parametrize("word", ["corpus.a", "=3", "corpus..a=1", "corpus.a.b=1"])
def test_unreadable_override_is_a_user_error(word):
    with pytest.raises(UserError, match="--set"):
        with_overrides({"corpus": {"a": 1}}, [word])


@pytest.mark.parametrize(
    ("content", "message"), [("a: [", "not valid YAML"), ("- a", "not a mapping"), (b"\xff", "YAML")]
)
def test_broken_recipe_files_are_user_errors(tmp_path, content, message):
    path = tmp_path / "r.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message):
        load(path)


def test_missing_recipe_file_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="not there"):
        load(tmp_path / "r.yaml")
