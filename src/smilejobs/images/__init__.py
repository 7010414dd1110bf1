"""The pictures of jobs, fetched before their links expire.

A link is a bearer secret to a face: it is followed only to where the vendor keeps pictures, with nothing of ours in the
request, and is in no log, repr or error text. What it brings is believed to be a picture only if it looks like one.

A client imports the rest of these rooms when it is asked for pictures: few are, and all are imported.
"""

from smilejobs.images.gallery import Gallery
from smilejobs.images.hosts import IMAGE_HOSTS, Hosts
from smilejobs.images.values import Image, SavedImages

__all__ = ["IMAGE_HOSTS", "Gallery", "Hosts", "Image", "SavedImages"]
