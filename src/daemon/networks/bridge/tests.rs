//! Real traffic, in network namespaces of the tests' own: the "host" is one, too.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::daemon::networks::network::Pool;
use crate::http::api::Class;
use crate::runtime::netlink::address::{self, Address};
use crate::runtime::netlink::route;
use crate::runtime::sys;

/// Long enough for one lost ARP request to show.
const AT_ONCE: Duration = Duration::from_millis(700);

/// Runs a test in a network namespace of its own, whose name is the host's in it.
fn on_a_host(test: fn(&Site)) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("dewar-wiring-{}-{count}", std::process::id()));
    fs::create_dir(&dir).unwrap();
    let at = dir.clone();
    let result = std::thread::spawn(move || {
        sys::process::unshare(rustix::thread::UnshareFlags::NEWNET).unwrap();
        sys::net::set_up("lo").unwrap();
        let config = Config { exec_root: at.clone(), ..Config::default() };
        test(&Site { dir: at, wiring: Wiring::new(&config) });
    })
    .join();
    for entry in fs::read_dir(&dir).unwrap() {
        netns::remove(&entry.unwrap().path()).unwrap();
    }
    fs::remove_dir(&dir).unwrap();
    result.unwrap();
}

struct Site {
    dir: PathBuf,
    wiring: Wiring,
}

impl Site {
    fn namespace(&self, name: &str) -> PathBuf {
        let path = self.dir.join(name);
        netns::create(&path).unwrap();
        path
    }

    /// A namespace with a place in the network.
    fn container(&self, network: &Network, given: &Given) -> PathBuf {
        let path = self.namespace(&given.endpoint_id);
        self.wiring.plug(&path, network, given, &PlugOptions::default()).unwrap();
        path
    }

    /// Deletes an interface behind the wiring's back.
    fn delete(&self, name: &str) {
        Socket::open(Protocol::Route).unwrap().run(&[link::delete(Which::Name(name))]).unwrap();
    }

    fn link(&self, name: &str) -> Option<link::Link> {
        link::find(&mut Socket::open(Protocol::Route).unwrap(), Which::Name(name)).unwrap()
    }
}

fn network(name: &str, id: char, pools: &[(&str, &str)]) -> Network {
    let pool = |(subnet, gateway): &(&str, &str)| Pool {
        subnet: subnet.parse().unwrap(),
        range: None,
        gateway: Some(gateway.parse().unwrap()),
        auxiliary: Default::default(),
        is_chosen: true,
    };
    let pools: Vec<_> = pools.iter().map(pool).collect();
    Network {
        id: id.to_string().repeat(64),
        name: name.to_owned(),
        ipv4: true,
        ipv6: pools.iter().any(|pool| pool.subnet.is_ipv6()),
        pools,
        ..Network::default()
    }
}

fn dual() -> Network {
    network("web", 'a', &[("10.9.0.0/24", "10.9.0.1"), ("fd00:9::/64", "fd00:9::1")])
}

/// The place with this last byte.
fn place(number: u8) -> Given {
    Given {
        endpoint_id: format!("{number:064x}"),
        ipv4: Some(format!("10.9.0.{number}/24").parse().unwrap()),
        ipv6: Some(format!("fd00:9::{number:x}/64").parse().unwrap()),
        mac: format!("02:42:0a:09:00:{number:02x}"),
        gateway: Some(Ipv4Addr::new(10, 9, 0, 1)),
        ipv6_gateway: Some("fd00:9::1".parse().unwrap()),
        interface: "eth0".to_owned(),
        host_interface: format!("veth{number:07x}"),
        ..Given::default()
    }
}

fn place_v4(number: u8) -> Given {
    Given { ipv6: None, ipv6_gateway: None, ..place(number) }
}

/// Listens inside; the socket stays there.
fn listen(at: &Path, address: &str) -> TcpListener {
    netns::within(at, || TcpListener::bind(address)).unwrap()
}

/// Connects from inside.
fn reach(from: &Path, to: &str, patience: Duration) -> io::Result<TcpStream> {
    let to: SocketAddr = to.parse().unwrap();
    netns::within(from, || TcpStream::connect_timeout(&to, patience))
}

