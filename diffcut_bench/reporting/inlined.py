"""Pictures, styles and scripts that stand in a page, and the policy by which a browser runs no other script there."""

import base64
import hashlib
import io
from pathlib import Path
from typing import Any

from markupsafe import Markup
from PIL import Image


def inlined(name: str) -> Markup:
    """The text of a file of this room, as it stands in a page between the tags of its element."""
    return Markup("\n" + (Path(__file__).parent / name).read_text(encoding="utf-8"))


def content_policy(script: str) -> str:
    """The content security policy of a page whose only script this is: nothing is fetched, pictures are in the page."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def jpeg_uri(picture: Image.Image, **settings: Any) -> str:
    """A picture as the ``data:`` URI of a JPEG, with Pillow's settings of JPEG files."""
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", optimize=True, **settings)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
