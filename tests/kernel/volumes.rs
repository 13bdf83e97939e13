//! Volumes and binds in containers: what is in them, who has them, where mounts travel.

use std::path::{Path, PathBuf};

use rustix::fs::XattrFlags;

use crate::support::requires::requires;
use crate::support::{Cmd, Daemon, busybox_tar, eventually};

fn volumes(daemon: &Daemon) -> Vec<String> {
    daemon.dewar(&["volume", "ls", "-q"]).ok().stdout.lines().map(str::to_owned).collect()
}

fn content(daemon: &Daemon, volume: &str) -> PathBuf {
    daemon.dir().join("data/volumes").join(volume).join("_data")
}

fn inspect(daemon: &Daemon, name: &str) -> serde_json::Value {
    daemon.api("GET", &format!("/containers/{name}/json")).is(200).json()
}

/// Busybox with `/srv/data` (1234:1235, setgid) holding a file, a link and an attribute, with `/link` that
/// leads to a directory of the host, and with `VOLUME`s.
fn image_with_content(daemon: &Daemon) -> PathBuf {
    let outside = daemon.dir().join("outside");
    let tree = daemon.dir().join("tree");
    let data = tree.join("srv/data");
    std::fs::create_dir_all(&data).expect("a fresh directory");
    std::fs::create_dir(&outside).expect("a fresh directory");
    std::fs::write(data.join("file"), "from the image\n").expect("writable");
    std::os::unix::fs::symlink("file", data.join("link")).expect("writable");
    std::os::unix::fs::symlink(&outside, tree.join("link")).expect("writable");
    rustix::fs::setxattr(data.join("file"), "user.kept", b"yes", XattrFlags::empty()).expect("attributes");
    Cmd::new("chown").args(["-R", "1234:1235"]).arg(&data).ok();
    Cmd::new("chmod").arg("2750").arg(&data).ok();
    let tar = daemon.dir().join("image.tar");
    let tree = tree.to_str().expect("UTF-8").to_owned();
    Cmd::new("tar").args(["--xattrs", "-C", &tree, "-cf"]).arg(&tar).args(["srv", "link"]).ok();
    Cmd::new("tar").arg("-A").arg("-f").arg(&tar).arg(busybox_tar()).ok();
    daemon.dewar(&["import", "-c", "VOLUME /srv/data", "-c", "VOLUME /extra"]).arg(&tar).arg("content").ok();
    outside
}

#[test]
fn an_empty_volume_gets_what_the_image_has_there() {
    requires!(root);
    let daemon = Daemon::start();
    image_with_content(&daemon);
    let run = |flags: &[&str], script: &str| {
        daemon
            .dewar(&["run", "--rm", "--network", "none"])
            .args(flags)
            .args(["content", "sh", "-c", script])
            .ok()
    };
    let look = "stat -c '%u:%g %a' /srv/data; cat /srv/data/link; cat /srv/data/new 2> /dev/null";
    run(&["-v", "one:/srv/data"], &format!("{look}; echo new > /srv/data/new"))
        .stdout_is("1234:1235 2750\nfrom the image\n");
    // One with content is left as it is, and so is one that is not to be copied into.
    run(&["-v", "one:/srv/data"], look).stdout_is("1234:1235 2750\nfrom the image\nnew\n");
    run(&["-v", "two:/srv/data:nocopy"], "ls -A /srv/data").stdout_is("");
    run(&["--mount", "src=three,dst=/srv/data,volume-nocopy"], "ls -A /srv/data").stdout_is("");
    run(&["--mount", "src=four,dst=/srv/data,volume-label=a=b"], "cat /srv/data/file")
        .stdout_is("from the image\n");
    daemon.dewar(&["volume", "ls", "-q", "-f", "label=a=b"]).ok().stdout_is("four\n");
    let mut value = [0; 8];
    let kept = rustix::fs::getxattr(content(&daemon, "one").join("file"), "user.kept", &mut value);
    assert_eq!(kept.map(|length| &value[..length]), Ok(&b"yes"[..]));
    // A volume over a file of the image is refused when it is asked for, and leaves nothing behind.
    let before = volumes(&daemon);
    daemon
        .dewar(&["create", "-v", "/bin/sh", "content", "sh"])
        .fails(1)
        .stderr_has("cannot mount volume over existing file, file exists /bin/sh");
    assert_eq!(volumes(&daemon), before);
}

