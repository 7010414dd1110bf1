"""The tools for the tests of callers."""
