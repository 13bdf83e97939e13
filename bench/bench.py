"""Times dewar against floors that do the same kernel work. Started by bench/run.sh."""

import argparse
import glob
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from peers import Dockerd, Podman

parser = argparse.ArgumentParser()
parser.add_argument("--dewar", required=True)
parser.add_argument("--work", required=True)
parser.add_argument("--criu", default="")
parser.add_argument("--peers", default="", help="what scripts/peers.sh printed")
parser.add_argument("--rounds", type=int, default=40)
parser.add_argument("parts", nargs="*")
options = parser.parse_args()
work = options.work
rows = []
DEVNULL = os.open("/dev/null", os.O_RDWR)


def note(text):
    print(f"bench: {text}", file=sys.stderr)


def row(what, value, compared="", target=""):
    rows.append((what, value, compared, target))
    note(f"{what}: {value} {compared}")


def wanted(part):
    """`images` wants `images-pull`, too; `images-pull` wants that alone."""
    return not options.parts or any(part == name or part.startswith(f"{name}-") for name in options.parts)


def peer(make, what):
    """An engine to compare with; None, and a line that says why, where it cannot be had."""
    if not options.peers:
        note(f"{what}: skipped, scripts/peers.sh has no such engine here")
        return None
    try:
        return make(options.peers, f"{work}/{what}")
    except (RuntimeError, OSError) as error:
        note(f"{what}: skipped, {error}")
        return None


def spawn(argv, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL, env=os.environ):
    """posix_spawn: subprocess.Popen's own cost would be in every figure."""
    actions = [(os.POSIX_SPAWN_DUP2, fd, to) for to, fd in enumerate((stdin, stdout, stderr))]
    return os.posix_spawnp(argv[0], argv, env, file_actions=actions)


def timed(argv, **more):
    start = time.perf_counter()
    _, status = os.waitpid(spawn(argv, **more), 0)
    elapsed = time.perf_counter() - start
    if status != 0:
        raise SystemExit(f"bench: {' '.join(argv)} ended with status {os.waitstatus_to_exitcode(status)}")
    return elapsed


def interleaved(rounds, pick=statistics.median, **candidates):
    """Runs each candidate once per round; gives the median of each (or what else to pick) in milliseconds."""
    for run in candidates.values():
        run()
    times = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            times[name].append(run())
    return {name: pick(values) * 1000 for name, values in times.items()}


class Http:
    """Just enough HTTP/1.1 over the daemon's socket; connections are kept alive."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(path)
        self.data = b""

    def send(self, method, path, body=None):
        text = b"" if body is None else json.dumps(body).encode()
        kind = "" if body is None else "Content-Type: application/json\r\n"
        self.sock.sendall(f"{method} {path} HTTP/1.1\r\nHost: docker\r\n{kind}Content-Length: {len(text)}\r\n\r\n".encode() + text)

    def more(self):
        data = self.sock.recv(65536)
        if not data:
            raise EOFError("the daemon closed the connection")
        self.data += data

    def head(self):
        while b"\r\n\r\n" not in self.data:
            self.more()
        head, self.data = self.data.split(b"\r\n\r\n", 1)
        lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        return int(lines[0].split()[1]), headers

    def line(self):
        while b"\r\n" not in self.data:
            self.more()
        line, self.data = self.data.split(b"\r\n", 1)
        return line

    def take(self, count):
        while len(self.data) < count:
            self.more()
        taken, self.data = self.data[:count], self.data[count:]
        return taken

    def body(self, status, headers):
        if status in (204, 304):
            return b""
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self.line(), 16):
                body += self.take(size)
                self.line()
            self.line()
            return body
        return self.take(int(headers.get("content-length", 0)))

    def call(self, method, path, body=None):
        self.send(method, path, body)
        status, headers = self.head()
        body = self.body(status, headers)
        if status >= 400:
            raise SystemExit(f"bench: {method} {path}: {status} {body.decode()}")
        return json.loads(body) if body.strip()[:1] in (b"{", b"[") else body


def pss_kib(pid):
    with open(f"/proc/{pid}/smaps_rollup") as rollup:
        return next(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))


class Daemon:
    def __init__(self, name, within=()):
        self.within = list(within)
        self.dir = f"{work}/{name}"
        os.makedirs(self.dir, exist_ok=True)
        self.socket = f"{self.dir}/s"
        self.host = f"unix://{self.socket}"
        self.env = {**os.environ, "DOCKER_HOST": self.host}
        self.start()

    def start(self):
        """Gives the time to the first answer."""
        argv = [*self.within, options.dewar, "daemon", "-H", self.host, "--data-root", f"{self.dir}/data", "--exec-root", f"{self.dir}/run"]
        if options.criu:
            argv += ["--criu", options.criu]
        log = os.open(f"{self.dir}/log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        start = time.perf_counter()
        self.pid = spawn(argv, stdout=log, stderr=log)
        os.close(log)
        while True:
            try:
                Http(self.socket).call("GET", "/_ping")
                return time.perf_counter() - start
            except (FileNotFoundError, ConnectionRefusedError):
                if os.waitpid(self.pid, os.WNOHANG)[0]:
                    raise SystemExit("bench: the daemon ended: " + open(f"{self.dir}/log").read())
                time.sleep(0.0002)

    def stop(self):
        os.kill(self.pid, 15)
        os.waitpid(self.pid, 0)

    def dewar(self, *args):
        return timed([options.dewar, *args], env=self.env)

    def remove_all(self):
        http = Http(self.socket)
        for container in http.call("GET", "/containers/json?all=1"):
            http.call("DELETE", f"/containers/{container['Id']}?force=1")

    def shims(self):
        """Processes that hold this daemon's directory and are not it, without the containers' own."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                same = os.stat(f"/proc/{pid}/exe").st_ino == os.stat(options.dewar).st_ino
                if same and int(pid) != self.pid:
                    found.append(int(pid))
            except OSError:
                pass
        return found


def box(command, **host):
    return {"Image": "busybox", "Cmd": command, "HostConfig": {"NetworkMode": "none", **host}}


