"""What who runs the service may look into, past the API: over the ports that the roles use, and changing nothing."""
