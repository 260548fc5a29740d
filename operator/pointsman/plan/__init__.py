"""What to do next, decided from what was observed. Pure."""
