//! The name server in namespaces of its own: one plays the host, another the container.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::message::{self, Data, tests::query};
use super::{ADDRESS, Dns, Seen, ServedPorts, Upstreams, View};
use crate::runtime::netns::{self, within};

/// Two namespaces, and a directory for the host's resolv.conf.
struct Place {
    dir: PathBuf,
    host: PathBuf,
    container: PathBuf,
}

impl Place {
    fn new(name: &str) -> Place {
        let dir = std::env::temp_dir().join(format!("dewar-dns-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let place = Place { host: dir.join("host"), container: dir.join("container"), dir };
        netns::create(&place.host).unwrap();
        netns::create(&place.container).unwrap();
        place
    }

    fn resolv_conf(&self) -> PathBuf {
        self.dir.join("resolv.conf")
    }

    /// A name server whose thread lives on the host.
    fn serve(&self, view: View) -> (Dns, ServedPorts) {
        let dns = Dns::new(self.resolv_conf());
        let ports = within(&self.host, || dns.serve("c1", &self.container, view)).unwrap();
        (dns, ports)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let removed = [&self.host, &self.container].map(|path| netns::remove(path));
        fs::remove_dir_all(&self.dir).unwrap();
        for removed in removed {
            removed.unwrap();
        }
    }
}

fn seen(name: &str) -> Seen {
    Seen { id: format!("id-{name}"), name: name.to_owned() }
}

fn view(upstreams: Upstreams) -> View {
    View { networks: vec![seen("front")], upstreams, ..View::default() }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Asks from the container by UDP.
fn ask(place: &Place, port: u16, query: &[u8]) -> Vec<u8> {
    within(&place.container, || {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        socket.connect((ADDRESS, port))?;
        socket.send(query)?;
        let mut answer = vec![0; 65_535];
        let length = socket.recv(&mut answer)?;
        answer.truncate(length);
        Ok(answer)
    })
    .unwrap()
}

/// Asks several things on one connection from the container.
fn ask_stream(place: &Place, port: u16, queries: &[Vec<u8>]) -> Vec<Vec<u8>> {
    within(&place.container, || {
        let mut stream = TcpStream::connect((ADDRESS, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        for query in queries {
            stream.write_all(&(query.len() as u16).to_be_bytes())?;
            // In pieces, as a network may deliver it.
            for byte in query {
                stream.write_all(&[*byte])?;
            }
        }
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut answers = Vec::new();
        for _ in queries {
            let mut length = [0; 2];
            stream.read_exact(&mut length)?;
            let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut answer)?;
            answers.push(answer);
        }
        assert_eq!(stream.read(&mut [0])?, 0, "closed when all is said");
        Ok(answers)
    })
    .unwrap()
}

/// The addresses in an answer of ours: the records' last bytes.
fn addresses(answer: &[u8]) -> usize {
    usize::from(u16::from_be_bytes([answer[6], answer[7]]))
}

/// A name server on port 53 of `address` in a namespace, which gives `reply` to `count` queries.
fn upstream(
    namespace: &Path,
    address: &str,
    count: usize,
    reply: impl Fn(&[u8]) -> Vec<u8> + Send + 'static,
) -> JoinHandle<()> {
    let socket = within(namespace, || UdpSocket::bind((ip(address), 53))).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        for _ in 0..count {
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            socket.send_to(&reply(&buffer[..length]), from).unwrap();
        }
    })
}

/// What an upstream says to any query: this code, or one address.
fn says(code: u16) -> impl Fn(&[u8]) -> Vec<u8> {
    move |query| {
        let question = message::parse(query).unwrap();
        let found = [Data::Address(ip("192.0.2.1"))];
        let records = if code == message::NO_ERROR { &found[..] } else { &[] };
        message::reply(query, &question, code, records, 512)
    }
}

fn given(addresses: &[&str]) -> View {
    view(Upstreams::Given(addresses.iter().map(|text| ip(text)).collect()))
}

#[test]
fn a_container_sees_its_networks_names() {
    let place = Place::new("names");
    let (dns, ports) = place.serve(view(Upstreams::Nobody));
    let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    dns.join("id-front", "c2", &names(&["web", "app"]), &[ip("10.0.0.2"), ip("fd00::2")]);
    dns.join("id-front", "c3", &names(&["other", "app"]), &[ip("10.0.0.3")]);
    dns.join("id-back", "c4", &names(&["db"]), &[ip("10.1.0.2")]);
    let answer = ask(&place, ports.udp, &query("web", message::A, Some(1232)));
    assert_eq!((message::code(&answer), addresses(&answer)), (message::NO_ERROR, 1));
    assert_eq!(addresses(&ask(&place, ports.udp, &query("other", message::AAAA, None))), 0);
    let failed = ask(&place, ports.udp, &query("db", message::A, None));
    assert_eq!(message::code(&failed), message::SERVER_FAILURE, "another network's");
    let queries = ["app.front", "WEB", "nobody"].map(|name| query(name, message::A, None));
    let answers = ask_stream(&place, ports.tcp, &queries);
    let count = |query: &[u8]| {
        let answer = answers.iter().find(|answer| message::answers(answer, query)).unwrap();
        (message::code(answer), addresses(answer))
    };
    assert_eq!(queries.each_ref().map(|query| count(query)), [(0, 2), (0, 1), (message::SERVER_FAILURE, 0)]);
    // Where clients look, and whence they want to hear.
    let answer = ask(&place, 53, &query("app", message::A, None));
    assert_eq!(addresses(&answer), 2);
    assert_eq!(ask_stream(&place, 53, &[query("app", message::A, None)]).len(), 1);
    // Networks come and go while it runs.
    dns.change("c1", View { networks: vec![seen("front"), seen("back")], ..view(Upstreams::Nobody) });
    dns.leave("id-front", "c2");
    assert_eq!(addresses(&ask(&place, ports.udp, &query("db", message::A, None))), 1);
    assert_eq!(addresses(&ask(&place, ports.udp, &query("app", message::A, None))), 1);
}

#[test]
fn nothing_is_left_open_in_a_forgotten_namespace() {
    let place = Place::new("forget");
    let (dns, ports) = place.serve(given(&["192.0.2.53"]));
    // Under way when it is forgotten, on a connection that is open.
    let mut stream = within(&place.container, || TcpStream::connect((ADDRESS, ports.tcp))).unwrap();
    stream.write_all(&query("web", message::A, None)).unwrap();
    assert_eq!(dns.server.lock().containers(), ["c1"]);
    let again = within(&place.host, || dns.serve("c1", &place.container, View::default())).unwrap();
    assert_ne!(again, ports, "served anew");
    assert_eq!(message::code(&ask(&place, 53, &query("x", message::A, None))), message::SERVER_FAILURE);
    dns.forget("c1");
    dns.forget("c1");
    assert!(dns.server.lock().containers().is_empty());
    within(&place.container, || {
        UdpSocket::bind((ADDRESS, ports.udp)).and(UdpSocket::bind((ADDRESS, again.udp)))?;
        TcpListener::bind((ADDRESS, again.tcp)).map(drop)
    })
    .unwrap();
}

#[test]
fn other_names_go_to_the_servers_given() {
    let place = Place::new("given");
    let (dns, ports) = place.serve(given(&["127.0.0.11", "127.0.0.2", "127.0.0.3"]));
    let first = upstream(&place.container, "127.0.0.2", 2, says(message::SERVER_FAILURE));
    let second = upstream(&place.container, "127.0.0.3", 2, says(message::NO_ERROR));
    let asked = query("example.com", message::A, Some(1232));
    let answer = ask(&place, ports.udp, &asked);
    assert!(message::answers(&answer, &asked), "the client's own id and question");
    assert_eq!((message::code(&answer), addresses(&answer)), (0, 1), "the second server's");
    // A class and a type we know nothing about.
    let mut chaos = query("version.bind", 16, None);
    *chaos.last_mut().unwrap() = 3;
    assert_eq!(message::code(&ask(&place, ports.udp, &chaos)), 0);
    first.join().unwrap();
    second.join().unwrap();
    // Both ports are closed now, which is known at once.
    let began = Instant::now();
    assert_eq!(message::code(&ask(&place, ports.udp, &asked)), message::SERVER_FAILURE);
    assert!(began.elapsed() < Duration::from_secs(1));
    drop(dns);
}

#[test]
fn a_server_that_is_slow_does_not_keep_the_next_from_being_asked() {
    let place = Place::new("slow");
    let (_dns, ports) = place.serve(given(&["127.0.0.2", "127.0.0.3"]));
    let silent = within(&place.container, || UdpSocket::bind("127.0.0.2:53")).unwrap();
    let forged = upstream(&place.container, "127.0.0.3", 1, |query| {
        let mut other = says(message::NO_ERROR)(query);
        other[0] ^= 1;
        other
    });
    let late = thread::spawn(move || {
        let mut buffer = [0; 512];
        let (length, from) = silent.recv_from(&mut buffer).unwrap();
        thread::sleep(Duration::from_millis(2200));
        silent.send_to(&says(message::NO_ERROR)(&buffer[..length]), from).unwrap();
    });
    let answer = ask(&place, ports.udp, &query("example.com", message::A, None));
    assert_eq!((message::code(&answer), addresses(&answer)), (0, 1), "the late one's, not the forged one's");
    forged.join().unwrap();
    late.join().unwrap();
}

#[test]
fn the_hosts_own_servers_are_asked_from_where_they_can_be_reached() {
    let place = Place::new("host");
    let (_dns, ports) = place.serve(view(Upstreams::Host));
    let asked = query("example.com", message::A, None);
    // On the host's loopback, and IPv6 while the container has none.
    for (address, family) in [("127.0.0.1", 0), ("::1", 0), ("127.0.0.2", 1)] {
        fs::write(place.resolv_conf(), format!("nameserver {address}\noptions x{family}\n")).unwrap();
        let server = upstream(&place.host, address, 1, says(message::NO_ERROR));
        assert_eq!(message::code(&ask(&place, ports.udp, &asked)), 0, "{address}");
        server.join().unwrap();
    }
    // One that the container would have to reach, and cannot: there is no way out.
    fs::write(place.resolv_conf(), "nameserver 192.0.2.53\n").unwrap();
    assert_eq!(message::code(&ask(&place, ports.udp, &asked)), message::SERVER_FAILURE);
}

#[test]
fn what_is_asked_by_tcp_is_forwarded_by_tcp() {
    let place = Place::new("tcp");
    let (_dns, ports) = place.serve(given(&["127.0.0.2", "127.0.0.3"]));
    // Nobody listens on the first; the answer of the second is bigger than any datagram's.
    let listener = within(&place.container, || TcpListener::bind("127.0.0.3:53")).unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query).unwrap();
        let question = message::parse(&query).unwrap();
        let many: Vec<Data> = (0..3000).map(|_| Data::Address(ip("192.0.2.1"))).collect();
        let answer = message::reply(&query, &question, 0, &many, message::STREAM_LIMIT);
        stream.write_all(&(answer.len() as u16).to_be_bytes()).unwrap();
        stream.write_all(&answer).unwrap();
    });
    let answers = ask_stream(&place, ports.tcp, &[query("example.com", message::A, None)]);
    assert_eq!((message::code(&answers[0]), addresses(&answers[0])), (0, 3000));
    server.join().unwrap();
}

