"""The worker: one process per model and device; receive → fetch → engine → store → tell → acknowledge."""
