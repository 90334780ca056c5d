"""``retrofit train``: retrofit a model, or take up an interrupted run of the same configuration."""

from __future__ import annotations

import logging
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from retrofit.commands.application import as_dictionary, command, quiet_libraries, without_paths

log = logging.getLogger(__name__)


@command("train")
def main(config: DictConfig) -> None:
    """Carry out the run of a configuration unless it is finished, then show what came out.

    Of several processes, all but the first take part in the training alone.
    """
    from retrofit.analysis.evaluation_results import compare_run
    from retrofit.analysis.report import write_report
    from retrofit.analysis.retention import check_retention
    from retrofit.analysis.terminal import show_run
    from retrofit.training.configuration import check, check_sweep
    from retrofit.training.lightning_trainer import check_machine, is_first_process
    from retrofit.training.log_file import logging_to
    from retrofit.training.retrofit import retrofit, take_part
    from retrofit.training.run_folder import RunFolder

    quiet_libraries()
    resolved = as_dictionary(config)
    check(resolved)
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        check_sweep(resolved)
    check_machine(resolved["trainer"])
    run = RunFolder.of(as_dictionary(without_paths(config)), Path(resolved["paths"]["runs"]))
    if not is_first_process():
        logging.getLogger("retrofit").setLevel(logging.WARNING)  # the first process says it all
        if not run.is_finished:
            take_part(resolved, run)
        return
    if run.is_finished:
        log.info("%s is finished; delete the folder to run it again", run.path)
    else:
        run.start(OmegaConf.to_yaml(config, resolve=True))
        with logging_to(run.path / "run.log"), run.outcome():
            retrofit(resolved, run)
            write_report(run.path)
            check_retention(compare_run(run.path).comparison, resolved["evaluation"]["retention"]["max_drop"])
    show_run(run.path)


if __name__ == "__main__":
    main()
