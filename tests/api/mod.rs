//! The wire as Docker's clients see it.

mod access;
mod attach;
mod containers;
mod coverage;
mod framing;
mod hazards;
mod python;
mod races;
mod shapes;
mod soak;
mod streams;
mod system;
mod versions;
mod websocket;

pub use coverage::OPERATIONS;
