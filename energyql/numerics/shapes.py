"""Types of tensors with their shapes, for signatures: `Float[Tensor, "batch z_dim"]`.

For type checkers these are the types of jaxtyping. While the library runs they mean nothing, so jaxtyping need not be
installed. The tests replace them by those of jaxtyping before anything else is imported, and check every call. A single
axis has a space before its name, so that linters do not treat it as the name of a type: `Float[Tensor, " batch"]`.
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
