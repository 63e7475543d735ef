"""What the console answers with where it shows no page."""

import msgspec
from starlette.responses import Response


def as_json(value: object, status: int = 200) -> Response:
    """A value as JSON."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def in_words(text: str, status: int) -> Response:
    """A sentence for people, and for whoever reads a status."""
    return Response(text + "\n", status, media_type="text/plain")
