//! How the daemon is reached, and by whom: everything before a request's first byte.

mod client;
mod limits;
mod listeners;
mod tls;
