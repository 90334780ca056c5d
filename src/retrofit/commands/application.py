"""What every command shares: where the configuration lies, and how an error reaches the user."""

from __future__ import annotations

import copy
import functools
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError

from retrofit.artefacts import default_cache
from retrofit.errors import UserError, one_line

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
        UserError: a value refers to a key that the command does not have.
    """
    try:
        resolved: Any = OmegaConf.to_container(config, resolve=True)
    except InterpolationResolutionError as error:
        raise UserError(f"{error.full_key}: {one_line(error)[:200]}; not an option of this command") from error
    return {str(key): value for key, value in resolved.items()}


def without_paths(config: DictConfig) -> DictConfig:
    """Return a configuration whose folders are blank, wherever they are mentioned: the same on every machine."""
    blanked = copy.deepcopy(config)
    blanked.paths = dict.fromkeys(config.paths, "")
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


def command(name: str) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Return a decorator that makes a function of a configuration a command-line entry point.

    A :class:`UserError` ends a single run with one line and status 2. In a multirun it is raised, so that the launcher
    records it for its job.

    Args:
        name: of the primary configuration file, without its ending.
    """
    register_resolvers()

    def decorate(function: Callable[[DictConfig], None]) -> Callable[[], None]:
        @functools.wraps(function)
        def run(config: DictConfig) -> None:
            register_resolvers()  # a launcher may have started this process
            single = HydraConfig.get().mode != RunMode.MULTIRUN
            with exits_on_user_error(name) if single else nullcontext():
                function(config)

        entry: Callable[[], None] = hydra.main(
            version_base="1.3", config_path=str(configuration_folder()), config_name=name
        )(run)
        return entry

    return decorate
