"""What the documentation shows works as it is written."""
