"""As much of a model hub as downloads ask for, on loopback: one repository that is there, one that is gated, nothing
else.
"""

import contextlib
import http.server
import json
import threading

REVISION = "a" * 40


def _handler(kind, repository, files, requests):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments):
            pass

        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            path = self.path.partition("?")[0]
            requests.append((path, self.headers.get("Authorization")))
            about = {
                "id": repository,
                "sha": REVISION,
                "private": False,
                "siblings": [{"rfilename": name} for name in files],
                "tags": [],
            }
            if "/me/gated" in path and self.headers.get("Authorization") != "Bearer right-token":
                self.answer(
                    403, {}, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to me/gated is restricted."}
                )
                return
            path = path.replace("/me/gated", f"/{repository}")
            if f"/{repository}" not in path:
                self.answer(404, {}, {"X-Error-Code": "RepoNotFound"})
            elif "/revision/" in path and not path.endswith(("/main", REVISION)):
                self.answer(404, {}, {"X-Error-Code": "RevisionNotFound"})
            elif path.endswith(f"/tree/{REVISION}"):
                self.answer(
                    200,
                    [
                        {"type": "file", "path": name, "size": len(content), "oid": "b" * 40}
                        for name, content in files.items()
                    ],
                )
            elif path.startswith(f"/api/{kind}/{repository}") and "/tree/" not in path:
                self.answer(200, about)
            elif path.rpartition("/")[2] in files:
                name = path.rpartition("/")[2]
                self.answer(200, files[name], {"ETag": f'"{name}"', "X-Repo-Commit": REVISION})
            else:
                self.answer(404, {}, {"X-Error-Code": "EntryNotFound"})

        def answer(self, status, content, headers=None):
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for key, value in {
                "Content-Type": "application/json",
                "Content-Length": str(len(body)),
                **(headers or {}),
            }.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    return Handler


@contextlib.contextmanager
def serve(kind, repository, files):
    """(endpoint, requests) of a hub with one repository of a kind ("models" or "datasets"); `requests` fills with
    (path, authorization).
    """
    requests = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(kind, repository, files, requests))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        server.server_close()
