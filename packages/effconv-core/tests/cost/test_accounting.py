from effconv_core import Budget, SearchableCNN, recipe
from torch import nn


def test_a_counter_is_asked_once_and_by_a_copy_again():
    asked = []

    def counter(searchable):
        asked.append(searchable)
        return searchable.cost

    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1))
    searchable = SearchableCNN(model, recipe("bank"))
    for _ in range(2):
        (constraint,) = searchable.constraints(Budget(180, counter))
        assert constraint.cost is searchable.cost
    assert asked == [searchable]
