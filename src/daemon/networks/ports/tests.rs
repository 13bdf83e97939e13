use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use rustix::thread::UnshareFlags;

use super::{Claim, IpAddr, Ipv4Addr, Ports, Protocol, Ruled, SocketAddr, Terms, Way, shown, wish::wishes};
use crate::daemon::networks::network::Given;
use crate::http::api::container::{HostConfig, PortBinding, Set};
use crate::runtime::sys::{net, process};

/// Runs `test` in a network namespace of its own with `lo` up.
fn alone<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    thread::spawn(|| {
        process::unshare(UnshareFlags::NEWNET).unwrap();
        net::set_up("lo").unwrap();
        test()
    })
    .join()
    .unwrap()
}

fn asks(bindings: &[(&str, &str, &str)]) -> HostConfig {
    let mut host = HostConfig::default();
    for (port, host_ip, host_port) in bindings {
        let binding = PortBinding { host_ip: (*host_ip).to_owned(), host_port: (*host_port).to_owned() };
        host.port_bindings.entry((*port).to_owned()).or_default().get_or_insert_default().push(binding);
    }
    host
}

const BOTH: Terms =
    Terms { default: IpAddr::V4(Ipv4Addr::UNSPECIFIED), ipv4: Way::Translated, ipv6: Way::Translated };
const FOUR: Terms = Terms { ipv6: Way::Absent, ..BOTH };

fn claim(
    ports: &Ports,
    container: &str,
    bindings: &[(&str, &str, &str)],
    terms: &Terms,
) -> Result<String, String> {
    let list = wishes(&asks(bindings), &Set::new()).map_err(|error| error.message)?;
    let claims = ports.claim(container, &list, terms).map_err(|error| error.message)?;
    Ok(claims.iter().map(|claim| format!("{}>{}", claim.shown(), claim.port)).collect::<Vec<_>>().join(" "))
}

#[test]
fn wishes_are_what_clients_send() {
    let wish = |bindings: &[(&str, &str, &str)]| {
        let list = wishes(&asks(bindings), &Set::new()).map_err(|error| error.message)?;
        let text = |wish: &super::Wish| {
            let host = wish.host.map(|host| host.to_string()).unwrap_or_default();
            format!("{host}:{}-{}:{}/{}", wish.first, wish.last, wish.port, wish.protocol.name())
        };
        Ok::<_, String>(list.iter().map(text).collect::<Vec<_>>().join(" "))
    };
    assert_eq!(wish(&[("80/tcp", "", "8080")]).unwrap(), ":8080-8080:80/tcp");
    assert_eq!(wish(&[("80", "", "")]).unwrap(), ":0-0:80/tcp");
    assert_eq!(wish(&[("80/tcp", "[::1]", "8000-8010")]).unwrap(), "::1:8000-8010:80/tcp");
    assert_eq!(wish(&[("80-81/UDP", "", "90-91")]).unwrap(), ":90-90:80/udp :91-91:81/udp");
    assert_eq!(
        wish(&[("9/sctp", "", "0"), ("9/tcp", "1.2.3.4", "7")]).unwrap(),
        "1.2.3.4:7-7:9/tcp :0-0:9/sctp"
    );
    let mut host = HostConfig::default();
    host.port_bindings.insert("80/tcp".to_owned(), None);
    assert_eq!(wishes(&host, &Set::new()).unwrap().len(), 1, "an empty list is one empty binding");
    for bad in ["x", "70000", "-1", "90-80", "+8", "8-", "0-9"] {
        let said = wish(&[("80/tcp", "", bad)]).unwrap_err();
        assert_eq!(said, format!("invalid port specification: \"{bad}\""));
    }
    for bad in ["", "/tcp", "80/x", "80:1"] {
        assert_eq!(wish(&[(bad, "", "")]).unwrap_err(), format!("invalid port specification: \"{bad}\""));
    }
    assert_eq!(wish(&[("80", "host", "")]).unwrap_err(), "invalid IP address: host");
}

#[test]
fn all_exposed_ports_are_wished_once() {
    let mut host = asks(&[("80/tcp", "", "8080")]);
    host.publish_all_ports = true;
    let exposed: Set =
        ["80/tcp", "81/tcp", "53/udp"].map(|port| (port.to_owned(), Default::default())).into();
    let list = wishes(&host, &exposed).unwrap();
    let numbers: Vec<_> = list.iter().map(|wish| (wish.port, wish.first)).collect();
    assert_eq!(numbers, [(53, 0), (80, 8080), (81, 0)]);
}

