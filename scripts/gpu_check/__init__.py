"""The parts of `scripts/gpu-check`, whose head says what it is for.

Reading order: `main` runs the phases in `checks/` over a `context`, each of which adds rows to a `report`; `binary`, `server`, `load`
and `watch` are what they measure with.
"""
