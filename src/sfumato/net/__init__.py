"""The one way out: requests to addresses that somebody else chose."""
