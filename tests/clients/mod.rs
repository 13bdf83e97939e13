//! Programs that were written for Docker and know nothing of dewar.
//!
//! What they do in passing is tested elsewhere; here each goes through what it can do.

mod compose;
mod compose_state;
mod compose_v1;
mod compose_volumes;
pub mod docker_py;
mod testcontainers;
mod wild;
