"""torch: `torch.compile(model, backend="autotune")`, what of a model our kernels compute, and kernels as operators.

Importing this imports torch. Only names live here.
"""

from .backend import backend
from .coverage import Coverage, Row, coverage
from .graphs import FallbackWarning
from .operators import custom_op

__all__ = ["Coverage", "FallbackWarning", "Row", "backend", "coverage", "custom_op"]
