//! What CRIU's log says went wrong, in words that help.
//!
//! In: the text of dump.log or restore.log. Out: one sentence with the decisive lines, led by cause and
//! remedy for the faults people meet. CRIU's `cr_errmsg` is not used: it holds the *first* error line, which
//! is often a harmless one.

/// Lines that name no cause: harmless, or only saying that it failed.
const NOISE: [&str; 12] = [
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
    // A helper of criu's, ended by the failure.
    "cgroupd: recv req error",
];

const OLD_CRIU: &str = "criu before 4.2 cannot freeze a process that has a socket on kernel 6.16 or newer; install criu \
                        4.2 (scripts/criu.sh fetches one)";
const IO_URING: &str = "a process uses io_uring, which criu cannot freeze; run the program without (dewar's seccomp \
                        profile forbids it)";
const OUTER_SOCKET: &str = "a process is connected to a unix socket outside of the container, such as one of a host's \
                            daemon; have it close the connection first";
const NESTED: &str = "a process is in a pid, user or time namespace of its own, as a sandbox or a container inside of the \
                      container has it; criu cannot freeze those";
const CHANGED: &str = "a file that was open or mapped has changed since: bring it back as it was, if it is in a directory \
                       of the host or in a volume that was left out";
const GONE: &str = "a file that was open or mapped is not there any more: bring it back, if it is in a directory of the \
                    host or in a volume that was left out";
const BROKEN: &str = "a file of the checkpoint is missing or damaged";

/// A piece of an error line, and what it means to a user. The first that fits is told, so that the particular stand
/// before the general.
const KNOWN: [(&str, &str); 55] = [
    ("Can't get 1:16 opt", OLD_CRIU),
    ("Can't get 1:34 opt", OLD_CRIU),
    (
        "kerndat_has_nftables_concat",
        "the kernel has no nf_tables, without which criu does not start; modprobe nf_tables",
    ),
    (
        "kerndat_tcp_repair",
        "the host's loopback interface is down, on which criu tries what the kernel can; ip link set lo up",
    ),
    (
        "-22 reported by netlink",
        "the kernel would not list the connections it tracks, as one without nf_conntrack_netlink; modprobe that",
    ),
    ("io_uring", IO_URING),
    // The kernel lets nobody pass one on, which criu would.
    ("send_fds failed (-22)", IO_URING),
    (
        "Can't dump that handle",
        "a process watches a file that criu would not find again: one of proc, sysfs or devpts, one mounted by itself, or \
         any if the root filesystem was mounted without index and nfs_export",
    ),
    ("Connected TCP socket", "a process has an open TCP connection"),
    (
        "Can't dump ghost file",
        "a process holds a deleted file open that is too large to save; have it close or truncate the file",
    ),
    (
        "is outside of its pid namespace",
        "a process in the container belongs to a session outside of it, as what nsenter leaves behind does; end it",
    ),
    (
        "Can't get rlimit",
        "without CAP_SYS_RESOURCE only processes of root can be frozen; run the container's processes as root or the daemon with that capability",
    ),
    ("SEIZE", "a process is being traced, by a debugger or strace; end that first"),
    ("Unseizable non-zombie", "a process is being traced, by a debugger or strace; end that first"),
    ("Can't make VM id", "a process shares its memory with another, as between vfork and exec; try again"),
    ("Can't dump nested", NESTED),
    ("Unable to convert uid or gid", NESTED),
    ("doesn't belong to the target user namespace", NESTED),
    (
        "doesn't have a proper root mount",
        "the container has a mount from outside that dewar did not make; unmount it",
    ),
    (
        "path=/anon_hugepage",
        "a process has huge pages, and criu needs a free one to know them by; reserve more (vm.nr_hugepages)",
    ),
    ("path=/secretmem", "a process has secret memory (memfd_secret), which nobody else can read"),
    (
        "Can't lookup mount=",
        "a process holds a file open that is not on a mount of the container's: opened outside, of a POSIX message queue, \
         or of a mount that is gone; have it close the file",
    ),
    (
        "mqueue isn't empty",
        "there is a POSIX message queue, which criu cannot freeze; have the program remove it",
    ),
    (
        "Read-only file system",
        "a process holds a file open whose name is gone, on a read-only mount; mount it writable, or have it close the file",
    ),
    (
        "Can't link remap",
        "a process holds a file open that another mount hides, or whose name is gone; have it close the file",
    ),
    ("unsupported id", "something is mounted in the container that criu cannot mount again; unmount it"),
    ("Found slave peer", "a process uses a terminal whose other end is outside of the container"),
    ("Dangling connection", OUTER_SOCKET),
    ("external socket is used", OUTER_SOCKET),
    ("Can't dump half of stream unix connection", OUTER_SOCKET),
    ("without peer", OUTER_SOCKET),
    (
        "The socket has data to read",
        "the kernel has told a process something by netlink that it has not read yet; try again",
    ),
    (
        "Non-empty write queue on an in-flight socket",
        "a process has sent something on a unix connection that nobody has accepted yet; try again",
    ),
    (
        "Unknown socket collected",
        "a process has a socket of a family criu cannot freeze, such as vsock or XDP; have it close that first",
    ),
    (
        "Unsupported proto",
        "a process has a socket of a protocol criu cannot freeze, such as MPTCP or SCTP; leave net.mptcp.enabled at 0",
    ),
    (
        "of that type",
        "a process has a file or socket open of a kind criu cannot freeze; have it close that first",
    ),
    ("has bad size", CHANGED),
    ("has bad mode", CHANGED),
    ("build-ID", CHANGED),
    (
        "No tun device",
        "a process had a network tunnel, whose interface is not part of the checkpoint; it cannot be thawed",
    ),
    (
        "Can't bind inet socket back",
        "an address or port that was in use is not available here; --tcp-close lets connections go",
    ),
    ("Address already in use", "a port that was in use is another process's by now; stop that first"),
    ("Cannot assign requested address", "an address that was in use is not the container's any more"),
    (
        "killed by signal 9",
        "a process was killed while it was thawed, as for want of memory: in the container (--memory) or on the host",
    ),
    (
        "Can't fork for",
        "the container may not have as many processes as were frozen (--pids-limit), or the host cannot",
    ),
    (
        "Cannot allocate memory",
        "there is less memory than the processes had, in the container (--memory) or on the host",
    ),
    ("Pid 1 do not match", "another process has a number that was in use"),
    ("Unexpected EOF", BROKEN),
    ("magic doesn't match", BROKEN),
    ("Unable to open image", BROKEN),
    ("Failed unpacking object", BROKEN),
    ("Unable to mount", "a file system that was mounted in the container cannot be mounted again"),
    ("on restore: No such file", GONE),
    ("Can't open file", GONE),
    ("No space left on device", "the disk is full"),
];

