"""For web frameworks, `smilejobs.integrations.fastapi` and `smilejobs.integrations.aiohttp`, and for telemetry.

Each is an extra of its own: ``pip install 'smilejobs[fastapi]'``, ``pip install 'smilejobs[aiohttp]'``; and
``pip install 'smilejobs[opentelemetry]'`` for `smilejobs.integrations.opentelemetry`.
"""
