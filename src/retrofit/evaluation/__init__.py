"""Retrieval tasks, their metrics, and how a model is measured on them."""
