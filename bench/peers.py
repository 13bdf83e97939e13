"""dockerd and podman in namespaces of their own (scripts/peers.sh), to time them beside dewar."""

import atexit
import os
import subprocess
import time

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "scripts", "peers.sh")


class Within:
    """A command with the peers' root as its root; `dir` of the host is /work there."""

    def __init__(self, prefix, dir, *command):
        os.makedirs(dir)
        self.dir = dir
        self.log = open(f"{dir}/log", "wb")
        # However this program ends, nothing of theirs goes on.
        argv = ["setpriv", "--pdeathsig", "TERM", SCRIPT, "within", prefix, dir, *command]
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        atexit.register(self.stop)

    def until(self, ready, what):
        """Waits until `ready()` gives something; RuntimeError with the log's end if that takes a minute."""
        for _ in range(600):
            if found := ready():
                return found
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        self.stop()
        raise RuntimeError(f"{what}: {open(f'{self.dir}/log', errors='replace').read()[-800:]}")

    def stop(self):
        """Everything in there is gone when this returns, and its cgroups, too."""
        self.process.terminate()
        self.process.wait()
        self.log.close()


class Dockerd(Within):
    """dockerd with its defaults, but for the storage driver, named so that it cannot fall back on a slow one."""

    def __init__(self, prefix, dir):
        super().__init__(prefix, dir, "dockerd", "--data-root", "/work/data", "-H", "unix:///work/s",
                         "--storage-driver", "overlay2", "--exec-opt", "native.cgroupdriver=cgroupfs")
        self.socket = f"{dir}/s"
        self.env = {**os.environ, "DOCKER_HOST": f"unix://{self.socket}"}
        self.until(lambda: os.path.exists(self.socket) and subprocess.run(
            ["curl", "-sf", "--unix-socket", self.socket, "http://docker/_ping"], stdout=subprocess.DEVNULL).returncode == 0, "dockerd did not start")


class Podman(Within):
    """podman has no daemon: each command is run beside a process that keeps the namespaces."""

    def __init__(self, prefix, dir):
        super().__init__(prefix, dir, "sleep", "1000000")
        self.holder = str(self.until(self.sleeper, "the namespaces were not made"))
        self.env = {"PATH": "/usr/sbin:/usr/bin", "HOME": "/root", "PODMAN_IGNORE_CGROUPSV1_WARNING": "1"}

    def sleeper(self):
        pids = [self.process.pid]
        for pid in pids:
            try:
                pids += map(int, open(f"/proc/{pid}/task/{pid}/children").read().split())
            except OSError:
                pass
        return next((pid for pid in pids if open(f"/proc/{pid}/comm").read() == "sleep\n"), None)

    def argv(self, *args):
        # A journal and a database of events are what other engines are not asked for.
        return ["nsenter", "-t", self.holder, "--mount", "--net", "--pid", "--ipc", "--uts", "--cgroup", "podman",
                "--root", "/work/podman", "--runroot", "/run/podman", "--cgroup-manager", "cgroupfs", "--events-backend", "none", *args]

    def call(self, *args):
        done = subprocess.run(self.argv(*args), env=self.env, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"podman {' '.join(args)}: {done.stderr.strip()[-800:]}")
        return done.stdout
