"""Everything long: reading a source, embedding, loading an index. Resumable and idempotent."""
