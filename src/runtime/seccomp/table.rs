//! System call numbers by architecture, one word per number: a fact table.
//!
//! A name has the number after its predecessor's; `@n` says that the next name has number n. Text rather than
//! an array of pairs: a static binary pays for every pointer in such an array with a relocation.
//!
//! Complete up to Linux 6.18. libc's constants are checked against it by a test; it lacks i386's and the
//! newest. Source: the kernel's `arch/x86/entry/syscalls/syscall_{32,64}.tbl`, `scripts/syscall.tbl`.

/// The words of a table with their numbers, ascending.
pub(super) fn entries(table: &'static str) -> impl Iterator<Item = (u32, &'static str)> {
    let mut next = 0;
    table.split_ascii_whitespace().filter_map(move |word| {
        if let Some(number) = word.strip_prefix('@') {
            next = number.parse().expect("a number follows every @");
            return None;
        }
        next += 1;
        Some((next - 1, word))
    })
}

#[cfg(target_arch = "x86_64")]
pub(super) const X86_64: &str = "\
    read write open close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction \
    rt_sigprocmask rt_sigreturn ioctl pread64 pwrite64 readv writev access pipe select sched_yield \
    mremap msync mincore madvise shmget shmat shmctl dup dup2 pause nanosleep getitimer alarm setitimer \
    getpid sendfile socket connect accept sendto recvfrom sendmsg recvmsg shutdown bind listen \
    getsockname getpeername socketpair setsockopt getsockopt clone fork vfork execve exit wait4 kill \
    uname semget semop semctl shmdt msgget msgsnd msgrcv msgctl fcntl flock fsync fdatasync truncate \
    ftruncate getdents getcwd chdir fchdir rename mkdir rmdir creat link unlink symlink readlink chmod \
    fchmod chown fchown lchown umask gettimeofday getrlimit getrusage sysinfo times ptrace getuid syslog \
    getgid setuid setgid geteuid getegid setpgid getppid getpgrp setsid setreuid setregid getgroups \
    setgroups setresuid getresuid setresgid getresgid getpgid setfsuid setfsgid getsid capget capset \
    rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_sigsuspend sigaltstack utime mknod uselib \
    personality ustat statfs fstatfs sysfs getpriority setpriority sched_setparam sched_getparam \
    sched_setscheduler sched_getscheduler sched_get_priority_max sched_get_priority_min \
    sched_rr_get_interval mlock munlock mlockall munlockall vhangup modify_ldt pivot_root _sysctl prctl \
    arch_prctl adjtimex setrlimit chroot sync acct settimeofday mount umount2 swapon swapoff reboot \
    sethostname setdomainname iopl ioperm create_module init_module delete_module get_kernel_syms \
    query_module quotactl nfsservctl getpmsg putpmsg afs_syscall tuxcall security gettid readahead \
    setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr \
    removexattr lremovexattr fremovexattr tkill time futex sched_setaffinity sched_getaffinity \
    set_thread_area io_setup io_destroy io_getevents io_submit io_cancel get_thread_area lookup_dcookie \
    epoll_create epoll_ctl_old epoll_wait_old remap_file_pages getdents64 set_tid_address \
    restart_syscall semtimedop fadvise64 timer_create timer_settime timer_gettime timer_getoverrun \
    timer_delete clock_settime clock_gettime clock_getres clock_nanosleep exit_group epoll_wait \
    epoll_ctl tgkill utimes vserver mbind set_mempolicy get_mempolicy mq_open mq_unlink mq_timedsend \
    mq_timedreceive mq_notify mq_getsetattr kexec_load waitid add_key request_key keyctl ioprio_set \
    ioprio_get inotify_init inotify_add_watch inotify_rm_watch migrate_pages openat mkdirat mknodat \
    fchownat futimesat newfstatat unlinkat renameat linkat symlinkat readlinkat fchmodat faccessat \
    pselect6 ppoll unshare set_robust_list get_robust_list splice tee sync_file_range vmsplice \
    move_pages utimensat epoll_pwait signalfd timerfd_create eventfd fallocate timerfd_settime \
    timerfd_gettime accept4 signalfd4 eventfd2 epoll_create1 dup3 pipe2 inotify_init1 preadv pwritev \
    rt_tgsigqueueinfo perf_event_open recvmmsg fanotify_init fanotify_mark prlimit64 name_to_handle_at \
    open_by_handle_at clock_adjtime syncfs sendmmsg setns getcpu process_vm_readv process_vm_writev kcmp \
    finit_module sched_setattr sched_getattr renameat2 seccomp getrandom memfd_create kexec_file_load \
    bpf execveat userfaultfd membarrier mlock2 copy_file_range preadv2 pwritev2 pkey_mprotect pkey_alloc \
    pkey_free statx io_pgetevents rseq uretprobe uprobe @424 pidfd_send_signal io_uring_setup \
    io_uring_enter io_uring_register open_tree move_mount fsopen fsconfig fsmount fspick pidfd_open \
    clone3 close_range openat2 pidfd_getfd faccessat2 process_madvise epoll_pwait2 mount_setattr \
    quotactl_fd landlock_create_ruleset landlock_add_rule landlock_restrict_self memfd_secret \
    process_mrelease futex_waitv set_mempolicy_home_node cachestat fchmodat2 map_shadow_stack futex_wake \
    futex_wait futex_requeue statmount listmount lsm_get_self_attr lsm_set_self_attr lsm_list_modules \
    mseal setxattrat getxattrat listxattrat removexattrat open_tree_attr file_getattr file_setattr";

