"""Training a bi-encoder with Lightning, and the run folder that explains what happened."""
