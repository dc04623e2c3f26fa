"""Lifecycle rules of a bucket: the store itself removes what is older than it is kept."""

import base64
import hashlib
import math
from collections.abc import Mapping
from typing import Final
from xml.etree import ElementTree

from sfumato.core.errors import TransientError, UnusableStore
from sfumato.storage.s3_http import Answer, ask
from sfumato.storage.s3_place import S3Place
from sfumato.storage.s3_start import refusal

__all__ = ["days", "set_rules"]

DAY_S: Final = 86_400.0
QUERY: Final = {"lifecycle": ""}
OURS: Final = "sfumato-"
NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"
HAS_NONE: Final = frozenset({"NotImplemented", "MethodNotAllowed", "NotSupported", "UnsupportedOperation"})


def days(kept_s: float) -> int:
    """The whole days in which S3 counts, never fewer than `kept_s` seconds."""
    return max(1, math.ceil(kept_s / DAY_S))


def set_rules(place: S3Place, kept_days: Mapping[str, int]) -> bool:
    """Expire what is under each prefix after so many days; False when the store has no lifecycle rules.

    Rules of ours are replaced, those of others stay.

    Raises:
        UnusableStore: no keys are set to sign with, or the store refuses them.
        TransientError: it does not answer, or not as S3 does.
    """
    if not place.access_key_id:
        raise UnusableStore(
            "set SFUMATO_S3_ACCESS_KEY_ID and SFUMATO_S3_SECRET_ACCESS_KEY: the request is signed here."
        )
    found = ask(place, "GET", query=QUERY)
    if _has_none(found):
        return False
    if found.status != 200 and found.code != "NoSuchLifecycleConfiguration":
        raise _trouble(place, found)
    body = _document(found.body if found.status == 200 else b"", kept_days)
    # MD5 is what S3 asks for here, as a checksum.
    checksum = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
    told = ask(place, "PUT", query=QUERY, body=body, headers={"content-md5": checksum})
    if _has_none(told):
        return False
    if told.status != 200:
        raise _trouble(place, told)
    return True


def _document(found: bytes, kept_days: Mapping[str, int]) -> bytes:
    root = ElementTree.Element("LifecycleConfiguration", {"xmlns": NAMESPACE})
    if found:
        # The operator's own store is no stranger, and expat refuses what grows without bounds.
        root.extend(rule for rule in map(_plain, ElementTree.fromstring(found)) if not _is_ours(rule))  # noqa: S314
    for prefix, kept in kept_days.items():
        rule = ElementTree.SubElement(root, "Rule")
        ElementTree.SubElement(rule, "ID").text = OURS + prefix.rstrip("/")
        ElementTree.SubElement(rule, "Status").text = "Enabled"
        ElementTree.SubElement(ElementTree.SubElement(rule, "Filter"), "Prefix").text = prefix
        ElementTree.SubElement(ElementTree.SubElement(rule, "Expiration"), "Days").text = str(kept)
    return ElementTree.tostring(root)


def _plain(element: ElementTree.Element) -> ElementTree.Element:
    """The element with names as we write them: some servers answer in S3's namespace and some in none."""
    for each in element.iter():
        each.tag = each.tag.rpartition("}")[2]
    return element


def _is_ours(rule: ElementTree.Element) -> bool:
    return (rule.findtext("ID") or "").startswith(OURS)


def _has_none(answer: Answer) -> bool:
    return answer.status in (405, 501) or answer.code in HAS_NONE


def _trouble(place: S3Place, answer: Answer) -> UnusableStore | TransientError:
    said = f"{place.address} (bucket {place.bucket}) answers {answer.status} {answer.code}.".replace(" .", ".")
    if advice := refusal(answer.code, f"{answer.status} Forbidden" if answer.status == 403 else ""):
        return UnusableStore(f"{said} {advice}")
    return TransientError(f"{said} See its log; try again.")
