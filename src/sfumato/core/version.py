"""The one place that says which version this is: the wheel, the command, the API and the traces read it here."""

__all__ = ["VERSION"]

VERSION = "0.1.0"
