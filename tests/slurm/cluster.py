"""A real SLURM cluster on one machine, for integration tests.

    python tests/slurm/cluster.py up --root FOLDER [--nodes 4] [--accounting]

Debian's own daemons, run as root in the foreground below one folder: slurmctld, a slurmd per virtual node, and on
request slurmdbd with a database of its own. A node is a pid, mount and uts namespace with its own host name: killing
the namespace's init is a power cut. All nodes share the machine's boot id, network and files. Nothing outside the
folder changes (packages apart), so several clusters can exist side by side.
"""

from __future__ import annotations

import argparse
import fcntl
import functools
import json
import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
PACKAGES = {"slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client"}
ACCOUNTING_PACKAGES = {"slurmdbd": "slurmdbd", "mariadbd": "mariadb-server-core"}
# Slurm's state directories hold sockets, whose whole path may not be longer than 107 bytes.
LONGEST_ROOT = 70
# Below the range that the kernel gives to outgoing connections: a crashed node finds its port free when it is back.
PORTS = range(20000, 32000)

Settings = dict[str, int | bool]


class ClusterError(RuntimeError):
    """The cluster cannot be had, or does not do what it was told."""


def install(accounting: bool = False) -> None:
    """Install the packages whose programs are missing; a ClusterError says why they cannot be had. Sessions side by
    side do so one after the other."""
    programs = PACKAGES | ACCOUNTING_PACKAGES if accounting else PACKAGES

    def missing() -> list[str]:
        return [package for program, package in programs.items() if not shutil.which(program, path=SYSTEM_PATH)]

    if not missing():
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise ClusterError(f"SLURM is not installed ({' '.join(missing())}): it needs root and Debian's apt-get")
    with (Path(tempfile.gettempdir()) / "deit-ablate-install.lock").open("w") as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        _apt_get(missing)


def _apt_get(missing: Callable[[], list[str]]) -> None:
    if not missing():
        return
    apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120"]
    add = [*apt, "install", "--yes", "--no-install-recommends"]
    done = subprocess.CompletedProcess[str]([], 0, "", "")
    # The second try follows an update: package lists may be absent (images) or stale (404).
    for commands in ([[*add, *missing()]], [[*apt, "update"], [*add, *missing()]]):
        for command in commands:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            )
        if not missing():
            return
    raise ClusterError(f"apt-get could not install {' '.join(missing())}:\n{(done.stdout + done.stderr)[-2000:]}")