#[test]
fn volumes_of_the_image_and_of_nobody_go_with_their_container() {
    requires!(root, docker);
    let daemon = Daemon::start();
    image_with_content(&daemon);
    daemon
        .docker(&["run", "-d", "--name", "web", "--network", "none"])
        .args(["-v", "named:/n", "-v", "/anon"])
        .args(["content", "sleep", "1000"])
        .ok();
    let container = inspect(&daemon, "web");
    let mut mounts = container["Mounts"].as_array().expect("a list").clone();
    mounts.sort_by_key(|mount| mount["Destination"].as_str().map(str::to_owned));
    let places: Vec<_> =
        mounts.iter().map(|mount| mount["Destination"].as_str().unwrap_or_default()).collect();
    assert_eq!(places, ["/anon", "/extra", "/n", "/srv/data"]);
    let named = &mounts[2];
    assert_eq!(
        *named,
        serde_json::json!({
            "Type": "volume", "Name": "named", "Source": content(&daemon, "named").to_str(), "Destination": "/n",
            "Driver": "local", "Mode": "z", "RW": true, "Propagation": "",
        })
    );
    assert_eq!(mounts[0]["Mode"], "");
    assert_eq!(mounts[0]["Name"].as_str().map(str::len), Some(64));
    let id = container["Id"].as_str().unwrap_or_default();
    daemon
        .docker(&["volume", "rm", "named"])
        .fails(1)
        .stderr_has(&format!("remove named: volume is in use - [{id}]"));
    daemon.docker(&["volume", "rm", "-f", "named"]).fails(1).stderr_has("volume is in use");
    daemon.docker(&["ps", "-q", "--filter", "volume=named"]).ok().stdout_has(&id[..12]);
    daemon.docker(&["volume", "prune", "-af"]).ok().stdout_has("0B");
    daemon.docker(&["rm", "-f", "web"]).ok();
    assert_eq!(volumes(&daemon).len(), 4, "rm leaves volumes alone");
    daemon.docker(&["volume", "prune", "-f"]).ok();
    assert_eq!(volumes(&daemon), ["named"]);
    daemon.docker(&["create", "--name", "web", "-v", "named:/n", "content", "true"]).ok();
    daemon.docker(&["rm", "-v", "web"]).ok();
    assert_eq!(volumes(&daemon), ["named"]);
    daemon.docker(&["run", "--rm", "--network", "none", "-v", "named:/n", "content", "true"]).ok();
    eventually("the anonymous volumes going", || volumes(&daemon) == ["named"]);
}

#[test]
fn another_containers_volumes_can_be_had() {
    requires!(root);
    let daemon = Daemon::start();
    let shared = daemon.dir().join("shared");
    std::fs::create_dir(&shared).expect("a fresh directory");
    let bind = format!("{}:/bind", shared.display());
    daemon
        .dewar(&[
            "create",
            "--name",
            "store",
            "-v",
            "/anon",
            "-v",
            "data:/data:ro",
            "-v",
            &bind,
            "busybox",
            "true",
        ])
        .ok();
    let from = |mode: &str, script: &str| daemon.run(&["--volumes-from", &format!("store{mode}")], script);
    from("", "echo one > /anon/file; echo two > /bind/file; touch /data/x 2>&1")
        .fails(1)
        .stdout_has("Read-only");
    from(":ro", "cat /anon/file /bind/file; touch /anon/x 2>&1")
        .fails(1)
        .stdout_is("one\ntwo\ntouch: /anon/x: Read-only file system\n");
    // The containers that had it went with --rm, and did not take the volume of the one that is left.
    assert_eq!(volumes(&daemon).len(), 2);
    from(":odd", "true").fails(125).stderr_has("invalid mode: odd");
    daemon.run(&["--volumes-from", "nope"], "true").fails(125).stderr_has("No such container: nope");
    daemon.dewar(&["rm", "-v", "store"]).ok();
    assert_eq!(volumes(&daemon), ["data"]);
}

