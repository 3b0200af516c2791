"""The options of `ModalBackend`, checked and brought into the form that Modal takes.

Modal's client takes texts for memory and processors, and sends them as 0; out of range timeouts it sends as they are.
So everything is looked at here, when the backend is made.
"""

from __future__ import annotations

import importlib.util
import math
import posixpath
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

from hypernodes_modal._gpus import near_gpu

OWNER = "ModalBackend"

LONGEST = 24 * 60 * 60
"""Seconds that one call may take on Modal."""

LARGEST = 2**32 - 1
"""The greatest number of MiB, and of thousandths of a core, that can be asked for at all."""

_MEMORY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*")
_MEBIBYTES = {
    unit: 1024**power for power, letter in enumerate("mgt") for unit in (f"{letter}", f"{letter}b", f"{letter}ib")
}
_RESERVED = ("/", "/root", "/tmp")


def fault(option: str, value: object, instead: str) -> ValueError:
    return ValueError(f"{OWNER}: {option}={value!r}; {instead}")


def memory_in_mib(memory: object, option: str = "memory") -> int:
    """`"32GB"`, `"512MiB"` or a number of MiB as MiB. As Modal's own, units are powers of 1024."""
    if isinstance(memory, int) and not isinstance(memory, bool) and 1 <= memory <= LARGEST:
        return memory
    if isinstance(memory, str):
        found = _MEMORY.fullmatch(memory)
        if found is not None and found[2].lower() in _MEBIBYTES:
            size: float = float(found[1]) * _MEBIBYTES[found[2].lower()]
            if 1 <= size <= LARGEST:
                return math.ceil(size)
    raise fault(option, memory, "give text such as '32GB' or '512MB', or a whole number of MiB")


def processors(cpu: object, option: str = "cpu") -> float:
    """A number of processor cores, fractions allowed; text such as `"4"` too."""
    number = cpu
    if isinstance(cpu, str):
        try:
            number = float(cpu)
        except ValueError:
            number = None
    if isinstance(number, int | float) and not isinstance(number, bool) and 0 < number <= LARGEST / 1000:
        return float(number)
    raise fault(option, cpu, "give a number of cores that a machine can have, such as 4 or 0.5")


def bounds(value: Any, option: str, convert: Any) -> Any:
    """One amount, or what is asked for with what is the most."""
    if isinstance(value, tuple | list):
        if len(value) != 2:
            raise fault(option, value, "give one amount, or two: what is reserved, and the most")
        low, high = (convert(one, option) for one in value)
        if low > high:
            raise fault(option, value, "what is reserved is more than the most")
        return low, high
    return convert(value, option)


def gpu_text(gpu: object) -> str:
    """A GPU as Modal writes it, such as `"A100"` or `"H100:2"`; a name that nobody knows is warned about."""
    if not isinstance(gpu, str) or not gpu.strip():
        raise fault("gpu", gpu, "give a name such as 'A100' or 'H100:2', or leave it out")
    text = gpu.strip().upper()
    kind, colon, count = text.partition(":")
    if colon and not (count.isdecimal() and 1 <= int(count) <= 8):
        raise fault("gpu", gpu, "after the colon stands how many a container gets, 1 to 8")
    near = near_gpu(kind)
    if near is not None:
        warnings.warn(
            f"{OWNER}: gpu={gpu!r} is no GPU that this version knows of{near}; it is sent to Modal as it is",
            stacklevel=_outside(),
        )
    return text


def whole_number(option: str, value: object, least: int, most: int | None = None, what: str = "") -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        span = f"from {least} to {most:,}" if most is not None else f"of at least {least}"
        raise fault(option, value, f"give a whole number{what} {span}")
    return value


def seconds(option: str, value: object, least: int, most: int) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return whole_number(option, value, least, most, " of seconds")


def mounted(volumes: object) -> dict[str, Any]:
    """Where what is mounted: absolute paths to `modal.Volume`, `modal.CloudBucketMount` or a volume's name."""
    import modal

    if not isinstance(volumes, Mapping):
        raise fault("volumes", volumes, "give a dict, such as {'/models': modal.Volume.from_name('models')}")
    found: dict[str, Any] = {}
    for path, volume in volumes.items():
        place = PurePath(path).as_posix() if isinstance(path, str | PurePath) else ""
        if not place.startswith("/") or posixpath.normpath(place) != place or place in _RESERVED:
            raise fault(
                "volumes", volumes, f"{path!r} cannot be mounted at; give an absolute path but '/', '/root' and '/tmp'"
            )
        if isinstance(volume, str):
            volume = modal.Volume.from_name(volume, create_if_missing=True)
        if not isinstance(volume, modal.Volume | modal.CloudBucketMount):
            raise fault(
                "volumes",
                volumes,
                f"what is mounted at {path!r} is no volume; give a modal.Volume, a modal.CloudBucketMount or a "
                "volume's name",
            )
        found[place] = volume
    return found


def given_secrets(secrets: object) -> tuple[Any, ...]:
    """Secrets as a tuple; a text is the name of one that is kept at Modal."""
    import modal

    if isinstance(secrets, str | Mapping) or not isinstance(secrets, Iterable):
        raise ValueError(
            f"{OWNER}: secrets is a {type(secrets).__name__}; give a list of names of secrets kept at Modal, or of "
            "modal.Secret.from_name(...) and modal.Secret.from_dict(...)"
        )
    found = []
    for at, secret in enumerate(secrets):
        if isinstance(secret, str):
            secret = modal.Secret.from_name(secret)
        if not isinstance(secret, modal.Secret):
            # Its value stays out of the message: it may well be the secret itself.
            raise ValueError(
                f"{OWNER}: secrets[{at}] is a {type(secret).__name__}; give the name of a secret kept at Modal, or "
                "modal.Secret.from_dict({'NAME': value})"
            )
        found.append(secret)
    return tuple(found)


def _outside() -> int:
    """The `stacklevel` of the caller of the backend's constructor, as seen from the caller of this."""
    import sys

    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and (
        frame.f_globals.get("__name__", "").startswith("hypernodes_modal.") or frame.f_code.co_name == "__init__"
    ):
        level, frame = level + 1, frame.f_back
    return level


def names(option: str, value: object) -> tuple[str, ...] | None:
    """Names of packages as a tuple; None where they are left to be found."""
    if value is None:
        return None
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise fault(option, value, "give a list of names, such as ['my_package']")
    found = tuple(value)
    for name in found:
        if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
            raise fault(option, value, f"{name!r} is not the name of a package")
        if importlib.util.find_spec(name.partition(".")[0]) is None:
            raise fault(option, value, f"no package '{name}' can be imported here, so none can come along")
    return found


def text(option: str, value: object) -> None:
    """Raise ValueError unless it is a text with something in it."""
    if not isinstance(value, str) or not value.strip():
        raise fault(option, value, "give a name")


def check_client(client: object) -> None:
    import modal

    if client is not None and not isinstance(client, modal.Client):
        # It may be a token, so it stays out of the message.
        raise ValueError(
            f"{OWNER}: client is a {type(client).__name__}; give a modal.Client, such as "
            "modal.Client.from_credentials(token_id, token_secret), or leave it out"
        )


def check_image(image: object) -> None:
    import modal

    if image is None or isinstance(image, modal.Image) or callable(image):
        return
    if isinstance(image, str) and image.startswith("im-"):
        return
    raise fault(
        "image",
        image,
        "give a modal.Image, a function that makes one, the id of a built one ('im-...'), or leave it out",
    )
