"""At home in a web framework: `smilejobs.integrations.fastapi` and `smilejobs.integrations.aiohttp`.

Each is an extra of its own: ``pip install 'smilejobs[fastapi]'``, ``pip install 'smilejobs[aiohttp]'``.
"""
