"""The rules of waiting, as values and one state machine. This package has no I/O, no clock and no event loop."""
