"""The steps: every way in which a nest may be changed. Importing this package registers them all."""

from .base import REGISTRY, Step, step_from_json
from .bind import Bind, Distribute, TreeReduce
from .clip import Clip
from .dot import DotProduct
from .fusion import ComputeAt
from .hints import Prefetch, ReadAhead, StoreHint
from .loops import Fuse, Parallel, Reorder, Split, Unroll, Vectorize
from .pack import Pack, Pad, copy_loop
from .pipeline import Pipeline
from .segment import Segment
from .split import SplitReduction
from .tensor import Tensorize
from .tile import RegisterTile, Tile

__all__ = [
    "REGISTRY", "Bind", "Clip", "ComputeAt", "Distribute", "DotProduct", "Fuse", "Pack", "Pad", "Parallel", "Pipeline",
    "Prefetch", "ReadAhead", "RegisterTile", "Reorder", "Segment", "Split", "SplitReduction", "Step", "StoreHint",
    "Tensorize", "Tile", "TreeReduce", "Unroll", "Vectorize", "copy_loop", "step_from_json",
]  # fmt: skip
