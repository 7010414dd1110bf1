"""Web frameworks and telemetry."""
