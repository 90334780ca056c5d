"""Curation: which training rows of a source are fit to train on, given what evaluation measures."""
