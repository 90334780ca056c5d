"""Synthesis: from passages to queries, by templates alone or through a language model, and back through filters."""
