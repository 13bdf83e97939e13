//! Checkpoints as one file: what comes back out of it elsewhere, what others read of it, and what is refused.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{counting, counts_on, exec, numbers, numbers_of};
use crate::support::http::Connection;
use crate::support::requires::requires;
use crate::support::{Cmd, Daemon, TempDir};

/// A member of an archive: its name, the flag that says what it is, and its content.
pub type Member = (String, u8, Vec<u8>);

#[track_caller]
pub fn members(archive: &[u8]) -> Vec<Member> {
    let mut tar = tar::Archive::new(archive);
    let read = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let mut entry = entry.expect("a tar");
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("a whole tar");
        let name = String::from_utf8(entry.path_bytes().into_owned()).expect("a name of ours");
        (name, entry.header().entry_type().as_byte(), content)
    };
    tar.entries().expect("a tar").map(read).collect()
}

pub fn packed(members: &[Member]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, kind, content) in members {
        let content: &[u8] = if *kind == b'2' { &[] } else { content };
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(tar::EntryType::new(*kind));
        header.set_mode(0o600);
        header.set_size(content.len() as u64);
        if *kind == b'2' {
            header.set_link_name("/etc/passwd").expect("a short name");
        }
        header.set_cksum();
        tar.append(&header, content).expect("memory");
    }
    tar.into_inner().expect("memory")
}

#[track_caller]
pub fn export(daemon: &Daemon, flags: &[&str], to: &Path) {
    let to = to.display().to_string();
    let command = [&["checkpoint", "export", "-o", &to], flags, &["web", "cp1"]].concat();
    daemon.dewar(&command).ok().stdout_is("");
}

#[test]
fn a_checkpoint_goes_to_another_daemon_in_one_file() {
    requires!(root, criu);
    let from =
        counting(&["-v", "data:/data", "-v", "/anon", "--tmpfs", "/scratch", "--memory", "64m", "-l", "a=b"]);
    let fill = "echo disk > /file; echo shared > /dev/shm/file; echo kept > /scratch/file; echo named > /data/file; \
                echo unnamed > /anon/file; rm /bin/vi; rm -r /home; mkdir /home; chmod 0700 /";
    exec(&from, "web", fill);
    from.dewar(&["checkpoint", "create", "web", "cp1"]).ok();
    let frozen = numbers(&from).len() as u32;
    let dir = TempDir::new();
    let file = dir.path().join("cp1.tar.zst");
    export(&from, &[], &file);
    let mode = std::fs::metadata(&file).expect("it was written").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "there may be secrets in it");

    // An image that was imported elsewhere is another one.
    let image = dir.path().join("image.tar").display().to_string();
    from.dewar(&["save", "-o", &image, "busybox"]).ok();
    let to = Daemon::empty();
    let path = file.display().to_string();
    to.dewar(&["checkpoint", "import", &path])
        .fails(1)
        .stderr_has("it was taken over image busybox (sha256:");
    assert_eq!(on_disk(&to), Vec::<PathBuf>::new());
    to.dewar(&["load", "-i", &image]).ok();
    let path = file.display().to_string();
    to.dewar(&["checkpoint", "import", &path]).ok().stdout_is("web cp1\n").no_panic();
    let made = to.api("GET", "/containers/web/json").is(200).json();
    assert_eq!((&made["State"]["Status"], &made["Config"]["Labels"]["a"]), (&json!("created"), &json!("b")));
    assert_eq!(made["HostConfig"]["Memory"], 64 << 20);
    to.run(&["-v", "data:/data"], "cat /data/file").ok().stdout_is("named\n");
    to.dewar(&["start", "--checkpoint", "cp1", "web"]).ok();
    counts_on(&to, "web");
    let first = numbers_of(&to, "web")[0];
    assert!(first > 1 && first <= frozen + 1, "it began with {first}, frozen by {frozen}");
    let look = "cat /file /dev/shm/file /scratch/file /data/file /anon/file; test -e /bin/vi || echo gone; ls -A /home; \
                stat -c %a /";
    let seen = "disk\nshared\nkept\nnamed\nunnamed\ngone\n700\n";
    assert_eq!(exec(&to, "web", look), seen);
    // A copy of it, too; and it can be frozen and sent again.
    to.dewar(&["restore", "--name", "copy", "web", "cp1"]).ok();
    assert_eq!(exec(&to, "copy", look), seen);
    let again = dir.path().join("again.tar");
    export(&to, &["--compress", "none"], &again);
    from.dewar(&["checkpoint", "import", "--name", "second", "-"])
        .stdin(std::fs::read(&again).expect("it was written"))
        .fails(1)
        .stderr_has("the content of volume data; --trust gives it that");
    from.dewar(&["checkpoint", "import", "--trust", "--name", "second", "-"])
        .stdin(std::fs::read(&again).expect("it was written"))
        .ok()
        .stdout_is("second cp1\n")
        .says("volume data was here already");
    from.dewar(&["start", "--checkpoint", "cp1", "second"]).ok();
    counts_on(&from, "second");
    assert_eq!(exec(&from, "second", look), seen);
    // The unnamed volume of the one is not that of the other.
    let volume = |name: &str| {
        let mounts = from.api("GET", &format!("/containers/{name}/json")).json()["Mounts"].clone();
        let found =
            mounts.as_array().expect("a list").iter().find(|mount| mount["Destination"] == "/anon").cloned();
        found.expect("it is mounted")["Name"].clone()
    };
    assert_ne!(volume("web"), volume("second"));
}

