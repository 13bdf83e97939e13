//! Both ends of what the network benchmarks measure, started in the network namespace that is to be measured:
//!
//! - `net sink PORT`: takes in what TCP connections bring.
//! - `net pour ADDRESS:PORT SECONDS`: sends for as long over one connection; prints Gbit/s.
//! - `net echo PORT`: sends datagrams back.
//! - `net ask ADDRESS:PORT COUNT [NAME]`: a query for the name's address (else any datagram) and its answer, one after
//!   the other; prints µs for each.
//! - `net tick PORT MEBIBYTES`: fills so much memory, and sends a byte every millisecond to each connection.
//! - `net gap ADDRESS:PORT`: listens to that until its standard input ends; prints the longest silence in ms.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Microseconds.
static LONGEST: AtomicU64 = AtomicU64::new(0);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["sink", port] => {
            let listener = TcpListener::bind(("0.0.0.0", number(port))).expect("a free port");
            for mut stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut buffer = vec![0; 256 * 1024];
                    while stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
                });
            }
        }
        ["pour", to, seconds] => {
            let mut stream = TcpStream::connect(to).expect("somebody listens");
            let buffer = vec![0; 256 * 1024];
            let limit = Duration::from_secs_f64(seconds.parse().expect("a number of seconds"));
            let (start, mut count) = (Instant::now(), 0);
            while start.elapsed() < limit {
                count += stream.write(&buffer).expect("it is taken in");
            }
            println!("{:.3}", count as f64 * 8e-9 / start.elapsed().as_secs_f64());
        }
        ["echo", port] => {
            let socket = UdpSocket::bind(("0.0.0.0", number(port))).expect("a free port");
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&buffer[..length], from);
            }
        }
        ["ask", to, count, ref name @ ..] => {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a free port");
            socket.connect(to).expect("there is a way");
            socket.set_read_timeout(Some(Duration::from_secs(5))).expect("not zero");
            let query = query(name.first().copied().unwrap_or("x"));
            let count: u32 = count.parse().expect("a number");
            let mut buffer = [0; 512];
            let start = Instant::now();
            for _ in 0..count {
                socket.send(&query).expect("there is a way");
                let length = socket.recv(&mut buffer).expect("an answer");
                // One answer at least, and no error.
                let is_answer = length > query.len() && buffer[3] & 15 == 0 && buffer[7] > 0;
                assert!(name.is_empty() || is_answer, "not known: {:?}", &buffer[..length]);
            }
            println!("{:.2}", start.elapsed().as_secs_f64() * 1e6 / f64::from(count));
        }
        ["tick", port, mebibytes] => {
            let mut state = 1_u64;
            let mut fill = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                state
            };
            let words = mebibytes.parse::<usize>().expect("a number") << 17;
            let memory: Vec<u64> = (0..words).map(|_| fill()).collect();
            let listener = TcpListener::bind(("0.0.0.0", number(port))).expect("a free port");
            for mut stream in listener.incoming().flatten() {
                stream.set_nodelay(true).expect("a connection");
                std::thread::spawn(move || {
                    while stream.write_all(b".").is_ok() {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                });
            }
            drop(memory);
        }
        ["gap", to] => {
            let mut stream = TcpStream::connect(to).expect("somebody listens");
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
                while stream.read(&mut buffer).is_ok_and(|count| count > 0) {
                    longest = longest.max(last.elapsed());
                    last = Instant::now();
                    LONGEST.store(longest.as_micros() as u64, Ordering::Relaxed);
                }
                LONGEST.store(u64::MAX, Ordering::Relaxed);
            });
            std::io::stdin().read_to_end(&mut Vec::new()).expect("standard input");
            match LONGEST.load(Ordering::Relaxed) {
                u64::MAX => panic!("the connection broke"),
                micros => println!("{:.1}", micros as f64 / 1000.0),
            }
        }
        _ => panic!("net sink|pour|echo|ask|tick|gap …"),
    }
}

fn number(text: &str) -> u16 {
    text.parse().expect("a port")
}

/// For the IPv4 address of a name (RFC 1035, 4.1).
fn query(name: &str) -> Vec<u8> {
    let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).expect("a short label"));
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}
