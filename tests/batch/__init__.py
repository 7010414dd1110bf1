"""Files of jobs, and tables of results."""
