"""``retrofit report``: the page and the figures of all findings, or of the sweeps of one."""

from __future__ import annotations

import sys
from pathlib import Path

from omegaconf import DictConfig

from retrofit.commands.application import as_dictionary, command
from retrofit.errors import UserError


@command("report")
def make_report(config: DictConfig) -> None:
    """Collect the runs of sweeps where any are named, then write the page and the figures, and say where they are."""
    from retrofit.analysis.overview import PAGE, show_written, write_findings, write_sweep

    resolved = as_dictionary(config)
    asked, output, page = resolved["sweep"]["name"], resolved["output"], resolved["page"]
    if page is not None and Path(page).is_dir():
        raise UserError(f"page={page}: is a folder; expected the name of an HTML file")
    if output is not None and Path(output).exists() and not Path(output).is_dir():
        raise UserError(f"output={output}: is a file; expected a folder")
    if asked is None:
        experiments = Path(resolved["experiments"])
        show_written(write_findings(experiments, Path(page or experiments / PAGE)))
        return
    from retrofit.analysis.sweep_results import collect_sweeps

    names = [asked] if isinstance(asked, str) else list(asked)
    if not names:
        raise UserError("sweep=[]: expected the name of a sweep, or several")
    # A sweep's experiment is named as the sweep is.
    runs = [Path(resolved["paths"]["runs"]) / name.replace("/", "_") for name in names]
    for name, folder in zip(names, runs, strict=True):
        if not folder.is_dir():
            raise UserError(f"sweep={name}: no runs in {folder}; 'retrofit train -m sweep={name}' makes them")
    tables = Path(output or runs[0].parent / "reports" / "_".join(folder.name for folder in runs))
    collect_sweeps(runs, tables, resolved["reference"])
    show_written(write_sweep(tables, Path(page or tables / PAGE)))


def main() -> None:
    """Carry out the command line."""
    # Hydra would load the option of the group, which starts runs; here it only names them.
    sys.argv[1:] = [f"sweep.name={a.removeprefix('sweep=')}" if a.startswith("sweep=") else a for a in sys.argv[1:]]
    make_report()


if __name__ == "__main__":
    main()
