//! What a container may see and do. Everything is asked from inside, and where possible checked from outside.

mod cgroup;
mod confinement;
mod host;
mod mounts;
mod volumes;
