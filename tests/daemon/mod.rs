//! The daemon's own life, from its options to its orderly end.

mod configuration;
mod notices;
mod reload;
mod signals;
