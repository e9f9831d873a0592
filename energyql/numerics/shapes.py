"""Types of tensors with their shapes, for signatures: `Float[Tensor, "batch z_dim"]`.

For type checkers `Float`, `Int` and `Bool` are the types of jaxtyping. When the library runs, `Float[Tensor, ...]` is
just `Tensor`, so jaxtyping need not be installed. The tests replace the three by the types of jaxtyping before anything
else is imported, and check the shapes in every call. If a shape has a single axis, there is a space before its name, as
in `Float[Tensor, " batch"]`: otherwise linters would treat `batch` as the name of a type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
else:

    class _Unchecked:
        def __class_getitem__(cls, item: Any) -> Any:
            return item[0]

    Bool = Float = Int = _Unchecked

__all__ = ["Bool", "Float", "Int"]
