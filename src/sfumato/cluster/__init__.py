"""Real servers on loopback, without Docker and without root, for `sfumato cluster up` and the tests alike."""
