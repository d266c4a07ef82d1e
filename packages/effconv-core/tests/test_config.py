"""Recipes by their names, and settings that do not go together."""

import pytest
from effconv_core import RECIPES, recipe
from effconv_core.engine.train import training_of


def test_recipes_answer_to_their_former_names():
    assert recipe("default", epochs=5) == recipe("bank", epochs=5)
    assert RECIPES["default"] is RECIPES["bank"]
    assert training_of("default") == training_of("bank") != training_of("paper")
    assert recipe("literal") == recipe("paper", kernel_form="literal")
    assert training_of("literal") == training_of("paper")


def test_an_unknown_recipe_names_the_known_ones():
    with pytest.raises(ValueError, match="'fast' does not exist; pass one of bank, paper, literal"):
        recipe("fast")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"mask": "disc"}, "mask is 'disc'; pass 'gaussian' or 'ring'"),
        ({"kernel_form": "projected"}, "a ring needs taps .* pass kernel_form='bank'"),
        ({"exploration": -1.0}, "exploration is -1.0; it must be 0 or more and finite"),
        ({"exploration": 0.0, "race_steps": 0}, "finalists is 8 and exploration is 0; "),
        ({"finalists": 0}, "finalists is 0; it must be at least 1"),
        ({"race_steps": -1}, "race_steps is -1; it must be 0 or more"),
        ({"least_steps": -5}, "least_steps is -5; it must be 0 or more"),
        ({"keep": "both"}, "keep is 'both'; pass 'original' or 'best'"),
        ({"seed": -1}, "seed is -1; pass one from 0"),
        ({"seed": 2**32}, "seed is 4294967296; pass one from 0 to 4294967295"),
    ],
)
def test_settings_that_do_not_go_together_say_why(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        recipe("bank", **change)


@pytest.mark.parametrize("name", ["finalists", "race_steps", "least_steps", "seed"])
@pytest.mark.parametrize("number", [2.5, True])
def test_what_is_counted_is_a_whole_number(name, number):
    with pytest.raises(TypeError, match=f"{name} is {number}; it must be an integer"):
        recipe("bank", **{name: number})


@pytest.mark.parametrize(("steps", "epochs"), [(1, 300), (62, 5), (300, 1), (391, 1), (10_000, 1)])
def test_short_epochs_are_as_many_as_give_the_least_steps(steps, epochs):
    assert recipe("bank").epochs_of(steps) == epochs
    assert recipe("paper").epochs_of(steps) == 10
