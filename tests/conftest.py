"""What the whole session shares."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.s3_servers import S3Servers


@pytest.fixture(scope="session")
def s3_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Servers]:
    """Object stores, none of which runs before it is asked for."""
    with ExitStack() as stack:
        yield S3Servers(tmp_path_factory.mktemp("s3"), stack)
