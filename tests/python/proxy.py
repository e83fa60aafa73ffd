"""A proxy before a daemon that sees all and loses some."""
import re
import socket
import threading


def read_body(reader, head):
    """As it comes, with the lines between chunks."""
    found = re.search(rb"(?i)content-length: (\d+)", head)
    if found or b"chunked" not in head:
        return reader.read(int(found[1])) if found else b""
    body, size = b"", None
    while size != 0:
        line = reader.readline()
        size = int(line, 16)
        body += line + reader.read(size + 2)
    return body


class Cutter:
    """A proxy for one connection after the other that breaks some off: `plan` is called with the number of the
    request (of all, from 0) and says "before" (it never arrives), "after" (it is done, the answer is lost), a
    number (so many bytes of the answer arrive), or None. `seen` are the heads of the requests."""

    def __init__(self, port, plan=lambda n: None):
        self.target, self.plan, self.n = port, plan, 0
        self.seen = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:%d" % self.socket.getsockname()[1]
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        with client, client.makefile("rb") as reader:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                line = reader.readline()
                if not line:
                    return
                head += line
            self.seen.append(head.decode())
            body = read_body(reader, head)
            n, self.n = self.n, self.n + 1
            cut = self.plan(n)
            if cut == "before":
                return
            # The one answer of this connection, so that its end is the end of the answer.
            head = re.sub(rb"\r\nHost: .*\r\n", b"\r\nHost: 127.0.0.1\r\nConnection: close\r\n", head)
            with socket.create_connection(("127.0.0.1", self.target)) as server:
                server.sendall(head + body)
                sent = 0
                while True:
                    data = server.recv(4096)
                    if not data:
                        return
                    if cut == "after":
                        continue  # to its end: then it has been done
                    if cut is not None and sent + len(data) > cut:
                        client.sendall(data[:cut - sent])
                        return
                    client.sendall(data)
                    sent += len(data)

    def close(self):
        self.socket.close()
