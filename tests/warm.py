"""``python -m MODULE`` as a child of a warm process: a real process as ever, without seconds of imports for each.

There are two warm processes, which compute nothing. The first imports libraries alone and forks the second, which
imports the package too. The second forks a child for each client; the first does so for the clients that mean another
copy of the package, whose modules the child then imports itself. The child takes over the client's arguments,
environment, folder and standard streams, and runs the module as ``python -m`` does. The client stays for whoever has
started it: it passes signals on, ends as the child ends, and takes the child with it where it is killed.

    python -I -S warm_client.py FOLDER MODULE [ARGUMENT ...]       FOLDER has both sockets
    python warm.py LIBRARIES PACKAGE                               the warm processes, on two listening sockets
    python warm.py FOLDER                                          the same, on sockets in a folder, until it is killed
"""

from __future__ import annotations

import marshal
import os
import select
import signal
import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

LIBRARIES = ("torch", "timm", "pandas", "matplotlib.pyplot", "scipy.stats", "sklearn.datasets", "optuna", "submitit")
LIBRARIES += ("jinja2", "pydantic", "rich.table", "torchvision.transforms", "typer", "yaml")
"""What takes time to import, of all that the package imports."""
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"}
ENVIRONMENT |= {"JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""What libraries read when they are imported; no child asks timm's hub."""

CLIENT = (sys.executable, "-I", "-S", os.path.join(os.path.dirname(__file__), "warm_client.py"))
"""With the folder in which warm processes listen, this stands for ``python -m``."""


@contextmanager
def warm_python() -> Iterator[list[str]]:
    """Start the warm processes for a while; gives what stands for ``python -m`` in a command."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder, warm_processes(folder):
        yield [*CLIENT, folder]


@contextmanager
def warm_processes(folder: str) -> Iterator[None]:
    """Start the warm processes for a while, listening in that folder."""
    import subprocess

    with socket.socket(socket.AF_UNIX) as libraries, socket.socket(socket.AF_UNIX) as package:
        for listener, name in ((libraries, "libraries"), (package, "package")):
            listener.bind(os.path.join(folder, name))
            listener.listen(128)  # clients may come while the process still imports
        numbers = [libraries.fileno(), package.fileno()]
        # One thread (of pyarrow too, where pandas finds it), or a fork would be unsafe; a session of its own, so that
        # Ctrl-C does not reach it.
        server = subprocess.Popen(
            [sys.executable, __file__, *map(str, numbers)],
            stdin=subprocess.PIPE,
            pass_fds=numbers,
            start_new_session=True,
            env={**os.environ, **ENVIRONMENT},
        )
        libraries.close()  # the warm processes' alone: where one cannot start, its clients fail instead of waiting
        package.close()
        yield
        server.communicate()


def serve(libraries: socket.socket, package: socket.socket) -> str:
    """Fork a child for each client until standard input closes. Returns in the children: the module that each is."""
    del sys.path[0]  # this file's folder: none of the package's business
    _import(LIBRARIES)
    if os.fork():
        package.close()
        return _serve(libraries)
    libraries.close()
    import pkgutil

    import deit_ablate

    found = (found.name for found in pkgutil.walk_packages(deit_ablate.__path__, "deit_ablate."))
    _import(name for name in found if not name.endswith("__main__"))
    return _serve(package)


def _serve(listener: socket.socket) -> str:
    children: dict[int, tuple[int, socket.socket]] = {}
    """By the descriptor that is ready once the process has ended: its pid, and the connection of its client."""
    while True:
        clients = {link: pid for pid, link in children.values()}
        for ready in select.select([0, listener, *children, *clients], [], [])[0]:
            if ready == 0:
                os._exit(0)
            elif ready is listener:
                link, _ = listener.accept()
                _, streams, _, _ = socket.recv_fds(link, 1, 3)
                module, arguments, path, environment = marshal.load(link.makefile("rb"))
                pid = os.fork()
                if pid == 0:
                    for other in (listener, link, *clients):
                        other.close()
                    for number in children:
                        os.close(number)
                    _become(module, arguments, [*path, *sys.path], environment, streams)
                    return str(module)
                for stream in streams:
                    os.close(stream)
                children[os.pidfd_open(pid)] = pid, link
                _tell(link, pid)
            elif ready in children:
                pid, link = children.pop(ready)
                os.close(ready)
                _tell(link, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                link.close()
            elif ready.fileno() >= 0:  # a client that has gone before its child
                os.kill(clients[ready], signal.SIGKILL)


def _import(names: Iterable[str]) -> None:
    import gc
    import importlib
    import weakref

    for name in names:
        importlib.import_module(name)
    for ending in weakref.finalize._registry:  # type: ignore[attr-defined]
        ending.atexit = False  # thousands of torch's: to run them takes a child 40 ms, half of what a command takes
    assert len(os.listdir("/proc/self/task")) == 1, "a fork copies one thread alone"
    gc.collect()
    gc.freeze()  # children share these pages instead of copying them at their first collection


def _become(
    module: str, arguments: list[str], path: list[str], environment: dict[str, str], streams: list[int]
) -> None:
    """In the child: all that a process gets from the one that starts it."""
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(path[0])
    sys.path[:] = path
    sys.argv[:] = [module, *arguments]


def _tell(link: socket.socket, number: int) -> None:
    with suppress(BrokenPipeError):
        link.sendall(number.to_bytes(8, "big", signed=True))


def _run(module: str) -> int:
    """``python -m module`` to its end; the exit code. What Python tears down after that is left to the kernel."""
    import atexit
    import runpy
    import traceback

    code: object = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as leaving:
        code = leaving.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    if not isinstance(code, int):
        print(code, file=sys.stderr)
    sys.stdout.flush()
    return code if isinstance(code, int) else 1


if __name__ == "__main__" and len(sys.argv) == 2:
    with warm_processes(sys.argv[1]):
        signal.pause()
elif __name__ == "__main__":
    os._exit(_run(serve(*(socket.socket(fileno=int(number)) for number in sys.argv[1:]))))
