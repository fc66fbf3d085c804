"""Pictures of volumes: three orthogonal slices as PNG, and a page to look through in a browser."""

from __future__ import annotations
