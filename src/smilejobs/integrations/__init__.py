"""Integrations with FastAPI, aiohttp and OpenTelemetry.

Each has an extra: ``pip install 'smilejobs[fastapi]'`` for `smilejobs.integrations.fastapi`, ``smilejobs[aiohttp]`` for
`smilejobs.integrations.aiohttp`, ``smilejobs[opentelemetry]`` for `smilejobs.integrations.opentelemetry`.
"""
