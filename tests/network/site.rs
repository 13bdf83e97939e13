//! A daemon's host with a network around it, all of it in namespaces.
//!
//! ```text
//!  outside 192.0.2.2, 2001:db8::2 ──veth── lan 192.0.2.1, 2001:db8::1  host ── bridges ── containers
//! ```
//!
//! The host's way out is the outside, which knows no way to the containers but through the host's own addresses, and
//! a name, far.example.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::Value;

use super::resolver::serve;
use crate::support::{Cmd, Daemon, Namespace, eventually};

pub const HOST: &str = "192.0.2.1";
pub const HOST6: &str = "2001:db8::1";
pub const OUTSIDE: &str = "192.0.2.2";
pub const OUTSIDE6: &str = "2001:db8::2";

pub struct Site {
    /// Before what it lives in.
    pub daemon: Daemon,
    pub host: Namespace,
    pub outside: Namespace,
}

/// A running container: what is in its namespace is in the container, as far as networks go.
pub struct Box {
    pub name: String,
    pub inside: Namespace,
}

impl Site {
    #[track_caller]
    pub fn new() -> Site {
        Site::with(&[])
    }

    /// With further flags of the daemon.
    #[track_caller]
    pub fn with(flags: &[&str]) -> Site {
        let (host, outside) = wired();
        let flags: Vec<&str> = flags.iter().copied().chain(["--dns", OUTSIDE]).collect();
        Site { daemon: Daemon::start_in(&host, &flags), host, outside }
    }

    pub fn docker(&self, args: &[&str]) -> Cmd {
        self.daemon.docker(args)
    }

    /// A line of the stock client that must succeed; gives what it printed, without the white space around it.
    #[track_caller]
    pub fn ok(&self, line: &str) -> String {
        self.line(line).ok().trimmed().to_owned()
    }

    /// A line of the stock client that must fail, with this in what it says.
    #[track_caller]
    pub fn refuses(&self, line: &str, text: &str) {
        let output = self.line(line).run();
        assert!(output.code != 0, "expected a refusal: {output}");
        output.stderr_has(text).no_panic();
    }

    /// A line of the stock client; words are separated by single blanks, there are no quotes.
    #[track_caller]
    pub fn line(&self, line: &str) -> Cmd {
        self.docker(&line.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>())
    }

    /// `docker run -d --name NAME FLAGS busybox sleep`.
    #[track_caller]
    pub fn run(&self, name: &str, flags: &str) -> Box {
        self.ok(&format!("run -d --name {name} {flags} busybox sleep 1000"));
        self.running(name)
    }

    /// A container that runs by now.
    #[track_caller]
    pub fn running(&self, name: &str) -> Box {
        let pid = self.daemon.state(name)["Pid"].as_u64().filter(|pid| *pid > 0).expect("it runs");
        Box { name: name.to_owned(), inside: Namespace::of(u32::try_from(pid).expect("a pid")) }
    }

    /// `docker exec NAME sh -c SCRIPT`, which must succeed.
    #[track_caller]
    pub fn sh(&self, name: &str, script: &str) -> String {
        self.docker(&["exec", name, "sh", "-c", script]).ok().stdout
    }

    /// `docker inspect` of a container, as JSON.
    #[track_caller]
    pub fn inspect(&self, name: &str) -> Value {
        self.daemon.api("GET", &format!("/containers/{name}/json")).is(200).json()
    }

    /// `docker network inspect`, as JSON.
    #[track_caller]
    pub fn network(&self, name: &str) -> Value {
        self.daemon.api("GET", &format!("/networks/{name}")).is(200).json()
    }

    /// A container's IPv4 address in a network.
    #[track_caller]
    pub fn address(&self, container: &str, network: &str) -> String {
        let found = self.inspect(container);
        let text = found["NetworkSettings"]["Networks"][network]["IPAddress"].as_str().unwrap_or_default();
        let address: IpAddr = text.parse().unwrap_or_else(|_| panic!("no address in {network}: {found}"));
        address.to_string()
    }

    /// A container's IPv6 address in a network.
    #[track_caller]
    pub fn address6(&self, container: &str, network: &str) -> String {
        let found = self.inspect(container);
        let endpoint = &found["NetworkSettings"]["Networks"][network]["GlobalIPv6Address"];
        let text = endpoint.as_str().unwrap_or_default();
        let address: IpAddr = text.parse().unwrap_or_else(|_| panic!("no address in {network}: {found}"));
        address.to_string()
    }

    /// What of the host's interfaces is of the daemon's making.
    pub fn interfaces(&self) -> Vec<String> {
        self.host.interfaces().into_iter().filter(|name| name != "lan").collect()
    }

    /// The words of the host's rules in nftables, without counters; sorted, as sets have no order.
    pub fn rules(&self) -> Vec<String> {
        let text = self.host.run("nft", &["--stateless", "list", "ruleset"]).replace(',', " ");
        let mut words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        words.sort();
        words
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // The daemon's own check knows nothing of a network it shares with the test.
        if !std::thread::panicking() {
            self.daemon.end();
            eventually("the containers' interfaces are gone", || {
                self.interfaces().iter().all(|name| !name.starts_with("veth"))
            });
            assert_eq!(self.host.processes(), Default::default(), "processes in the host's network");
        }
    }
}

/// A host and what is outside of it.
#[track_caller]
pub fn wired() -> (Namespace, Namespace) {
    let (host, outside) = (Namespace::new(), Namespace::new());
    host.run("ip", &["link", "add", "lan", "type", "veth", "peer", "name", "eth0", "netns", &outside.path()]);
    for (namespace, interface, v4, v6) in [(&host, "lan", HOST, HOST6), (&outside, "eth0", OUTSIDE, OUTSIDE6)]
    {
        namespace.run("ip", &["addr", "add", &format!("{v4}/24"), "dev", interface]);
        namespace.run("ip", &["addr", "add", &format!("{v6}/64"), "dev", interface, "nodad"]);
        namespace.run("ip", &["link", "set", interface, "up"]);
    }
    host.run("ip", &["route", "add", "default", "via", OUTSIDE]);
    host.run("ip", &["route", "add", "default", "via", OUTSIDE6]);
    serve(&outside, "far.example", Ipv4Addr::new(198, 51, 100, 7));
    (host, outside)
}
