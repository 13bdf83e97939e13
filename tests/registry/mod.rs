//! Registries: Debian's docker-registry on the daemon's own loopback, plain, with passwords and with TLS, filled by
//! skopeo; and one of our own that breaks off, lies and makes trouble.

mod checkpoint;
pub mod fixture;
mod hostile;
mod kill;
mod login;
mod pull;
mod push;
mod trouble;
