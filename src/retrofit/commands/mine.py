"""``retrofit mine``: hard negatives of a selection, and how far they can be trusted."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from retrofit.commands.application import as_dictionary, command, quiet_libraries, without_places


@command("mine")
def main(config: DictConfig) -> None:
    """Mine negatives unless the cache holds them, measure false negatives, and show both."""
    from retrofit.training.configuration import check_mining

    resolved = as_dictionary(config)
    check_mining(resolved)

    from retrofit.analysis.mining_report import show_mining
    from retrofit.artefacts import fingerprint
    from retrofit.negatives.from_configuration import mine_and_measure

    quiet_libraries()
    folder = Path(resolved["paths"]["runs"]) / "mining" / fingerprint(as_dictionary(without_places(config)))
    folder.mkdir(parents=True, exist_ok=True)
    mine_and_measure(resolved, folder)
    show_mining(folder)


if __name__ == "__main__":
    main()
