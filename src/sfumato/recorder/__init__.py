"""Folds the logs into job rows, ends what nobody else ends, and removes what is past its time."""