#[cfg(target_arch = "x86_64")]
pub(super) const X86: &str = "\
    restart_syscall exit fork read write open close waitpid creat link unlink execve chdir time mknod \
    chmod lchown break oldstat lseek getpid mount umount setuid getuid stime ptrace alarm oldfstat pause \
    utime stty gtty access nice ftime sync kill rename mkdir rmdir dup pipe times prof brk setgid getgid \
    signal geteuid getegid acct umount2 lock ioctl fcntl mpx setpgid ulimit oldolduname umask chroot \
    ustat dup2 getppid getpgrp setsid sigaction sgetmask ssetmask setreuid setregid sigsuspend \
    sigpending sethostname setrlimit getrlimit getrusage gettimeofday settimeofday getgroups setgroups \
    select symlink oldlstat readlink uselib swapon reboot readdir mmap munmap truncate ftruncate fchmod \
    fchown getpriority setpriority profil statfs fstatfs ioperm socketcall syslog setitimer getitimer \
    stat lstat fstat olduname iopl vhangup idle vm86old wait4 swapoff sysinfo ipc fsync sigreturn clone \
    setdomainname uname modify_ldt adjtimex mprotect sigprocmask create_module init_module delete_module \
    get_kernel_syms quotactl getpgid fchdir bdflush sysfs personality afs_syscall setfsuid setfsgid \
    _llseek getdents _newselect flock msync readv writev getsid fdatasync _sysctl mlock munlock mlockall \
    munlockall sched_setparam sched_getparam sched_setscheduler sched_getscheduler sched_yield \
    sched_get_priority_max sched_get_priority_min sched_rr_get_interval nanosleep mremap setresuid \
    getresuid vm86 query_module poll nfsservctl setresgid getresgid prctl rt_sigreturn rt_sigaction \
    rt_sigprocmask rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_sigsuspend pread64 pwrite64 chown \
    getcwd capget capset sigaltstack sendfile getpmsg putpmsg vfork ugetrlimit mmap2 truncate64 \
    ftruncate64 stat64 lstat64 fstat64 lchown32 getuid32 getgid32 geteuid32 getegid32 setreuid32 \
    setregid32 getgroups32 setgroups32 fchown32 setresuid32 getresuid32 setresgid32 getresgid32 chown32 \
    setuid32 setgid32 setfsuid32 setfsgid32 pivot_root mincore madvise getdents64 fcntl64 @224 gettid \
    readahead setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr \
    removexattr lremovexattr fremovexattr tkill sendfile64 futex sched_setaffinity sched_getaffinity \
    set_thread_area get_thread_area io_setup io_destroy io_getevents io_submit io_cancel fadvise64 @252 \
    exit_group lookup_dcookie epoll_create epoll_ctl epoll_wait remap_file_pages set_tid_address \
    timer_create timer_settime timer_gettime timer_getoverrun timer_delete clock_settime clock_gettime \
    clock_getres clock_nanosleep statfs64 fstatfs64 tgkill utimes fadvise64_64 vserver mbind \
    get_mempolicy set_mempolicy mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr \
    kexec_load waitid @286 add_key request_key keyctl ioprio_set ioprio_get inotify_init \
    inotify_add_watch inotify_rm_watch migrate_pages openat mkdirat mknodat fchownat futimesat fstatat64 \
    unlinkat renameat linkat symlinkat readlinkat fchmodat faccessat pselect6 ppoll unshare \
    set_robust_list get_robust_list splice sync_file_range tee vmsplice move_pages getcpu epoll_pwait \
    utimensat signalfd timerfd_create eventfd fallocate timerfd_settime timerfd_gettime signalfd4 \
    eventfd2 epoll_create1 dup3 pipe2 inotify_init1 preadv pwritev rt_tgsigqueueinfo perf_event_open \
    recvmmsg fanotify_init fanotify_mark prlimit64 name_to_handle_at open_by_handle_at clock_adjtime \
    syncfs sendmmsg setns process_vm_readv process_vm_writev kcmp finit_module sched_setattr \
    sched_getattr renameat2 seccomp getrandom memfd_create bpf execveat socket socketpair bind connect \
    listen accept4 getsockopt setsockopt getsockname getpeername sendto sendmsg recvfrom recvmsg \
    shutdown userfaultfd membarrier mlock2 copy_file_range preadv2 pwritev2 pkey_mprotect pkey_alloc \
    pkey_free statx arch_prctl io_pgetevents rseq @393 semget semctl shmget shmctl shmat shmdt msgget \
    msgsnd msgrcv msgctl clock_gettime64 clock_settime64 clock_adjtime64 clock_getres_time64 \
    clock_nanosleep_time64 timer_gettime64 timer_settime64 timerfd_gettime64 timerfd_settime64 \
    utimensat_time64 pselect6_time64 ppoll_time64 @416 io_pgetevents_time64 recvmmsg_time64 \
    mq_timedsend_time64 mq_timedreceive_time64 semtimedop_time64 rt_sigtimedwait_time64 futex_time64 \
    sched_rr_get_interval_time64 pidfd_send_signal io_uring_setup io_uring_enter io_uring_register \
    open_tree move_mount fsopen fsconfig fsmount fspick pidfd_open clone3 close_range openat2 \
    pidfd_getfd faccessat2 process_madvise epoll_pwait2 mount_setattr quotactl_fd \
    landlock_create_ruleset landlock_add_rule landlock_restrict_self memfd_secret process_mrelease \
    futex_waitv set_mempolicy_home_node cachestat fchmodat2 map_shadow_stack futex_wake futex_wait \
    futex_requeue statmount listmount lsm_get_self_attr lsm_set_self_attr lsm_list_modules mseal \
    setxattrat getxattrat listxattrat removexattrat open_tree_attr file_getattr file_setattr";

