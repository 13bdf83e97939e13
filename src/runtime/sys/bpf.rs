//! bpf(2), as far as cgroup v2's device policy needs it: load, attach, query, detach.
//!
//! The programs themselves are written in `runtime::cgroup::devices`; the kernel's verifier judges them.
//! None of these calls is ever interrupted (EINTR does not occur).
//!
//! Source: bpf(2), include/uapi/linux/bpf.h.

#![allow(unsafe_code, reason = "libc and rustix have no bpf(2)")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// One eBPF instruction, as the kernel reads it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn {
    pub code: u8,
    /// Destination register in the low four bits, source in the high four.
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const PROG_QUERY: libc::c_int = 16;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;

/// Most programs the kernel attaches to one cgroup (BPF_CGROUP_MAX_PROGS).
const MAX_PROGRAMS: usize = 64;

#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

#[repr(C)]
struct AttachAttr {
    target_fd: i32,
    attach_bpf_fd: i32,
    attach_type: u32,
    attach_flags: u32,
}

#[repr(C)]
struct QueryAttr {
    target_fd: i32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

#[repr(C)]
struct IdAttr {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// One bpf(2) call.
///
/// # Safety
/// `T` is the prefix of `union bpf_attr` that `command` reads, without padding bytes, and every address in
/// it stays valid for the length the command implies until the call returns.
unsafe fn call<T>(command: libc::c_int, attr: &mut T) -> io::Result<i32> {
    // SAFETY: the pointer and size describe one live, writable T; its content is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    match i32::try_from(result) {
        Ok(value) if value >= 0 => Ok(value),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Loads a device policy program; the descriptor is close-on-exec.
///
/// # Errors
/// `EINVAL` or `EACCES` when the verifier refuses, `EPERM` without privilege (before Linux 5.11 also when
/// `RLIMIT_MEMLOCK` is too small).
pub fn load_device_program(program: &[Insn]) -> io::Result<OwnedFd> {
    let insn_cnt = u32::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut name = [0; 16];
    name[..12].copy_from_slice(b"dewar_device");
    let mut attr = LoadAttr {
        prog_type: TYPE_CGROUP_DEVICE,
        insn_cnt,
        insns: program.as_ptr() as u64,
        // The program calls no helper, so its licence matters to nobody; it must be a string.
        license: c"Apache-2.0".as_ptr() as u64,
        prog_name: name,
        ..LoadAttr::default()
    };
    // SAFETY: LoadAttr is PROG_LOAD's prefix (naturally aligned, no padding); `insns` points at insn_cnt
    // instructions and `license` at a NUL-terminated string, both borrowed past the call.
    let fd = unsafe { call(PROG_LOAD, &mut attr) }?;
    // SAFETY: a successful PROG_LOAD returns a fresh descriptor nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Adds a program to a cgroup's device policy: all attached programs must allow an access.
pub fn attach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = AttachAttr {
        target_fd: cgroup.as_raw_fd(),
        attach_bpf_fd: program.as_raw_fd(),
        attach_type: ATTACH_CGROUP_DEVICE,
        attach_flags: ALLOW_MULTI,
    };
    // SAFETY: AttachAttr is PROG_ATTACH's prefix and holds no address.
    unsafe { call(PROG_ATTACH, &mut attr) }.map(drop)
}

/// Takes a program off a cgroup's device policy.
pub fn detach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = AttachAttr {
        target_fd: cgroup.as_raw_fd(),
        attach_bpf_fd: program.as_raw_fd(),
        attach_type: ATTACH_CGROUP_DEVICE,
        attach_flags: 0,
    };
    // SAFETY: AttachAttr is PROG_DETACH's prefix and holds no address.
    unsafe { call(PROG_DETACH, &mut attr) }.map(drop)
}

/// The ids of the device programs attached to this very cgroup.
pub fn attached_device_programs(cgroup: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut ids = vec![0u32; MAX_PROGRAMS];
    let mut attr = QueryAttr {
        target_fd: cgroup.as_raw_fd(),
        attach_type: ATTACH_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: 64,
        padding: 0,
    };
    // SAFETY: QueryAttr is PROG_QUERY's prefix; `prog_ids` points at prog_cnt writable u32 that outlive it.
    unsafe { call(PROG_QUERY, &mut attr) }?;
    ids.truncate(attr.prog_cnt as usize);
    Ok(ids)
}

/// Opens a program by its id.
pub fn open_program(id: u32) -> io::Result<OwnedFd> {
    let mut attr = IdAttr { id, next_id: 0, open_flags: 0 };
    // SAFETY: IdAttr is PROG_GET_FD_BY_ID's prefix and holds no address.
    let fd = unsafe { call(PROG_GET_FD_BY_ID, &mut attr) }?;
    // SAFETY: a successful PROG_GET_FD_BY_ID returns a fresh descriptor nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
