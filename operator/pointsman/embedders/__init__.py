"""How texts become vectors, one file per kind of model."""
