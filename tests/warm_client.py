"""``python -m MODULE`` to whoever starts this, and a client of a warm process (``warm.py``), which forks it. There are
hundreds in a session: it imports what is built in, and none of the modules around that."""

import array
import marshal
import os
import sys
from _signal import SIG_DFL, SIGINT, SIGKILL, SIGTERM, signal
from _socket import AF_UNIX, SCM_RIGHTS, SOL_SOCKET, socket


def client(folder: str, module: str, *arguments: str) -> int:
    """Be ``python -m module``; returns its exit code, or dies of the signal that it has died of."""
    ours = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    path = [os.getcwd(), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    another = any(os.path.exists(f"{place}/deit_ablate") and os.path.realpath(place) != ours for place in path)
    link = socket(AF_UNIX)
    link.connect(os.path.join(folder, "libraries" if another else "package"))
    link.sendmsg([b"!"], [(SOL_SOCKET, SCM_RIGHTS, array.array("i", [0, 1, 2]))])
    link.sendall(marshal.dumps((module, arguments, path, dict(os.environ))))
    os.closerange(0, 3)  # the child's alone: they close when it ends
    child = int.from_bytes(link.recv(8), "big")
    for number in (SIGTERM, SIGINT):
        signal(number, lambda number, _: os.kill(child, number))
    code = int.from_bytes(link.recv(8) or b"\1", "big", signed=True)
    if code < 0:
        if -code != SIGKILL:  # whose action cannot be set
            signal(-code, SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    os._exit(client(*sys.argv[1:]))
