"""Lightning's trainer as a configuration asks for it, and what has to be known of its processes before it starts them.

Lightning, torchrun or SLURM start the processes of a run; each carries out the same command. The first one does what a
run of one process does. The others train beside it, write nothing and end with the training.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import SIGTERMException

from retrofit.errors import UserError, one_line
from retrofit.interruption import end_if_interrupted
from retrofit.training.checkpoint_files import CheckpointFiles
from retrofit.training.datamodule import RetrievalDataModule
from retrofit.training.module import RetrievalModule


def is_first_process() -> bool:
    """Return whether this process is the one that measures, exports and writes."""
    return bool(rank_zero_only.rank == 0)  # type: ignore[attr-defined]  # Lightning's attribute of a function


def processes(settings: Mapping[str, Any]) -> int:
    """Return how many processes train, of the values of ``trainer``."""
    return int(settings["devices"] * settings["num_nodes"])


def check_machine(settings: Mapping[str, Any]) -> None:
    """Return if this machine has what the values of ``trainer`` ask for, and as many processes were started.

    Raises:
        UserError: the key to change.
    """
    if settings["accelerator"] == "gpu" and settings["devices"] > torch.accelerator.device_count():
        raise UserError(
            f"trainer.devices={settings['devices']}: expected at most {torch.accelerator.device_count()}, "
            "the number of GPUs of this machine (trainer.accelerator=cpu does without)"
        )
    started = _started_processes()
    if started is None:
        if settings["num_nodes"] > 1:
            raise UserError(
                f"trainer.num_nodes={settings['num_nodes']}: expected 1 unless the processes are started by torchrun "
                "or SLURM (the commands stand in conf/trainer/torchrun.yaml and slurm.yaml)"
            )
    elif started != processes(settings):
        raise UserError(
            f"trainer.devices={settings['devices']}: expected {started} with trainer.num_nodes, the number of "
            "processes that torchrun or SLURM started"
        )


def _started_processes() -> int | None:
    """Return how many processes a launcher started, None where there is none."""
    try:
        for environment in (TorchElasticEnvironment, SLURMEnvironment):
            if environment.detect():
                return int(environment().world_size())
    except RuntimeError as error:  # SLURM was asked for tasks in a way Lightning cannot follow
        raise UserError(one_line(error)) from error
    return None


def lightning_trainer(config: Mapping[str, Any], callbacks: Sequence[pl.Callback], folder: Path) -> pl.Trainer:
    """Return the trainer of a run.

    Args:
        config: the resolved configuration; ``trainer`` and ``optimizer.clip_norm`` are read.
        callbacks: the same kinds in every process, but for those that only write.
        folder: of the run.
    """
    settings = config["trainer"]
    return pl.Trainer(
        accelerator=settings["accelerator"],
        devices=settings["devices"],
        num_nodes=settings["num_nodes"],
        strategy=_strategy(settings),
        gradient_clip_val=config["optimizer"]["clip_norm"],
        max_epochs=1,
        logger=False,
        callbacks=[*callbacks, _EndWhenInterrupted()],
        enable_progress_bar=settings["progress_bar"],
        enable_model_summary=False,
        plugins=[CheckpointFiles(settings["keep_checkpoints"])],
        use_distributed_sampler=False,
        default_root_dir=folder,
    )


class _EndWhenInterrupted(pl.Callback):
    def on_train_batch_start(self, *_: Any) -> None:
        """End the training before a step if an interrupt was dropped in the one before, or in its checkpoint."""
        end_if_interrupted()


def _strategy(settings: Mapping[str, Any]) -> Strategy | str:
    backend = settings["process_group_backend"]
    if settings["strategy"] == "ddp":
        return DDPStrategy(process_group_backend=backend)
    if settings["strategy"] == "fsdp":
        # Lightning's own FSDPStrategy is of FSDP's first version, which needs a GPU and all of a layer to learn alike.
        return ModelParallelStrategy(
            data_parallel_size=processes(settings),
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            process_group_backend=backend,
        )
    return "auto"


def fit(trainer: pl.Trainer, module: RetrievalModule, data: RetrievalDataModule, checkpoint: Path | None) -> None:
    """Train, from a checkpoint where there is one.

    Raises:
        SystemExit: the process was asked to end, with the status of that.
    """
    threads = torch.get_num_threads()
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except SIGTERMException as asked:  # Lightning would have the process end as if all were done
        raise SystemExit(128 + signal.SIGTERM) from asked
    torch.set_num_threads(threads)  # which Lightning divided among the processes of the machine
