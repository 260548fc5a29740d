"""What is true of documents, vectors and scores wherever they are kept. Pure."""
