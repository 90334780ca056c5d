"""``retrofit encode``: the texts of a file or folder as a memory-mapped array of embeddings."""

from __future__ import annotations

from omegaconf import DictConfig

from retrofit.commands.application import as_dictionary, command, quiet_libraries


@command("encode")
def main(config: DictConfig) -> None:
    """Encode what is not encoded yet, showing how far it is, and say where the result lies."""
    from retrofit.training.configuration import check_encoding

    resolved = as_dictionary(config)
    check_encoding(resolved)

    from retrofit.evaluation.corpus_encoding import encode_from_configuration

    quiet_libraries()
    encode_from_configuration(resolved)


if __name__ == "__main__":
    main()
