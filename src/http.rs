//! What crosses the wire, and how: the API's types, the blocking HTTP/1.1 server, and the client.

pub mod api;