#[test]
fn others_find_in_it_what_they_look_for() {
    requires!(root, criu);
    let daemon = counting(&["-v", "data:/data"]);
    exec(&daemon, "web", "rm /bin/vi; echo new > /file");
    daemon.dewar(&["checkpoint", "create", "--leave-running", "web", "cp1"]).ok();
    let dir = TempDir::new();
    let plain = dir.path().join("plain");
    export(&daemon, &["--compress", "none"], &plain);
    let plain = std::fs::read(plain).expect("it was written");
    for (compress, program) in [("zstd", "zstd"), ("gzip", "gzip")] {
        let file = dir.path().join(compress);
        export(&daemon, &["--compress", compress], &file);
        let unpacked = dir.path().join("unpacked");
        let script = format!("{program} -dc < {} > {}", file.display(), unpacked.display());
        Cmd::new("sh").arg("-c").arg(script).ok();
        assert!(std::fs::read(unpacked).expect("written") == plain, "{compress} gives what none does");
    }
    let members = members(&plain);
    let content = |name: &str| {
        let found = members.iter().find(|(found, _, _)| found == name);
        found.unwrap_or_else(|| panic!("no {name} in it")).2.clone()
    };
    let json_of = |name: &str| -> Value { serde_json::from_slice(&content(name)).expect("JSON") };
    let config = json_of("config.dump");
    assert_eq!((&config["name"], &config["rootfsImageName"]), (&json!("web"), &json!("busybox")));
    assert_eq!(config["id"].as_str().map(str::len), Some(64));
    assert_eq!(config["rootfsImageID"].as_str().map(str::len), Some(64));
    for time in ["createdTime", "checkpointedTime"] {
        assert!(config[time].as_str().is_some_and(|text| text.ends_with('Z')), "{config}");
    }
    assert_eq!(json_of("spec.dump")["annotations"]["io.container.manager"], "libpod");
    assert_eq!(json_of("network.status"), Value::Null, "it has no network");
    assert_eq!(json_of("deleted.files"), json!(["/bin/vi"]));
    for name in ["checkpoint/pstree.img", "checkpoint/inventory.img", "volumes/data.tar", "stats-dump"] {
        assert!(!content(name).is_empty(), "{name}");
    }
    let rootfs = content("rootfs-diff.tar");
    let names: Vec<String> = members_of(&rootfs);
    assert!(names.iter().any(|name| name.trim_start_matches("./") == "file"), "{names:?}");
    assert!(!names.iter().any(|name| name.contains(".wh.")), "others know no whiteouts: {names:?}");
    daemon.api("GET", "/containers/web/checkpoints/cp1/archive?compress=lzo").refuses(400, "lzo");
    daemon
        .api("GET", "/containers/web/checkpoints/none/archive")
        .refuses(404, "checkpoint none does not exist");
    daemon.dewar(&["checkpoint", "export", "--compress", "lzo", "web", "cp1"]).fails(1).stderr_has("lzo");
}

