"""Where indexes live, one file per vector database."""
