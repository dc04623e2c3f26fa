"""Follows all your jobs: python -m examples.follow [URL]. Needs nothing but Python, and goes on where it was."""

import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request

signal.signal(signal.SIGINT, signal.SIG_DFL)
url = (sys.argv[1:] or ["http://127.0.0.1:8000"])[0]
headers = {"Authorization": f"Bearer {os.environ.get('SFUMATO_API_KEY', '')}"}
while True:
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{url}/api/events", headers=headers), timeout=60) as lines:
            place, kind = "", ""
            for raw in lines:
                name, _, value = raw.decode().rstrip("\n").partition(": ")
                if name == "id":
                    place = value
                elif name == "event":
                    kind = value
                elif name == "data":
                    sys.stdout.write(f"{kind} {json.loads(value)}\n")
                    sys.stdout.flush()
                elif name == "" and place:
                    headers["Last-Event-ID"] = place  # an event is complete with the empty line behind it
    except urllib.error.HTTPError as error:
        if error.code < 500:
            sys.exit(f"{error}: {error.read().decode()}\nYour key goes into SFUMATO_API_KEY.")
    except OSError as error:
        sys.stderr.write(f"{error}; again in a second\n")
    time.sleep(1)
