//! The name of a machine that is a container.
//!
//! Source: uts_namespaces(7).

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::thread;

use rustix::thread::LinkNameSpaceType;

use super::{Cause, Error};

/// Gives the UTS namespace of process `pid` another hostname. The thread that enters it is one of its own.
///
/// # Errors
/// There is no such process; `EINVAL` for more than 64 bytes.
pub fn set_hostname(pid: i32, name: &str) -> Result<(), Error> {
    let set = || -> io::Result<()> {
        let namespace = File::open(format!("/proc/{pid}/ns/uts"))?;
        let kind = LinkNameSpaceType::HostNameAndNISDomainName;
        rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(kind))?;
        Ok(rustix::system::sethostname(name.as_bytes())?)
    };
    let done = thread::scope(|scope| {
        let worker = thread::Builder::new().name("uts".to_owned()).spawn_scoped(scope, set)?;
        worker.join().unwrap_or_else(|_| Err(io::Error::other("its thread panicked")))
    });
    done.map_err(|cause| Error {
        op: "set the hostname of".to_owned(),
        object: "container".to_owned(),
        cause: Cause::Io(cause),
    })
}
