//! Black-box tests: the real binary, a real daemon each, the real kernel.
//!
//! One binary, so that it links once and shares its helpers. Where a test belongs:

/// What tests stand on: daemons, commands, raw HTTP, leftovers, requirements. No test lives here.
#[cfg(test)]
mod support;

/// The source itself: who may import whom, where unsafe may be, what must not be left in.
mod shape;

/// argv to exit code: help, unknown words, exit codes and texts of the client without a working daemon.
mod cli;

/// The wire: operations, statuses, error classes, streams; spoken by hand and by docker-py.
mod api;

/// How the daemon is reached: hosts, socket activation, TLS, ssh, and what a peer can cost.
mod reach;

/// The daemon's own life: options and files, reload, signals, supervisors, its end.
mod daemon;

/// What users do: images, containers, logs, exec, events, the daemon's restart; by dewar and by docker.
mod engine;

/// Building images: what clients send, what instructions do, the cache.
mod build;

/// Other people's programs, at length: docker-py, Compose, Testcontainers, curl, and what dashboards and proxies ask.
mod clients;

/// Each flag of run, create, start and exec, through both clients: what it does, or why it is refused.
mod flags;

/// What a container may see and do: namespaces, cgroup, mounts, capabilities, seccomp.
mod kernel;

/// Networks with real traffic: hosts around the daemon's own, who reaches whom, names, what survives.
mod network;

/// Registries: what is pulled and pushed, who may, and what a bad one can do.
mod registry;

/// Freezing and thawing: what survives, what a failure leaves.
mod checkpoint;

/// Daemons that die, and what the next one finds: living containers, half-done work, damaged files.
mod survive;

/// Input that means harm: traversal, hostile archives, slow and broken peers.
mod hostile;

/// Under other people's inits and supervisors, started by the files of contrib/.
mod supervisors;

/// A minimal host in a virtual machine: from an init of its own to power-off, and a kernel that notes dirty pages.
mod boot;

/// Promises with numbers: static, small, light, quick.
mod budget;
