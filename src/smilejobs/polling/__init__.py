"""The rules of waiting, as pure values and one state machine: no I/O, no clock, no event loop."""
