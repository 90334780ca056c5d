"""Text in, batches out: records, sources, splits, selection, batching."""
