"""Where work is done: in this process, or in processes of a Ray cluster. What comes out is the same."""

from __future__ import annotations

import hashlib
import itertools
import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

from retrofit.errors import UserError, one_line

Item = TypeVar("Item")
Result = TypeVar("Result")

_RETRIES = 3  # of an item whose process is lost: a machine may go, but an item that kills each process must end
_SECONDS_A_REPORT = 20

log = logging.getLogger(__name__)


class Engine(Protocol):
    """Carries out independent items of work."""

    def map(self, make_worker: Callable[[], Callable[[Item], Result]], items: Iterable[Item]) -> Iterator[Result]:
        """Yield the result of each item, in the order of the items; an exception of the worker is raised as it is.

        Items are taken when their turn comes, so they and their results need not fit into memory together.

        Args:
            make_worker: returns what does the work; called in each process that does any. Picklable.
            items: picklable, as are the results.
        """

    def close(self) -> None:
        """End the processes that were started."""


class LocalEngine:
    """Works in this process."""

    def map(self, make_worker: Callable[[], Callable[[Item], Result]], items: Iterable[Item]) -> Iterator[Result]:
        """Yield the result of each item; see :class:`Engine`. Without an item no worker is made."""
        worker = None
        for item in items:
            if worker is None:
                worker = make_worker()
            yield worker(item)

    def close(self) -> None:
        """Do nothing."""


LOCAL = LocalEngine()


class RayEngine:
    """Works in processes of a Ray cluster, which is reached, or started on this machine, when there is something to do.

    Attributes:
        workers: number of processes.
        address: of a running cluster, such as ``auto`` or ``head:6379``; None starts one on this machine.
        cpus_per_worker: CPU cores, and threads of PyTorch, of a process.
        gpus_per_worker: GPUs of a process, or the share of one.
    """

    def __init__(self, workers: int, address: str | None, cpus_per_worker: int, gpus_per_worker: float) -> None:
        self.workers = workers
        self.address = address
        self.cpus_per_worker = cpus_per_worker
        self.gpus_per_worker = gpus_per_worker
        self._processes: list[Any] = []
        self._connected_here = False

    def map(self, make_worker: Callable[[], Callable[[Item], Result]], items: Iterable[Item]) -> Iterator[Result]:
        """Yield the result of each item; see :class:`Engine`.

        A process that already has this worker keeps it. Items of a process that is lost are done again.

        Raises:
            UserError: Ray is not installed, its cluster cannot be reached, or an item ended several processes.
        """
        waiting = iter(items)
        first = list(itertools.islice(waiting, 1))
        if not first:
            return  # nothing is started
        ray = _ray()
        self._start(ray)
        pickled = ray.cloudpickle.dumps(make_worker)
        name, recipe = hashlib.blake2b(pickled).hexdigest(), ray.put(pickled)
        in_order: deque[Any] = deque()
        running: dict[Any, int] = {}
        busy = [0] * self.workers
        reported = time.monotonic()
        for number, item in enumerate(itertools.chain(first, waiting)):
            # Two items a process: the next one is there when one is done. Results that wait for an earlier one count.
            while len(running) >= 2 * self.workers or len(in_order) >= 4 * self.workers:
                for done in ray.wait(list(running), num_returns=1)[0]:
                    busy[running.pop(done)] -= 1
                while in_order and in_order[0] not in running:
                    yield _result(ray, in_order.popleft())
            process = busy.index(min(busy))
            # In a list, Ray hands over the reference instead of what it stands for.
            reference = self._processes[process].work.remote(name, [recipe], item)
            in_order.append(reference)
            running[reference] = process
            busy[process] += 1
            if time.monotonic() - reported > _SECONDS_A_REPORT:
                log.info("engine=ray: %d items handed out, %d of them not done", number + 1, len(running))
                reported = time.monotonic()
        while in_order:
            yield _result(ray, in_order.popleft())

    def close(self) -> None:
        """End the processes, and the cluster or the connection to it, unless Ray was in use before."""
        for process in self._processes:
            _ray().kill(process)
        self._processes = []
        if self._connected_here:
            _ray().shutdown()
        self._connected_here = False

    def _start(self, ray: Any) -> None:
        if self._processes:
            return
        self._connected_here = not ray.is_initialized()
        if self._connected_here:
            self._connect(ray)
        needed = {"CPU": self.workers * self.cpus_per_worker, "GPU": self.workers * self.gpus_per_worker}
        there = ray.cluster_resources()
        for resource, amount in needed.items():
            if there.get(resource, 0) < amount:
                log.warning(
                    "engine=ray: the cluster has %g %s, %g are asked for; what is missing is waited for",
                    there.get(resource, 0), resource, amount,
                )  # fmt: skip
        options = {"num_cpus": self.cpus_per_worker, "num_gpus": self.gpus_per_worker}
        process = ray.remote(max_restarts=-1, max_task_retries=_RETRIES, **options)(_Process)
        self._processes = [process.remote(self.cpus_per_worker) for _ in range(self.workers)]

    def _connect(self, ray: Any) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # what is started here reports to nobody
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if self.address is None:
            cpus, gpus = self.workers * self.cpus_per_worker, math.ceil(self.workers * self.gpus_per_worker)
            # "local": RAY_ADDRESS of the environment is not meant.
            ray.init(address="local", num_cpus=cpus, num_gpus=gpus, include_dashboard=False, **quiet)
            return
        try:
            ray.init(address=self.address, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = one_line(error)
            raise UserError(f"engine.address={self.address}: no Ray cluster is reached there: {reason}") from error


class _Process:
    """What runs in a process of the cluster: the worker it was last asked for."""

    def __init__(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._name = ""
        self._worker: Callable[[Any], Any] | None = None

    def work(self, name: str, recipe: list[Any], item: Any) -> Any:
        """Return the worker's result of an item; the worker is made from its recipe if it is another one."""
        if self._worker is None or name != self._name:
            ray = _ray()
            self._worker = None  # let go of the old one, a model perhaps, before the new one is made
            self._worker = ray.cloudpickle.loads(ray.get(recipe[0]))()
            self._name = name
        assert self._worker is not None  # noqa: S101 -- for mypy
        return self._worker(item)


def _result(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayActorError as error:
        reason = "processes were lost again and again over an item of work (out of memory?)"
        raise UserError(f"engine=ray: {reason}: {one_line(error)}") from error


def _ray() -> Any:
    try:
        import ray
        import ray.cloudpickle
    except ImportError as error:
        raise UserError("engine=ray needs Ray: pip install -e '.[ray]'") from error
    return ray
