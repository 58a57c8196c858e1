"""How many pixels a side images have: what networks, files and caches must agree in."""

from __future__ import annotations

SIZE = 32  # where nothing else is asked for
LARGE_SIZE = 64  # for pictures whose details 32 would lose
