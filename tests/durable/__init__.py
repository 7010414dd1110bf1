"""The watch list and its workers."""
