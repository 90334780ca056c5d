"""Objects from configuration: Hydra's ``instantiate``, with the user's errors left readable."""

from __future__ import annotations

import re
from typing import Any

import hydra.errors
import hydra.utils

from retrofit.errors import UserError, one_line


def instantiate(config: Any) -> Any:
    """Return what a ``_target_`` configuration describes, given plain lists and dictionaries; None for None.

    Raises:
        UserError: the target raised one, which Hydra would bury in an exception of its own, or there is no such target.
    """
    if config is None:
        return None
    try:
        return hydra.utils.instantiate(config, _convert_="all")
    except hydra.errors.InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        if missing := re.match("Error locating target '([^']*)'", str(error)):
            at = re.search(r"full_key: (\S+)", str(error))
            key = f"{at[1]}._target_" if at else "_target_"
            why = one_line(error.__cause__ or error)
            raise UserError(f"{key}={missing[1]}: expected a class or function that can be imported: {why}") from error
        raise
