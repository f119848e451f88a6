"""Dataclasses that are kept as JSON: one way to read them, checked, and one to write them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import ConfigDict, StringConstraints, TypeAdapter, ValidationError

from ..errors import Damaged, EcgpipeError

# Names of parts, and of files below a store: nothing that leads out of it.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+$")]
FileName = Annotated[
    str, StringConstraints(pattern=r"^(records\.zarr|shards)(/[A-Za-z0-9_-]+(\.[a-z]+)?)+$")
]


class JsonData:
    """Base of dataclasses whose fields are those of a JSON object.

    Parsing and checking are one pass of pydantic-core, which takes less time than ``json.loads``.
    Values of a dataclass that the code makes are not checked.
    """

    __slots__ = ()
    __pydantic_config__ = ConfigDict(extra="forbid")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a JSON file.

        Raises
        ------
        EcgpipeError
            It is missing.
        Damaged
            It is not JSON, or its fields are not those of the class.
        """
        try:
            return cls.parse(path.read_bytes(), path)
        except OSError as error:
            reason = error.strerror or str(error)
            raise EcgpipeError(f"{path}: cannot be read ({reason})") from None

    @classmethod
    def parse(cls, content: bytes | dict[str, Any], path: Path) -> Self:
        """The dataclass of JSON text or of its parsed values; ``path`` is named in errors.

        Raises
        ------
        Damaged
            See :meth:`read`.
        """
        try:
            if isinstance(content, bytes):
                return cls._adapter().validate_json(content)
            return cls._adapter().validate_python(content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            if first["type"] == "json_invalid":
                raise Damaged(f"{path}: not valid JSON; the file is damaged") from None
            field = ".".join(map(str, first["loc"])) or "content"
            raise Damaged(f"{path}: {field}: {first['msg']}; the file is damaged") from None

    @classmethod
    @cache
    def _adapter(cls) -> TypeAdapter[Any]:
        return TypeAdapter(cls)

    def plain(self) -> dict[str, Any]:
        """The values of the JSON object."""
        values: dict[str, Any] = self._adapter().dump_python(self, mode="json")
        return values
