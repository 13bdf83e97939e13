//! The daemon's own life, from its options to its orderly end.

mod authorization;
mod configuration;
mod logging;
mod metrics;
mod notices;
mod reload;
mod signals;