fn members_of(archive: &[u8]) -> Vec<String> {
    members(archive).into_iter().map(|(name, _, _)| name).collect()
}

/// Changes what an archive says of itself.
fn with_header(members: &[Member], change: impl Fn(&mut Value)) -> Vec<Member> {
    let mut members = members.to_vec();
    let mut header: Value = serde_json::from_slice(&members[0].2).expect("the header comes first");
    change(&mut header);
    members[0].2 = header.to_string().into_bytes();
    members
}

/// What a daemon has on disk of containers and volumes.
pub fn on_disk(daemon: &Daemon) -> Vec<PathBuf> {
    let below = |name: &str| {
        let dir = daemon.dir().join("data").join(name);
        std::fs::read_dir(dir).into_iter().flatten().map(|entry| entry.expect("it is there").path())
    };
    let mut found: Vec<PathBuf> = below("containers").chain(below("volumes")).collect();
    found.sort();
    found
}

#[test]
fn what_is_no_honest_archive_is_refused_and_leaves_nothing() {
    requires!(root, criu);
    let daemon = counting(&["-v", "data:/data", "-v", "/anon"]);
    exec(&daemon, "web", "rm /bin/vi; echo named > /data/file");
    daemon.dewar(&["checkpoint", "create", "web", "cp1"]).ok();
    let dir = TempDir::new();
    let file = dir.path().join("plain");
    export(&daemon, &["--compress", "none"], &file);
    // A volume that is here is asked about first: let it be one that is not.
    let elsewhere = |header: &mut Value| {
        header["manifest"]["volumes"].as_array_mut().expect("a list").iter_mut().for_each(|volume| {
            if volume["name"] == "data" {
                volume["name"] = json!("fresh");
            }
        });
        let mounts = header["manifest"]["record"]["mounts"].as_array_mut().expect("a list");
        mounts
            .iter_mut()
            .filter(|mount| mount["Name"] == "data")
            .for_each(|mount| mount["Name"] = json!("fresh"));
    };
    let whole = with_header(&members(&std::fs::read(&file).expect("it was written")), elsewhere);
    let good = packed(&whole);
    std::fs::write(&file, &good).expect("a directory of ours");
    let before = on_disk(&daemon);
    let leftovers = daemon.leftovers();
    let refuse = |what: &str, archive: &[u8], status: u16, words: &str| {
        let mut connection = Connection::open(&daemon.socket());
        let headers = [("Connection", "close"), ("Content-Type", "application/x-tar")];
        connection.request("POST", "/checkpoints/import?name=other", &headers, Some(archive));
        let reply = connection.reply("POST");
        assert!(reply.text().contains(words), "{what}: {}", reply.text());
        assert_eq!(reply.status, status, "{what}: {}", reply.text());
        assert_eq!(on_disk(&daemon), before, "{what} left something");
        assert_eq!(
            daemon.api("GET", "/containers/json?all=1").json().as_array().map(Vec::len),
            Some(1),
            "{what}"
        );
    };
    let at = |name: &str| whole.iter().position(|(found, _, _)| found == name).expect("it is in it");
    let pages = whole.iter().position(|(name, _, _)| name.starts_with("checkpoint/pages-")).expect("memory");

    refuse("nothing", b"", 400, "was not written by dewar");
    refuse("noise", &[7; 4096], 400, "damaged");
    refuse("another tar", &packed(&[("a".into(), b'0', b"x".to_vec())]), 400, "was not written by dewar");
    for part in [1, 2, 3] {
        refuse("a part", &good[..good.len() * part / 4], 400, "damaged");
    }
    // Whole members, but not all of them.
    refuse("the first half", &packed(&whole[..whole.len() / 2]), 400, "is missing");
    let mut flipped = whole.clone();
    flipped[pages].2[100] ^= 1;
    refuse("a flipped bit", &packed(&flipped), 400, "has another digest");
    let mut shorter = whole.clone();
    shorter[pages].2.pop();
    refuse("a shorter file", &packed(&shorter), 400, "is not what dewar.json says");
    let mut more = whole.clone();
    more.push(("checkpoint/pages-99.img".into(), b'0', b"x".to_vec()));
    refuse("one file more", &packed(&more), 400, "does not belong into it");
    let mut twice = whole.clone();
    twice.push(whole[pages].clone());
    refuse("a file twice", &packed(&twice), 400, "comes twice");
    let mut link = whole.clone();
    link[pages].1 = b'2';
    refuse("a link", &packed(&link), 400, "is not what dewar.json says");
    for name in
        ["../../../../evil", "/evil", "images/../../evil", "images/a/b", "checkpoint.json", "images/", "."]
    {
        let sealed = |header: &mut Value| {
            let files = header["manifest"]["files"].as_object_mut().expect("a map");
            let any = files["rootfs.tar"].clone();
            files.insert(name.to_owned(), any);
        };
        refuse(name, &packed(&with_header(&whole, sealed)), 400, "is no name of a file");
    }
    let climbing = |header: &mut Value| header["manifest"]["name"] = json!("../../evil");
    refuse("a climbing checkpoint", &packed(&with_header(&whole, climbing)), 400, "evil");
    let volume = |header: &mut Value| header["manifest"]["volumes"][0]["file"] = json!("images/core-1.img");
    refuse("a volume of memory", &packed(&with_header(&whole, volume)), 400, "has no content");
    let large = |header: &mut Value| header["manifest"]["files"]["rootfs.tar"]["bytes"] = json!(1_u64 << 60);
    refuse("more than there is room for", &packed(&with_header(&whole, large)), 500, "are free");
    let overflow = |header: &mut Value| header["manifest"]["files"]["rootfs.tar"]["bytes"] = json!(u64::MAX);
    refuse("sizes beyond counting", &packed(&with_header(&whole, overflow)), 400, "damaged");
    let bomb = "(head -c 512 /dev/zero | tr '\\0' x; head -c 300000000 /dev/zero) | zstd -qc";
    let bomb = std::process::Command::new("sh").args(["-c", bomb]).output().expect("a shell").stdout;
    refuse("a bomb", &bomb, 400, "damaged");
    let later = |header: &mut Value| header["version"] = json!(99);
    refuse("a later archive", &packed(&with_header(&whole, later)), 409, "a later dewar wrote it");
    let image = format!("sha256:{}", "0".repeat(64));
    let elsewhere = |header: &mut Value| {
        header["manifest"]["image_id"] = json!(image);
        header["manifest"]["record"]["image_id"] = json!(image);
    };
    refuse(
        "an image that is not here",
        &packed(&with_header(&whole, elsewhere)),
        404,
        &format!("busybox ({image})"),
    );
    let privileged =
        |header: &mut Value| header["manifest"]["record"]["host_config"]["Privileged"] = json!(true);
    refuse("privileges", &packed(&with_header(&whole, privileged)), 409, "all privileges; --trust");
    let host = |header: &mut Value| {
        let mount = json!({"Type": "bind", "Source": "/etc", "Destination": "/host", "RW": true});
        header["manifest"]["record"]["mounts"].as_array_mut().expect("a list").push(mount);
    };
    refuse("a directory of the host", &packed(&with_header(&whole, host)), 409, "its /etc; --trust");
    // Refused when all else has been taken: the processes have more than this configuration would give them.
    let dropped =
        |header: &mut Value| header["manifest"]["record"]["host_config"]["CapDrop"] = json!(["ALL"]);
    refuse(
        "credentials",
        &packed(&with_header(&whole, dropped)),
        409,
        "capabilities that the container is not given",
    );
    // A name that is taken, told before the bytes have come.
    let taken = daemon.dewar(&["checkpoint", "import", &file.display().to_string()]).fails(1);
    taken.stderr_has("is already in use");
    assert_eq!(on_disk(&daemon), before);
    assert_eq!(whole[at("dewar.json")].1, b'0');
    leftovers.assert_same_now();
    // And the good one is good.
    daemon.dewar(&["checkpoint", "import", "--name", "other", &file.display().to_string()]).ok();
    daemon.dewar(&["start", "--checkpoint", "cp1", "other"]).ok();
    counts_on(&daemon, "other");
}

