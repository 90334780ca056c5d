"""``retrofit inspect``: the data card of a selection."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from retrofit.commands.application import as_dictionary, command, quiet_libraries, without_places


@command("inspect")
def main(config: DictConfig) -> None:
    """Write ``data_card.json`` and ``data_card.html`` of the selection a configuration makes, and show them."""
    from retrofit.training.configuration import check_inspection

    resolved = as_dictionary(config)
    check_inspection(resolved)

    from retrofit.analysis.data_card import CARD, show_data_card, write_data_card
    from retrofit.artefacts import fingerprint, write_json
    from retrofit.data.inspection import inspect_selection
    from retrofit.data.training_data import TrainingData, evaluation_sources
    from retrofit.instantiation import instantiate
    from retrofit.models.bi_encoder import load_tokenizer, token_ids

    quiet_libraries()
    model = resolved["model"]
    tokenizer = load_tokenizer(Path(instantiate(model["checkpoint"])))
    data = TrainingData.prepare(resolved, evaluation_sources(resolved))
    card = inspect_selection(
        data,
        resolved["data_source"]["name"],
        lambda texts, kind: token_ids(tokenizer, model["prompts"], texts, kind, None),
        resolved["sample"],
        resolved["examples"],
        resolved["seed"],
    )
    folder = Path(resolved["paths"]["runs"]) / "inspections" / fingerprint(as_dictionary(without_places(config)))
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / CARD, card)
    write_data_card(folder)
    show_data_card(folder)


if __name__ == "__main__":
    main()