class Daemon:
    """A process that outlives whoever started it, known by pid, start time and name.

    The process writes its pid file itself, before it becomes the daemon: however early its starter dies, the file
    is there, and holds the process's line of /proc/PID/stat.
    """

    BIRTH = 'read -r line </proc/$$/stat && printf "%s\\n" "$line" >"$0" && exec "$@"'

    def __init__(self, file: Path, name: str):
        self.file = file
        self.name = name[:15]  # as long as the kernel keeps it

    def pid(self) -> int | None:
        """The pid while the process lives: never that of a zombie, nor of another process with a reused pid."""
        try:
            born = self.file.read_text().rpartition(")")[2].split()
            pid = int(self.file.read_text().split()[0])
            head, _, tail = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
            state, *rest = tail.split()
        except (OSError, ValueError, IndexError):
            return None
        # "sh" is the name from birth until the exec.
        same = rest[18] == born[19] and head.partition("(")[2] in (self.name, "sh")
        return pid if same and state not in "ZX" else None

    def start(self, command: list[str], environment: Mapping[str, str], log: Path) -> None:
        """Start the process in a session of its own and wait for its birth; nothing where it is alive."""
        if self.pid():
            return
        self.file.unlink(missing_ok=True)
        with log.open("ab") as out:
            # --fork: an orphan from the start, so that no zombie of it stays behind in a long test process.
            subprocess.run(
                ["setsid", "--fork", "sh", "-c", self.BIRTH, str(self.file), *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=dict(environment),
                cwd="/",
                check=True,
            )
        # It may already have come and gone: what it does is for the caller to wait for.
        until(lambda: self.file.exists() and self.file.read_text().endswith("\n"), 10, f"{self.name} was not born")

    def stop(self, how: signal.Signals, seconds: float = 20) -> None:
        """End the process and wait until it is gone; SIGKILL follows where the signal does not end it in time."""
        if pid := self.pid():
            os.kill(pid, how)
            end = time.monotonic() + seconds
            while self.pid():
                if time.monotonic() > end:
                    os.kill(pid, signal.SIGKILL)
                    end += seconds
                time.sleep(0.02)
        self.file.unlink(missing_ok=True)


class Cluster:
    """One cluster, all of it below ``root``.

    Each node has 4 CPUs, 16 GB and two GPUs in name. Partitions: ``main`` (the default), ``low`` (its jobs are
    preempted, with ``grace`` seconds to end, and requeued) and ``high`` (preempts ``low``). The grace ends when the
    preempting job tries again, which it does about every 7 seconds. With ``preempt_send_user_signal`` a preempted job
    gets the signal of its ``--signal`` when the grace begins; where it has none, its steps get SIGTERM then.
    """

    def __init__(
        self,
        root: Path,
        nodes: int = 4,
        accounting: bool = False,
        port: int | None = None,
        *,
        max_array_size: int = 1001,
        grace: int = 5,
        preempt_send_user_signal: bool = True,
        min_job_age: int = 300,
    ):
        self.root = root.resolve()
        if len(str(self.root)) > LONGEST_ROOT or any(c.isspace() for c in str(self.root)):
            raise ClusterError(f"{self.root}: at most {LONGEST_ROOT} characters and no blanks, or SLURM cannot use it")
        self.accounting = accounting
        self.port = port
        self.max_array_size = max_array_size
        self.grace = grace
        self.preempt_send_user_signal = preempt_send_user_signal
        self.min_job_age = min_job_age
        self.at_boot = ":"
        """A shell command that each node runs before it takes jobs, with its name as ``$0``."""
        self.nodes = [f"node{number}" for number in range(1, nodes + 1)]
        self.settings = self.root / "cluster.json"
        self.etc, self.log, self.run = self.root / "etc", self.root / "log", self.root / "run"
        self.conf = self.etc / "slurm.conf"

    @classmethod
    def at(cls, root: Path) -> Cluster:
        """The cluster that an earlier ``up`` has made there."""
        try:
            known = json.loads((root / "cluster.json").read_text())
        except OSError:
            raise ClusterError(f"{root}: no cluster was brought up here") from None
        return cls(root, **known)

    # -- the whole

    def up(self) -> None:
        """Bring everything up that is not up yet, and wait until every node can take jobs."""
        if os.geteuid() != 0:
            raise ClusterError("only root can make namespaces and device files")
        install(self.accounting)
        fresh = not any(self.status().values())
        self._adopt_settings(fresh)
        try:
            self._write()
            if self.accounting:
                self._start_accounting()
            self.start_controller()
            for node in self.nodes:
                self._boot(node)
            self._await_nodes(self.nodes)
        except BaseException:
            if fresh:
                self.down(wipe=False)
            raise

    def down(self, wipe: bool = True) -> None:
        """Stop exactly what was started here; without ``wipe`` the logs and the state stay, for another ``up``."""
        # What is wiped need not be saved first.
        how = signal.SIGKILL if wipe else signal.SIGTERM
        # The controller goes first, or it would see nodes fail and requeue their jobs.
        self._controller.stop(how)
        for file in sorted(self._pids.glob("node*")):
            self._cut(file.name)
        Daemon(self._pids / "slurmdbd", "slurmdbd").stop(how)
        Daemon(self._pids / "mariadbd", "mariadbd").stop(how)
        if wipe:
            for folder in (self.run, self.etc, self.log):
                shutil.rmtree(folder, ignore_errors=True)
            self.settings.unlink(missing_ok=True)

    def status(self) -> dict[str, bool]:
        """Which of the cluster's daemons and nodes are alive (for a node: has power)."""
        daemons = ["mariadbd", "slurmdbd", "slurmctld"] if self.accounting else ["slurmctld"]
        alive = {name: Daemon(self._pids / name, name).pid() is not None for name in daemons}
        return alive | {node: self._node(node).pid() is not None for node in self.nodes}

    def environment(self) -> dict[str, str]:
        """What a process needs beside its own environment to talk to this cluster."""
        path = os.environ.get("PATH", "")
        lacking = [folder for folder in SYSTEM_PATH.split(":") if folder not in path.split(":")]
        return {"SLURM_CONF": str(self.conf), "PATH": ":".join(filter(None, [path, *lacking]))}

    def command(self, *arguments: str | Path, cwd: Path | None = None, timeout: float = 120) -> str:
        """Run one of SLURM's commands (``command("squeue", "--noheader")``); its output, or a ClusterError.

        Without ``cwd`` it runs, and jobs leave their output, where ``down`` wipes it.
        """
        # A test that itself runs inside a SLURM job would else submit with that job's variables.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH"))}
        done = subprocess.run(
            [str(argument) for argument in arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=cwd or self.run,
            timeout=timeout,
            env=inherited | self.environment(),
        )
        if done.returncode:
            raise ClusterError(f"{shlex.join(map(str, done.args))}: exit code {done.returncode}\n{done.stderr.strip()}")
        return done.stdout

    def submit(self, *arguments: str | Path, cwd: Path | None = None) -> int:
        """``sbatch --parsable`` with these arguments; the job's number."""
        return int(self.command("sbatch", "--parsable", *arguments, cwd=cwd))

    def job(self, number: int | str) -> dict[str, str]:
        """What ``scontrol show job`` says of a job (``12`` or, for an array's task, ``12_3``)."""
        shown = self.command("scontrol", "--oneliner", "show", "job", str(number))
        return dict(part.split("=", 1) for part in shown.split() if "=" in part)

    def await_job(self, number: int | str, *states: str, seconds: float = 300) -> dict[str, str]:
        """Wait until a job is in one of these states (``RUNNING``, ``COMPLETED``, ...); what is then known of it."""
        until(
            lambda: self.job(number)["JobState"] in states,
            seconds,
            lambda: f"job {number} is {self.job(number)['JobState']}, not {' or '.join(states)}",
        )
        return self.job(number)

    # -- failures

    def crash(self, node: str) -> None:
        """A power cut: the node's daemon, steps and user processes are gone at once, when this returns."""
        if not self._node(node).pid():
            raise ClusterError(f"{node} is not up")
        self._cut(node)

    def kill(self, node: str, pid: int, how: signal.Signals) -> None:
        """Signal one process on a node, by the pid that it has there."""
        unshare = self._node(node).pid()
        if not unshare:
            raise ClusterError(f"{node} is not up")
        init = Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split()[0]
        subprocess.run(["nsenter", "--target", init, "--pid", "kill", f"-{int(how)}", str(pid)], check=True)

    def declare_down(self, node: str) -> None:
        """What an operator does after a crash; else SLURM takes 15 to 40 seconds to notice. ``start`` undoes it."""
        self.command("scontrol", "update", f"nodename={node}", "state=down", "reason=crashed")

    def start(self, node: str) -> None:
        """Boot a node that is down, and wait until it can take jobs."""
        self._boot(node)
        self._await_nodes([node])

    def stop_controller(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop slurmctld: after it has saved its state, or with SIGKILL at once."""
        self._controller.stop(how)

    def start_controller(self) -> None:
        """Start slurmctld from its saved state, and wait until it answers."""
        self._controller.start(["slurmctld", "-D"], self._bare(), self.log / "slurmctld.out")
        self._await("slurmctld", self._controller, lambda: self._answers("scontrol", "ping"))

    # -- parts

    @property
    def _pids(self) -> Path:
        return self.run / "pids"

    @property
    def _controller(self) -> Daemon:
        return Daemon(self._pids / "slurmctld", "slurmctld")

    def _node(self, node: str) -> Daemon:
        return Daemon(self._pids / node, "unshare")

    def _bare(self) -> dict[str, str]:
        """The daemons' environment: nothing of the caller's, since slurmd hands its own on to jobs."""
        return {"PATH": SYSTEM_PATH, "SLURM_CONF": str(self.conf), "HOME": "/root", "LANG": "C.UTF-8"}

    def _answers(self, *arguments: str) -> bool:
        try:
            self.command(*arguments, timeout=20)
        except (ClusterError, subprocess.TimeoutExpired):
            return False
        return True

    def _await(self, name: str, daemon: Daemon, ready: Callable[[], bool], seconds: float = 60) -> None:
        """Wait for a daemon, but not for a dead one; the error shows the end of its logs."""

        def logs() -> str:
            ends = [path.read_text(errors="replace")[-1500:] for path in sorted(self.log.glob(f"{name}.*"))]
            return "\n".join([f"{name} does not come up", *ends])

        def alive_and_ready() -> bool:
            if not daemon.pid():
                raise ClusterError(logs())
            return ready()

        until(alive_and_ready, seconds, logs)

    def _boot(self, node: str) -> None:
        if node not in self.nodes:
            raise ClusterError(f"{node} is none of {', '.join(self.nodes)}")
        # The node's own /etc/hosts makes all nodes resolve (MASTER_ADDR) and leaves the machine's file alone.
        # The loop is the namespace's init, which also reaps: slurmd and its steps leave orphans.
        boot = 'hostname "$0" && mount --bind "$1" /etc/hosts && sh -c "$2" "$0" && slurmd -N "$0" || exit; '
        boot += "while :; do sleep 86400; done"
        namespace = ["unshare", "--fork", "--pid", "--mount-proc", "--uts", "--kill-child=KILL"]
        command = [*namespace, "bash", "-c", boot, node, str(self.etc / "hosts"), self.at_boot]
        self._node(node).start(command, self._bare(), self.log / f"{node}.out")

    def _cut(self, node: str) -> None:
        daemon = self._node(node)
        if pid := daemon.pid():
            # unshare waits for the namespace's init, which the kernel lets go only after all others in there.
            try:
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            except OSError:
                children = []
            for child in children:
                os.kill(int(child), signal.SIGKILL)
            daemon.stop(signal.SIGKILL if not children else signal.SIGCONT)
        daemon.file.unlink(missing_ok=True)

    def _await_nodes(self, nodes: list[str]) -> None:
        assert self.port is not None
        for node in nodes:
            port = self.port + 3 + self.nodes.index(node)
            self._await(node, self._node(node), functools.partial(listening, port))

        def states() -> dict[str, str]:
            lines = self.command("sinfo", "--noheader", "--Node", "--format=%N %t", "--partition=main").splitlines()
            return {name: state for name, state in (line.split() for line in lines) if name in nodes}

        # Never "idle*": the star says that the node does not answer.
        ready = {"idle", "mix", "alloc", "comp"}
        until(lambda: set(states().values()) <= ready, 60, lambda: f"nodes do not come up: {states()}")

    def _adopt_settings(self, fresh: bool) -> None:
        wanted: Settings = {
            "nodes": len(self.nodes),
            "accounting": self.accounting,
            "max_array_size": self.max_array_size,
            "grace": self.grace,
            "preempt_send_user_signal": self.preempt_send_user_signal,
            "min_job_age": self.min_job_age,
        }
        if self.settings.exists():
            known: Settings = json.loads(self.settings.read_text())
            if self.port is None:
                self.port = known["port"]
            if not fresh and known != wanted | {"port": self.port}:
                raise ClusterError(f"{self.root}: a cluster with other settings is up here: {known}")
        if fresh:
            # Also where a port is known: another cluster may have taken it since.
            self.port = free_ports(3 + len(self.nodes), self.port)
        assert self.port is not None
        for folder in (self.root, self.etc, self.log, self.run, self._pids, self.run / "state", self.run / "dev"):
            folder.mkdir(parents=True, exist_ok=True)
        self.settings.write_text(json.dumps(wanted | {"port": self.port}) + "\n")

    def _write(self) -> None:
        """Write the configuration; daemons that run are not told."""
        for gpu in ("gpu0", "gpu1"):
            if not (self.run / "dev" / gpu).exists():
                os.mknod(self.run / "dev" / gpu, 0o20666, os.makedev(1, 3))
        hosts = Path("/etc/hosts").read_text()
        (self.etc / "hosts").write_text("".join([f"127.0.0.1 {node}\n" for node in self.nodes]) + hosts)
        self.conf.write_text("\n".join(self._slurm_conf()) + "\n")
        (self.etc / "gres.conf").write_text(
            f"NodeName=node[1-{len(self.nodes)}] Name=gpu Count=2 File={self.run}/dev/gpu[0-1]\n"
        )

    def _slurm_conf(self) -> Iterator[str]:
        assert self.port is not None
        port, last = self.port, len(self.nodes)
        # Names. auth/none and cred/none trust everybody, which spares munge.
        yield f"ClusterName=test{port}"
        yield "SlurmctldHost=localhost"
        yield f"SlurmctldPort={port}"
        yield "SlurmUser=root"
        yield "SlurmdUser=root"
        yield "AuthType=auth/none"
        yield "CredType=cred/none"
        # cred_expire is also how long a requeued job waits, and 5 the least: anything below is invalid and means 120.
        yield "AuthInfo=cred_expire=5"
        yield f"StateSaveLocation={self.run}/state"
        yield f"SlurmdSpoolDir={self.run}/spool.%n"
        yield f"SlurmctldPidFile={self.run}/slurmctld.pid"
        yield f"SlurmdPidFile={self.run}/slurmd.%n.pid"
        yield f"SlurmctldLogFile={self.log}/slurmctld.log"
        yield f"SlurmdLogFile={self.log}/%n.log"
        yield "SlurmctldDebug=verbose"
        yield "SlurmdDebug=verbose"
        yield "MailProg=/bin/true"
        # No cgroups, no binding, no MPI.
        yield "ProctrackType=proctrack/linuxproc"
        yield "TaskPlugin=task/none"
        yield "MpiDefault=none"
        yield "SwitchType=switch/none"
        yield "PropagateResourceLimits=NONE"
        yield "JobAcctGatherType=jobacct_gather/linux"
        yield "JobAcctGatherFrequency=task=1"
        yield "JobAcctGatherParams=OverMemoryKill"
        # Resources: config_overrides lets nodes have more of them than the machine.
        yield "SelectType=select/cons_tres"
        yield "SelectTypeParameters=CR_Core_Memory"
        yield "SlurmdParameters=config_overrides"
        yield "GresTypes=gpu"
        yield "DefMemPerCPU=4000"
        yield (
            f"NodeName=node[1-{last}] NodeHostname=localhost NodeAddr=127.0.0.1 Port=[{port + 3}-{port + 2 + last}] "
            "CPUs=4 Sockets=1 CoresPerSocket=4 ThreadsPerCore=1 RealMemory=16000 Gres=gpu:2 State=UNKNOWN"
        )
        # Partitions.
        yield "PreemptType=preempt/partition_prio"
        yield "PreemptMode=REQUEUE"
        if self.preempt_send_user_signal:
            yield "SlurmctldParameters=preempt_send_user_signal"
        yield "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=5 PreemptMode=OFF"
        yield f"PartitionName=low Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=1 GraceTime={self.grace}"
        yield "PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF"
        # Quick timers. MessageTimeout counts twice: in how soon a dead node is noticed, and in the time before a
        # preempting job tries again. ReturnToService=2: a node that boots again is taken back.
        yield "SchedulerType=sched/backfill"
        yield (
            "SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=10000,bf_interval=1,"
            "bf_continue,default_queue_depth=1000,bf_max_job_test=1000"
        )
        yield "SlurmctldTimeout=10"
        yield "SlurmdTimeout=10"
        yield "BatchStartTimeout=10"
        yield "MessageTimeout=5"
        yield "KillWait=2"
        yield "CompleteWait=0"
        yield "InactiveLimit=0"
        # Jobs that have ended longer ago than this are forgotten by and by.
        yield f"MinJobAge={self.min_job_age}"
        yield "UnkillableStepTimeout=10"
        yield "ReturnToService=2"
        yield "JobRequeue=1"
        yield f"MaxArraySize={self.max_array_size}"
        yield f"MaxJobCount={max(10000, 2 * self.max_array_size)}"
        if self.accounting:
            yield "AccountingStorageTRES=gres/gpu"
            yield "AccountingStorageType=accounting_storage/slurmdbd"
            yield "AccountingStorageHost=localhost"
            yield f"AccountingStoragePort={port + 1}"
        else:
            yield "AccountingStorageType=accounting_storage/none"

    def _start_accounting(self) -> None:
        assert self.port is not None
        data, sql_port = self.run / "mysql", self.port + 2
        plain = ["--no-defaults", "--user=root", f"--datadir={data}", "--innodb-log-file-size=4M"]
        if not (data / "complete").exists():
            shutil.rmtree(data, ignore_errors=True)
            data.mkdir()
            # mariadb-install-db would need a program of mariadb-client-core, and does far more: slurmdbd's stored
            # procedures need the system tables, and nothing else is needed where grants are not looked at.
            tables = Path("/usr/share/mysql/mysql_system_tables.sql").read_text()
            made = subprocess.run(
                ["mariadbd", *plain, "--bootstrap", f"--log-error={self.log}/mariadbd.log"],
                input=f"create database mysql;\nuse mysql;\n{tables}",
                capture_output=True,
                text=True,
                env=self._bare(),
            )
            if made.returncode:
                raise ClusterError(f"mariadbd --bootstrap failed:\n{(made.stdout + made.stderr)[-2000:]}")
            (data / "complete").touch()
        database = Daemon(self._pids / "mariadbd", "mariadbd")
        small = "--innodb-buffer-pool-size=32M --innodb-flush-log-at-trx-commit=0 --innodb-lock-wait-timeout=900 "
        small += "--performance-schema=OFF --skip-log-bin --max-connections=50 --skip-grant-tables --skip-name-resolve"
        command = ["mariadbd", *plain, *small.split(), "--bind-address=127.0.0.1", f"--port={sql_port}"]
        command += [f"--socket={self.run}/mysql.sock", f"--pid-file={self.run}/mariadbd.pid"]
        database.start(command, self._bare(), self.log / "mariadbd.log")
        self._await("mariadbd", database, lambda: listening(sql_port))

        conf = self.etc / "slurmdbd.conf"
        conf.touch(mode=0o600)  # slurmdbd refuses a file that others can read
        conf.write_text(
            f"DbdHost=localhost\nDbdPort={self.port + 1}\nSlurmUser=root\nAuthType=auth/none\n"
            f"PidFile={self.run}/slurmdbd.pid\nLogFile={self.log}/slurmdbd.log\nDebugLevel=info\n"
            f"StorageType=accounting_storage/mysql\nStorageHost=127.0.0.1\nStoragePort={sql_port}\n"
            "StorageUser=slurm\nStoragePass=slurm\nStorageLoc=slurm_acct_db\n"
        )
        accounts = Daemon(self._pids / "slurmdbd", "slurmdbd")
        accounts.start(["slurmdbd", "-D"], self._bare(), self.log / "slurmdbd.out")
        dbd_port = self.port + 1
        self._await("slurmdbd", accounts, lambda: listening(dbd_port))
        # slurmctld refuses to start with accounting until its cluster is known there.
        name = f"test{self.port}"
        if name not in self.command("sacctmgr", "--noheader", "show", "cluster", "format=cluster%20").split():
            self.command("sacctmgr", "--immediate", "add", "cluster", name)


def until(condition: Callable[[], bool], seconds: float, otherwise: str | Callable[[], str]) -> None:
    """Wait for a condition; a ClusterError says what holds instead."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise ClusterError(otherwise if isinstance(otherwise, str) else otherwise())
        time.sleep(0.1)


def listening(port: int) -> bool:
    """Whether something on this machine accepts connections there."""
    with socket.socket() as tried:
        tried.settimeout(5)
        return tried.connect_ex(("127.0.0.1", port)) == 0


def free_ports(count: int, wanted: int | None = None) -> int:
    """The first of ``count`` free ports in a row: the wanted one, or one drawn at random."""

    def free(port: int) -> bool:
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind(("", port))
            except OSError:
                return False
        return True

    # At random, so that clusters that start at the same moment do not choose the same ports.
    for first in [wanted] if wanted else random.sample(PORTS, 100):
        if all(free(port) for port in range(first, first + count)):
            return first
    raise ClusterError(f"no {count} free ports in a row" + (f" from {wanted}" if wanted else ""))


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="A real SLURM cluster on one machine, for integration tests.")
    parser.add_argument("action", choices=["up", "down", "status", "crash", "start"])
    parser.add_argument("node", nargs="?", help="for crash and start")
    parser.add_argument("--root", type=Path, required=True, help="the folder that holds all of it")
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--accounting", action="store_true", help="with slurmdbd and a database, for sacct")
    parser.add_argument("--port", type=int, help="the first of the ports (default: free ones)")
    parser.add_argument("--max-array-size", type=int, default=1001)
    parser.add_argument("--grace", type=int, default=5, help="seconds that a preempted job has")
    parser.add_argument("--no-preempt-signal", action="store_true", help="preempted jobs do not get their --signal")
    parser.add_argument("--min-job-age", type=int, default=300, help="seconds until an ended job is forgotten")
    parser.add_argument("--keep", action="store_true", help="down: leave the logs and the state")
    asked = parser.parse_args(arguments)
    if (asked.action in ("crash", "start")) != (asked.node is not None):
        parser.error("crash and start, and only they, take a node")
    began = time.monotonic()
    try:
        if asked.action == "up":
            cluster = Cluster(
                asked.root,
                asked.nodes,
                asked.accounting,
                asked.port,
                max_array_size=asked.max_array_size,
                grace=asked.grace,
                preempt_send_user_signal=not asked.no_preempt_signal,
                min_job_age=asked.min_job_age,
            )
            cluster.up()
            print(f"# up after {time.monotonic() - began:.1f} s")
            print(f"export SLURM_CONF={shlex.quote(str(cluster.conf))}")
            return 0
        if asked.action == "down":
            # Needs no settings: the pid files say what runs.
            Cluster(asked.root).down(wipe=not asked.keep)
            return 0
        cluster = Cluster.at(asked.root)
        if asked.action == "crash":
            cluster.crash(asked.node)
        elif asked.action == "start":
            cluster.start(asked.node)
        else:
            status = cluster.status()
            for name, alive in status.items():
                print(f"{name:12}{'up' if alive else 'down'}")
            if status["slurmctld"]:
                print(cluster.command("sinfo"), end="")
            return 0 if all(status.values()) else 1
    except ClusterError as error:
        print(f"cluster.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
