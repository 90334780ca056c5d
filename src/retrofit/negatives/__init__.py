"""Hard negatives: candidates by search, filters against false negatives, a choice among what is left."""
