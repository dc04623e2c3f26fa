"""Which bucket, where it is asked, and as whom: all that the S3 modules need to know, as plain values."""

from dataclasses import dataclass, field
from typing import Final

__all__ = ["DEFAULT_REGION", "S3Place"]

DEFAULT_REGION: Final = "us-east-1"
"""What S3-compatible servers expect when nobody told them another."""


@dataclass(frozen=True, slots=True)
class S3Place:
    """A bucket. Empty `endpoint`: AWS in `region`. Empty keys: what AWS's own variables or the machine's role say.

    `public_url` is the endpoint as clients reach it; links are signed for it, and without it there are none.
    """

    bucket: str
    endpoint: str = ""
    region: str = DEFAULT_REGION
    access_key_id: str = ""
    secret_access_key: str = field(default="", repr=False)
    public_url: str = ""

    @property
    def address(self) -> str:
        """The endpoint, AWS's own where none is set."""
        return self.endpoint or f"https://s3.{self.region}.amazonaws.com"
