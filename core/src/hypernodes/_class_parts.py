"""What of a user's class decides how its instances behave, without what Python and libraries keep in it."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["content_of"]

_BY_PYTHON = {
    *("__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__firstlineno__", "__static_attributes__"),
    *("__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__", "__abstractmethods__"),
    *(
        "_abc_impl",
        "__slotnames__",
        "__dataclass_fields__",
        "__dataclass_params__",
        "__parameters__",
        "__attrs_attrs__",
    ),
    *("__signature__", "__class_vars__", "__private_attributes__", "__attrs_props__", "__attrs_own_setattr__"),
    *("__protocol_attrs__", "__non_callable_proto_members__", "_is_runtime_protocol", "_is_protocol"),
}


def content_of(kind: type) -> tuple[dict[str, Any], dict[str, Any]]:
    """The attributes of a class, methods among them; and what else it is: bases, annotations, fields."""
    enum = sys.modules.get("enum")
    members: dict[str, Any] = dict(getattr(kind, "__members__", {})) if enum and issubclass(kind, enum.Enum) else {}
    attributes = {
        name: held
        for name, held in sorted(vars(kind).items())
        if not (
            name in _BY_PYTHON or name in members or name.startswith("__pydantic_") or (members and _is_sunder(name))
        )
    }
    content: dict[str, Any] = {
        "bases": kind.__bases__,
        "metaclass": type(kind),
        "annotations": vars(kind).get("__annotations__", {}),
    }
    if members:
        content["members"] = [(name, member._value_) for name, member in members.items()]
    fields = vars(kind).get("__dataclass_fields__")
    if fields is not None:
        content["fields"] = [_dataclass_field(field) for field in fields.values()]
        parameters = kind.__dataclass_params__  # type: ignore[attr-defined]
        content["frozen"] = (parameters.frozen, parameters.eq, parameters.order)
    models = vars(kind).get("__pydantic_fields__")
    if isinstance(models, dict):
        content["fields"] = {name: _slots(field) for name, field in models.items()}
        content["decorators"] = _decorators(vars(kind).get("__pydantic_decorators__"))
    return attributes, content


def _is_sunder(name: str) -> bool:
    return name[:1] == "_" == name[-1:] and not name.startswith("__")


def _dataclass_field(field: Any) -> tuple[Any, ...]:
    flags = (field.init, field.repr, field.hash, field.compare, field.kw_only)
    return (field.name, field.default, field.default_factory, flags, field.metadata, field._field_type.name)


def _slots(field: Any) -> dict[str, Any]:
    """A field of a model: what it was declared with."""
    own = {name: getattr(field, name, None) for name in _MODEL_FIELD}
    return {name: "undefined" if _is_undefined(held) else held for name, held in own.items()}


_MODEL_FIELD = (
    *("annotation", "default", "default_factory", "alias", "validation_alias", "serialization_alias"),
    *("exclude", "discriminator", "frozen", "validate_default", "init", "kw_only", "metadata"),
)


def _is_undefined(held: Any) -> bool:
    return type(held).__name__ == "PydanticUndefinedType"


def _decorators(found: Any) -> list[Any]:
    if found is None:
        return []
    told = []
    for group in sorted(getattr(found, "__slots__", ()) or vars(found)):
        held = getattr(found, group, None)
        if isinstance(held, dict):
            for name, decorator in held.items():
                info = decorator.info
                told.append((group, name, getattr(info, "mode", None), getattr(info, "fields", None)))
    return told
