"""Retrofit small multilingual encoders for retrieval, and measure what was gained and what was forgotten."""

__version__ = "0.1.0"