#[test]
fn a_link_in_image_or_volume_leads_nowhere_else() {
    requires!(root);
    let daemon = Daemon::start();
    let outside = image_with_content(&daemon);
    let run = |flags: &[&str], script: &str| {
        daemon.dewar(&["run", "--rm", "--network", "none"]).args(flags).args(["content", "sh", "-c", script])
    };
    run(&["-v", "vv:/link/sub"], &format!("touch /link/sub/made; ls {}/sub", outside.display()))
        .ok()
        .stdout_is("made\n");
    assert_eq!(std::fs::read_dir(&outside).expect("still there").count(), 0);
    run(
        &["-v", "vv:/v"],
        &format!(
            "ln -s {} /v/out; ln -s ../../.. /v/up; mkdir -p /v/a; echo x > /v/a/f; ln -s a /v/in",
            outside.display()
        ),
    )
    .ok();
    let sub = |path: &str| run(&["--mount", &format!("src=vv,dst=/v,volume-subpath={path}")], "cat /v/f");
    sub("a").ok().stdout_is("x\n");
    sub("in").ok().stdout_is("x\n");
    sub("out").fails(125).stderr_has("path escapes from the volume");
    sub("up").fails(125).stderr_has("path escapes from the volume");
    sub("nope").fails(125).stderr_has("o such file or directory");
    sub("../v").fails(125).stderr_has("subpath must be a relative path within the volume");
}

#[test]
fn what_cannot_be_meant_is_refused_and_leaves_nothing() {
    requires!(root);
    let daemon = Daemon::start();
    for (flags, text) in [
        (["-v", "a:/b:odd"], "invalid mode"),
        (["-v", "new:/b:rshared"], "field BindOptions must not be specified"),
        (["-v", "new:/"], "destination can't be '/'"),
        (["--mount", "type=bind,src=/nope,dst=/b"], "bind source path does not exist: /nope"),
        (["--mount", "type=image,src=busybox,dst=/b"], "does not mount images"),
        (["--mount", "type=odd,dst=/b"], "mount type unknown"),
        (["--mount", "dst=/b,readonly"], "must not set ReadOnly mode when using anonymous volumes"),
        (["--mount", "src=new,dst=/b,volume-driver=odd"], "plugin \"odd\" not found"),
        (["--volume-driver=odd", "-vnew:/b"], "plugin \"odd\" not found"),
        (["-vnew:/b", "--tmpfs=/b"], "Duplicate mount point: /b"),
        (["-vnew:/b", "-vother:/b"], "Duplicate mount point: /b"),
    ] {
        daemon.run(&flags, "true").fails(125).stderr_has(text);
    }
    assert_eq!(volumes(&daemon), [""; 0]);
    let mount = serde_json::json!({"Type": "volume", "Target": "/b", "BindOptions": {}});
    let body = serde_json::json!({"Image": "busybox", "HostConfig": {"Mounts": [mount]}});
    daemon.api_json("POST", "/containers/create", &body).is(400);
    let device = ["-o", "type=none", "-o", "device=/nope", "-o", "o=bind", "dev"];
    daemon.dewar(&["volume", "create"]).args(device).ok();
    daemon.run(&["-v", "dev:/b"], "true").fails(125).stderr_has("failed to mount local volume: mount /nope:");
    daemon.dewar(&["volume", "rm", "dev"]).ok();
}

/// A directory with a tmpfs on it, shared; gone with it.
struct Shared(PathBuf);

impl Shared {
    fn new(daemon: &Daemon) -> Shared {
        let path = daemon.dir().join("peer");
        std::fs::create_dir(&path).expect("a fresh directory");
        Cmd::new("mount").args(["-t", "tmpfs", "none"]).arg(&path).ok();
        let shared = Shared(path);
        Cmd::new("mount").arg("--make-shared").arg(&shared.0).ok();
        shared
    }

    fn mount(&self, name: &str) {
        let at = self.0.join(name);
        std::fs::create_dir(&at).expect("writable");
        Cmd::new("mount").args(["-t", "tmpfs", "none"]).arg(&at).ok();
        std::fs::write(at.join("inside"), "").expect("writable");
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        Cmd::new("umount").args(["-R", "-l"]).arg(&self.0).run();
    }
}

