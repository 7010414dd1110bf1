"""The core: no socket, no database, no process."""