rootfs = f"{work}/rootfs"
os.makedirs(rootfs)
subprocess.run(["tar", "-C", rootfs, "-xf", f"{work}/busybox.tar"], check=True)
busybox = f"{rootfs}/bin/busybox"
# A fresh network namespace has it down.
subprocess.run([busybox, "ip", "link", "set", "lo", "up"], check=True)
daemon = Daemon("main")
daemon.dewar("import", f"{work}/busybox.tar", "busybox")

if wanted("run"):
    # The floor: the same namespaces, the same overlay and /proc, then exec; made and removed by one busybox.
    floor_script = f"""
d={work}/floor; mkdir -p $d/upper $d/work $d/merged
unshare --mount --propagation private --pid --ipc --uts --net --cgroup --fork {busybox} sh -c "
    mount -t overlay overlay -o lowerdir={rootfs},upperdir=$d/upper,workdir=$d/work $d/merged
    mount -t proc proc $d/merged/proc
    exec chroot $d/merged /bin/true"
rm -r $d
"""
    open(f"{work}/floor.sh", "w").write(floor_script)
    http, waiter = Http(daemon.socket), Http(daemon.socket)

    def raw_api():
        start = time.perf_counter()
        ident = http.call("POST", "/containers/create", box(["true"], AutoRemove=True))["Id"]
        waiter.send("POST", f"/containers/{ident}/wait?condition=removed")
        status, headers = waiter.head()
        http.call("POST", f"/containers/{ident}/start")
        waiter.body(status, headers)
        return time.perf_counter() - start

    candidates = {
        "run": lambda: daemon.dewar("run", "--rm", "--network", "none", "busybox", "true"),
        "api": raw_api,
        "floor": lambda: timed([busybox, "sh", f"{work}/floor.sh"]),
        "exec": lambda: timed([busybox, "true"]),
    }
    if shutil.which("runc") or os.path.exists("/usr/sbin/runc"):
        runc = shutil.which("runc") or "/usr/sbin/runc"
        bundle = f"{work}/bundle"
        os.makedirs(bundle)
        subprocess.run([runc, "spec", "-b", bundle], check=True)
        config = json.load(open(f"{bundle}/config.json"))
        config["process"].update(terminal=False, args=["true"])
        config["root"] = {"path": rootfs, "readonly": True}
        json.dump(config, open(f"{bundle}/config.json", "w"))
        candidates["runc"] = lambda: timed([runc, "--root", f"{work}/runc", "run", "-b", bundle, "bench"])
    ms = interleaved(options.rounds, **candidates)
    row("`dewar run --rm --network none busybox true`, start to exit", f"{ms['run']:.1f} ms", f"{ms['run'] / ms['floor']:.2f} × the floor", "≤ 3 ×")
    row("the same through the API (create, wait, start, removed)", f"{ms['api']:.1f} ms", f"{ms['api'] / ms['floor']:.2f} × the floor")
    row("floor: `unshare`, overlay, /proc, chroot, exec, remove", f"{ms['floor']:.1f} ms", f"exec of busybox alone {ms['exec']:.1f} ms")
    if "runc" in ms:
        row("`runc run` of the same root, no overlay", f"{ms['runc']:.1f} ms", f"`dewar run` is {ms['run'] / ms['runc']:.2f} × it", "≤ 0.5 ×")

if wanted("memory"):
    time.sleep(1)
    idle = pss_kib(daemon.pid)
    row("daemon idle, PSS", f"{idle / 1024:.2f} MiB", "", "≤ 4 MiB")
    http = Http(daemon.socket)
    count = 50
    for _ in range(count):
        ident = http.call("POST", "/containers/create", box(["sleep", "1000"]))["Id"]
        http.call("POST", f"/containers/{ident}/start")
    time.sleep(1)
    shims = daemon.shims()
    total = sum(map(pss_kib, shims)) + pss_kib(daemon.pid) - idle
    row(f"per running container of {count}, PSS: shim and the daemon's growth", f"{total / count / 1024:.2f} MiB", f"{len(shims)} shims", "≤ 0.4 MiB")
    daemon.remove_all()

if wanted("burst"):
    times = []
    for _ in range(3):
        start = time.perf_counter()
        pids = [spawn([options.dewar, "run", "-d", "--network", "none", "busybox", "sleep", "1000"], env=daemon.env) for _ in range(100)]
        failed = sum(os.waitpid(pid, 0)[1] != 0 for pid in pids)
        times.append(time.perf_counter() - start)
        if failed:
            note(f"{failed} of 100 failed: " + open(f"{daemon.dir}/log").read()[-2000:])
        daemon.remove_all()
    row("100 × `dewar run -d` at once, until all have returned", f"{statistics.median(times):.2f} s", "", "≤ 3 s")

if wanted("ping"):
    for connections, target in ((1, "≥ 30 k/s"), (8, "≥ 80 k/s")):
        rates = [float(subprocess.check_output([f"{work}/load", daemon.socket, str(connections), "2"])) for _ in range(3)]
        row(f"GET /_ping, keep-alive, {connections} connection{'s' * (connections > 1)}", f"{statistics.median(rates) / 1000:.1f} k/s", "", target)

