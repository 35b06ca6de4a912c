"""torch: `torch.compile(model, backend="autotune")`, what of a model our kernels compute, and kernels as operators.

Importing this imports torch, and makes the backend's name known where the package's entry points are not installed.
"""

try:
    from torch._dynamo.backends.registry import list_backends, register_backend
except ImportError as error:
    raise ImportError("autotune.plugins.torch needs torch: pip install 'autotune-kernels[torch]'") from error

from . import gradients as _gradients  # noqa: F401  kernels compute gradients from now on
from .backend import backend
from .coverage import Coverage, Row, coverage
from .graphs import FallbackWarning
from .inspection import Inspection, inspect
from .operators import custom_op
from .symbolic import sizes
from .tuning import Tuned, tune

if "autotune" not in list_backends():
    register_backend(backend, name="autotune")

__all__ = [
    "Coverage", "FallbackWarning", "Inspection", "Row", "Tuned", "backend", "coverage", "custom_op", "inspect", "sizes",
    "tune",
]  # fmt: skip
