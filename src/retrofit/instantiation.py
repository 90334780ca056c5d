"""Objects from configuration: Hydra's ``instantiate``, with the user's errors left readable."""

from __future__ import annotations

from typing import Any

import hydra.errors
import hydra.utils

from retrofit.errors import UserError


def instantiate(config: Any) -> Any:
    """Return what a ``_target_`` configuration describes, given plain lists and dictionaries; None for None.

    Raises:
        UserError: the target raised one; Hydra would bury it in an exception of its own.
    """
    if config is None:
        return None
    try:
        return hydra.utils.instantiate(config, _convert_="all")
    except hydra.errors.InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise
