//! What users do, command by command, with dewar's own client and with Docker's.

mod archive;
mod containers;
mod docker;
mod examples;
mod exec;
mod failures;
mod images;
mod logs;
mod networks;
mod policies;
mod restart;
mod terminal;
mod volumes;
