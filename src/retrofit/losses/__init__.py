"""Objectives over query and passage embeddings."""
