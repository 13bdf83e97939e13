//! Networks with real traffic: a daemon on a host of its own, hosts outside of it, containers in between.
//!
//! The stock client says what is wanted; servers and clients of the test run in the containers' namespaces.

mod resolver;
pub mod site;
mod traffic;

mod coexist;
mod compose;
mod connect;
mod ipv6;
mod isolation;
pub mod macvlan;
mod mend;
mod names;
mod options;
mod publish;
mod python;
mod survive;
mod words;