/// What an archive says of its mounts led out of a volume once, to the host's root.
#[test]
fn what_it_says_of_mounts_leads_nowhere_else() {
    requires!(root, criu);
    let daemon = counting(&["-v", "data:/data", "--tmpfs", "/scratch"]);
    exec(&daemon, "web", "ln -s / /data/link");
    daemon.dewar(&["checkpoint", "create", "web", "cp1"]).ok();
    let dir = TempDir::new();
    let file = dir.path().join("plain");
    export(&daemon, &["--compress", "none"], &file);
    let whole = members(&std::fs::read(&file).expect("it was written"));
    let remove = || {
        daemon.dewar(&["rm", "-f", "web"]).ok();
        daemon.dewar(&["volume", "rm", "data"]).ok();
    };
    remove();
    let thaw = |destination: &str, key: &str, value: &str| {
        let mut changed = whole.clone();
        let found = changed.iter_mut().find(|(name, _, _)| name == "dewar/mounts.json").expect("it is in it");
        let mut document: Value = serde_json::from_slice(&found.2).expect("JSON");
        let mounts = document["mounts"].as_array_mut().expect("a list").iter_mut();
        let mount = mounts.into_iter().find(|mount| mount["destination"] == destination);
        mount.expect("it is mounted")[key] = json!(value);
        found.2 = document.to_string().into_bytes();
        let path = dir.path().join("mounts.json");
        std::fs::write(&path, &found.2).expect("a directory of ours");
        let sum = Cmd::new("sha256sum").arg(&path).ok().stdout;
        let (bytes, sum) = (found.2.len(), sum.split(' ').next().unwrap_or_default().to_owned());
        let sealed = with_header(&changed, |header| {
            let file = &mut header["manifest"]["files"]["mounts.json"];
            (file["bytes"], file["sha256"]) = (json!(bytes), json!(format!("sha256:{sum}")));
        });
        daemon.dewar(&["checkpoint", "import", "-"]).stdin(packed(&sealed)).ok();
        let thaw = daemon.dewar(&["start", "--checkpoint", "cp1", "web"]).run();
        if thaw.code == 0 {
            counts_on(&daemon, "web");
        }
        remove();
        (thaw.code, thaw.stderr)
    };
    for below in ["../../../../../../..", "link/etc", "/etc"] {
        let (code, said) = thaw("/data", "below", below);
        assert!(code == 1 && said.contains(": open /"), "{below}: {code}, {said}");
    }
    let (code, said) = thaw("/scratch", "archive", "../cp1/rootfs.tar");
    assert!(code == 1 && said.contains("is no name of a file in it"), "{code}, {said}");
    let (code, said) = thaw("/data", "below", "");
    assert!(code == 0, "as it was: {said}");
}

