"""Where a dataset's corpus, chunks, vectors, snapshots and facts are kept."""
