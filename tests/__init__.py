"""The tests: a package that mirrors src, helpers in `tests.helpers`."""
