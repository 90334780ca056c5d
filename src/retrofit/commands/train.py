"""``retrofit train``: retrofit a model, or take up an interrupted run of the same configuration."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from retrofit.commands.application import as_dictionary, command, quiet_libraries, without_places
from retrofit.errors import UserError, first_line
from retrofit.interruption import end_if_interrupted

if TYPE_CHECKING:
    from retrofit.training.run_folder import RunFolder

log = logging.getLogger(__name__)


@command("train")
def main(config: DictConfig) -> None:
    """Carry out the run of a configuration unless it is finished, then show what came out.

    Of several processes, all but the first take part in the training alone.
    """
    from retrofit.training.configuration import check
    from retrofit.training.run_folder import RunFolder

    resolved = as_dictionary(config)
    run = RunFolder.of(as_dictionary(without_places(config)), Path(resolved["paths"]["runs"]))
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        _carry_out_job(config, resolved, run)
        return
    check(resolved)

    from retrofit.analysis.terminal import show_run
    from retrofit.training.lightning_trainer import check_machine, is_first_process
    from retrofit.training.retrofit import take_part

    quiet_libraries()
    check_machine(resolved["trainer"])
    if not is_first_process():
        logging.getLogger("retrofit").setLevel(logging.WARNING)  # the first process says it all
        if not run.is_finished:
            take_part(resolved, run)
        return
    if run.is_finished:
        log.info("%s is finished; delete the folder to run it again", run.path)
    else:
        _carry_out(config, run, lambda: _work(resolved, run))
    show_run(run.path)


def _carry_out_job(config: DictConfig, resolved: dict[str, Any], run: RunFolder) -> None:
    """Carry out the run of a job of a multirun unless it is finished.

    Whatever goes wrong is left in the run folder and lets the other jobs go on: a launcher that sees an error gives up
    all jobs it has not started. What became of the jobs is told at the end of the multirun. Who asks the process to
    end (Ctrl-C, SIGTERM: Lightning makes a SystemExit of them) means all of them.
    """
    from retrofit.training.run_folder import RunInWorkError

    end_if_interrupted()
    if run.is_finished:
        log.info("%s is finished", run.path)
        return

    from retrofit.training.configuration import check, check_sweep
    from retrofit.training.lightning_trainer import check_machine

    quiet_libraries()

    def checked_work() -> None:
        try:
            check(resolved)
            check_sweep(resolved)
            check_machine(resolved["trainer"])
            _work(resolved, run)
        except UserError as error:
            log.error("%s", error)
            raise

    try:
        _carry_out(config, run, checked_work)
    except RunInWorkError as error:
        log.warning("%s", error)
    except Exception as error:
        log.warning("%s failed (%s: %s); the other jobs go on", run.path, type(error).__name__, first_line(error))
    else:
        log.info("%s is finished", run.path)


def _carry_out(config: DictConfig, run: RunFolder, work: Callable[[], None]) -> None:
    """Do the work of a run in its folder, alone, with a log and a status.

    Raises:
        RunInWorkError: another process works in the folder.
        UserError: the folder cannot be written.
    """
    from retrofit.training.log_file import logging_to

    with ExitStack() as in_folder:
        with run.writable():
            in_folder.enter_context(run.alone())
            if run.is_finished:  # by a process that has just left it
                return
            run.start(OmegaConf.to_yaml(config, resolve=True))
            in_folder.enter_context(logging_to(run.path / "run.log"))
        with run.outcome():
            work()


def _work(resolved: dict[str, Any], run: RunFolder) -> None:
    from retrofit.analysis.evaluation_results import compare_run
    from retrofit.analysis.report import write_report
    from retrofit.analysis.retention import check_retention
    from retrofit.training.retrofit import retrofit

    retrofit(resolved, run)
    write_report(run.path)
    check_retention(compare_run(run.path).comparison, resolved["evaluation"]["retention"]["max_drop"])


if __name__ == "__main__":
    main()
