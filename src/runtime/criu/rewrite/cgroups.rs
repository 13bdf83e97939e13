//! In which cgroups the processes of a dump were, changed into one that another engine gives.
//!
//! Source: CRIU's `images/cgroup.proto` and `criu/cgroup.c`.

use std::path::Path;

use super::{Image, name_of};
use crate::runtime::Error;
use crate::runtime::criu::images::{COMMON_MAGIC, malformed, records};
use crate::runtime::criu::rewrite;
use crate::runtime::criu::rpc::{Fields, Malformed, Value, Writer};

const CGROUPS_MAGIC: u32 = 0x5938_3330;
/// The container's cgroup in what [`encode`] makes, without the slash before it: CRIU's `--cgroup-root` takes its place.
const CGROUP: &str = "dewar";

/// The cgroups of a dump that CRIU was told not to manage them in, as an image of one that it was: whoever restores it gives
/// the container's cgroup with `--cgroup-root`, and every process comes into that one, in a cgroup namespace if it was in
/// one. cgroup v2 is left out where it is beside v1 and has no controllers.
///
/// # Errors
/// The image is missing or damaged.
pub fn encode(images: &Path) -> Result<Image, Error> {
    let path = images.join("cgroup.img");
    let malformed = |Malformed| malformed(&path);
    let mut entry = Writer::default();
    for record in records(&path, [COMMON_MAGIC, CGROUPS_MAGIC])? {
        let is_hybrid = decode_controllers(&record).map_err(malformed)?.iter().any(|name| !name.is_empty());
        for field in Fields(&record) {
            match field.map_err(malformed)? {
                (1, Value::Bytes(set)) => {
                    entry.message(1, &regroup_set(set, is_hybrid).map_err(malformed)?);
                }
                (2, Value::Bytes(controller)) => {
                    let names = names_of(controller).map_err(malformed)?;
                    if is_hybrid && names.iter().any(String::is_empty) {
                        continue;
                    }
                    let (mut grouped, mut directory) = (Writer::default(), Writer::default());
                    directory.text(1, CGROUP.as_bytes());
                    for name in &names {
                        grouped.text(1, name.as_bytes());
                    }
                    grouped.message(2, &directory).bool(3, false);
                    entry.message(2, &grouped);
                }
                _ => {}
            }
        }
    }
    let content = rewrite::encode(&path, CGROUPS_MAGIC, &[entry.bytes().to_vec()])?;
    Ok(Image { name: name_of(&path), content })
}

/// The names of all controllers; that of cgroup v2 is empty.
fn decode_controllers(record: &[u8]) -> Result<Vec<String>, Malformed> {
    let mut names = Vec::new();
    for field in Fields(record) {
        if let (2, Value::Bytes(controller)) = field? {
            names.extend(names_of(controller)?);
        }
    }
    Ok(names)
}

/// `cg_controller_entry.cnames`.
fn names_of(controller: &[u8]) -> Result<Vec<String>, Malformed> {
    let mut names = Vec::new();
    for field in Fields(controller) {
        if let (1, name @ Value::Bytes(_)) = field? {
            names.push(name.text());
        }
    }
    Ok(names)
}

/// `cg_set_entry`: in which cgroup of each controller a process was.
fn regroup_set(set: &[u8], is_hybrid: bool) -> Result<Writer, Malformed> {
    let mut regrouped = Writer::default();
    for field in Fields(set) {
        match field? {
            (1, id) => {
                regrouped.int(1, id.int());
            }
            (2, Value::Bytes(member)) => {
                let (mut name, mut has_namespace) = (String::new(), false);
                for field in Fields(member) {
                    match field? {
                        (1, value) => name = value.text(),
                        (3, length) => has_namespace = length.int() > 0,
                        _ => {}
                    }
                }
                if is_hybrid && name.is_empty() {
                    continue;
                }
                let (mut moved, path) = (Writer::default(), format!("/{CGROUP}"));
                moved.text(1, name.as_bytes()).text(2, path.as_bytes());
                if has_namespace {
                    moved.int(3, path.len() as u64);
                }
                regrouped.message(2, &moved);
            }
            _ => {}
        }
    }
    Ok(regrouped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroups_become_one_that_is_to_be_replaced() {
        let dir = std::env::temp_dir().join(format!("dewar-regroup-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        let member = |name: &str, path: &str, prefix: u64| {
            let mut member = Writer::default();
            member.text(1, name.as_bytes()).text(2, path.as_bytes());
            if prefix > 0 {
                member.int(3, prefix);
            }
            member
        };
        let controller = |names: &[&str], dir: Option<&str>| {
            let mut controller = Writer::default();
            for name in names {
                controller.text(1, name.as_bytes());
            }
            if let Some(dir) = dir {
                let mut entry = Writer::default();
                controller.message(2, entry.text(1, dir.as_bytes()));
            }
            controller.bool(3, false);
            controller
        };
        let entry = |member: &dyn Fn(&str) -> Writer, names: &[&[&str]], dir: Option<&str>| {
            let (mut entry, mut set) = (Writer::default(), Writer::default());
            set.int(1, 2);
            for name in names.iter().flat_map(|names| names.iter()) {
                set.message(2, &member(name));
            }
            entry.message(1, &set);
            for names in names {
                entry.message(2, &controller(names, dir));
            }
            entry.bytes().to_vec()
        };
        let path = dir.join("cgroup.img");
        let is_rewritten = |from: &[&[&str]], prefix: u64, to: &[&[&str]]| {
            let before = entry(&|name| member(name, "/dewar/abc", prefix), from, None);
            rewrite::write(&path, CGROUPS_MAGIC, &[before]).unwrap();
            let image = encode(&dir).unwrap();
            assert_eq!(image.name, "cgroup.img");
            let after = entry(&|name| member(name, "/dewar", prefix.min(6)), to, Some("dewar"));
            assert_eq!(image.content, rewrite::encode(&path, CGROUPS_MAGIC, &[after]).unwrap());
        };
        // v1 with v2 beside it, and v2 alone.
        is_rewritten(
            &[&[""], &["cpu", "cpuacct"], &["name=systemd"]],
            10,
            &[&["cpu", "cpuacct"], &["name=systemd"]],
        );
        is_rewritten(&[&[""]], 0, &[&[""]]);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
