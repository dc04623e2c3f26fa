"""Who watches a job sees it come; who does not costs nothing."""

import base64
import io
from pathlib import Path
from typing import Any

from PIL import Image

from tests.sample_pictures import picture
from tests.service import Service, post_picture, stream
from tests.support import poll

SLOW = """
[models.slow]
backend = "simulated"
path = "slow"
"""


def submitted(service: Service) -> dict[str, Any]:
    image = picture(size=(90, 60))
    return post_picture(service.url, image, model_name="slow", prompt="neon", num_inference_steps="60")[1]


def test_previews_are_seen_by_who_watches_and_leave_nothing_behind(tmp_path: Path) -> None:
    service = Service(tmp_path, models=SLOW)
    service.simulate("slow", {"fixed_s": 0.1, "row_s": 0.0})
    stored = service.data_dir / "blobs" / "previews"
    with service:
        unseen = submitted(service)
        poll(lambda: service.job(unseen["id"])["status"] == "succeeded", within_s=30)
        seen_before = list(stored.glob("*")) if stored.exists() else []
        watched = submitted(service)

        events = list(stream(f"{watched['events_url']}&previews=true"))

        poll(lambda: not list(stored.glob("*.jpeg")), within_s=10)

    previews = [data for kind, data in events if kind == "preview"]
    assert seen_before == []
    assert len(previews) >= 2
    assert [data["step"] for data in previews] == sorted({data["step"] for data in previews})
    assert events[-1][0] == "final"
    with Image.open(io.BytesIO(base64.b64decode(previews[-1]["image"].partition(",")[2]))) as shown:
        assert shown.format == "JPEG"
        assert abs(shown.width / shown.height - 1.5) < 0.1
