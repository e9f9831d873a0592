"""Types of tensors with their shapes, for signatures: `Float[Tensor, "batch z_dim"]`.

They are those of jaxtyping for type checkers, and in tests, which check every call; else just `Tensor`, so that
jaxtyping need not be installed. A single axis has a space before its name, as in `Float[Tensor, " batch"]`, or linters
would take it for a type.
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
