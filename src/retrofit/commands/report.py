"""``retrofit report``: the page and the figures of all findings, or of one sweep."""

from __future__ import annotations

import sys
from pathlib import Path

from omegaconf import DictConfig

from retrofit.commands.application import as_dictionary, command
from retrofit.errors import UserError


@command("report")
def make_report(config: DictConfig) -> None:
    """Collect the runs of a sweep where one is named, then write the page and the figures, and say where they are."""
    from retrofit.analysis.overview import PAGE, show_written, write_findings, write_sweep

    resolved = as_dictionary(config)
    name = resolved["sweep"]["name"]
    if name is None:
        experiments = Path(resolved["experiments"])
        show_written(write_findings(experiments, Path(resolved["page"] or experiments / PAGE)))
        return
    from retrofit.analysis.sweep_results import collect_sweep

    runs = Path(resolved["paths"]["runs"])
    if not (runs / name).is_dir():
        raise UserError(f"sweep={name}: no runs in {runs / name}; 'retrofit train -m sweep={name}' makes them")
    folder = runs / "reports" / name
    collect_sweep(runs / name, folder)
    show_written(write_sweep(folder, Path(resolved["page"] or folder / PAGE)))


def main() -> None:
    """Carry out the command line."""
    # Hydra would load the option of the group, which starts runs; here it only names them.
    sys.argv[1:] = [f"sweep.name={a.removeprefix('sweep=')}" if a.startswith("sweep=") else a for a in sys.argv[1:]]
    make_report()


if __name__ == "__main__":
    main()
