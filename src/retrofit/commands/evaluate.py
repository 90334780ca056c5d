"""``retrofit evaluate``: the models of finished runs beside their base, on BEIR folders."""

from __future__ import annotations

from omegaconf import DictConfig

from retrofit.commands.application import as_dictionary, command, quiet_libraries


@command("evaluate")
def main(config: DictConfig) -> None:
    """Measure every run on every folder, write ``evaluation_<folder>.csv`` to the run and show the figures."""
    quiet_libraries()
    from retrofit.analysis.terminal import show_comparison
    from retrofit.training.on_folders import evaluate_on_folders

    for path in evaluate_on_folders(as_dictionary(config)):
        show_comparison(path)


if __name__ == "__main__":
    main()