docker = shutil.which("docker", path=f"{os.environ['PATH']}:/opt/dewar/docker/bin")
published = {"80/tcp": [{"HostPort": ""}]}
if wanted("network-dockerd") and docker and (dockerd := peer(Dockerd, "dockerd")):
    subprocess.run([docker, "import", f"{work}/busybox.tar", "busybox"], env=dockerd.env, check=True, stdout=DEVNULL)
    port = {"Image": "busybox", "ExposedPorts": {"80/tcp": {}}, "HostConfig": {"NetworkMode": "bridge", "PortBindings": published}}

    def start_at(path):
        api = Http(path)

        def once():
            ident = api.call("POST", "/containers/create", {**port, "Cmd": ["sleep", "1000"]})["Id"]
            begin = time.perf_counter()
            api.call("POST", f"/containers/{ident}/start")
            elapsed = time.perf_counter() - begin
            api.call("DELETE", f"/containers/{ident}?force=1")
            return elapsed

        return once

    def run_at(path):
        api, waiter = Http(path), Http(path)

        def once():
            config = {**port, "Cmd": ["true"], "HostConfig": {**port["HostConfig"], "AutoRemove": True}}
            begin = time.perf_counter()
            ident = api.call("POST", "/containers/create", config)["Id"]
            waiter.send("POST", f"/containers/{ident}/wait?condition=removed")
            status, headers = waiter.head()
            api.call("POST", f"/containers/{ident}/start")
            waiter.body(status, headers)
            return time.perf_counter() - begin

        return once

    line = ["run", "--rm", "-p", "80", "busybox", "true"]
    ms = interleaved(
        max(10, options.rounds // 2),
        start=start_at(daemon.socket),
        dockerd_start=start_at(dockerd.socket),
        run=run_at(daemon.socket),
        dockerd_run=run_at(dockerd.socket),
        dewar=lambda: daemon.dewar(*line),
        docker=lambda: timed([docker, *line], env=daemon.env),
        dockerd=lambda: timed([docker, *line], env=dockerd.env),
    )

    def beside(name, other):
        return f"{ms[other] / ms[name]:.1f} × faster than dockerd, {ms[other]:.0f} ms"

    row("start (`POST …/start`) with bridge and one published port", f"{ms['start']:.1f} ms", beside("start", "dockerd_start"), "≥ 12 ×")
    row("create, wait, start, removed through the API, the same", f"{ms['run']:.1f} ms", beside("run", "dockerd_run"))
    row("`dewar run --rm -p 80 busybox true` against `docker run`", f"{ms['dewar']:.1f} ms", beside("dewar", "dockerd"), "≥ 12 ×")
    row("the same with the stock docker client on both", f"{ms['docker']:.1f} ms", beside("docker", "dockerd"))
    dockerd.stop()

if wanted("network-own"):
    NET = f"{work}/net"
    http = Http(daemon.socket)

    def create(name="", image_command=("sleep", "1000"), **host):
        query = f"?name={name}" if name else ""
        body = {"Image": "busybox", "Cmd": list(image_command), "HostConfig": host}
        if "PortBindings" in host:
            body["ExposedPorts"] = {port: {} for port in host["PortBindings"]}
        return http.call("POST", f"/containers/create{query}", body)["Id"]

    def remove(ident):
        http.call("DELETE", f"/containers/{ident}?force=1")

    def start_of(**host):
        """The time of one start; the container is made before and removed after it."""

        def once():
            ident = create(**host)
            begin = time.perf_counter()
            http.call("POST", f"/containers/{ident}/start")
            elapsed = time.perf_counter() - begin
            remove(ident)
            return elapsed

        return once

    kinds = {
        "none": start_of(NetworkMode="none"),
        "bridge": start_of(NetworkMode="bridge"),
        "port": start_of(NetworkMode="bridge", PortBindings=published),
    }
    # Some milliseconds beside tens: on a machine that does other things, too, only quick rounds tell them apart.
    def quick(values):
        return statistics.mean(sorted(values)[: max(1, len(values) // 5)])

    ms = interleaved(options.rounds, quick, **kinds)
    row("start (`POST …/start`), `--network none`, of the quickest fifth", f"{ms['none']:.1f} ms")
    row("start on the default bridge, the same", f"{ms['bridge']:.1f} ms", f"{ms['bridge'] - ms['none']:+.1f} ms, {ms['bridge'] / ms['none']:.2f} × `none`")
    row("start on the default bridge with one published port, the same", f"{ms['port']:.1f} ms", f"{ms['port'] - ms['none']:+.1f} ms, {ms['port'] / ms['none']:.2f} × `none`", "≤ +5 ms")
    runs = {
        "none": lambda: daemon.dewar("run", "--rm", "--network", "none", "busybox", "true"),
        "port": lambda: daemon.dewar("run", "--rm", "-p", "80", "busybox", "true"),
    }
    ms = interleaved(options.rounds, **runs)
    row("`dewar run --rm -p 80 busybox true`, start to exit", f"{ms['port']:.1f} ms", f"{ms['port'] - ms['none']:+.1f} ms, {ms['port'] / ms['none']:.2f} × `--network none`")

    # Everything on one network, each with a published port.
    http.call("POST", "/networks/create", {"Name": "crowd", "IPAM": {"Config": [{"Subnet": "10.77.0.0/20"}]}})
    crowded = {
        "none": start_of(NetworkMode="none"),
        "port": start_of(NetworkMode="crowd", PortBindings=published),
    }
    first, there = None, 0
    for count in (1, 100, 500):
        for number in range(there, count):
            ident = create(name=f"crowd{number}", NetworkMode="crowd", PortBindings=published)
            http.call("POST", f"/containers/{ident}/start")
        there = count
        time.sleep(1)
        ms = interleaved(max(20, options.rounds // 2), quick, **crowded)
        first = first or ms["port"]
        part = f"{ms['port'] - ms['none']:+.1f} ms to `none` beside as many"
        growth = f"{ms['port'] / first:.2f} × that beside 1; " if count > 1 else ""
        row(f"start with a published port beside {count} on one network, of the quickest fifth", f"{ms['port']:.1f} ms", growth + part, "< 1.5 ×" if count > 1 else "")

    def pid_of(name):
        return http.call("GET", f"/containers/{name}/json")["State"]["Pid"]

    def address_of(name):
        return http.call("GET", f"/containers/{name}/json")["NetworkSettings"]["Networks"]["crowd"]["IPAddress"]

    def within(pid, *argv):
        return ["nsenter", f"--net=/proc/{pid}/ns/net", *argv]

    def cpu_us(pid):
        tasks = os.listdir(f"/proc/{pid}/task")
        return sum(int(open(f"/proc/{pid}/task/{task}/schedstat").read().split()[0]) for task in tasks) / 1000

    inside, beside = pid_of("crowd0"), pid_of("crowd1")
    peer = address_of("crowd1")
    echo = spawn(within(inside, NET, "echo", "5353"))
    time.sleep(0.2)
    lookups = 5000
    trips, echoes, spent = [], [], []
    for _ in range(7):
        begin = cpu_us(daemon.pid)
        trips.append(float(subprocess.check_output(within(inside, NET, "ask", "127.0.0.11:53", str(lookups), "crowd499"))))
        spent.append((cpu_us(daemon.pid) - begin) / lookups)
        echoes.append(float(subprocess.check_output(within(inside, NET, "ask", "127.0.0.1:5353", str(lookups)))))
    os.kill(echo, 9)
    spent, trip, plain = map(statistics.median, (spent, trips, echoes))
    row("a name lookup among 500, the daemon's time", f"{spent:.1f} µs", "", "≤ 50 µs")
    row("a name lookup, there and back", f"{trip:.1f} µs", f"{trip / plain:.2f} × a UDP echo inside the container, {plain:.1f} µs")
    daemon.remove_all()

    # Two containers on one network against two namespaces joined by a veth pair, and two by a bridge that nobody has
    # done anything to: what a bridge costs is the second pair's.
    for name in ("crowd0", "crowd1"):
        http.call("POST", f"/containers/{create(name=name, NetworkMode='crowd')}/start")
    inside, beside = pid_of("crowd0"), pid_of("crowd1")
    peer = address_of("crowd1")
    bare = [spawn(["unshare", "--net", busybox, "sleep", "100000"]) for _ in range(4)]
    time.sleep(0.2)

    def ip(*words, pid=None):
        subprocess.run(within(pid, "ip", *words) if pid else ["ip", *words], check=True)

    ip("link", "add", "bare0", "netns", str(bare[0]), "type", "veth", "peer", "name", "bare1", "netns", str(bare[1]))
    ip("link", "add", "bare", "type", "bridge")
    ip("link", "set", "bare", "up")
    for number in (2, 3):
        ip("link", "add", f"port{number}", "type", "veth", "peer", "name", f"bare{number}", "netns", str(bare[number]))
        ip("link", "set", f"port{number}", "master", "bare", "up")
    for number, pid in enumerate(bare):
        ip("addr", "add", f"10.78.{number // 2}.{number % 2 + 1}/24", "dev", f"bare{number}", pid=pid)
        ip("link", "set", f"bare{number}", "up", pid=pid)
    # Each end has a processor of its own: which one the scheduler picks moves a round more than what is compared.
    last = str(os.cpu_count() - 1)
    sinks = [spawn(within(pid, "taskset", "-c", last, NET, "sink", "7000")) for pid in (beside, bare[1], bare[3])]
    time.sleep(0.2)

    def pour(pid, to):
        return float(subprocess.check_output(within(pid, "taskset", "-c", "0", NET, "pour", f"{to}:7000", "0.4")))

    def compare(what, target):
        ways = [("containers", inside, peer), ("bridge", bare[2], "10.78.1.2"), ("bare", bare[0], "10.78.0.2")]
        rates = {name: [] for name, _, _ in ways}
        for number in range(25):
            # Who is first in a round is not always the same.
            for name, pid, to in ways[number % 3 :] + ways[: number % 3]:
                rates[name].append(pour(pid, to))
        ours, bridge, floor = (statistics.median(rates[name]) for name in ("containers", "bridge", "bare"))
        compared = f"{ours / floor:.2f} × a plain veth pair, {floor:.1f} Gbit/s; {ours / bridge:.2f} × veths on a plain bridge, {bridge:.1f} Gbit/s"
        row(what, f"{ours:.1f} Gbit/s", compared, target)

    # With br_netfilter every bridged packet passes the host's IP hooks and is tracked, whosever the rules are.
    bridged = "/proc/sys/net/bridge/bridge-nf-call-iptables"
    if os.path.exists(bridged):
        compare(f"TCP from container to container, br_netfilter loaded (bridge-nf-call-iptables={open(bridged).read().strip()})", "")
        open(bridged, "w").write("0")
    compare("TCP from container to container, without br_netfilter", "≥ 0.97 ×")
    for pid in sinks + bare:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    ip("link", "del", "bare")
    daemon.remove_all()
    http.call("DELETE", "/networks/crowd")

if wanted("images-load") or wanted("images-pull") or wanted("images-memory"):
    # About 200 MiB of this machine's files in four gzip layers, as an OCI layout in a tar.
    import hashlib
    import io
    import tarfile

    note("making an image of 200 MiB")
    base = f"{work}/images"
    os.makedirs(base)
    found = []
    for top in ("usr/bin", "usr/share/doc", "usr/share/perl", "usr/lib/python3", "usr/lib/x86_64-linux-gnu"):
        for dir, _, names in os.walk(f"/{top}"):
            paths = (f"{dir}/{name}" for name in sorted(names))
            found += [path for path in paths if os.path.isfile(path) and not os.path.islink(path) and os.path.getsize(path) < 8 << 20]
    found.sort(key=lambda path: hashlib.sha256(path.encode()).digest())
    layers, chosen, size = [], [], 0
    for path in found:
        chosen.append(path[1:])
        size += os.path.getsize(path) + 512
        if size >= 50 << 20:
            layers.append(f"{base}/{len(layers)}")
            open(f"{base}/list", "w").write("\n".join(sorted(chosen)))
            subprocess.run(["tar", "-C", "/", "-cf", layers[-1], "-T", f"{base}/list"], check=True)
            subprocess.run(["gzip", "-n", "-k", layers[-1]], check=True)
            chosen, size = [], 0
            if len(layers) == 4:
                break

    def make_image(path, name, layers, docker_too=False):
        """Writes the OCI layout of gzip layers (beside each its .gz) as a tar."""
        archive = tarfile.open(path, "w")

        def member(name, data):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))

        def blob(kind, data):
            digest = hashlib.sha256(data).hexdigest()
            member(f"blobs/sha256/{digest}", data)
            return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

        def text(value):
            return json.dumps(value).encode()

        diffs = [hashlib.sha256(open(layer, "rb").read()).hexdigest() for layer in layers]
        config = blob("config.v1+json", text({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff}" for diff in diffs]}}))
        blobs = [blob("layer.v1.tar+gzip", open(f"{layer}.gz", "rb").read()) for layer in layers]
        manifest = blob("manifest.v1+json", text({"schemaVersion": 2, "config": config, "layers": blobs}))
        manifest["annotations"] = {"io.containerd.image.name": name}
        member("index.json", text({"schemaVersion": 2, "manifests": [manifest]}))
        member("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        if docker_too:
            # What dockerd reads of it.
            paths = ["blobs/" + blob["digest"].replace(":", "/") for blob in [config, *blobs]]
            member("manifest.json", text([{"Config": paths[0], "RepoTags": [name.removeprefix("docker.io/")], "Layers": paths[1:]}]))
        archive.close()

    make_image(f"{base}/image.tar", "docker.io/bench/image:1", layers, docker_too=True)
    mib = sum(os.path.getsize(layer) for layer in layers) / 1048576

    def unpack_by_hand(synced):
        shutil.rmtree(f"{base}/floor", ignore_errors=True)
        script = "set -e; for n in 0 1 2 3; do mkdir -p $0/floor/$n; gzip -dc $0/$n.gz | tar -C $0/floor/$n -xpf -; done"
        return timed(["sh", "-c", script + ("; sync -f $0/floor" if synced else ""), base])

    peaks = []

    def watched(*args):
        """Times a command, and keeps how much the daemon's memory rose meanwhile."""
        # 5 makes the highest mark the present one.
        open(f"/proc/{daemon.pid}/clear_refs", "w").write("5")

        def rss(mark):
            with open(f"/proc/{daemon.pid}/status") as status:
                return next(int(line.split()[1]) for line in status if line.startswith(mark))

        before = rss("VmRSS")
        elapsed = daemon.dewar(*args)
        peaks.append((rss("VmHWM") - before) / 1024)
        return elapsed

    def quietly(*args):
        subprocess.run([options.dewar, *args], env=daemon.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def load():
        quietly("rmi", "bench/image:1")
        return watched("load", "-q", "-i", f"{base}/image.tar")

    if wanted("images-load"):
        candidates = {"floor": lambda: unpack_by_hand(False), "synced": lambda: unpack_by_hand(True), "load": load}
        dockerd = docker and peer(Dockerd, "dockerd")
        if dockerd:
            def dockerd_load():
                subprocess.run([docker, "rmi", "bench/image:1"], env=dockerd.env, stdout=DEVNULL, stderr=DEVNULL)
                return timed([docker, "load", "-q", "-i", f"{base}/image.tar"], env=dockerd.env)

            candidates["dockerd"] = dockerd_load
        ms = interleaved(4, **candidates)
        row(f"`dewar load`, {mib:.0f} MiB in four gzip layers", f"{ms['load']:.0f} ms", f"{ms['load'] / ms['floor']:.2f} × `gzip -dc \\| tar x` of the layers, {ms['floor']:.0f} ms", "≤ 1.3 ×")
        row("the same, safe on disk both times", f"{ms['load']:.0f} ms", f"{ms['load'] / ms['synced']:.2f} × with `sync -f`, {ms['synced']:.0f} ms")
        if dockerd:
            row("the same archive, `docker load` on dockerd", f"{ms['dockerd']:.0f} ms", f"dewar is {ms['dockerd'] / ms['load']:.2f} × faster", "≥ 1.5 ×")
            dockerd.stop()
        row("memory of the daemon during it, above idle", f"{max(peaks):.1f} MiB", "", "≤ 40 MiB")
    registry = shutil.which("docker-registry", path=f"{os.environ['PATH']}:/opt/dewar/registry/bin")
    if not registry and (wanted("images-pull") or wanted("images-memory")):
        note("pull: skipped, no docker-registry (scripts/deps.sh test)")
    if registry and (wanted("images-pull") or wanted("images-memory")):
        place = "127.0.0.1:5000"
        settings = {"version": 0.1, "storage": {"filesystem": {"rootdirectory": f"{base}/registry"}}, "http": {"addr": place}, "log": {"level": "error"}}
        open(f"{base}/registry.yml", "w").write(json.dumps(settings))
        # This network is new.
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        server = spawn([registry, "serve", f"{base}/registry.yml"])
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", 5000)).close()
                break
            except OSError:
                time.sleep(0.05)

        def publish(local):
            daemon.dewar("tag", local, f"{place}/{local}")
            daemon.dewar("push", "-q", f"{place}/{local}")
            for name in (local, f"{place}/{local}"):
                daemon.dewar("rmi", name)

        def pull(name):
            quietly("rmi", name)
            return watched("pull", "-q", name)

        if wanted("images-pull"):
            load()
            publish("bench/image:1")
            # Neither may find the other's layers.
            ms = interleaved(7, load=lambda: [quietly("rmi", f"{place}/bench/image:1"), load()][1], pull=lambda: [quietly("rmi", "bench/image:1"), pull(f"{place}/bench/image:1")][1])
            row(f"`dewar pull` of the same from a registry on loopback", f"{ms['pull']:.0f} ms", f"{ms['pull'] / ms['load']:.2f} × `load`, {ms['load']:.0f} ms", "≤ 1.1 ×")
        if wanted("images-memory"):
            big, zips = [], []
            for number in range(8):
                # 128 MiB each: half of it does not compress.
                big.append(f"{base}/big{number}")
                with tarfile.open(big[-1], "w") as layer:
                    for part in range(64):
                        data = os.urandom(1 << 20) + os.urandom(1 << 10) * (1 << 10)
                        entry = tarfile.TarInfo(f"{number}/{part}")
                        entry.size = len(data)
                        layer.addfile(entry, io.BytesIO(data))
                zips.append(spawn(["gzip", "-n", "-k", "-1", big[-1]]))
            if any(os.waitpid(pid, 0)[1] for pid in zips):
                raise SystemExit("bench: gzip failed")
            make_image(f"{base}/big.tar", "docker.io/bench/big:1", big)
            daemon.dewar("load", "-q", "-i", f"{base}/big.tar")
            publish("bench/big:1")
            peaks.clear()
            elapsed = pull(f"{place}/bench/big:1")
            row(f"memory of the daemon during a pull of 1 GiB ({elapsed:.1f} s), above idle", f"{max(peaks):.1f} MiB", "", "≤ 40 MiB")
        os.kill(server, 15)
        os.waitpid(server, 0)
    shutil.rmtree(base)


class Raw:
    """What criu itself needs: the same kind of container (namespaces, overlay root, an external
    network namespace) made by hand, dumped and restored with the flags that were quickest."""

    def __init__(self, name, shell):
        self.base = base = f"{work}/{name}"
        for part in ("upper", "work", "merged"):
            os.makedirs(f"{base}/{part}")
        self.merged = f"{base}/merged"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", f"lowerdir={rootfs},upperdir={base}/upper,workdir={base}/work,index=on,nfs_export=on", self.merged], check=True)
        open(f"{base}/init.sh", "w").write(f"""
cd {self.merged}
mount -t proc proc proc
mount -t tmpfs tmpfs dev
for n in null:1:3 zero:1:5 urandom:1:9; do set -- $(echo $n | tr : ' '); mknod dev/$1 c $2 $3; done
mkdir -p dev/pts dev/shm .old
mount -t devpts -o newinstance devpts dev/pts
mount -t tmpfs tmpfs dev/shm
pivot_root . .old
cd /
exec < /dev/null > /dev/null 2>&1
umount -l /.old
rmdir /.old
exec 3>&- 4>&- 10>&-
exec /bin/busybox sh -c '{shell}'
""")
        self.net = spawn(["unshare", "--net", busybox, "sleep", "100000"])
        time.sleep(0.2)
        self.outer = spawn(["nsenter", f"--net=/proc/{self.net}/ns/net", "unshare", "--mount", "--propagation", "private", "--pid", "--ipc", "--uts", "--fork", "setsid", busybox, "sh", f"{base}/init.sh"])
        time.sleep(0.5)
        self.victim = int(open(f"/proc/{self.outer}/task/{self.outer}/children").read().split()[0])
        self.netns = os.open(f"/proc/{self.net}/ns/net", os.O_RDONLY)
        os.set_inheritable(self.netns, True)
        self.common = ["--manage-cgroups=ignore", "--network-lock", "skip", "-v2", "-W", base, "-D", f"{base}/images"]

    def dump(self):
        shutil.rmtree(f"{self.base}/images", ignore_errors=True)
        os.makedirs(f"{self.base}/images")
        external = f"net[{os.fstat(self.netns).st_ino}]:extRootNetNS"
        elapsed = timed([options.criu, "dump", "-t", str(self.victim), "-o", "dump.log", "--external", external, *self.common])
        if self.outer:
            os.waitpid(self.outer, 0)
            self.outer = 0
        return elapsed

    def restore(self):
        pidfile = f"{self.base}/pid"
        if os.path.exists(pidfile):
            os.unlink(pidfile)
        elapsed = timed([options.criu, "restore", "-d", "-o", "restore.log", "--root", self.merged, "--pidfile", pidfile, "--inherit-fd", f"fd[{self.netns}]:extRootNetNS", *self.common])
        self.victim = int(open(pidfile).read())
        # What is not written out yet would be by the next who syncs the filesystem, in their time.
        shutil.rmtree(f"{self.base}/images")
        return elapsed

    def end(self):
        for pid in (self.victim, self.net):
            os.kill(pid, 9)
        os.waitpid(self.net, 0)
        os.close(self.netns)
        subprocess.run(["umount", "-l", self.merged], check=True)
        shutil.rmtree(self.base, ignore_errors=True)


def running(name, shell):
    """A container that runs `shell` without a network; gives its id."""
    http = Http(daemon.socket)
    ident = http.call("POST", f"/containers/create?name={name}", box(["sh", "-c", shell]))["Id"]
    http.call("POST", f"/containers/{ident}/start")
    return ident


def warm(mib):
    """Has the disk idle, and memory for so large files be there. A hypervisor takes back what nobody uses for a while, and gives
    it again page by page, to the first who needs it: that is no engine's time."""
    os.sync()
    with tempfile.TemporaryFile(dir=work) as file:
        for _ in range(mib):
            file.write(bytes(1 << 20))


def there_and_back(rounds, memory_mib=0, **engines):
    """Freezes and thaws with each engine, (dump, restore), once per round; medians in ms, the first round left out."""
    times = {}
    for _ in range(rounds + 1):
        for name, (dump, restore) in engines.items():
            if memory_mib:
                warm(memory_mib + memory_mib // 4)
            times.setdefault(f"{name} dump", []).append(dump())
            times.setdefault(f"{name} restore", []).append(restore())
    return {name: statistics.median(values[1:]) * 1000 for name, values in times.items()}


def by_dewar(name, *flags, settled=lambda: True):
    """Freezing and thawing it with the command line; what else it takes is outside the time."""
    count, checkpoint = 0, "cp" + "".join(flags)

    def dump():
        nonlocal count
        while not settled():
            time.sleep(0.05)
        if count:
            daemon.dewar("checkpoint", "rm", name, f"{checkpoint}{count}")
        count += 1
        return daemon.dewar("checkpoint", "create", name, f"{checkpoint}{count}")

    def lacks_digests():
        found = glob.glob(f"{daemon.dir}/data/containers/*/checkpoints/{checkpoint}{count}/checkpoint.json")
        return any(not file.get("sha256") for path in found for file in json.load(open(path))["files"].values())

    def restore():
        elapsed = daemon.dewar("start", *flags, "--checkpoint", f"{checkpoint}{count}", name)
        # Taken in the background: nobody else's time.
        while lacks_digests():
            time.sleep(0.02)
        return elapsed

    return dump, restore


SHELL = "while :; do sleep 1000; done"

if not options.criu and any(map(wanted, ("checkpoint-small", "checkpoint-podman", "checkpoint-memory", "clone"))):
    note("checkpoint, clone: skipped, no criu that works here")

if wanted("checkpoint-small") and options.criu:
    raw = Raw("raw", SHELL)
    running("frozen", SHELL)
    time.sleep(0.3)
    ms = there_and_back(max(10, options.rounds // 2), raw=(raw.dump, raw.restore), dewar=by_dewar("frozen"))
    row("`dewar checkpoint create` of a shell", f"{ms['dewar dump']:.0f} ms", f"{ms['dewar dump'] / ms['raw dump']:.2f} × raw `criu dump`, {ms['raw dump']:.0f} ms", "≤ 1.6 ×")
    row("`dewar start --checkpoint`", f"{ms['dewar restore']:.0f} ms", f"{ms['dewar restore'] / ms['raw restore']:.2f} × raw `criu restore`, {ms['raw restore']:.0f} ms", "≤ 1.6 ×")
    raw.end()
    daemon.remove_all()

if wanted("checkpoint-podman") and options.criu and (podman := peer(Podman, "podman")):
    try:
        shutil.copy(f"{work}/busybox.tar", podman.dir)
        podman.call("import", "/work/busybox.tar", "busybox")
        # Without CAP_SYS_RESOURCE podman's own limits cannot be set again by criu.
        limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"]
        podman.call("run", "-d", "--name", "frozen", "--network", "none", *limits, "localhost/busybox", "sh", "-c", SHELL)
        running("frozen", SHELL)
        time.sleep(0.3)

        def by_podman(verb):
            return lambda: timed(podman.argv("container", verb, "frozen"), env=podman.env)

        # What it says about a failure is worth a line.
        podman.call("container", "checkpoint", "frozen")
        podman.call("container", "restore", "frozen")
        ms = there_and_back(max(8, options.rounds // 4), dewar=by_dewar("frozen"), podman=(by_podman("checkpoint"), by_podman("restore")))
        for what, command in (("dump", "`dewar checkpoint create` of a shell against `podman container checkpoint`"), ("restore", "`dewar start --checkpoint` against `podman container restore`")):
            ours, theirs = ms[f"dewar {what}"], ms[f"podman {what}"]
            row(command, f"{ours:.0f} ms", f"{theirs / ours:.1f} × faster than podman, {theirs:.0f} ms", "≥ 3 ×")
    except RuntimeError as error:
        note(f"podman: skipped, {error}")
    podman.stop()
    daemon.remove_all()

if wanted("checkpoint-memory") and options.criu:
    for mib, rounds in ((256, 7), (1024, 5)):
        # dd's buffer is the memory; nobody reads what it would write.
        shell = f"dd if=/dev/urandom bs={mib}M iflag=fullblock 2> /dev/null | sleep 100000"
        raw = Raw(f"raw{mib}", shell)
        ident = running("frozen", shell)
        http = Http(daemon.socket)

        def has_memory(pid):
            pids = [pid]
            for pid in pids:
                pids += map(int, open(f"/proc/{pid}/task/{pid}/children").read().split())
            return sum(map(pss_kib, pids)) >= mib << 10

        def filled():
            return has_memory(http.call("GET", f"/containers/{ident}/json")["State"]["Pid"])

        while not has_memory(raw.victim) or not filled():
            time.sleep(0.05)
        time.sleep(0.5)

        ms = there_and_back(rounds, mib, raw=(raw.dump, raw.restore), dewar=by_dewar("frozen"))
        for what, command in (("dump", "`dewar checkpoint create`"), ("restore", "`dewar start --checkpoint`")):
            ours, theirs = ms[f"dewar {what}"], ms[f"raw {what}"]
            row(f"{command}, {mib} MiB of dirty memory", f"{ours:.0f} ms", f"{ours / theirs:.2f} × raw `criu {what}`, {theirs:.0f} ms", "≤ 1.15 ×")
        raw.end()
        ms = there_and_back(rounds, lazy=by_dewar("frozen", "--lazy", settled=filled))
        row(f"`dewar start --lazy --checkpoint`, {mib} MiB, until it runs", f"{ms['lazy restore']:.0f} ms", "", "≤ 150 ms" if mib == 1024 else "")
        daemon.remove_all()

if wanted("clone") and options.criu:
    http = Http(daemon.socket)
    # dd's buffer is the memory; nobody reads what it would write.
    config = box(["sh", "-c", "dd if=/dev/urandom bs=256M iflag=fullblock 2> /dev/null | sleep 100000"])
    ident = http.call("POST", "/containers/create?name=warm", config)["Id"]
    http.call("POST", f"/containers/{ident}/start")
    while http.call("GET", f"/containers/{ident}/stats?stream=0&one-shot=1")["memory_stats"]["usage"] < 256 << 20:
        time.sleep(0.05)
    time.sleep(0.3)

    def remove(names):
        for name in names:
            http.call("DELETE", f"/containers/{name}?force=1")

    daemon.dewar("checkpoint", "create", "--leave-running", "warm", "cp")
    times = {name: [] for name in ("restore", "lazy", "clone", "ten", "stopped")}
    ten = [f"many-{number}" for number in range(1, 11)]
    for number in range(max(3, options.rounds // 8)):
        for flags, what in ((["--lazy"], "lazy"), ([], "restore")):
            times[what].append(daemon.dewar("restore", *flags, "--name", "one", "warm", "cp"))
            remove(["one"])
        start = time.perf_counter()
        answer = http.call("POST", f"/containers/{ident}/clone", {"Name": "one"})
        times["clone"].append(time.perf_counter() - start)
        times["stopped"].append(answer["StoppedMilliseconds"] / 1000)
        remove(["one"])
        times["ten"].append(daemon.dewar("clone", "--count", "10", "--name", "many", "warm"))
        remove(ten)
    ms = {name: statistics.median(values) * 1000 for name, values in times.items()}
    one = ms["restore"]
    row("`dewar restore`, 256 MiB", f"{one:.0f} ms")
    row("`dewar restore --lazy`, 256 MiB, until it runs", f"{ms['lazy']:.0f} ms", f"{ms['lazy'] / one:.2f} × without")
    row("`dewar clone`, 256 MiB", f"{ms['clone']:.0f} ms", f"the original stood still for {ms['stopped']:.0f} ms")
    row("`dewar clone --count 10`, 256 MiB", f"{ms['ten']:.0f} ms", f"{ms['ten'] / one:.1f} × one restore", "≤ 10 ×")
    daemon.remove_all()

def migrate():
    """Moves of a server between two hosts, network namespaces on one wire, under the eyes of a client beside them."""
    holders = [spawn(["unshare", "--net", busybox, "sleep", "100000"]) for _ in range(3)]
    time.sleep(0.3)
    hosts, outside = holders[:2], holders[2]

    def ip(pid, *words):
        subprocess.run(["nsenter", f"--net=/proc/{pid}/ns/net", "ip", *words], check=True)

    ip(outside, "link", "add", "wire", "type", "bridge")
    ip(outside, "link", "set", "wire", "up")
    ip(outside, "addr", "add", "10.79.0.250/24", "dev", "wire")
    daemons = []
    for number, pid in enumerate(hosts):
        ip(pid, "link", "set", "lo", "up")
        ip(pid, "link", "add", "uplink", "type", "veth", "peer", "name", f"host{number}", "netns", str(outside))
        ip(outside, "link", "set", f"host{number}", "master", "wire", "up")
        ip(pid, "link", "add", "shared", "type", "bridge")
        ip(pid, "link", "set", "uplink", "master", "shared", "up")
        ip(pid, "link", "set", "shared", "up")
        one = Daemon(f"host{number}", ["nsenter", f"--net=/proc/{pid}/ns/net"])
        one.dewar("import", f"{work}/busybox.tar", "busybox")
        one.dewar("network", "create", "--subnet", "10.79.0.0/24", "--gateway", f"10.79.0.{number + 1}", "-o", "com.docker.network.bridge.name=shared", "wire")
        daemons.append(one)

    def moves(mebibytes, rounds, flags):
        """Silences and standstills in milliseconds, and the bytes of one move."""
        silences, stills, sent = [], [], 0
        here, there = daemons
        here.dewar("run", "-d", "--name", "ticker", "--network", "wire", "--ip", "10.79.0.100", "-v", f"{work}/net:/net:ro",
                   "busybox", "/net", "tick", "7000", str(mebibytes))
        for _ in range(rounds):
            # Until it listens, at first.
            for _ in range(200):
                probe = subprocess.run(["nsenter", f"--net=/proc/{outside}/ns/net", f"{work}/net", "gap", "10.79.0.100:7000"], stdin=DEVNULL, capture_output=True)
                if probe.returncode == 0:
                    break
                time.sleep(0.05)
            client = subprocess.Popen(["nsenter", f"--net=/proc/{outside}/ns/net", f"{work}/net", "gap", "10.79.0.100:7000"],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            time.sleep(0.3)
            told = subprocess.run([options.dewar, "migrate", "--json", *flags, "ticker", there.host], env=here.env, check=True, capture_output=True, text=True).stdout
            time.sleep(0.3)
            silences.append(float(client.communicate()[0]))
            moved = json.loads(told.strip().splitlines()[-1])
            stills.append(moved["StoppedMilliseconds"])
            sent = moved["Bytes"]
            here, there = there, here
        here.dewar("rm", "-f", "ticker")
        return silences, stills, sent

    def tell(what, target, mebibytes, rounds, *flags):
        silences, stills, sent = moves(mebibytes, rounds, flags)
        row(f"`dewar migrate`, {what}: longest silence a TCP client sees", f"{statistics.median(silences):.0f} ms",
            f"{min(silences):.0f} to {max(silences):.0f} ms; it stood still for {statistics.median(stills):.0f} ms, {sent / 1e6:.1f} MB sent", target)

    tell("a small server", "≤ 200 ms", 0, max(5, options.rounds // 4))
    tell("one with 256 MiB", "≤ 1.3 s", 256, max(3, options.rounds // 8))
    tell("one with 256 MiB, its memory later (`--lazy`)", "≤ 300 ms", 256, max(3, options.rounds // 8), "--lazy")
    for one in daemons:
        one.stop()
    for pid in holders:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


if wanted("migrate") and options.criu:
    migrate()

if wanted("start"):
    def restarted(count):
        times = []
        for _ in range(count):
            daemon.stop()
            times.append(daemon.start())
        return statistics.median(times) * 1000

    row("daemon start to first answer, no containers", f"{restarted(9):.1f} ms", "", "≤ 20 ms")
    note("making 1000 stopped containers")

    def make(count):
        http = Http(daemon.socket)
        for _ in range(count):
            ident = http.call("POST", "/containers/create", box(["true"]))["Id"]
            http.call("POST", f"/containers/{ident}/start")
            http.call("POST", f"/containers/{ident}/wait")

    threads = [threading.Thread(target=make, args=(250,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    count = len(Http(daemon.socket).call("GET", "/containers/json?all=1"))
    row(f"daemon start to first answer, {count} stopped containers", f"{restarted(5):.1f} ms", "", "≤ 250 ms")
    row(f"daemon idle with {count} stopped containers, PSS", f"{pss_kib(daemon.pid) / 1024:.2f} MiB")
    daemon.remove_all()

daemon.stop()
if wanted("size"):
    row("binary, static and stripped", f"{os.path.getsize(options.dewar) / 1048576:.2f} MiB", "", "≤ 5 MiB")

cpu = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 30
version = "v2" if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else "v1"
print(f"`make bench` on {os.cpu_count()} × {cpu}, {memory} GiB, Linux {platform.release()}, cgroup {version}, load {os.getloadavg()[0]:.1f}; medians of up to {options.rounds} interleaved rounds:\n")
print("| what | measured | compared | wanted |\n|---|---|---|---|")
for cells in rows:
    print("| " + " | ".join(cells) + " |")
