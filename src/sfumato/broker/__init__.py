"""The logs and queues between the roles: one implementation of core.ports' broker a module."""
