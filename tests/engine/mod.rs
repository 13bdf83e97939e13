//! What users do, command by command, with dewar's own client and with Docker's.

mod archive;
mod containers;
mod copies;
mod docker;
mod events;
mod examples;
mod exec;
mod failures;
mod filesystem;
mod health;
mod image_archives;
mod images;
mod limits;
mod log_drivers;
mod logs;
mod networks;
mod parity;
mod policies;
mod progress;
mod restart;
mod runtimes;
mod settings;
mod terminal;
mod usage;
mod volumes;