fn read_inside(at: &Path, setting: &str) -> String {
    let path = Path::new("/proc/sys/net").join(setting);
    netns::within(at, || fs::read_to_string(&path)).unwrap().trim().to_owned()
}

#[test]
fn containers_of_a_network_reach_each_other_and_the_host() {
    on_a_host(|site| {
        let network = dual();
        let (one, two) = (site.container(&network, &place(2)), site.container(&network, &place(3)));
        let _listeners = [listen(&one, "10.9.0.2:80"), listen(&one, "[fd00:9::2]:80")];
        for to in ["10.9.0.2:80", "[fd00:9::2]:80"] {
            reach(&two, to, AT_ONCE).unwrap();
            TcpStream::connect_timeout(&to.parse().unwrap(), AT_ONCE).unwrap();
        }
        let host = [TcpListener::bind("10.9.0.1:80").unwrap(), TcpListener::bind("[fd00:9::1]:80").unwrap()];
        for to in host {
            reach(&two, &to.local_addr().unwrap().to_string(), AT_ONCE).unwrap();
        }
        let bridge = site.link("br-aaaaaaaaaaaa").unwrap();
        assert!(bridge.is_up && bridge.kind == "bridge");
        assert_eq!(bridge.mac, [2, 0x42, 0xaa, 0xaa, 0xaa, 0xaa]);
        let port = site.link(&place(2).host_interface).unwrap();
        assert_eq!((port.master, port.mtu), (bridge.index, 1500));
        let inside = netns::within(&one, || Ok(site.link("eth0"))).unwrap().unwrap();
        assert_eq!(inside.mac, [2, 0x42, 0x0a, 9, 0, 2]);
        let here = Path::new("/proc/thread-self/ns/net");
        assert_eq!(read_inside(here, "ipv4/conf/br-aaaaaaaaaaaa/route_localnet"), "1");
        assert_eq!(read_inside(here, "ipv4/ip_forward"), "1");
        assert_eq!(read_inside(here, "ipv6/conf/all/forwarding"), "1");
        site.wiring.remove(&network).unwrap();
        assert!(site.link("br-aaaaaaaaaaaa").is_none());
        site.wiring.remove(&network).unwrap();
    });
}

#[test]
fn a_network_without_ipv6_has_none() {
    on_a_host(|site| {
        let network = network("web", 'a', &[("10.9.0.0/24", "10.9.0.1")]);
        let one = site.container(&network, &place_v4(2));
        assert_eq!(read_inside(&one, "ipv6/conf/eth0/disable_ipv6"), "1");
        let addresses = netns::within(&one, || address::list(&mut Socket::open(Protocol::Route)?)).unwrap();
        let addresses: Vec<_> = addresses.iter().map(|one| one.address.to_string()).collect();
        assert_eq!(addresses, ["127.0.0.1", "10.9.0.2", "::1"]);
    });
}

#[test]
fn options_of_a_place_are_kept() {
    on_a_host(|site| {
        let mut network = dual();
        network.options.insert(option::MTU.to_owned(), "1400".to_owned());
        let mut given = place(2);
        given.link_local = vec!["169.254.7.7".parse().unwrap(), "fe80::77".parse().unwrap()];
        given.interface = "lan.5".to_owned();
        let path = site.namespace("one");
        let sysctls = vec![("net.ipv4.conf.IFNAME.log_martians".to_owned(), "1".to_owned())];
        let options = PlugOptions { sysctls, ..PlugOptions::default() };
        site.wiring.plug(&path, &network, &given, &options).unwrap();
        assert_eq!(read_inside(&path, "ipv4/conf/lan.5/log_martians"), "1");
        let inside = netns::within(&path, || Ok(site.link("lan.5"))).unwrap().unwrap();
        assert_eq!(inside.mtu, 1400);
        let list = netns::within(&path, || address::list(&mut Socket::open(Protocol::Route)?)).unwrap();
        for local in &given.link_local {
            assert!(list.iter().any(|one| one.address == *local), "{list:?}");
        }
        // A setting that is not the interface's leaves nothing behind.
        let options = PlugOptions {
            sysctls: vec![("net.ipv4.ip_forward".into(), "1".into())],
            ..PlugOptions::default()
        };
        let two = site.namespace("two");
        let error = site.wiring.plug(&two, &network, &place(3), &options).unwrap_err();
        assert!(error.message.contains("net.ipv4.ip_forward is no setting of an interface"), "{error}");
        assert!(site.link(&place(3).host_interface).is_none());
        assert_eq!(site.link("br-aaaaaaaaaaaa").unwrap().mtu, 1400);
    });
}