#[test]
fn a_client_with_too_much_to_ask_is_refused_not_obeyed() {
    let place = Place::new("flood");
    let (dns, ports) = place.serve(given(&["127.0.0.2"]));
    let _silent = within(&place.container, || UdpSocket::bind("127.0.0.2:53")).unwrap();
    let refused = within(&place.container, || {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        socket.connect((ADDRESS, ports.udp))?;
        for _ in 0..140 {
            socket.send(&query("example.com", message::A, None))?;
        }
        let mut answer = [0; 512];
        socket.recv(&mut answer).map(|length| message::code(&answer[..length]))
    });
    assert_eq!(refused.unwrap(), message::REFUSED);
    assert!(dns.server.lock().queries.len() <= 128);
    dns.join("id-front", "c2", &["web".to_owned()], &[ip("10.0.0.2")]);
    assert_eq!(
        addresses(&ask(&place, ports.udp, &query("web", message::A, None))),
        1,
        "still there for others"
    );
}

#[test]
fn a_lookup_is_quick() {
    let place = Place::new("quick");
    let (dns, ports) = place.serve(view(Upstreams::Nobody));
    for number in 0..1000 {
        dns.join("id-front", &format!("c{number}"), &[format!("n{number}")], &[ip("10.0.0.2")]);
    }
    // Threads of other tests have the same name: all are measured, and ours has most to do.
    let threads = || -> Vec<(PathBuf, u64)> {
        let tasks = fs::read_dir("/proc/self/task").unwrap().flatten().map(|task| task.path());
        let named = tasks.filter(|task| fs::read_to_string(task.join("comm")).unwrap_or_default() == "dns\n");
        let spent = |task: &Path| {
            let text = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
            text.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0)
        };
        named.map(|task| (task.clone(), spent(&task))).collect()
    };
    let before = threads();
    const COUNT: u64 = 2000;
    within(&place.container, || {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.connect((ADDRESS, ports.udp))?;
        let mut answer = [0; 512];
        for number in 0..COUNT {
            socket.send(&query(&format!("n{}", number % 1000), message::A, None))?;
            socket.recv(&mut answer)?;
        }
        Ok(())
    })
    .unwrap();
    let after = threads();
    let spent = after
        .iter()
        .filter_map(|(task, after)| Some(after - before.iter().find(|(one, _)| one == task)?.1))
        .max()
        .unwrap();
    let each = Duration::from_nanos(spent / COUNT);
    eprintln!("{each:?} per lookup");
    assert!(each < Duration::from_micros(200), "{each:?} per lookup, unoptimised");
}
