//! A host in a network namespace of its own, with two bridges, three containers and a neighbour, who all run what
//! they are told on threads of their own.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, ipproto};
use rustix::thread::UnshareFlags;

use crate::runtime::sys::{net, process};

/// How long something may take that comes.
const PATIENCE: Duration = Duration::from_millis(500);

type Task = Box<dyn FnOnce() + Send>;

/// A network namespace with a thread in it.
pub struct Node {
    tasks: Sender<Task>,
    thread: i32,
}

impl Node {
    fn new() -> Node {
        let (tasks, list) = channel::<Task>();
        let (tell, told) = channel();
        thread::spawn(move || {
            process::unshare(UnshareFlags::NEWNET).unwrap();
            net::set_up("lo").unwrap();
            // A router that still looks whether somebody has its address asks nobody where they are.
            for name in ["accept_dad", "dad_transmits"] {
                std::fs::write(format!("/proc/sys/net/ipv6/conf/default/{name}"), "0").unwrap();
            }
            tell.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
            list.iter().for_each(|task| task());
        });
        Node { tasks, thread: told.recv().unwrap() }
    }

    pub fn run<T: Send + 'static>(&self, task: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = channel();
        self.tasks
            .send(Box::new(move || {
                let _ = tell.send(task());
            }))
            .unwrap();
        told.recv().expect("the task did not panic")
    }

    /// Runs ip(8) inside.
    pub fn ip(&self, arguments: &str) {
        let line = arguments.to_owned();
        self.run(move || run("/usr/sbin/ip", &line));
    }

    /// Sends a ping that must be answered.
    pub fn ping(&self, to: &str) {
        let to: IpAddr = to.parse().unwrap();
        self.write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647");
        self.run(move || {
            let (family, number, kind) = match to.is_ipv6() {
                true => (AddressFamily::INET6, ipproto::ICMPV6, 128),
                false => (AddressFamily::INET, ipproto::ICMP, 8),
            };
            let socket = rustix::net::socket(family, SocketType::DGRAM, Some(number)).unwrap();
            rustix::net::connect(&socket, &SocketAddr::new(to, 0)).unwrap();
            rustix::net::sockopt::set_socket_timeout(
                &socket,
                rustix::net::sockopt::Timeout::Recv,
                Some(PATIENCE),
            )
            .unwrap();
            rustix::net::send(&socket, &[kind, 0, 0, 0, 0, 0, 0, 1], rustix::net::SendFlags::empty())
                .unwrap();
            rustix::net::recv(&socket, &mut [0; 64], rustix::net::RecvFlags::empty()).unwrap();
        });
    }

    pub fn write(&self, path: &str, value: &str) {
        let (path, value) = (path.to_owned(), value.to_owned());
        self.run(move || std::fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}")));
    }

    /// Tells every client its address, by TCP and UDP.
    pub fn serve(&self, address: &str, port: u16) {
        let address = SocketAddr::new(address.parse().unwrap(), port);
        self.run(move || {
            let listener = TcpListener::bind(address).unwrap();
            thread::spawn(move || {
                for stream in listener.incoming() {
                    let mut stream = stream.unwrap();
                    let peer = stream.peer_addr().unwrap().ip().to_string();
                    let _ = stream.write_all(peer.as_bytes());
                }
            });
            let socket = UdpSocket::bind(address).unwrap();
            thread::spawn(move || {
                while let Ok((_, from)) = socket.recv_from(&mut [0; 64]) {
                    let _ = socket.send_to(from.ip().to_string().as_bytes(), from);
                }
            });
        });
    }

    /// What the server at an address says; nothing if it cannot be reached.
    pub fn tcp(&self, to: IpAddr, port: u16) -> Option<String> {
        self.run(move || {
            let mut stream = TcpStream::connect_timeout(&SocketAddr::new(to, port), PATIENCE).ok()?;
            let mut text = String::new();
            stream.read_to_string(&mut text).ok()?;
            Some(text)
        })
    }

    pub fn udp(&self, to: IpAddr, port: u16) -> Option<String> {
        self.run(move || {
            let any = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
            let socket = UdpSocket::bind(any).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.connect(SocketAddr::new(to, port)).ok()?;
            socket.send(b"?").ok()?;
            let mut buffer = [0; 64];
            let length = socket.recv(&mut buffer).ok()?;
            Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
        })
    }
}

pub fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program)
        .args(arguments.split(' '))
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs nft(8) in the calling thread's namespace.
pub fn nft(arguments: &str) -> String {
    run("/usr/sbin/nft", arguments)
}

