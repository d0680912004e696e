"""Tell somebody that a launch is over: by a webhook, or by a command of the user's. Neither can make it fail."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Sequence

from deit_ablate.execution import Execution, hosts_only, how_ended

WEBHOOK_SECONDS = 10.0
"""Without an answer of a webhook."""
COMMAND_SECONDS = 60.0


def notify(execution: Execution, message: str) -> str | None:
    """Send one line where ``notify`` (or DEIT_ABLATE_NOTIFY) says; returns what went wrong, if something did.

    Of a webhook's address the host alone is in what it returns: the rest is a secret.
    """
    try:
        execution = execution if execution.notify else Execution(notify=os.environ.get("DEIT_ABLATE_NOTIFY") or None)
    except ValueError:
        return "nobody was notified: DEIT_ABLATE_NOTIFY is neither a URL of http or https nor a command"
    to = execution.notify
    if to is None:
        return None
    if isinstance(to, str):
        why = _post(to, message)
        return f"{hosts_only(to)} was not notified: {why}" if why else None
    why = _call(to, message)
    return f"the command of `notify` ({os.path.basename(to[0])}) {why}" if why else None


def _post(url: str, message: str) -> str | None:
    headers = {"Content-Type": "application/json", "User-Agent": "deit-ablate"}
    try:
        request = urllib.request.Request(url, json.dumps({"text": message}).encode(), headers)
        urllib.request.urlopen(request, timeout=WEBHOOK_SECONDS).close()
    except urllib.error.HTTPError as error:
        return f"it answers {error.code}"
    except urllib.error.URLError as error:
        return hosts_only(str(error.reason))
    except (OSError, ValueError, http.client.HTTPException) as error:
        return type(error).__name__  # whose text may have the address
    return None


def _call(words: Sequence[str], message: str) -> str | None:
    environment = {**os.environ, "DEIT_ABLATE_MESSAGE": message}
    try:
        done = subprocess.run(
            words,
            input=message + "\n",
            text=True,
            errors="replace",
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=COMMAND_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"has not ended within {COMMAND_SECONDS:g} s"
    except OSError as error:
        return f"cannot be started: {error.strerror}"
    last = done.stderr.strip().splitlines()[-1:]
    return ": ".join([how_ended(done.returncode), *map(hosts_only, last)]) if done.returncode else None
