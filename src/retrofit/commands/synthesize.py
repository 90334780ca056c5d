"""``retrofit synthesize``: queries written for passages, filtered, and shown beside real ones."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from retrofit.commands.application import as_dictionary, command, quiet_libraries, without_places


@command("synthesize")
def main(config: DictConfig) -> None:
    """Build the synthetic data source of a configuration unless the cache holds it, and show what came out."""
    from retrofit.training.configuration import check_synthesis

    resolved = as_dictionary(config)
    check_synthesis(resolved)

    from retrofit.analysis.synthesis_report import show_synthesis, write_synthesis_report
    from retrofit.artefacts import fingerprint
    from retrofit.synthesis.from_configuration import synthesize_and_compare

    quiet_libraries()
    folder = Path(resolved["paths"]["runs"]) / "synthesis" / fingerprint(as_dictionary(without_places(config)))
    folder.mkdir(parents=True, exist_ok=True)
    synthesize_and_compare(resolved, folder)
    write_synthesis_report(folder)
    show_synthesis(folder)


if __name__ == "__main__":
    main()