/// The decisive error messages of a log, oldest first, at most three.
pub fn decisive(log: &str) -> Vec<&str> {
    let mut found: Vec<&str> = Vec::new();
    for line in log.lines() {
        // `(00.012345) Error (criu/files.c:42): files: message`; with pids `(00.01)      1: Error (…): …`
        let Some((_, rest)) = line.split_once("Error (") else { continue };
        let message = rest.split_once("): ").map_or(rest, |(_, message)| message).trim();
        if !message.is_empty() && !is_noise(message) && !found.contains(&message) {
            found.push(message);
        }
    }
    // The first is nearest to the cause; the last ones are what broke by it.
    found.truncate(3);
    found
}

/// Whether a line names no cause.
pub fn is_noise(message: &str) -> bool {
    NOISE.iter().any(|noise| message.contains(noise))
}

/// Cause and remedy, if known.
pub fn meaning(log: &str) -> Option<&'static str> {
    let lines = decisive(log);
    let known = KNOWN.iter().find(|(piece, _)| lines.iter().any(|line| line.contains(piece)));
    known.map(|(_, meaning)| *meaning)
}

/// One sentence: cause and remedy if known, then CRIU's own words.
pub fn explain(log: &str) -> String {
    let lines = decisive(log);
    match (meaning(log), lines.is_empty()) {
        (Some(meaning), _) => format!("{meaning} (criu: {})", lines.join("; ")),
        (None, false) => format!("criu: {}", lines.join("; ")),
        // The kernel refuses it a process, and it says nothing.
        (None, true) if log.contains("Restoring FAILED") => {
            "criu failed without naming a reason, as it does where the container may have fewer processes than were \
             frozen (--pids-limit)"
                .to_owned()
        }
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

    /// What CRIU 4.2.1 said when it was made to fail in each of these ways; a head names the way, and what is told.
    const REAL: &str = include_str!("fixtures/faults.log");

    #[test]
    fn what_criu_really_says_is_told_with_its_cause() {
        let mut count = 0;
        for section in REAL.split("== ").skip(1) {
            let (head, log) = section.split_once('\n').unwrap();
            let (name, meaning) = head.split_once(": ").unwrap();
            let told = explain(log);
            assert!(told.starts_with(meaning), "{name}: {told}");
            assert!(!told.contains("RLIMIT_NOFILE") && !told.contains("cgroupd"), "{name}: {told}");
            count += 1;
        }
        assert_eq!(count, 36);
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
        assert!(explain(log).contains("has changed since"), "{}", explain(log));
    }

    #[test]
    fn the_unknown_is_quoted_and_nothing_is_said_to_be_nothing() {
        assert_eq!(explain("(0) Error (a.c:1): x: strange"), "criu: x: strange");
        assert_eq!(explain(""), "criu failed without naming a reason");
    }
}
