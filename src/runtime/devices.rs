//! Device nodes: which every container has, and how a spec's device becomes a node.
//!
//! Source: runtime-spec `config-linux.md`, "Default Devices".

use rustix::fs::FileType;

use super::spec::Device;

/// Path, major, minor of the character devices every container has, open to all.
const DEFAULTS: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// Links every /dev has. `ptmx` leads to the container's own devpts, never to the host's.
pub const LINKS: &[(&str, &str)] = &[
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
    ("/dev/core", "/proc/kcore"),
];

/// The nodes to make: the defaults, then the spec's, which replace a default of the same path. Later ones
/// win; /dev/ptmx and /dev/console are made otherwise and left out.
pub fn nodes(extra: &[Device]) -> Vec<Device> {
    let default = |&(path, major, minor): &(&str, u32, u32)| Device {
        path: path.to_owned(),
        kind: "c".to_owned(),
        major,
        minor,
        ..Device::default()
    };
    let mut nodes: Vec<Device> = Vec::new();
    for device in DEFAULTS.iter().map(default).chain(extra.iter().cloned()) {
        let made_otherwise =
            LINKS.iter().any(|(path, _)| *path == device.path) || device.path == "/dev/console";
        if made_otherwise {
            continue;
        }
        match nodes.iter_mut().find(|known| known.path == device.path) {
            Some(known) => *known = device,
            None => nodes.push(device),
        }
    }
    nodes
}

/// `c`, `u` (unbuffered, the same thing), `b` or `p`; anything else is no device.
pub fn file_type(device: &Device) -> Option<FileType> {
    match device.kind.as_str() {
        "c" | "u" => Some(FileType::CharacterDevice),
        "b" => Some(FileType::BlockDevice),
        "p" => Some(FileType::Fifo),
        _ => None,
    }
}

/// Permission bits of the node.
pub fn mode(device: &Device) -> u32 {
    device.file_mode.unwrap_or(0o666) & 0o7777
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_device_replaces_a_default_and_spares_what_is_linked() {
        let device =
            |path: &str| Device { path: path.into(), kind: "b".into(), major: 8, ..Device::default() };
        let nodes =
            nodes(&[device("/dev/null"), device("/dev/sda"), device("/dev/ptmx"), device("/dev/console")]);
        assert_eq!(nodes.len(), 7);
        assert_eq!(nodes[0].major, 8);
        assert_eq!(nodes[6].path, "/dev/sda");
        assert_eq!(file_type(&nodes[6]), Some(FileType::BlockDevice));
        assert_eq!(file_type(&Device::default()), None);
    }
}
