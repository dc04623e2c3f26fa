"""SQLite as the processes of one host share it: group commit, turns, and wake-ups. For queues and outcomes alike."""