#[test]
fn ports_are_held_and_given_back() {
    alone(|| {
        let ports = Ports::default();
        let listens = |address: &str| TcpListener::bind(address).map(drop).map_err(|error| error.kind());
        assert_eq!(
            claim(&ports, "a", &[("80/tcp", "", "8080")], &BOTH).unwrap(),
            "0.0.0.0:8080/tcp>80 [::]:8080/tcp>80"
        );
        assert_eq!(listens("127.0.0.1:8080"), Err(std::io::ErrorKind::AddrInUse));
        assert_eq!(listens("[::1]:8080"), Err(std::io::ErrorKind::AddrInUse));
        assert!(TcpStream::connect("127.0.0.1:8080").is_err(), "it does not listen");
        let again = claim(&ports, "b", &[("1/udp", "", "99"), ("81/tcp", "127.0.0.1", "8080")], &BOTH);
        assert_eq!(again.unwrap_err(), "Bind for 127.0.0.1:8080 failed: port is already allocated");
        assert!(UdpSocket::bind("0.0.0.0:99").is_ok(), "all or nothing");
        ports.release("a");
        listens("127.0.0.1:8080").unwrap();
        let theirs = TcpListener::bind("127.0.0.1:8081").unwrap();
        let said = claim(&ports, "b", &[("80/tcp", "", "8081")], &BOTH).unwrap_err();
        assert_eq!(said, "failed to bind host port 0.0.0.0:8081/tcp: address already in use");
        drop(theirs);
        assert!(claim(&ports, "b", &[("80/tcp", "", "8081")], &BOTH).is_ok());
        let said = claim(&ports, "c", &[("80/tcp", "192.0.2.1", "1")], &BOTH).unwrap_err();
        assert_eq!(said, "failed to bind host port 192.0.2.1:1/tcp: cannot assign requested address");
    });
}

#[test]
fn a_port_whose_connections_linger_is_free() {
    alone(|| {
        let listener = TcpListener::bind("127.0.0.1:8080").unwrap();
        let client = TcpStream::connect("127.0.0.1:8080").unwrap();
        // Who closes first waits.
        drop(listener.accept().unwrap());
        drop((client, listener));
        let waiting = std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
        assert!(waiting.contains(":1F90"), "the test makes the case: {waiting}");
        let ports = Ports::default();
        claim(&ports, "a", &[("80/tcp", "", "8080")], &FOUR).unwrap();
        assert!(TcpStream::connect("127.0.0.1:8080").is_err(), "it does not listen");
        // std sets SO_REUSEADDR
        assert!(TcpListener::bind("127.0.0.1:8080").is_err(), "it is held");
    });
}

#[test]
fn ranges_and_ephemeral_ports_are_searched() {
    alone(|| {
        let ports = Ports::default();
        let taken = TcpListener::bind("127.0.0.1:8000").unwrap();
        let range = [("80/tcp", "127.0.0.1", "8000-8002")];
        assert_eq!(claim(&ports, "a", &range, &FOUR).unwrap(), "127.0.0.1:8001/tcp>80");
        assert_eq!(claim(&ports, "b", &range, &FOUR).unwrap(), "127.0.0.1:8002/tcp>80");
        assert_eq!(claim(&ports, "c", &range, &FOUR).unwrap_err(), "all ports are allocated");
        drop(taken);
        // A certain port comes before the range that might take it.
        let both = [("80/tcp", "", "9000-9001"), ("90/tcp", "", "9000")];
        assert_eq!(
            claim(&ports, "d", &both, &FOUR).unwrap(),
            "0.0.0.0:9001/tcp>80 [::]:9001/tcp>80 0.0.0.0:9000/tcp>90 [::]:9000/tcp>90"
        );
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40004").unwrap();
        std::fs::write("/proc/sys/net/ipv4/ip_local_reserved_ports", "40001,40003-40004").unwrap();
        let any = [("80/tcp", "127.0.0.1", ""), ("80/tcp", "127.0.0.2", "")];
        assert_eq!(
            claim(&ports, "e", &any, &FOUR).unwrap(),
            "127.0.0.1:40000/tcp>80 127.0.0.2:40000/tcp>80",
            "addresses of one port share it"
        );
        assert_eq!(claim(&ports, "f", &any, &FOUR).unwrap().split(' ').count(), 2);
        assert_eq!(claim(&ports, "g", &any, &FOUR).unwrap_err(), "all ports are allocated");
    });
}

#[test]
fn terms_decide_the_families() {
    let six = Terms { ipv4: Way::Absent, ..BOTH };
    let routed = Terms { ipv6: Way::Routed, ..BOTH };
    let local = Terms { default: "127.0.0.1".parse().unwrap(), ..BOTH };
    alone(move || {
        let ports = Ports::default();
        let shared =
            |terms: &Terms, host: &str| claim(&ports, host, &[("80/tcp", host, "80")], terms).unwrap();
        assert_eq!(shared(&six, ""), "[::]:80/tcp>80");
        ports.release("");
        assert_eq!(shared(&routed, ""), "0.0.0.0:80/tcp>80 [::]:0/tcp>80");
        ports.release("");
        assert_eq!(shared(&local, ""), "127.0.0.1:80/tcp>80");
        assert_eq!(shared(&FOUR, "::"), "[::]:80/tcp>80");
        assert_eq!(shared(&Terms { ipv4: Way::Routed, ..FOUR }, ""), "0.0.0.0:0/tcp>80");
    });
}