#[test]
fn an_import_that_the_daemon_did_not_survive_leaves_nothing() {
    requires!(root, criu);
    let mut daemon = counting(&["-v", "/anon"]);
    daemon.dewar(&["checkpoint", "create", "web", "cp1"]).ok();
    let dir = TempDir::new();
    let file = dir.path().join("plain");
    export(&daemon, &["--compress", "none"], &file);
    let good = std::fs::read(&file).expect("it was written");
    let before = on_disk(&daemon);
    for part in [1, 2, 3] {
        let mut connection = Connection::open(&daemon.socket());
        let head = format!(
            "POST /checkpoints/import?name=other HTTP/1.1\r\nHost: docker\r\nContent-Length: {}\r\n\r\n",
            good.len()
        );
        connection.send(head.as_bytes());
        connection.send(&good[..good.len() * part / 4]);
        crate::support::eventually("it being taken", || on_disk(&daemon) != before);
        daemon.kill9();
        daemon.restart();
        assert_eq!(on_disk(&daemon), before, "killed after {part} quarters");
    }
    // A client that goes away.
    let mut connection = Connection::open(&daemon.socket());
    connection.send(
        b"POST /checkpoints/import?name=other HTTP/1.1\r\nHost: docker\r\nContent-Length: 99999999\r\n\r\n",
    );
    connection.send(&good[..good.len() / 2]);
    crate::support::eventually("it being taken", || on_disk(&daemon) != before);
    drop(connection);
    crate::support::eventually("it being given up", || on_disk(&daemon) == before);
    daemon.dewar(&["checkpoint", "import", "--name", "other", &file.display().to_string()]).ok();
}
