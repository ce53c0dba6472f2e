"""What a reviewer has said, as pairs of rows."""

import pickle

import numpy as np
import pytest
from fiftyone_selfsame.brain.constraints import Constraints
from fiftyone_selfsame.brain.errors import ConfigError


def test_sets_become_pairs_that_say_the_same():
    constraints = Constraints.from_sets(together=[[4, 1, 2]], apart=[([0, 3], [1, 5])])
    closure = constraints.closure(6)
    assert closure[1] == closure[2] == closure[4]
    assert len(np.unique(closure)) == 4
    assert {tuple(pair) for pair in constraints.cannot.tolist()} == {(0, 1), (0, 5), (3, 1), (3, 5)}


def test_nothing_said_is_empty_and_every_row_stands_alone():
    constraints = Constraints.from_sets()
    constraints.check(0)
    constraints.check(3)
    assert constraints.empty
    assert len(constraints.closure(0)) == 0
    assert constraints.closure(3).tolist() == [0, 1, 2]
    assert constraints.forbidden(np.arange(3)).shape == (0, 2)


def test_a_contradiction_through_a_chain_is_refused_with_its_rows_named():
    constraints = Constraints.from_sets(together=[[0, 1], [1, 2]], apart=[([2], [0])])
    with pytest.raises(ConfigError, match="rows 2 and 0"):
        constraints.check(3)


@pytest.mark.parametrize("bad", [{"together": [[0, 7]]}, {"apart": [([-1], [0])]}])
def test_a_row_that_does_not_exist_is_refused(bad):
    with pytest.raises(ConfigError, match="rows 0 to 2"):
        Constraints.from_sets(**bad).check(3)


def test_forbidden_parts_are_named_once_in_either_direction():
    constraints = Constraints.from_sets(together=[[0, 1], [2, 3]], apart=[([0, 1], [2]), ([3], [1])])
    forbidden = constraints.forbidden(constraints.closure(5))
    assert forbidden.tolist() == [[0, 1]]


def test_constraints_survive_pickling():
    constraints = Constraints.from_sets(together=[[0, 1]], apart=[([0], [2])])
    copy = pickle.loads(pickle.dumps(constraints))
    assert copy.must.tolist() == [[0, 1]]
    assert copy.cannot.tolist() == [[0, 2]]
