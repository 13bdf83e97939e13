//! What CRIU's log says went wrong, in words that help.
//!
//! In: the text of dump.log or restore.log. Out: one sentence with the decisive lines, led by cause and
//! remedy for the faults people meet. CRIU's `cr_errmsg` is not used: it holds the *first* error line, which
//! is often a harmless one.

/// Lines that name no cause: harmless, or only saying that it failed.
const NOISE: [&str; 11] = [
    "RLIMIT_NOFILE",
    "Dumping FAILED",
    "Restoring FAILED",
    "Can't keep kdat cache",
    "Unable to kill",
    "cr_system",
    "Can't create /run/criu.kdat",
    "exited, status=",
    // What criu finds out about the kernel before it begins; it goes on without.
    "Unable to create tun",
    "-95 reported by netlink",
    "Unable to create a veth pair",
];

/// A piece of an error line, and what it means to a user.
const KNOWN: [(&str, &str); 25] = [
    (
        "Can't get 1:16 opt",
        "criu before 4.2 cannot freeze a process that has a socket on kernel 6.16 or newer; install criu 4.2 (scripts/criu.sh fetches one)",
    ),
    (
        "Can't get 1:34 opt",
        "criu before 4.2 cannot freeze a process that has a socket on kernel 6.16 or newer; install criu 4.2 (scripts/criu.sh fetches one)",
    ),
    (
        "kerndat_has_nftables_concat",
        "the kernel has no nf_tables, without which criu does not start; modprobe nf_tables",
    ),
    (
        "-22 reported by netlink",
        "the kernel would not list the connections it tracks, as one without nf_conntrack_netlink; modprobe that",
    ),
    ("io_uring", "a process uses io_uring, which criu cannot freeze"),
    ("anon_inode:[io_uring]", "a process uses io_uring, which criu cannot freeze"),
    (
        "Can't dump that handle",
        "a process watches files with inotify, and the root filesystem was mounted without index and nfs_export",
    ),
    ("Connected TCP socket", "a process has an open TCP connection"),
    ("Can't dump ghost file", "a process holds a deleted file open that is too large to save"),
    (
        "is outside of its pid namespace",
        "a process in the container belongs to a session outside of it, as one left behind by an exec may",
    ),
    (
        "Can't get rlimit",
        "without CAP_SYS_RESOURCE only processes of root can be frozen; run the container's processes as root or the daemon with that capability",
    ),
    ("SEIZE", "a process is being traced, by a debugger or strace; end that first"),
    ("doesn't have a proper root mount", "the container has a mount from outside that dewar did not make"),
    ("Can't lookup mount=", "a process holds a file open that is outside of the container's mounts"),
    ("Found slave peer", "a process uses a terminal whose other end is outside of the container"),
    ("Dangling connection", "a process is connected to a unix socket outside of the container"),
    ("external socket is used", "a process is connected to a unix socket outside of the container"),
    (
        "Can't dump half of stream unix connection",
        "a process is connected to a unix socket outside of the container",
    ),
    (
        "Unsupported proto",
        "a process has a socket of a protocol criu cannot freeze, such as MPTCP, SCTP or raw",
    ),
    ("of that type", "a process has a file or socket open of a kind criu cannot freeze"),
    ("has bad size", "the root filesystem is not the one the checkpoint was taken with: a file has changed"),
    ("has bad mode", "the root filesystem is not the one the checkpoint was taken with: a file has changed"),
    ("build-ID", "the root filesystem is not the one the checkpoint was taken with: a program has changed"),
    ("Can't bind inet socket back", "an address or port that was in use is not available here"),
    ("No space left on device", "the disk is full"),
];

/// The decisive error messages of a log, oldest first, at most three.
pub fn decisive(log: &str) -> Vec<&str> {
    let mut found: Vec<&str> = Vec::new();
    for line in log.lines() {
        // `(00.012345) Error (criu/files.c:42): files: message`; with pids `(00.01)      1: Error (…): …`
        let Some((_, rest)) = line.split_once("Error (") else { continue };
        let message = rest.split_once("): ").map_or(rest, |(_, message)| message).trim();
        if !message.is_empty()
            && !NOISE.iter().any(|noise| message.contains(noise))
            && !found.contains(&message)
        {
            found.push(message);
        }
    }
    // The first is nearest to the cause; the last ones are what broke by it.
    found.truncate(3);
    found
}

/// One sentence: cause and remedy if known, then CRIU's own words.
pub fn explain(log: &str) -> String {
    let lines = decisive(log);
    let known = KNOWN.iter().find(|(piece, _)| lines.iter().any(|line| line.contains(piece)));
    match (known, lines.is_empty()) {
        (Some((_, meaning)), _) => format!("{meaning} (criu: {})", lines.join("; ")),
        (None, false) => format!("criu: {}", lines.join("; ")),
        (None, true) => "criu failed without naming a reason".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
(00.000014) Error (criu/rlimit.c:17): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted
(00.020000) Warn  (criu/kerndat.c:1290): Can't keep kdat cache on non-tempfs
(00.031337) Error (criu/sockets.c:606): sockets: Can't get 1:16 opt: Operation not supported
(00.031400) Error (criu/cr-dump.c:1492): Dump files (pid: 42) failed with -1
(00.040000) Error (criu/cr-dump.c:2098): Dumping FAILED.
";

    #[test]
    fn noise_is_left_out_and_the_known_is_explained() {
        assert_eq!(decisive(LOG).len(), 2);
        let text = explain(LOG);
        assert!(text.starts_with("criu before 4.2 cannot freeze"), "{text}");
        assert!(text.ends_with("(criu: sockets: Can't get 1:16 opt: Operation not supported; Dump files (pid: 42) failed with -1)"), "{text}");
    }

    /// Three findings about the kernel once hid what criu had failed for.
    #[test]
    fn what_criu_only_finds_out_does_not_hide_its_failure() {
        let text = explain(
            "(00.01) Error (criu/tun.c:85): tun: Unable to create tun: No such file or directory\n\
             (00.01) Error (criu/libnetlink.c:54): -95 reported by netlink: Operation not supported\n\
             (00.01) Error (criu/net.c:4151): net: Unable to create a veth pair: -95\n\
             (00.02) Error (criu/kerndat.c:1922): kerndat_has_nftables_concat failed when initializing kerndat.\n",
        );
        assert!(text.starts_with("the kernel has no nf_tables"), "{text}");
        assert!(!text.contains("tun:"), "{text}");
    }

    #[test]
    fn lines_of_restored_processes_count() {
        let log =
            "(00.02)      1: Error (criu/files-reg.c:1827): File var.log has bad size 111 (expect 49)\n";
        assert!(explain(log).contains("has changed"), "{}", explain(log));
    }

    #[test]
    fn the_unknown_is_quoted_and_nothing_is_said_to_be_nothing() {
        assert_eq!(explain("(0) Error (a.c:1): x: strange"), "criu: x: strange");
        assert_eq!(explain(""), "criu failed without naming a reason");
    }
}
