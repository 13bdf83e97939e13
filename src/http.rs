//! What crosses the wire, and how: the API's types, the blocking HTTP/1.1 server, and the client.
//!
//! ```text
//!   client ──api types──> client/…  ~~~ socket ~~~  server ─> connection ─> route ─> request ─> handler
//!          <─────────────           ~~~~~~~~~~~~~          <─ reply (json, empty, stream, hijack) <─┘
//!                                                  (both ways through `middleware`)
//! ```
//!
//! `message` is the grammar both ends share, `socket` the descriptor both ends hold, `hijack` the upgraded
//! connection both ends speak, `stdcopy` the frames inside of it. Nothing here knows what a container is.

pub mod api;
pub mod client;
pub mod connection;
pub mod hijack;
pub mod message;
pub mod middleware;
pub mod plugin;
pub mod registry;
pub mod reply;
pub mod request;
pub mod route;
pub mod server;
pub mod socket;
pub mod stdcopy;
pub mod tls;
pub mod websocket;