pub struct Site {
    /// The namespace that the test itself runs in.
    pub host: Node,
    pub neighbour: Node,
    /// Two on `br1`, one on `br2`.
    pub containers: [Node; 3],
}

impl Site {
    /// Runs a test on the host. Its addresses: 192.0.2.1, 2001:db8::1; the neighbour's end in 2; `br1` is
    /// 172.31.1.1, fd01::1, `br2` 172.31.2.1, fd02::1; containers end in 2 and 3, and serve port 80, as does the
    /// neighbour, who has routes to the containers.
    pub fn run(is_bridge_filtered: bool, test: impl FnOnce(&Site) + Send + 'static) {
        for program in ["/usr/sbin/ip", "/usr/sbin/nft", "/usr/sbin/iptables-nft"] {
            if !std::path::Path::new(program).exists() {
                assert!(std::env::var_os("DEWAR_TEST_STRICT").is_none(), "{program} is missing");
                return println!("skip: {program} is missing: scripts/deps.sh test");
            }
        }
        let host = Node::new();
        let (tell, told) = channel();
        let neighbour = Node::new();
        let containers = [Node::new(), Node::new(), Node::new()];
        let call = if is_bridge_filtered { "1" } else { "0" };
        for family in ["iptables", "ip6tables"] {
            let file = format!("/proc/sys/net/bridge/bridge-nf-call-{family}");
            if std::path::Path::new(&file).exists() {
                host.write(&file, call);
            }
        }
        for name in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            host.write(&format!("/proc/sys/net/{name}"), "1");
        }
        let wire = |node: &Node, name: &str, address: u8, nets: [&str; 2]| {
            host.ip(&format!("link add {name} type veth peer name peer netns {}", node.thread));
            node.ip("link set peer name eth0");
            node.ip(&format!("addr add {}.{address}/24 dev eth0", nets[0]));
            node.ip(&format!("addr add {}::{address}/64 dev eth0 nodad", nets[1]));
            node.ip("link set eth0 up");
            node.serve(&format!("{}.{address}", nets[0]), 80);
            node.serve(&format!("{}::{address}", nets[1]), 80);
        };
        for (name, nets) in [("br1", ["172.31.1", "fd01"]), ("br2", ["172.31.2", "fd02"])] {
            host.ip(&format!("link add {name} type bridge"));
            host.ip(&format!("addr add {}.1/24 dev {name}", nets[0]));
            host.ip(&format!("addr add {}::1/64 dev {name} nodad", nets[1]));
            host.ip(&format!("link set {name} up"));
            host.write(&format!("/proc/sys/net/ipv4/conf/{name}/route_localnet"), "1");
        }
        for (node, bridge, nets, end) in [
            (&containers[0], "br1", ["172.31.1", "fd01"], 2),
            (&containers[1], "br1", ["172.31.1", "fd01"], 3),
            (&containers[2], "br2", ["172.31.2", "fd02"], 2),
        ] {
            let name = format!("ve{bridge}{end}");
            wire(node, &name, end, nets);
            host.ip(&format!("link set {name} master {bridge}"));
            host.ip(&format!("link set {name} type bridge_slave hairpin on"));
            host.ip(&format!("link set {name} up"));
            let is_forwarding = || {
                let line = format!("-d link show {name}");
                host.run(move || run("/usr/sbin/ip", &line)).contains("state forwarding")
            };
            // A port takes no traffic before the kernel has looked at its carrier, which may take a second.
            while !is_forwarding() {
                thread::sleep(Duration::from_millis(10));
            }
            node.ip(&format!("route add default via {}.1", nets[0]));
            node.ip(&format!("-6 route add default via {}::1", nets[1]));
        }
        wire(&neighbour, "eth0", 2, ["192.0.2", "2001:db8"]);
        host.ip("addr add 192.0.2.1/24 dev eth0");
        host.ip("addr add 2001:db8::1/64 dev eth0 nodad");
        host.ip("link set eth0 up");
        for net in ["172.31.1.0/24", "172.31.2.0/24"] {
            neighbour.ip(&format!("route add {net} via 192.0.2.1"));
        }
        for net in ["fd01::/64", "fd02::/64"] {
            neighbour.ip(&format!("-6 route add {net} via 2001:db8::1"));
        }
        // The test's own thread is in the host's namespace, and may tell the host's node what to do.
        let fd = std::fs::File::open(format!("/proc/self/task/{}/ns/net", host.thread)).unwrap();
        let site = Site { host, neighbour, containers };
        thread::spawn(move || {
            rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&fd), None).unwrap();
            test(&site);
            tell.send(()).unwrap();
        })
        .join()
        .unwrap();
        told.recv().unwrap();
    }
}
