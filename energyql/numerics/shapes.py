"""Types of tensors with their shapes, for signatures: `Float[Tensor, "batch z_dim"]`.

For type checkers these are jaxtyping's. While the library runs they mean nothing, so that jaxtyping need not be
installed. The tests put jaxtyping's in their place before anything else is imported, and check every call. A single
axis has a space before its name, so that linters do not take it for the name of a type: `Float[Tensor, " batch"]`.
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
