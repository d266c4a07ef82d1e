"""Names of runs are names of folders within one folder, on every system."""

import re

import pytest
from effconv_core.config import recipe_name
from effconv_core.runs.names import LONGEST, check_name, folder_of, name_of
from hypothesis import given
from hypothesis import strategies as st

BAD = [
    *("", " ", "\t", ".", "..", "...", "a.", "a/b", "/a", "../a", "a\\b", "C:\\a", "-a", "--name"),
    *(" a", "a ", "a\nb", "a\x1b[2J", "a\x00", "\u2028", "\ud800", "x" * (LONGEST + 1)),
    *("ü" * 101, "con", "NUL", "com1.txt", "Aux.tar.gz", "lpt9", "con .x"),
]


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_name_is_refused_in_one_line(name):
    with pytest.raises(ValueError, match="^--name is ") as refusal:
        check_name(name)
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize("name", ["a", "thesis", ".a", "lr=0.1", "ü", "é 1", "console", "x" * 200])
def test_a_name_is_taken_as_it_is(name):
    assert check_name(name) == name


def test_names_of_words_are_those_of_earlier_releases():
    assert name_of("photos", "own_net:network", "1042", "default") == (
        "photos-own_net-network-1042-default"
    )
    assert name_of("cifar10", "cifar_resnet20", "0.27M", "random-1", "seed0") == (
        "cifar10-cifar_resnet20-0.27M-random-1-seed0"
    )


@given(st.lists(st.text(st.characters(), max_size=300), min_size=1, max_size=4))
def test_whatever_the_words_are_their_name_is_one(words):
    name = name_of("x", *words)
    assert check_name(name) == name
    assert re.fullmatch(r"[\w.-]+", name)


def test_long_words_that_differ_at_the_end_have_different_names():
    assert name_of("x" * 500, "a") != name_of("x" * 500, "b")


@pytest.mark.parametrize("words", [("..", ".."), ("/",), ("-",), ("con",), ("",)])
def test_words_of_which_nothing_is_left_make_a_name_all_the_same(words):
    check_name(name_of(*words))


@pytest.mark.parametrize("word", ["default", "bank", "paper"])
def test_a_run_is_found_under_the_former_name_of_its_recipe(word, tmp_path):
    def name(recipe):
        return name_of("photos", recipe, "seed0")

    recipe = recipe_name(word)
    assert folder_of(tmp_path, recipe, name) == tmp_path / f"photos-{recipe}-seed0"
    old = tmp_path / f"photos-{word}-seed0"
    old.mkdir()
    assert folder_of(tmp_path, recipe, name) == old
    new = tmp_path / f"photos-{recipe}-seed0"
    new.mkdir(exist_ok=True)
    assert folder_of(tmp_path, recipe, name) == new
