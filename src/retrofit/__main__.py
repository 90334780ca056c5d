"""``retrofit COMMAND [overrides]``: the one way in."""

from __future__ import annotations

import runpy
import sys

COMMANDS = {
    "train": "measure a model, retrofit it, and measure what was gained and what was forgotten",
    "status": "show how far runs and sweeps are, what failed and why",
    "evaluate": "measure models side by side on BEIR folders",
    "report": "draw what sweeps have found, and say which findings of the paper they reproduce",
    "inspect": "show what is in a selection of training data, and what was left out",
    "synthesize": "write queries for passages, filter them, and show them beside real ones",
    "mine": "find hard negatives for a selection, and measure how many are false",
    "encode": "turn the texts of a file or folder into a memory-mapped array of embeddings",
    "search": "answer queries over a file of texts with a trained model",
}

# A command whose module would have the name of one of the standard library.
MODULES = {"inspect": "inspect_data"}


def usage() -> str:
    """Return the help text."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name.ljust(width)}  {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            "usage: retrofit COMMAND [key=value ...]",
            "",
            *lines,
            "",
            "Every knob is a configuration key: 'retrofit COMMAND --cfg job' prints them all,",
            "'retrofit COMMAND --help' the choices of each group.",
        ]
    )


def main() -> None:
    """Run the command named by the first argument."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(usage())
        sys.exit(0 if len(sys.argv) > 1 else 2)
    name = sys.argv[1]
    if name not in COMMANDS:
        print(f"retrofit: no command {name!r}\n\n{usage()}", file=sys.stderr)
        sys.exit(2)
    # As if the command's own module had been started: what starts it again (Lightning's DDP) finds it by its name.
    sys.argv = sys.argv[1:]
    runpy.run_module(f"retrofit.commands.{MODULES.get(name, name)}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
