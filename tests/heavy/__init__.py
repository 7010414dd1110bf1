"""Long tests that are run by name."""
