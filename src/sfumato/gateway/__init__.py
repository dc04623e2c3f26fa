"""The HTTP side: accepts jobs, follows them, serves their pictures. Speaks to the rest through ports only."""