#[test]
fn a_held_container_is_reached_after_its_release_and_at_once() {
    on_a_host(|site| {
        let network = dual();
        let two = site.container(&network, &place(3));
        let one = site.namespace("one");
        let options = PlugOptions { is_held: true, ..PlugOptions::default() };
        site.wiring.plug(&one, &network, &place(2), &options).unwrap();
        let _listeners = [listen(&one, "10.9.0.2:80"), listen(&one, "[fd00:9::2]:80")];
        reach(&two, "10.9.0.2:80", Duration::from_millis(50)).unwrap_err();
        site.wiring.release(&one, &place(2)).unwrap();
        for to in ["10.9.0.2:80", "[fd00:9::2]:80"] {
            // The question that was asked in vain is asked again after a second.
            reach(&two, to, Duration::from_secs(3)).unwrap();
        }
        let mut stream = reach(&two, "10.9.0.2:80", AT_ONCE).unwrap();
        site.wiring.hold(&one, &place(2)).unwrap();
        reach(&two, "10.9.0.2:80", Duration::from_millis(50)).unwrap_err();
        site.wiring.release(&one, &place(2)).unwrap();
        reach(&two, "10.9.0.2:80", Duration::from_secs(3)).unwrap();
        io::Write::write_all(&mut stream, b"still there").unwrap();
    });
}

#[test]
fn only_what_neighbours_may_know_otherwise_is_told_to_all() {
    on_a_host(|site| {
        let network = network("web", 'a', &[("10.9.0.0/24", "10.9.0.1")]);
        let witness = site.container(&network, &place_v4(9));
        let heard = || {
            let counters =
                netns::within(&witness, || fs::read_to_string("/proc/thread-self/net/dev")).unwrap();
            let line = counters.lines().find(|line| line.trim_start().starts_with("eth0:")).unwrap();
            line.split_whitespace().nth(2).unwrap().parse::<u32>().unwrap()
        };
        let arrives = |given: &Given| {
            let before = heard();
            let at = site.container(&network, given);
            let listener = listen(&at, "10.9.0.2:80");
            let told = heard() - before;
            drop(reach(&witness, "10.9.0.2:80", AT_ONCE).unwrap());
            // Both ends are closed in turn: an end that nobody has heard of would be said again, and the next one to
            // have the address would answer it.
            let (mut stream, _) = listener.accept().unwrap();
            assert_eq!(io::Read::read(&mut stream, &mut [0]).unwrap(), 0);
            drop(stream);
            std::thread::sleep(Duration::from_millis(50));
            site.wiring.unplug(&at, &network, given).unwrap();
            told
        };
        let number = |given: Given, nth: u32| Given { endpoint_id: format!("{nth:064x}"), ..given };
        // The bridge itself has something to say when it comes up; a newcomer that is told to all never is silent.
        let is_silent = |first: u32| (first..first + 8).any(|nth| arrives(&number(place_v4(2), nth)) == 0);
        assert!(is_silent(100));
        let strange = Given { mac: "02:00:00:00:00:02".to_owned(), ..place_v4(2) };
        assert!(arrives(&number(strange, 110)) > 0, "nobody knows this one");
        assert!(arrives(&number(place_v4(2), 111)) > 0, "all know another");
        assert!(is_silent(200));
    });
}

#[test]
fn a_port_has_no_addresses_of_its_own() {
    on_a_host(|site| {
        let network = dual();
        let given = place(2);
        let _one = site.container(&network, &given);
        let index = site.link(&given.host_interface).unwrap().index;
        let all = address::list(&mut Socket::open(Protocol::Route).unwrap()).unwrap();
        assert!(all.iter().all(|one| one.index != index), "{all:?}");
    });
}

