"""The pictures of jobs, fetched before their links expire.

A link is a secret: anyone who has it can see a face. It is followed only to the vendor's stores, with nothing of
the caller's in the request, and no log, repr or error text contains it. A response is a picture only if it begins like
one.

A client imports the other modules of this package when it is used for pictures, because most clients are not.
"""

from smilejobs.images.gallery import Gallery
from smilejobs.images.hosts import IMAGE_HOSTS, Hosts
from smilejobs.images.values import Image, SavedImages

__all__ = ["IMAGE_HOSTS", "Gallery", "Hosts", "Image", "SavedImages"]
