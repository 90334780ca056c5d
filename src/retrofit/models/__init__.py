"""Models: the bi-encoder and what it is made of."""