#[test]
fn an_address_that_moved_is_found_at_once() {
    on_a_host(|site| {
        let network = dual();
        let two = site.container(&network, &place(3));
        let old = site.container(&network, &place(2));
        let listeners = [listen(&old, "10.9.0.2:80"), listen(&old, "[fd00:9::2]:80")];
        for to in ["10.9.0.2:80", "[fd00:9::2]:80"] {
            reach(&two, to, AT_ONCE).unwrap();
        }
        site.wiring.unplug(&old, &network, &place(2)).unwrap();
        site.wiring.unplug(&old, &network, &place(2)).unwrap();
        drop(listeners);
        let moved = Given {
            mac: "02:42:00:00:00:99".to_owned(),
            host_interface: "veth99".to_owned(),
            endpoint_id: "9".repeat(64),
            ..place(2)
        };
        let new = site.container(&network, &moved);
        let _listeners = [listen(&new, "10.9.0.2:80"), listen(&new, "[fd00:9::2]:80")];
        for to in ["10.9.0.2:80", "[fd00:9::2]:80"] {
            reach(&two, to, AT_ONCE).unwrap_or_else(|error| panic!("{to}: {error}"));
        }
    });
}

#[test]
fn the_way_out_is_the_one_that_was_asked_for() {
    on_a_host(|site| {
        let network = dual();
        let one = site.container(&network, &place(2));
        let far = site.container(
            &self::network("far", 'b', &[("10.8.0.0/24", "10.8.0.1")]),
            &Given { ipv4: Some("10.8.0.2/24".parse().unwrap()), ..place_v4(9) },
        );
        let _listener = listen(&far, "10.8.0.2:80");
        assert_eq!(reach(&one, "10.8.0.2:80", AT_ONCE).unwrap_err().raw_os_error(), Some(libc::ENETUNREACH));
        let v4 = |address: [u8; 4]| Some((Ipv4Addr::from(address), "eth0"));
        site.wiring.default_route(&far, v4([10, 8, 0, 1]), None).unwrap();
        let v6 = Some(("fd00:9::1".parse().unwrap(), "eth0"));
        site.wiring.default_route(&one, v4([10, 9, 0, 77]), v6).unwrap();
        site.wiring.default_route(&one, v4([10, 9, 0, 1]), v6).unwrap();
        site.wiring.default_route(&one, v4([10, 9, 0, 1]), v6).unwrap();
        reach(&one, "10.8.0.2:80", AT_ONCE).unwrap();
        let routes = |at: &Path| {
            let list = netns::within(at, || route::list(&mut Socket::open(Protocol::Route)?)).unwrap();
            let gateways = list.into_iter().filter(|route| route.prefix == 0).filter_map(|one| one.gateway);
            gateways.map(|gateway| gateway.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(routes(&one), ["10.9.0.1", "fd00:9::1"]);
        // One that no address of the container's leads to.
        site.wiring.default_route(&one, v4([192, 0, 2, 1]), None).unwrap();
        assert_eq!(routes(&one), ["192.0.2.1"]);
        site.wiring.default_route(&one, None, None).unwrap();
        assert!(routes(&one).is_empty());
        assert!(site.wiring.default_route(&one, Some((Ipv4Addr::LOCALHOST, "eth9")), None).is_err());
    });
}

#[test]
fn what_somebody_broke_is_put_right() {
    on_a_host(|site| {
        let network = dual();
        let (one, two) = (site.container(&network, &place(2)), site.container(&network, &place(3)));
        let _listener = listen(&one, "10.9.0.2:80");
        let members = [place(2), place(3)];
        let check = || {
            reach(&two, "10.9.0.2:80", AT_ONCE).unwrap();
            TcpStream::connect_timeout(&"10.9.0.2:80".parse().unwrap(), AT_ONCE).unwrap();
        };
        check();
        // The bridge is gone: a new container makes another, and the others are plugged in again.
        site.delete("br-aaaaaaaaaaaa");
        site.container(&network, &place(4));
        site.wiring.repair(&network, &members).unwrap();
        check();
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let bridge = site.link("br-aaaaaaaaaaaa").unwrap().index;
        let own = Address { index: bridge, address: "10.9.0.1".parse().unwrap(), prefix: 24 };
        let mut unplugged = link::change(Which::Name(&place(3).host_interface), None);
        unplugged.u32(libc::IFLA_MASTER, 0);
        socket.run(&[address::delete(&own), unplugged]).unwrap();
        reach(&two, "10.9.0.2:80", Duration::from_millis(50)).unwrap_err();
        site.wiring.repair(&network, &members).unwrap();
        check();
        // Whose interface is gone is told, and the others are helped all the same.
        let error = site.wiring.repair(&network, &[place(7), place(2)]).unwrap_err();
        assert!(error.message.contains("veth0000007"), "{error}");
    });
}

#[test]
fn only_our_own_leftovers_are_swept() {
    on_a_host(|site| {
        let network = dual();
        let (_one, _two) = (site.container(&network, &place(2)), site.container(&network, &place(3)));
        let other = Config { exec_root: "/run/other".into(), ..Config::default() };
        let other = Wiring::new(&other);
        other.create(&self::network("theirs", 'c', &[("10.7.0.0/24", "10.7.0.1")])).unwrap();
        assert_eq!(site.wiring.host_interfaces().unwrap().len(), 3);
        let known = [Owner::Network(network.id.clone()), Owner::Endpoint(place(2).endpoint_id)];
        site.wiring.sweep(&|owner| known.contains(owner)).unwrap();
        let left: Vec<_> = site.wiring.host_interfaces().unwrap().into_iter().map(|one| one.owner).collect();
        assert_eq!(left, known);
        site.wiring.sweep(&|_| false).unwrap();
        assert!(site.wiring.host_interfaces().unwrap().is_empty());
        assert!(site.link("br-cccccccccccc").is_some(), "it is another daemon's");
    });
}

#[test]
fn a_bridge_of_the_users_own_is_used_and_stays() {
    on_a_host(|site| {
        let mut network = dual();
        network.options.insert(option::BRIDGE_NAME.to_owned(), "mine".to_owned());
        let mut socket = Socket::open(Protocol::Route).unwrap();
        socket.run(&[link::bridge("mine", [2, 0, 0, 0, 0, 1], None)]).unwrap();
        let one = site.container(&network, &place(2));
        let _listener = listen(&one, "10.9.0.2:80");
        TcpStream::connect_timeout(&"10.9.0.2:80".parse().unwrap(), AT_ONCE).unwrap();
        site.wiring.remove(&network).unwrap();
        assert!(site.link("mine").is_some());
        network.options.insert(option::BRIDGE_NAME.to_owned(), "lo".to_owned());
        let error = site.wiring.create(&network).unwrap_err();
        assert_eq!(
            (error.class, error.message.as_str()),
            (Class::Conflict, "existing interface lo is not a bridge")
        );
        network.options.insert(option::BRIDGE_NAME.to_owned(), "far-too-long-a-name".to_owned());
        assert_eq!(site.wiring.create(&network).unwrap_err().class, Class::InvalidParameter);
        // A second network cannot have the first one's.
        let named = |id| {
            let mut network = self::network("x", id, &[("10.7.0.0/24", "10.7.0.1")]);
            network.options.insert(option::BRIDGE_NAME.to_owned(), "ours".to_owned());
            network
        };
        site.wiring.create(&named('e')).unwrap();
        assert_eq!(site.wiring.create(&named('f')).unwrap_err().class, Class::Conflict);
    });
}

#[test]
fn the_default_bridge_is_named_after_the_daemon() {
    let default = Network { name: "bridge".to_owned(), ..dual() };
    let name = |exec_root: &str, bridge: &str| {
        let mut config = Config { exec_root: exec_root.into(), ..Config::default() };
        config.network.bridge = bridge.to_owned();
        Wiring::new(&config).bridge_name(&default)
    };
    assert_eq!(name(DEFAULT_EXEC_ROOT, ""), "dewar0");
    assert_ne!(name("/run/a", ""), name("/run/b", ""));
    assert!(name("/run/a", "").len() <= 15);
    assert_eq!(name("/run/a", "br7"), "br7");
    on_a_host(|site| {
        let mut config = Config { exec_root: site.dir.clone(), ..Config::default() };
        config.network.bridge = "br7".to_owned();
        let default = Network { name: "bridge".to_owned(), ..dual() };
        let error = Wiring::new(&config).create(&default).unwrap_err();
        assert_eq!(error.message, "bridge device with non default name br7 must be created manually");
    });
}

#[test]
fn macvlan_children_speak_to_each_other_and_not_to_their_parent() {
    on_a_host(|site| {
        // Hardware for the parent: one end of a pair, the other far away.
        let far = site.namespace("far");
        let end = fs::File::open(&far).unwrap();
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let pair = Veth { host: "hw0", master: 0, peer: "hw0", netns: end.as_fd(), mac: None, mtu: None };
        socket.run(&[link::veth(&pair), link::change(Which::Name("hw0"), Some(true))]).unwrap();
        let far_place = Given { interface: "hw0".to_owned(), host_interface: String::new(), ..place(8) };
        netns::within(&far, || {
            endpoint::configure(&mut Socket::open(Protocol::Route)?, &far_place, &[], false)
        })
        .unwrap();
        let mut network = Network { driver: Driver::Macvlan, ..dual() };
        network.options.insert(option::PARENT.to_owned(), "hw0".to_owned());
        site.wiring.create(&network).unwrap();
        let on_parent = |number| Given { host_interface: String::new(), ..place(number) };
        let (one, two) = (site.container(&network, &on_parent(2)), site.container(&network, &on_parent(3)));
        let _listeners = [listen(&one, "10.9.0.2:80"), listen(&one, "[fd00:9::2]:80")];
        for from in [&two, &far] {
            for to in ["10.9.0.2:80", "[fd00:9::2]:80"] {
                reach(from, to, AT_ONCE).unwrap();
            }
        }
        site.wiring.hold(&one, &on_parent(2)).unwrap();
        reach(&two, "10.9.0.2:80", Duration::from_millis(100)).unwrap_err();
        site.wiring.release(&one, &on_parent(2)).unwrap();
        reach(&two, "10.9.0.2:80", Duration::from_secs(3)).unwrap();
        site.wiring.unplug(&one, &network, &on_parent(2)).unwrap();
        assert!(netns::within(&one, || Ok(site.link("eth0"))).unwrap().is_none());
        site.wiring.remove(&network).unwrap();
        assert!(site.link("hw0").is_some(), "the parent is not ours");

        let refused = |option: &str, value: &str| {
            let mut network = network.clone();
            network.options.insert(option.to_owned(), value.to_owned());
            site.wiring.create(&network).unwrap_err().message
        };
        assert!(refused(option::PARENT, "nope").contains("invalid subinterface vlan name nope"));
        assert!(refused(option::PARENT, "nope.7").contains("failed to find master interface nope"));
        assert!(refused(option::PARENT, "lo").contains("loopback"));
        assert!(refused(option::MACVLAN_MODE, "x").contains("requested macvlan mode 'x' is not valid"));
        let ipvlan = Network { driver: Driver::Ipvlan, ..network.clone() };
        if let Err(error) = site.wiring.create(&ipvlan) {
            assert_eq!(error.message, "this kernel has no ipvlan interfaces");
        }
        assert!(site.link("dewar-probe").is_none());
    });
}

#[test]
fn a_plug_takes_little() {
    on_a_host(|site| {
        let network = dual();
        site.wiring.create(&network).unwrap();
        let count: u8 = 20;
        let before = (Instant::now(), cpu());
        for number in 2..2 + count {
            let path = site.namespace(&format!("c{number}"));
            site.wiring.plug(&path, &network, &place(number), &PlugOptions::default()).unwrap();
            let way_out = Some((Ipv4Addr::new(10, 9, 0, 1), "eth0"));
            site.wiring.default_route(&path, way_out, None).unwrap();
        }
        let (wall, cpu) = (before.0.elapsed(), cpu() - before.1);
        println!(
            "per container: {:?} wall, {:?} CPU of this process",
            wall / u32::from(count),
            cpu / u32::from(count)
        );
        // The machine may be busy; CPU is what we took. Other tests run in this process, too.
        assert!(cpu < Duration::from_millis(100) * u32::from(count), "{cpu:?}");
    });
}

/// CPU of this process so far.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}
