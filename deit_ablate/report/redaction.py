"""Text without what tells who made it and where: hosts, accounts, user names, absolute paths, addresses."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

PATH, HOST, ACCOUNT, NAME, URL = "[path]", "[host]", "[account]", "[name]", "[url]"

_URL = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>]+", re.I)
_QUOTED = re.compile(r"(['\"`])((?:~[\w.-]*|\.\.|[A-Za-z]:)?[/\\](?:(?!\1)[^\n])*)\1")
_BARE = re.compile(
    r"(?<![\w./\\~-])(?:~[\w.-]*(?=[/\\])|\.\.(?=[/\\])|[A-Za-z]:(?=[/\\]))?[/\\](?:\\.|[^\s'\"`<>|:;,()=\[\]{}])+"
)
_HOME = re.compile(r"[/\\](?:home|Users)[/\\]([^/\\\s'\"`:;,()]+)|(?<![\w/.])~([A-Za-z][\w.-]*)(?=/)")
# What schedulers, launchers and NCCL print of machines that no record names: the group is what goes.
_HOSTS = tuple(
    re.compile(pattern, flags)
    for pattern, flags in (
        (r"\b(?:nodelist|nodes?|host(?:name)?|master_addr|server)\s*=\s*([^\s,]+)", re.I),
        (r"\bhost(?:name)?:\s*([\w.-]+)", re.I),
        (r"^([\w.-]+):\d+:\d+ \[", 0),
        (r"\[([A-Za-z][\w.-]*)\]:\d+", 0),
        (r"\bON ([\w.,\[\]-]+) CANCELLED", 0),
        (r"^(?:srun|slurmstepd|salloc): error: ([\w.-]+): task", 0),
        (r"\bclient socket .*?\(([\w.-]+), \d+\)", 0),
        (r"\b(\d{1,3}(?:\.\d{1,3}){3})\b", 0),
        (r"(?<![\w:])((?:[0-9a-f]{1,4}:){3,7}[0-9a-f]{1,4}|(?:[0-9a-f]{1,4}:)+:[0-9a-f:.]*|::ffff:[0-9.]+)", re.I),
    )
)
_ACCOUNTS = tuple(
    re.compile(pattern, re.I)
    for pattern in (
        r"(?<![a-z])(?:slurm\.)?(?:account|user(?:name)?|uid|logname|mail[-_]user|wckey|slurm_job_account)(?:=|:\s+)(\S+)",
        r"--(?:slurm\.)?(?:account|user|uid|mail-user|wckey)\s+(\S+)",
        r"(?<!\S)-A\s+(\S+)",
        r"([\w.+-]+@[A-Za-z][\w.-]*)",
    )
)


def user_names(texts: Iterable[str]) -> set[str]:
    """The user names that home folders in these texts give away."""
    return {name for text in texts for found in _HOME.finditer(text) for name in found.groups() if name}


@dataclass(frozen=True)
class Redactor:
    """``redactor(text)``: the same text without what is private. Known ``hosts`` and ``names`` (of users, accounts,
    clusters) go wherever they occur as words; of paths into code the file's name stays, so that a traceback is of use.
    """

    hosts: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    _known: tuple[tuple[re.Pattern[str], str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        whole = {part for host in self.hosts for part in (host, host.partition(".")[0])}
        known = [(_any(whole), r"(?:\.[A-Za-z0-9-]+)*", HOST), (_any(self.names), "", NAME)]
        patterns = tuple(
            (re.compile(rf"(?<![A-Za-z0-9])(?:{words}){tail}(?![A-Za-z0-9])", re.I), instead)
            for words, tail, instead in known
            if words
        )
        object.__setattr__(self, "_known", patterns)

    def __call__(self, text: str) -> str:
        text = _URL.sub(URL, text)
        text = _QUOTED.sub(lambda found: f"{found[1]}{_path(found[2])}{found[1]}", text)
        text = _BARE.sub(lambda found: _path(found[0]), text)
        for patterns, instead in ((_ACCOUNTS, ACCOUNT), (_HOSTS, HOST)):
            for pattern in patterns:
                text = pattern.sub(_group(instead), text)
        for pattern, instead in self._known:
            text = pattern.sub(instead, text)
        return text


def _any(words: Iterable[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=lambda word: (-len(word), word)) if len(word) > 1)


def _path(path: str) -> str:
    if re.fullmatch(r"/[\w-]+\.\w+", path):
        return path  # as in output + "/summary.csv": no file of anyone's lies straight below the root
    file = re.search(r"[/\\]([\w-]+\.py)\Z", path)
    return f"{PATH}/{file[1]}" if file else PATH


def _group(instead: str) -> Callable[[re.Match[str]], str]:
    def replaced(found: re.Match[str]) -> str:
        start, end = found.span(1)
        text = found[0]
        # What a rule before has replaced already stays as that rule said it.
        if found[1].startswith("["):
            return text
        return text[: start - found.start()] + instead + text[end - found.start() :]

    return replaced