#[cfg(target_arch = "aarch64")]
pub(super) const AARCH64: &str = "\
    io_setup io_destroy io_submit io_cancel io_getevents setxattr lsetxattr fsetxattr getxattr lgetxattr \
    fgetxattr listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr getcwd \
    lookup_dcookie eventfd2 epoll_create1 epoll_ctl epoll_pwait dup dup3 fcntl inotify_init1 \
    inotify_add_watch inotify_rm_watch ioctl ioprio_set ioprio_get flock mknodat mkdirat unlinkat \
    symlinkat linkat @39 umount2 mount pivot_root nfsservctl statfs fstatfs truncate ftruncate fallocate \
    faccessat chdir fchdir chroot fchmod fchmodat fchownat fchown openat close vhangup pipe2 quotactl \
    getdents64 lseek read write readv writev pread64 pwrite64 preadv pwritev sendfile pselect6 ppoll \
    signalfd4 vmsplice splice tee readlinkat newfstatat fstat sync fsync fdatasync @85 timerfd_create \
    timerfd_settime timerfd_gettime utimensat acct capget capset personality exit exit_group waitid \
    set_tid_address unshare futex set_robust_list get_robust_list nanosleep getitimer setitimer \
    kexec_load init_module delete_module timer_create timer_gettime timer_getoverrun timer_settime \
    timer_delete clock_settime clock_gettime clock_getres clock_nanosleep syslog ptrace sched_setparam \
    sched_setscheduler sched_getscheduler sched_getparam sched_setaffinity sched_getaffinity sched_yield \
    sched_get_priority_max sched_get_priority_min sched_rr_get_interval restart_syscall kill tkill \
    tgkill sigaltstack rt_sigsuspend rt_sigaction rt_sigprocmask rt_sigpending rt_sigtimedwait \
    rt_sigqueueinfo rt_sigreturn setpriority getpriority reboot setregid setgid setreuid setuid \
    setresuid getresuid setresgid getresgid setfsuid setfsgid times setpgid getpgid getsid setsid \
    getgroups setgroups uname sethostname setdomainname @165 getrusage umask prctl getcpu gettimeofday \
    settimeofday adjtimex getpid getppid getuid geteuid getgid getegid gettid sysinfo mq_open mq_unlink \
    mq_timedsend mq_timedreceive mq_notify mq_getsetattr msgget msgctl msgrcv msgsnd semget semctl \
    semtimedop semop shmget shmctl shmat shmdt socket socketpair bind listen accept connect getsockname \
    getpeername sendto recvfrom setsockopt getsockopt shutdown sendmsg recvmsg readahead brk munmap \
    mremap add_key request_key keyctl clone execve mmap fadvise64 swapon swapoff mprotect msync mlock \
    munlock mlockall munlockall mincore madvise remap_file_pages mbind get_mempolicy set_mempolicy \
    migrate_pages move_pages rt_tgsigqueueinfo perf_event_open accept4 recvmmsg @260 wait4 prlimit64 \
    fanotify_init fanotify_mark name_to_handle_at open_by_handle_at clock_adjtime syncfs setns sendmmsg \
    process_vm_readv process_vm_writev kcmp finit_module sched_setattr sched_getattr renameat2 seccomp \
    getrandom memfd_create bpf execveat userfaultfd membarrier mlock2 copy_file_range preadv2 pwritev2 \
    pkey_mprotect pkey_alloc pkey_free statx @293 rseq kexec_file_load @424 pidfd_send_signal \
    io_uring_setup io_uring_enter io_uring_register open_tree move_mount fsopen fsconfig fsmount fspick \
    pidfd_open clone3 close_range openat2 pidfd_getfd faccessat2 process_madvise epoll_pwait2 \
    mount_setattr quotactl_fd landlock_create_ruleset landlock_add_rule landlock_restrict_self \
    memfd_secret process_mrelease futex_waitv set_mempolicy_home_node cachestat fchmodat2 \
    map_shadow_stack futex_wake futex_wait futex_requeue statmount listmount lsm_get_self_attr \
    lsm_set_self_attr lsm_list_modules mseal setxattrat getxattrat listxattrat removexattrat \
    open_tree_attr file_getattr file_setattr";

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! numbers {
        ($($name:ident),* $(,)?) => { strip(&[$((stringify!($name), libc::$name)),*]) };
    }

    fn strip(list: &[(&'static str, libc::c_long)]) -> Vec<(&'static str, u32)> {
        list.iter()
            .map(|(name, number)| (name.trim_start_matches("SYS_"), u32::try_from(*number).unwrap()))
            .collect()
    }

    #[cfg(target_arch = "x86_64")]
    const NATIVE: &str = X86_64;
    #[cfg(target_arch = "aarch64")]
    const NATIVE: &str = AARCH64;

    #[test]
    fn numbers_are_libcs() {
        let mut known = numbers![
            SYS_read,
            SYS_write,
            SYS_close,
            SYS_fstat,
            SYS_lseek,
            SYS_mmap,
            SYS_mprotect,
            SYS_munmap,
            SYS_brk,
            SYS_rt_sigaction,
            SYS_rt_sigprocmask,
            SYS_rt_sigreturn,
            SYS_ioctl,
            SYS_pread64,
            SYS_pwrite64,
            SYS_readv,
            SYS_writev,
            SYS_sched_yield,
            SYS_mremap,
            SYS_msync,
            SYS_mincore,
            SYS_madvise,
            SYS_shmget,
            SYS_shmat,
            SYS_shmctl,
            SYS_dup,
            SYS_nanosleep,
            SYS_getitimer,
            SYS_setitimer,
            SYS_getpid,
            SYS_sendfile,
            SYS_socket,
            SYS_connect,
            SYS_accept,
            SYS_sendto,
            SYS_recvfrom,
            SYS_sendmsg,
            SYS_recvmsg,
            SYS_shutdown,
            SYS_bind,
            SYS_listen,
            SYS_getsockname,
            SYS_getpeername,
            SYS_socketpair,
            SYS_setsockopt,
            SYS_getsockopt,
            SYS_clone,
            SYS_execve,
            SYS_exit,
            SYS_wait4,
            SYS_kill,
            SYS_uname,
            SYS_semget,
            SYS_semop,
            SYS_semctl,
            SYS_shmdt,
            SYS_msgget,
            SYS_msgsnd,
            SYS_msgrcv,
            SYS_msgctl,
            SYS_fcntl,
            SYS_flock,
            SYS_fsync,
            SYS_fdatasync,
            SYS_truncate,
            SYS_ftruncate,
            SYS_getcwd,
            SYS_chdir,
            SYS_fchdir,
            SYS_fchmod,
            SYS_fchown,
            SYS_umask,
            SYS_gettimeofday,
            SYS_getrusage,
            SYS_sysinfo,
            SYS_times,
            SYS_ptrace,
            SYS_getuid,
            SYS_syslog,
            SYS_getgid,
            SYS_setuid,
            SYS_setgid,
            SYS_geteuid,
            SYS_getegid,
            SYS_setpgid,
            SYS_getppid,
            SYS_setsid,
            SYS_setreuid,
            SYS_setregid,
            SYS_getgroups,
            SYS_setgroups,
            SYS_setresuid,
            SYS_getresuid,
            SYS_setresgid,
            SYS_getresgid,
            SYS_getpgid,
            SYS_setfsuid,
            SYS_setfsgid,
            SYS_getsid,
            SYS_capget,
            SYS_capset,
            SYS_rt_sigpending,
            SYS_rt_sigtimedwait,
            SYS_rt_sigqueueinfo,
            SYS_rt_sigsuspend,
            SYS_sigaltstack,
            SYS_personality,
            SYS_statfs,
            SYS_fstatfs,
            SYS_getpriority,
            SYS_setpriority,
            SYS_sched_setparam,
            SYS_sched_getparam,
            SYS_sched_setscheduler,
            SYS_sched_getscheduler,
            SYS_sched_get_priority_max,
            SYS_sched_get_priority_min,
            SYS_sched_rr_get_interval,
            SYS_mlock,
            SYS_munlock,
            SYS_mlockall,
            SYS_munlockall,
            SYS_vhangup,
            SYS_pivot_root,
            SYS_prctl,
            SYS_adjtimex,
            SYS_chroot,
            SYS_sync,
            SYS_acct,
            SYS_settimeofday,
            SYS_mount,
            SYS_umount2,
            SYS_swapon,
            SYS_swapoff,
            SYS_reboot,
            SYS_sethostname,
            SYS_setdomainname,
            SYS_init_module,
            SYS_delete_module,
            SYS_quotactl,
            SYS_nfsservctl,
            SYS_gettid,
            SYS_readahead,
            SYS_setxattr,
            SYS_lsetxattr,
            SYS_fsetxattr,
            SYS_getxattr,
            SYS_lgetxattr,
            SYS_fgetxattr,
            SYS_listxattr,
            SYS_llistxattr,
            SYS_flistxattr,
            SYS_removexattr,
            SYS_lremovexattr,
            SYS_fremovexattr,
            SYS_tkill,
            SYS_futex,
            SYS_sched_setaffinity,
            SYS_sched_getaffinity,
            SYS_io_setup,
            SYS_io_destroy,
            SYS_io_getevents,
            SYS_io_submit,
            SYS_io_cancel,
            SYS_lookup_dcookie,
            SYS_remap_file_pages,
            SYS_getdents64,
            SYS_set_tid_address,
            SYS_restart_syscall,
            SYS_semtimedop,
            SYS_fadvise64,
            SYS_timer_create,
            SYS_timer_settime,
            SYS_timer_gettime,
            SYS_timer_getoverrun,
            SYS_timer_delete,
            SYS_clock_settime,
            SYS_clock_gettime,
            SYS_clock_getres,
            SYS_clock_nanosleep,
            SYS_exit_group,
            SYS_epoll_ctl,
            SYS_tgkill,
            SYS_mbind,
            SYS_set_mempolicy,
            SYS_get_mempolicy,
            SYS_mq_open,
            SYS_mq_unlink,
            SYS_mq_timedsend,
            SYS_mq_timedreceive,
            SYS_mq_notify,
            SYS_mq_getsetattr,
            SYS_kexec_load,
            SYS_waitid,
            SYS_add_key,
            SYS_request_key,
            SYS_keyctl,
            SYS_ioprio_set,
            SYS_ioprio_get,
            SYS_inotify_add_watch,
            SYS_inotify_rm_watch,
            SYS_migrate_pages,
            SYS_openat,
            SYS_mkdirat,
            SYS_mknodat,
            SYS_fchownat,
            SYS_newfstatat,
            SYS_unlinkat,
            SYS_linkat,
            SYS_symlinkat,
            SYS_readlinkat,
            SYS_fchmodat,
            SYS_faccessat,
            SYS_pselect6,
            SYS_ppoll,
            SYS_unshare,
            SYS_set_robust_list,
            SYS_get_robust_list,
            SYS_splice,
            SYS_tee,
            SYS_vmsplice,
            SYS_move_pages,
            SYS_utimensat,
            SYS_epoll_pwait,
            SYS_timerfd_create,
            SYS_fallocate,
            SYS_timerfd_settime,
            SYS_timerfd_gettime,
            SYS_accept4,
            SYS_signalfd4,
            SYS_eventfd2,
            SYS_epoll_create1,
            SYS_dup3,
            SYS_pipe2,
            SYS_inotify_init1,
            SYS_preadv,
            SYS_pwritev,
            SYS_rt_tgsigqueueinfo,
            SYS_perf_event_open,
            SYS_recvmmsg,
            SYS_fanotify_init,
            SYS_fanotify_mark,
            SYS_prlimit64,
            SYS_name_to_handle_at,
            SYS_open_by_handle_at,
            SYS_clock_adjtime,
            SYS_syncfs,
            SYS_sendmmsg,
            SYS_setns,
            SYS_getcpu,
            SYS_process_vm_readv,
            SYS_process_vm_writev,
            SYS_kcmp,
            SYS_finit_module,
            SYS_sched_setattr,
            SYS_sched_getattr,
            SYS_renameat2,
            SYS_seccomp,
            SYS_getrandom,
            SYS_memfd_create,
            SYS_kexec_file_load,
            SYS_bpf,
            SYS_execveat,
            SYS_userfaultfd,
            SYS_membarrier,
            SYS_mlock2,
            SYS_copy_file_range,
            SYS_preadv2,
            SYS_pwritev2,
            SYS_pkey_mprotect,
            SYS_pkey_alloc,
            SYS_pkey_free,
            SYS_statx,
            SYS_rseq,
            SYS_pidfd_send_signal,
            SYS_io_uring_setup,
            SYS_io_uring_enter,
            SYS_io_uring_register,
            SYS_open_tree,
            SYS_move_mount,
            SYS_fsopen,
            SYS_fsconfig,
            SYS_fsmount,
            SYS_fspick,
            SYS_pidfd_open,
            SYS_clone3,
            SYS_close_range,
            SYS_openat2,
            SYS_pidfd_getfd,
            SYS_faccessat2,
            SYS_process_madvise,
            SYS_epoll_pwait2,
            SYS_mount_setattr,
            SYS_quotactl_fd,
            SYS_landlock_create_ruleset,
            SYS_landlock_add_rule,
            SYS_landlock_restrict_self,
            SYS_memfd_secret,
            SYS_process_mrelease,
            SYS_futex_waitv,
            SYS_set_mempolicy_home_node,
            SYS_fchmodat2,
            SYS_mseal
        ];
        #[cfg(target_arch = "x86_64")]
        known.extend(numbers![
            SYS_open,
            SYS_stat,
            SYS_lstat,
            SYS_poll,
            SYS_access,
            SYS_pipe,
            SYS_select,
            SYS_dup2,
            SYS_pause,
            SYS_alarm,
            SYS_fork,
            SYS_vfork,
            SYS_getdents,
            SYS_rename,
            SYS_mkdir,
            SYS_rmdir,
            SYS_creat,
            SYS_link,
            SYS_unlink,
            SYS_symlink,
            SYS_readlink,
            SYS_chmod,
            SYS_chown,
            SYS_lchown,
            SYS_getrlimit,
            SYS_getpgrp,
            SYS_utime,
            SYS_mknod,
            SYS_uselib,
            SYS_ustat,
            SYS_sysfs,
            SYS_modify_ldt,
            SYS__sysctl,
            SYS_arch_prctl,
            SYS_setrlimit,
            SYS_iopl,
            SYS_ioperm,
            SYS_getpmsg,
            SYS_putpmsg,
            SYS_afs_syscall,
            SYS_tuxcall,
            SYS_security,
            SYS_time,
            SYS_set_thread_area,
            SYS_get_thread_area,
            SYS_epoll_create,
            SYS_epoll_ctl_old,
            SYS_epoll_wait_old,
            SYS_epoll_wait,
            SYS_utimes,
            SYS_vserver,
            SYS_inotify_init,
            SYS_futimesat,
            SYS_renameat,
            SYS_sync_file_range,
            SYS_signalfd,
            SYS_eventfd
        ]);
        let table: std::collections::HashMap<_, _> = entries(NATIVE).map(|(n, name)| (name, n)).collect();
        for (name, number) in known {
            assert_eq!(table.get(name), Some(&number), "{name}");
        }
    }

    #[test]
    fn numbers_ascend_and_names_are_unique() {
        #[cfg(target_arch = "x86_64")]
        let tables = [X86_64, X86];
        #[cfg(target_arch = "aarch64")]
        let tables = [AARCH64];
        for table in tables {
            let mut names = std::collections::HashSet::new();
            let mut last = None;
            for (number, name) in entries(table) {
                assert!(Some(number) > last, "{name}");
                assert!(names.insert(name), "{name}");
                last = Some(number);
            }
            assert!(names.len() > 300);
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn i386_has_its_own_numbers() {
        let table: Vec<_> = entries(X86).collect();
        for entry in [(1, "exit"), (11, "execve"), (102, "socketcall"), (359, "socket"), (435, "clone3")] {
            assert!(table.contains(&entry), "{entry:?}");
        }
    }
}