#[test]
fn mounts_travel_as_the_propagation_says() {
    requires!(root);
    let daemon = Daemon::start();
    let shared = Shared::new(&daemon);
    let path = shared.0.display().to_string();
    for mode in ["rshared", "rslave", "rprivate"] {
        let bind = format!("{path}:/data:{mode}");
        daemon.run_detached(mode, &["--privileged", "-v", &bind], "exec sleep 1000");
        let propagation = inspect(&daemon, mode)["Mounts"][0]["Propagation"].clone();
        assert_eq!(propagation, mode);
    }
    let has = |name: &str, path: &str| daemon.dewar(&["exec", name, "test", "-e", path]).run().code == 0;
    shared.mount("host");
    assert!(has("rshared", "/data/host/inside") && has("rslave", "/data/host/inside"));
    assert!(!has("rprivate", "/data/host/inside"));
    for name in ["rshared", "rslave", "rprivate"] {
        let script =
            format!("mkdir /data/{name}; mount -t tmpfs none /data/{name}; touch /data/{name}/inside");
        daemon.dewar(&["exec", name, "sh", "-c", &script]).ok();
    }
    assert!(shared.0.join("rshared/inside").exists(), "a mount in the container reaches the host");
    assert!(!shared.0.join("rslave/inside").exists() && !shared.0.join("rprivate/inside").exists());
    assert!(has("rslave", "/data/rshared/inside"), "and from there the slaves");
    drop(shared);
    // On a private mount there is nobody to share with.
    let plain = daemon.dir().join("plain");
    std::fs::create_dir(&plain).expect("a fresh directory");
    Cmd::new("mount").args(["-t", "tmpfs", "none"]).arg(&plain).ok();
    Cmd::new("mount").arg("--make-private").arg(&plain).ok();
    let path = plain.display();
    let shared = daemon.run(&["-v", &format!("{path}:/data:shared")], "true").run();
    let slave = daemon.run(&["-v", &format!("{path}:/data:slave")], "true").run();
    Cmd::new("umount").arg(&plain).ok();
    assert_eq!((shared.code, slave.code), (125, 125));
    shared.stderr_has(&format!("path {path} is mounted on {path} but it is not a shared mount"));
    slave.stderr_has(&format!("path {path} is mounted on {path} but it is not a shared or slave mount"));
}

#[test]
fn read_only_reaches_what_is_mounted_below() {
    requires!(root);
    let daemon = Daemon::start();
    let shared = Shared::new(&daemon);
    shared.mount("below");
    let path = shared.0.display();
    let script = "touch /data/x 2> /dev/null && echo top; touch /data/below/x 2> /dev/null && echo below; ls /data/below";
    let run = |options: &str| {
        daemon.run(&["--mount", &format!("type=bind,src={path},dst=/data{options}")], script).run().stdout
    };
    assert_eq!(run(",readonly"), "inside\n");
    assert_eq!(run(",readonly,bind-recursive=readonly,bind-propagation=rprivate"), "inside\n");
    assert_eq!(run(",readonly,bind-recursive=writable"), "below\ninside\nx\n");
    assert_eq!(run(",readonly,bind-recursive=disabled"), "");
    assert_eq!(run(",bind-nonrecursive"), "top\nbelow\nx\n");
    daemon.run(&["--mount", &format!("type=bind,src={path}/new,dst=/data,bind-create-src")], "ls /data").ok();
    assert!(shared.0.join("new").is_dir());
}

