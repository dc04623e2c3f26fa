"""The dispatcher: one brain per model, from the jobs log and the event log to the work queue."""
