"""Speaks to the services of a Bailiwick node from a program that it runs. The standard library is enough.

    network = lookup_service("network")
    status, headers, body = fetch(network, "https://api.example.com/data")
    network.call("bailiwick.network.v1.Network/Resolve", {"name": "example.com"})

A program sees the sockets that its manifest names under [[dependencies]]; "supervisor" must be among them for lookup_service.
"""
import base64
import http.client
import json
import os
import re
import secrets
import socket

RUN = os.environ.get("BAILIWICK_RUN", "/run/bailiwick")
ERROR_BYTES_MAX = 65536
ONE_RIGHT = dict.fromkeys(("WebSocketOpen", "WebSocketSend", "WebSocketClose"), "web_socket") | {"FetchUpload": "fetch"}


class Refused(Exception):
    """What a service answers instead: `code` is registered, `reason` is the contract's."""

    def __init__(self, error):
        data = error.get("data") or {}
        self.code, self.reason = error.get("code"), data.get("reason")
        super().__init__(error.get("message") or self.code)


class _Connection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("bailiwick.local", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Service:
    """One service by its socket. `identity` is who calls: what the supervisor says, and the socket proves."""

    def __init__(self, path, identity=None, timeout=30):
        self.path, self.timeout = path, timeout
        self.identity = identity or os.environ["BAILIWICK_IDENTITY"]

    def _send(self, method, request):
        contract, operation = method.split("/")
        operation = ONE_RIGHT.get(operation) or re.sub(r"(?<!^)(?=[A-Z])", "_", operation).lower()
        context = {"app_id": "app_0", "requester_identity_id": self.identity, "actor_type": "service",
                   "capability": f"system.{contract.split('.')[1]}.{operation}", "is_remote": False,
                   "trace_id": secrets.token_hex(16)}
        connection = _Connection(self.path, self.timeout)
        connection.request("POST", "/" + method, json.dumps(request or {}),
                           {"content-type": "application/json", "bailiwick-context": json.dumps(context)})
        answer = connection.getresponse()
        if answer.status != 200:
            text = answer.read(ERROR_BYTES_MAX)
            raise Refused(json.loads(text) if text else {"code": str(answer.status)})
        return answer

    def call(self, method, request=None):
        """One answer, as the contract's JSON."""
        return json.loads(self._send(method, request).read())

    def stream(self, method, request=None):
        """The parts of an answer that comes in parts."""
        for line in self._send(method, request):
            part = json.loads(line)
            if "error" in part:
                raise Refused(part["error"])
            yield part


def lookup_service(name):
    """Where a service is, as the supervisor says."""
    supervisor = Service(os.path.join(RUN, "supervisor.sock"))
    found = supervisor.call("bailiwick.supervisor.v1.Supervisor/LookupService", {"name": name})
    return Service(found["socket"])


def fetch(network, url, method="GET", headers=(), body=b"", timeout_ms=30000):
    """One request of HTTP: status, headers, body. A status such as 404 is no error."""
    request = {"method": method, "url": url, "timeoutMs": timeout_ms, "body": base64.b64encode(body).decode(),
               "headers": [{"name": name, "value": value} for name, value in headers]}
    head, data, size = {}, b"", None
    for part in network.stream("bailiwick.network.v1.Network/Fetch", request):
        if part.get("failed"):
            raise Refused({"code": part["failed"]["kind"], "message": part["failed"]["text"]})
        if part.get("head"):
            head = part["head"]
        if part.get("end"):
            size = int(part["end"]["bodyBytes"])
        data += base64.b64decode(part.get("body") or "")
    if size != len(data):
        raise Refused({"code": "Short", "message": "the answer ended in the middle"})
    return head["status"], [(h["name"], h["value"]) for h in head["headers"]], data
