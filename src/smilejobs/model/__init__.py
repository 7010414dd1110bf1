"""The answers of the API as frozen attrs classes, and the tables of its codes."""
