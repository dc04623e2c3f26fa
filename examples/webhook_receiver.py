"""A receiver of Sfumato's webhooks: python -m examples.webhook_receiver PORT SECRET."""

import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            event = Webhook(sys.argv[2]).verify(body, dict(self.headers))  # signature and time; raises if wrong
        except WebhookVerificationError:
            self.send_error(401)
            return
        sys.stdout.write(f"{self.headers['webhook-id']} {event['type']} {event['data']['result_url']}\n")
        sys.stdout.flush()
        self.send_response(204)
        self.end_headers()


if len(sys.argv) != 3 or not sys.argv[2]:
    sys.exit(__doc__)
signal.signal(signal.SIGINT, signal.SIG_DFL)
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
