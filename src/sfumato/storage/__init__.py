"""Where things are kept: objects in a folder, outcomes and rows in SQL."""
