"""The routes of the sandbox: how requests are read, answered and refused."""
