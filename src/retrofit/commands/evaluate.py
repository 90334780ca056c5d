"""``retrofit evaluate``: models side by side, on tasks of every kind."""

from __future__ import annotations

from omegaconf import DictConfig

from retrofit.commands.application import as_dictionary, command, configuration_folder, quiet_libraries


@command("evaluate")
def main(config: DictConfig) -> None:
    """Measure every model on every suite, write what came out, show it, and check what must not be forgotten."""
    from retrofit.training.configuration import check_evaluation

    resolved = as_dictionary(config)
    check_evaluation(resolved)

    from retrofit.analysis.evaluation_results import compare_evaluation
    from retrofit.analysis.evaluation_table import show_evaluation
    from retrofit.analysis.retention import check_retention
    from retrofit.evaluation.evaluated_model import models_from_configuration
    from retrofit.evaluation.model_evaluation import evaluate_models

    quiet_libraries()
    folder = evaluate_models(resolved, models_from_configuration(resolved, configuration_folder() / "model"))
    comparison = compare_evaluation(folder).comparison
    show_evaluation(folder)
    check_retention(comparison, resolved["evaluation"]["retention"]["max_drop"])


if __name__ == "__main__":
    main()
