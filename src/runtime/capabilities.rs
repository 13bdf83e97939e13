//! Capability names, numbers and sets.
//!
//! A set is a `u64` with bit N for capability number N, as in /proc/PID/status. Which capabilities a
//! container gets is the daemon's business.
//!
//! Source: capabilities(7), linux/capability.h.

use std::fs;

/// By number, without `CAP_`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The number of a capability, its name in any case and with or without `CAP_`.
pub fn number(name: &str) -> Option<u32> {
    let bare = match name.get(..4) {
        Some(prefix) if prefix.eq_ignore_ascii_case("CAP_") => &name[4..],
        _ => name,
    };
    let index = NAMES.iter().position(|known| known.eq_ignore_ascii_case(bare))?;
    u32::try_from(index).ok()
}

/// `CAP_CHOWN` for 0, and so on.
pub fn name(number: u32) -> Option<String> {
    let bare = NAMES.get(usize::try_from(number).ok()?)?;
    Some(format!("CAP_{bare}"))
}

/// `cap_chown`, `Chown` → `CAP_CHOWN`; `None` for no capability.
pub fn canonical(text: &str) -> Option<String> {
    name(number(text)?)
}

/// The names of the capabilities in a set.
pub fn names(set: u64) -> Vec<String> {
    (0..64).filter(|number| set & (1 << number) != 0).filter_map(name).collect()
}

/// The set of the capabilities named.
///
/// # Errors
/// The first name that is none.
pub fn set<'a>(names: impl IntoIterator<Item = &'a String>) -> Result<u64, &'a str> {
    names.into_iter().try_fold(0, |set, name| Ok(set | 1 << number(name).ok_or(name.as_str())?))
}

/// The capabilities the running kernel knows.
pub fn known() -> u64 {
    let last = fs::read_to_string("/proc/sys/kernel/cap_last_cap").ok();
    // Without /proc the ones we know by name are the best answer.
    let last = last.and_then(|text| text.trim().parse::<u32>().ok()).unwrap_or(NAMES.len() as u32 - 1);
    if last >= 63 { u64::MAX } else { (1 << (last + 1)) - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_however_they_are_written() {
        assert_eq!(number("CAP_CHOWN"), Some(0));
        assert_eq!(number("net_admin"), Some(12));
        assert_eq!(number("Cap_Checkpoint_Restore"), Some(40));
        assert_eq!(number("CAP_"), None);
        assert_eq!(number("é"), None);
        assert_eq!(canonical("sys_admin").unwrap(), "CAP_SYS_ADMIN");
        assert_eq!(name(41), None);
    }

    #[test]
    fn the_default_set_is_dockers_mask() {
        let default = "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP \
            NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE";
        let list: Vec<String> = default.split_whitespace().map(str::to_owned).collect();
        assert_eq!(set(&list), Ok(0xa804_25fb));
        assert_eq!(names(0b11), ["CAP_CHOWN", "CAP_DAC_OVERRIDE"]);
        assert_eq!(set(&["CAP_NOPE".to_owned()]), Err("CAP_NOPE"));
    }

    #[test]
    fn the_kernel_knows_at_least_what_linux_5_9_does() {
        assert_eq!(known() & ((1 << 41) - 1), (1 << 41) - 1);
    }
}
