"""Turning a mapping a user wrote into a checked value."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import msgspec

from semagent.errors import ConfigError

_MOST = 1e9
"""Beyond all that is measured or counted here, in any unit; its powers are still numbers."""

Positive = Annotated[float, msgspec.Meta(gt=0, le=_MOST)]
NotNegative = Annotated[float, msgspec.Meta(ge=0, le=_MOST)]
Finite = Annotated[float, msgspec.Meta(ge=-_MOST, le=_MOST)]
Metres = Annotated[float, msgspec.Meta(gt=0, le=1)]
"""What is longer than a metre was written in another unit."""

Count = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]
"""What is longer than an hour was written in another unit."""


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of everything read from a configuration: a misspelt key is an error."""


T = TypeVar("T", bound=Options)


def parse_options(options: Mapping[str, Any], schema: type[T], *, where: str) -> T:
    """Check ``options`` against ``schema``, a subclass of `Options`.

    Args:
        options: keys and values as read from YAML.
        schema: what is allowed.
        where: name of the file or section, to begin the message with.

    Raises:
        ConfigError: a key is unknown or missing, or a value has the wrong type or range; the
            message names the key and lists the keys that are allowed.
    """
    try:
        return msgspec.convert(dict(options), schema)
    except msgspec.ValidationError as error:
        allowed = ", ".join(field.encode_name for field in msgspec.structs.fields(schema))
        raise ConfigError(f"{where}: {error} (keys allowed here: {allowed})") from error
