"""What configuration becomes, and how errors of a target reach the user."""

import json

import pytest

from retrofit.errors import UserError
from retrofit.instantiation import instantiate


def fail(message: str) -> None:
    raise UserError(message)


def test_lists_and_mappings_are_plain() -> None:
    made = instantiate({"_target_": "peft.LoraConfig", "target_modules": ["query"], "rank_pattern": {"query": 4}})
    assert json.dumps([sorted(made.target_modules), made.rank_pattern]) == '[["query"], {"query": 4}]'
    assert type(made.rank_pattern) is dict


def test_nothing_makes_nothing() -> None:
    assert instantiate(None) is None


def test_an_error_of_the_user_stays_readable() -> None:
    with pytest.raises(UserError, match=r"^the file is gone$"):
        instantiate({"_target_": f"{__name__}.fail", "message": "the file is gone"})


@pytest.mark.parametrize("target", ["torch.optim.Nope", "no_such_module.Thing"])
def test_a_target_that_is_not_there_is_one_clear_line(target: str) -> None:
    with pytest.raises(UserError, match=rf"^optimizer\._target_={target}: expected a class .* imported: \w"):
        instantiate({"optimizer": {"_target_": target, "_partial_": True}})
    with pytest.raises(UserError, match=rf"^_target_={target}: expected a class"):
        instantiate({"_target_": target})