#[test]
fn claims_are_shown_as_docker_does() {
    let one = |host: &str, host_port| Claim {
        protocol: Protocol::Tcp,
        port: 80,
        host: host.parse().unwrap(),
        host_port,
    };
    let text = serde_json::to_string(&shown(&[one("0.0.0.0", 8080), one("::", 0)])).unwrap();
    assert_eq!(text, r#"{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"},{"HostIp":"::","HostPort":""}]}"#);
}

/// Answers what it hears, in capitals: the first 5 bytes of a connection, or every datagram.
fn shouter(address: SocketAddr) {
    let listener = TcpListener::bind(address).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut heard = String::new();
            stream.read_to_string(&mut heard).unwrap();
            stream.write_all(heard.to_uppercase().as_bytes()).unwrap();
        }
    });
    let socket = UdpSocket::bind(address).unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            buffer.make_ascii_uppercase();
            socket.send_to(&buffer[..length], from).unwrap();
        }
    });
}

fn says(to: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(to)?;
    stream.write_all(b"hello")?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn says_udp(to: SocketAddr) -> std::io::Result<String> {
    let socket =
        UdpSocket::bind(SocketAddr::new(if to.is_ipv6() { "::1" } else { "127.0.0.1" }.parse().unwrap(), 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.connect(to)?;
    socket.send(b"hello")?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

#[test]
fn what_the_kernel_cannot_lead_is_relayed() {
    alone(|| {
        // The container is another address of the same loopback.
        shouter("127.0.0.7:80".parse().unwrap());
        let ports = Ports::default();
        let all = [("80/tcp", "", "8080"), ("80/udp", "", "8080")];
        claim(&ports, "a", &all, &FOUR).unwrap();
        let given = Given { ipv4: Some("127.0.0.7/8".parse().unwrap()), ..Given::default() };
        let ruled = Ruled { ipv4: true, ipv6: true, relays: true };
        let list = ports.lead("a", "n", &given, ruled).unwrap();
        let text: Vec<_> =
            list.iter().map(|one| (one.host.to_string(), one.host_port, one.to_port)).collect();
        assert_eq!(text, [("0.0.0.0".to_owned(), 8080, 80), ("0.0.0.0".to_owned(), 8080, 80)]);
        let (six, four) = ("[::1]:8080".parse().unwrap(), "127.0.0.1:8080".parse().unwrap());
        for _ in 0..3 {
            assert_eq!(says(six).unwrap(), "HELLO");
            assert_eq!(says_udp(six).unwrap(), "HELLO");
        }
        assert!(says(four).is_err(), "that is the firewall's");
        // Without a firewall all is relayed, and leading again replaces what was.
        let list = ports.lead("a", "n", &given, Ruled { ipv4: false, ipv6: false, relays: true }).unwrap();
        assert_eq!(list, []);
        assert_eq!((says(six).unwrap(), says(four).unwrap()), ("HELLO".to_owned(), "HELLO".to_owned()));
        assert_eq!(
            (says_udp(six).unwrap(), says_udp(four).unwrap()),
            ("HELLO".to_owned(), "HELLO".to_owned())
        );
        // What goes through a relay ends with it.
        let mut open = TcpStream::connect(four).unwrap();
        thread::sleep(Duration::from_millis(100));
        ports.release("a");
        open.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert_eq!(open.read(&mut [0; 8]).unwrap(), 0);
        assert!(says(six).is_err() && says(four).is_err() && says_udp(six).is_err());
        assert_eq!(ports.relays_left(), (false, 0), "the thread has ended");
        // Its connections linger, and do not keep the port; nor do others get it while it is relayed.
        let waiting = std::fs::read_to_string("/proc/thread-self/net/tcp6").unwrap();
        assert!(waiting.contains(":1F90"), "the test makes the case: {waiting}");
        claim(&ports, "a", &all, &FOUR).unwrap();
        assert!(TcpListener::bind("[::]:8080").is_err(), "held");
        ports.lead("a", "n", &given, ruled).unwrap();
        assert!(TcpListener::bind("[::]:8080").is_err(), "relayed");
        assert_eq!(says(six).unwrap(), "HELLO");
    });
}

#[test]
fn living_containers_have_their_ports_back() {
    alone(|| {
        let before = Ports::default();
        let list = wishes(&asks(&[("80/tcp", "", "8080"), ("81/tcp", "", "8081")]), &Set::new()).unwrap();
        let claims = before.claim("a", &list, &FOUR).unwrap();
        drop(before);
        let _theirs = TcpListener::bind("127.0.0.1:8081").unwrap();
        let ports = Ports::default();
        let problems = ports.adopt("a", &claims);
        assert_eq!(problems, ["failed to bind host port 0.0.0.0:8081/tcp: address already in use"]);
        assert!(TcpListener::bind("127.0.0.1:8080").is_err());
        let said = claim(&ports, "b", &[("80/tcp", "", "8081")], &FOUR).unwrap_err();
        assert_eq!(said, "Bind for 0.0.0.0:8081 failed: port is already allocated");
    });
}
