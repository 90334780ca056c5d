"""What every command shares: where the configuration lies, and how an error reaches the user."""

from __future__ import annotations

import copy
import functools
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError

from retrofit.artefacts import default_cache
from retrofit.credentials import has_credentials
from retrofit.errors import UserError, one_line
from retrofit.interruption import remember_interrupts

log = logging.getLogger(__name__)


def configuration_folder() -> Path:
    """Return ``conf/``: inside an installed package, or at the top of the checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


def register_resolvers() -> None:
    """Make ``${default_cache:}`` and ``${configuration_folder:}`` known to OmegaConf."""
    OmegaConf.register_new_resolver("default_cache", lambda: str(default_cache()), replace=True)
    OmegaConf.register_new_resolver("configuration_folder", lambda: str(configuration_folder()), replace=True)


def as_dictionary(config: DictConfig) -> dict[str, Any]:
    """Return a configuration as plain dictionaries and lists, its interpolations resolved.

    Raises:
        UserError: a value refers to a key that the command does not have, or holds a URL with credentials.
    """
    try:
        resolved: Any = OmegaConf.to_container(config, resolve=True)
    except InterpolationResolutionError as error:
        raise UserError(f"{error.full_key}: {one_line(error)[:200]}; not an option of this command") from error
    for key, value in _texts(resolved):
        if has_credentials(value):
            expected = (
                "an address without credentials, which would be written to the run; they come from the environment"
            )
            raise UserError(f"{key}: expected {expected}")
    return {str(key): value for key, value in resolved.items()}


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield the texts of a configuration with their keys."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from _texts(each, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from _texts(each, f"{key}[{number}]")


def without_places(config: DictConfig) -> DictConfig:
    """Return a configuration whose folders are blank and whose engine is null, wherever they are mentioned.

    It says what is computed, not where: it is the same on every machine, and with as many of them as one likes.
    """
    blanked = copy.deepcopy(config)
    blanked.paths = dict.fromkeys(config.paths, "")
    if "engine" in blanked:
        blanked.engine = None
    return blanked


def quiet_libraries() -> None:
    """Keep advertisements, deprecation notes and progress bars of libraries out of the command's output.

    A command that trains calls it after Lightning is imported, which sets the level of its own logger.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    for library in ("pytorch_lightning", "lightning_fabric", "sentence_transformers"):
        logging.getLogger(library).setLevel(logging.ERROR)
    for category in (FutureWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", category=category)
    warnings.filterwarnings("ignore", module="pytorch_lightning")


@contextmanager
def exits_on_user_error(name: str) -> Iterator[None]:
    """End the process with one line and status 2 where a :class:`UserError` is raised.

    Args:
        name: of the command.
    """
    try:
        yield
    except UserError as error:
        print(f"retrofit {name}: {error}", file=sys.stderr)
        sys.exit(2)


def _check_flags() -> None:
    """Refuse the flags that Hydra would answer with a traceback."""
    given, _ = get_args_parser().parse_known_args()
    if given.multirun and (given.cfg or given.info):
        raise UserError("-m: not with --cfg or --info, which show one run; expected one of them")
    if given.resolve and not (given.cfg or given.help):
        raise UserError("--resolve: expected --cfg job beside it")


def command(name: str) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Return a decorator that makes a function of a configuration a command-line entry point.

    A :class:`UserError` ends it with one line and status 2; jobs of a multirun leave theirs in their run folders.

    Args:
        name: of the primary configuration file, without its ending.
    """
    register_resolvers()

    def decorate(function: Callable[[DictConfig], None]) -> Callable[[], None]:
        @functools.wraps(function)
        def run(config: DictConfig) -> None:
            register_resolvers()  # a launcher may have started this process
            remember_interrupts()
            with exits_on_user_error(name):
                function(config)

        entry: Callable[[], None] = hydra.main(
            version_base="1.3", config_path=str(configuration_folder()), config_name=name
        )(run)

        @functools.wraps(function)
        def checked() -> None:
            with exits_on_user_error(name):
                _check_flags()
            entry()

        return checked

    return decorate
