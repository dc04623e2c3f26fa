"""The one parent of all processes: what it starts stays started, and ends with it."""
