"""``retrofit status``: how far the runs are, and what has to be taken up again."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from retrofit.commands.application import as_dictionary, command, configuration_folder, exits_on_user_error
from retrofit.errors import UserError


@command("status")
def main(config: DictConfig) -> None:
    """Show the experiments below ``paths.runs``, once or until Ctrl-C."""
    from rich.live import Live

    from retrofit.analysis.sweep_status import WIDTH, shown
    from retrofit.analysis.terminal import console

    resolved = as_dictionary(config)
    watch = resolved["watch"]
    if watch is not None and (isinstance(watch, bool) or not isinstance(watch, int | float) or watch <= 0):
        raise UserError(f"watch={watch}: expected seconds between two looks, more than 0, or null")
    if watch is None:
        console(width=WIDTH).print(shown(_statuses(resolved)))
        return
    try:
        with Live(shown(_statuses(resolved)), console=console(width=WIDTH), auto_refresh=False) as live:
            while True:
                time.sleep(watch)
                live.update(shown(_statuses(resolved)), refresh=True)
    except KeyboardInterrupt:  # which is how it ends
        return


def _statuses(resolved: dict[str, Any]) -> list[Any]:
    from retrofit.analysis.sweep_status import ExperimentStatus, experiments

    runs, name = Path(resolved["paths"]["runs"]), resolved["experiment_name"]
    if name is None:
        found = experiments(runs)
        if not found:
            raise UserError(f"paths.runs={runs}: no run is in it")
        return found
    status = ExperimentStatus.read(runs / str(name))
    if not status.runs:
        raise UserError(f"experiment_name={name}: no run is in {status.folder}")
    return [status]


def experiment_of(sweep: str) -> str:
    """Return the name of the experiment whose runs a sweep makes.

    Args:
        sweep: such as ``negatives``, of ``conf/sweep/negatives.yaml``.

    Raises:
        UserError: there is no such sweep.
    """
    from hydra import compose, initialize_config_dir

    folder = configuration_folder() / "sweep"
    if not (folder / f"{sweep}.yaml").is_file():
        known = sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
        raise UserError(f"sweep={sweep}: expected one of {', '.join(known)}")
    with initialize_config_dir(str(configuration_folder()), version_base="1.3"):
        return str(compose("train", [f"sweep={sweep}"]).experiment_name)


def start() -> None:
    """Carry out the command, with ``sweep=NAME`` for the name of that sweep's experiment.

    Of ``retrofit train`` a sweep is a group: chosen here as there, it would make a multirun of this command.
    """
    with exits_on_user_error("status"):
        sys.argv[1:] = [
            f"experiment_name={experiment_of(name)}" if key == "sweep" else argument
            for argument in sys.argv[1:]
            for key, _, name in [argument.partition("=")]
        ]
    main()


if __name__ == "__main__":
    start()
