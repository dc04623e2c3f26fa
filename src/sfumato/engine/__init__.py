"""The engine: many jobs through one model, a step at a time, each at its own timestep (docs/engine.md)."""
