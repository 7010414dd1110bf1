"""Bytes to model and back: signing, verifying, reading. Nothing here sends anything or looks at a clock."""
