"""Thin Hydra entry points: compose the configuration, call what does the work, show the outcome."""
