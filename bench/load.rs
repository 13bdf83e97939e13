//! Asks GET /_ping over keep-alive connections as fast as answers come: load SOCKET CONNECTIONS SECONDS
//!
//! One thread per connection, one request in flight on each. Prints requests per second. Shares the machine with
//! the daemon, so its own cost is in the figure.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, socket, connections, seconds] = &args[..] else { panic!("load SOCKET CONNECTIONS SECONDS") };
    let connections: usize = connections.parse().expect("a number of connections");
    let limit = Duration::from_secs_f64(seconds.parse().expect("a number of seconds"));
    let start = Instant::now();
    let threads: Vec<_> = (0..connections)
        .map(|_| {
            let socket = socket.clone();
            std::thread::spawn(move || {
                let mut stream = UnixStream::connect(socket).expect("the daemon listens");
                let mut buffer = [0; 4096];
                let mut count = 0_u64;
                while start.elapsed() < limit {
                    stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n").expect("the daemon reads");
                    let mut have = 0;
                    // The body is the two bytes "OK" after the empty line.
                    while !buffer[..have].ends_with(b"\r\n\r\nOK") {
                        let read = stream.read(&mut buffer[have..]).expect("the daemon answers");
                        assert!(read > 0, "the daemon closed: {}", String::from_utf8_lossy(&buffer[..have]));
                        have += read;
                    }
                    count += 1;
                }
                count
            })
        })
        .collect();
    let total: u64 = threads.into_iter().map(|thread| thread.join().expect("no panic")).sum();
    println!("{:.0}", total as f64 / start.elapsed().as_secs_f64());
}
