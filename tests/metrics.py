"""What processes show on /metrics, read from outside."""

import re
import urllib.error
import urllib.request

__all__ = ["shown", "value"]


def shown(port: int | str) -> str:
    """What is shown on a port of this host; "" while nobody listens there."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return str(answer.read().decode())
    except urllib.error.URLError:
        return ""


def value(text: str, series: str) -> float | None:
    """The value of one series, written as in the text format."""
    found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
    return None if found is None else float(found[1])