#[test]
fn a_device_is_mounted_for_the_first_and_unmounted_after_the_last() {
    requires!(root);
    let mut daemon = Daemon::start();
    let options = ["-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,uid=1000", "scratch"];
    daemon.dewar(&["volume", "create"]).args(options).ok();
    let is_mounted = |daemon: &Daemon| {
        let table = std::fs::read_to_string("/proc/self/mountinfo").expect("there is a /proc");
        table.contains(content(daemon, "scratch").to_str().expect("UTF-8"))
    };
    daemon.run_detached("one", &["-v", "scratch:/s"], "echo kept > /s/file; exec sleep 1000");
    daemon.run_detached("two", &["-v", "scratch:/s"], "exec sleep 1000");
    eventually("the file", || content(&daemon, "scratch").join("file").exists());
    daemon.dewar(&["exec", "two", "sh", "-c", "cat /s/file; stat -c %u /s"]).ok().stdout_is("kept\n1000\n");
    daemon.dewar(&["rm", "-f", "one"]).ok();
    assert!(is_mounted(&daemon));
    // A daemon that comes back knows who uses what.
    daemon.kill9();
    daemon.restart();
    daemon.dewar(&["volume", "rm", "scratch"]).fails(1).stderr_has("volume is in use");
    daemon.run_detached("three", &["-v", "scratch:/s"], "exec sleep 1000");
    daemon.dewar(&["exec", "three", "cat", "/s/file"]).ok().stdout_is("kept\n");
    daemon.dewar(&["rm", "-f", "two"]).ok();
    assert!(is_mounted(&daemon));
    daemon.dewar(&["stop", "-t", "0", "three"]).ok();
    eventually("the unmount", || !is_mounted(&daemon));
    // Its end was missed: the mount is found by the next daemon.
    daemon.dewar(&["start", "three"]).ok();
    assert!(is_mounted(&daemon));
    let pid = daemon.state("three")["Pid"].to_string();
    daemon.kill9();
    Cmd::new("kill").args(["-9", &pid]).ok();
    eventually("its end", || !Path::new(&format!("/proc/{pid}")).exists());
    daemon.restart();
    assert!(!is_mounted(&daemon));
    daemon.dewar(&["rm", "three"]).ok();
    daemon.dewar(&["volume", "rm", "scratch"]).ok().stdout_is("scratch\n");
}

#[test]
fn files_are_copied_into_the_volumes_of_a_container_that_does_not_run() {
    requires!(root, docker);
    let daemon = Daemon::start();
    let options = ["-o", "type=tmpfs", "-o", "device=tmpfs", "device"];
    daemon.dewar(&["volume", "create"]).args(options).ok();
    daemon.run(&["-v", "sub:/s"], "mkdir /s/below").ok();
    daemon.run_detached("user", &["-v", "device:/d"], "exec sleep 1000");
    let sub = "src=sub,dst=/s,volume-subpath=below";
    let create =
        daemon.docker(&["create", "--name", "helper", "-v", "data:/data", "-v", "device:/d", "--mount", sub]);
    create.args(["busybox", "true"]).ok();
    let file = daemon.dir().join("file");
    std::fs::write(&file, "copied").expect("writable");
    for place in ["data", "d", "s"] {
        daemon.docker(&["cp"]).arg(&file).arg(format!("helper:/{place}/")).ok();
    }
    daemon.docker(&["rm", "helper"]).ok();
    daemon.run(&["-v", "data:/x"], "cat /x/file").ok().stdout_is("copied");
    daemon.run(&["-v", "sub:/x"], "cat /x/below/file").ok().stdout_is("copied");
    daemon.dewar(&["exec", "user", "cat", "/d/file"]).ok().stdout_is("copied");
}

#[test]
fn events_tell_who_mounts_what() {
    requires!(root, docker_py);
    let daemon = Daemon::start();
    let script = r#"
import time
box = client.containers.create('busybox', ['true'], network_mode='none', volumes={'data': {'bind': '/d', 'mode': 'ro'}}, name='box')
box.start(); box.wait(); box.remove(v=True)
client.volumes.get('data').remove()
events = []
for event in client.events(decode=True, since=1, until=int(time.time()) + 1, filters={'type': 'volume'}):
    events.append((event['Action'], event['Actor']['ID'], event['Actor']['Attributes']))
assert [action for action, _, _ in events] == ['create', 'mount', 'unmount', 'destroy'], events
assert events[1][2] == {'container': box.id, 'destination': '/d', 'driver': 'local', 'propagation': '', 'read/write': 'false'}, events
assert events[2][2] == {'container': box.id, 'driver': 'local'}, events
mounts = [docker.types.Mount('/v', 'other', no_copy=True, labels={'a': 'b'}), docker.types.Mount('/t', None, type='tmpfs', tmpfs_size=1 << 20, tmpfs_mode=0o700)]
out = client.containers.run('busybox', ['sh', '-c', 'echo x > /v/x; stat -c %a /t'], network_mode='none', mounts=mounts, remove=True)
assert out == b'700\n', out
assert client.volumes.get('other').attrs['Labels'] == {'a': 'b'}
"#;
    daemon.python(script).ok();
}
