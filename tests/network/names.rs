//! Names: the embedded server on networks of the user's, links on the default one, and the files in /etc.

use super::resolver::{A, AAAA, PTR, Reply, Way, ask, backwards};
use super::site::{OUTSIDE, Site};
use crate::support::requires::requires;
use crate::support::{Cmd, eventually, source};

fn found(answers: &[&str]) -> Reply {
    let mut answers: Vec<String> = answers.iter().map(|text| (*text).to_owned()).collect();
    answers.sort();
    Reply { code: 0, answers, is_cut_off: false, has_edns: false }
}

#[test]
fn containers_find_each_other() {
    requires!(root, docker, iproute);
    let site = Site::new();
    site.ok("network create net");
    site.ok("network create far");
    site.run("web", "--network net --network-alias www --network-alias shared --hostname box");
    site.run("db", "--network net --network-alias shared");
    site.run("other", "--network far");
    let client = site.run("client", "--network net");
    let (web, db) = (site.address("web", "net"), site.address("db", "net"));
    let id = site.ok("inspect -f {{.Id}} web");
    let asked = |name: &str, kind, way| ask(&client.inside, name, kind, way);
    for name in ["web", "www", "WEB", "web.", "box", &id[..12], "web.net"] {
        assert_eq!(asked(name, A, Way::Udp), found(&[&web]), "{name}");
    }
    assert_eq!(asked("shared", A, Way::Udp), found(&[&web, &db]));
    assert_eq!(asked("web", A, Way::Tcp), found(&[&web]));
    let edns = asked("web", A, Way::Edns);
    assert_eq!((edns.code, edns.answers, edns.has_edns), (0, vec![web.clone()], true));
    // It exists, but has no such address.
    assert_eq!(asked("web", AAAA, Way::Udp), found(&[]));
    let reverse = asked(&backwards(&web), PTR, Way::Udp);
    assert_eq!(reverse.answers, ["web.net"], "{reverse:?}");
    // Nobody of another network is known.
    assert_ne!(asked("other", A, Way::Udp).code, 0);
    // Real resolvers: glibc's through wget, BusyBox's own through nslookup; musl's has a test of its own.
    site.docker(&["exec", "-d", "web", "sh", "-c", "echo page > /index.html; exec httpd -f -p 80 -h /"]).ok();
    for name in ["web", "www", "shared"] {
        let text = site.sh("client", &format!("nslookup {name}"));
        assert!(text.contains(&web) && text.contains("127.0.0.11"), "{text}");
    }
    eventually("the page by name", || {
        site.docker(&["exec", "client", "wget", "-q", "-O", "-", "http://web/"]).run().stdout == "page\n"
    });
    assert!(site.sh("client", "ping -c 1 -W 2 www").contains(&format!("({web})")));
    let text = site.sh("client", &format!("nslookup {web}"));
    assert!(text.contains("web.net"), "{text}");
    // Names come and go with containers, and with new names.
    site.ok("rename web site");
    eventually("the new name", || asked("site", A, Way::Udp).answers == [web.clone()]);
    assert_ne!(asked("web", A, Way::Udp).code, 0);
    site.ok("kill site");
    eventually("the name's end", || asked("site", A, Way::Udp).code != 0);
    assert_eq!(asked("shared", A, Way::Udp), found(&[&db]));
}

/// musl asks for both families at once and takes one's absence for the name's; Alpine is made of it.
#[test]
fn musl_finds_them_too() {
    requires!(root, docker, iproute, musl);
    let site = Site::new();
    site.ok("network create net");
    site.ok("network create --ipv6 --subnet fd00:95::/64 --subnet 10.95.0.0/24 both");
    site.run("web", "--network net --network-alias www");
    site.run("dual", "--network both");
    site.run("client", &format!("--network net --dns {OUTSIDE} --dns-search example"));
    site.ok("network connect both client");
    let lookup = site.daemon.dir().join("lookup");
    let source = source().join("tests/network/lookup.c");
    let words = ["-static", "-o", &lookup.to_string_lossy(), &source.to_string_lossy()].map(str::to_owned);
    Cmd::new("musl-gcc").args(words).ok();
    site.docker(&["cp", &lookup.to_string_lossy(), "client:/lookup"]).ok();
    let (web, dual) = (site.address("web", "net"), site.address("dual", "both"));
    for name in ["web", "www", "web.", "web.net"] {
        assert_eq!(site.sh("client", &format!("/lookup {name}")), format!("{name} {web} web.net\n"));
    }
    let text = site.sh("client", "/lookup dual");
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    let six = "dual fd00:95::2 dual.both";
    assert_eq!(lines, [format!("dual {dual} dual.both"), six.to_owned()], "{text}");
    let far = "far.example 198.51.100.7 \n";
    assert_eq!(site.sh("client", "/lookup far.example"), far);
    // Compat: Docker writes ndots:0, with which musl searches nowhere; who needs it says another.
    site.docker(&["exec", "client", "/lookup", "far"]).fails(1);
    let options = "--dns-search example --dns-option ndots:1";
    site.run("searcher", &format!("--network net --dns {OUTSIDE} {options}"));
    site.docker(&["cp", &lookup.to_string_lossy(), "searcher:/lookup"]).ok();
    assert_eq!(site.sh("searcher", "/lookup far"), "far 198.51.100.7 \n");
    assert_eq!(site.sh("searcher", "/lookup web"), format!("web {web} web.net\n"));
    let absent = site.docker(&["exec", "client", "/lookup", "absent"]).fails(1);
    assert_eq!(absent.stdout, "absent: Name does not resolve\n");
}

#[test]
fn what_is_not_known_here_is_asked_outside() {
    requires!(root, docker, iproute);
    let site = Site::new();
    site.ok("network create net");
    site.ok("network create --internal closed");
    let far = ["198.51.100.7".to_owned()];
    let client = site
        .run("client", &format!("--network net --dns {OUTSIDE} --dns-search example --dns-option timeout:3"));
    for way in [Way::Udp, Way::Tcp] {
        assert_eq!(ask(&client.inside, "far.example", A, way).answers, far);
        assert_eq!(ask(&client.inside, "absent.example", A, way).code, 3);
    }
    let text = site.sh("client", "cat /etc/resolv.conf");
    for part in ["nameserver 127.0.0.11\n", "search example\n", "options ", "timeout:3", "ndots:0"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.lines().any(|line| line == format!("nameserver {OUTSIDE}")), "{text}");
    let text = site.sh("client", "nslookup far.example");
    assert!(text.contains("198.51.100.7"), "{text}");
    // On the default network there is no server in between.
    site.run("plain", &format!("--dns {OUTSIDE} --dns-search example"));
    let text = site.sh("plain", "cat /etc/resolv.conf");
    assert!(text.contains(&format!("nameserver {OUTSIDE}\n")) && text.contains("search example\n"), "{text}");
    let text = site.sh("plain", "nslookup far.example");
    assert!(text.contains("198.51.100.7"), "{text}");
    // Nothing of an internal network gets out, not even a question.
    let closed = site.run("closed", &format!("--network closed --dns {OUTSIDE}"));
    assert_ne!(ask(&closed.inside, "far.example", A, Way::Udp).code, 0);
    assert_eq!(ask(&closed.inside, "closed", A, Way::Udp).answers, [site.address("closed", "closed")]);
}

#[test]
fn the_files_in_etc_are_dockers() {
    requires!(root, docker, iproute);
    let site = Site::new();
    site.ok("network create net");
    site.run(
        "web",
        "--network net --hostname box --add-host db:10.1.2.3 --add-host gw:host-gateway --add-host six:::1",
    );
    let address = site.address("web", "net");
    let gateway = site.network("bridge")["IPAM"]["Config"][0]["Gateway"].as_str().expect("one").to_owned();
    let hosts = site.sh("web", "cat /etc/hosts");
    for line in [
        "127.0.0.1\tlocalhost".to_owned(),
        "::1\tlocalhost ip6-localhost ip6-loopback".to_owned(),
        "10.1.2.3\tdb".to_owned(),
        format!("{gateway}\tgw"),
        "::1\tsix".to_owned(),
        format!("{address}\tbox"),
    ] {
        assert!(hosts.lines().any(|each| each == line), "{line:?} in {hosts}");
    }
    assert_eq!(site.sh("web", "cat /etc/hostname; hostname"), "box\nbox\n");
    let id = site.ok("run -d --network net --name plain busybox sleep 1000");
    assert_eq!(site.sh("plain", "hostname"), format!("{}\n", &id[..12]));
    assert!(site.sh("plain", "cat /etc/hosts").contains(&format!(
        "{}\t{}\n",
        site.address("plain", "net"),
        &id[..12]
    )));
    // A fully qualified name stands before its short one.
    site.run("named", "--network net --hostname a --domainname b.example");
    let line = format!("{}\ta.b.example a\n", site.address("named", "net"));
    assert!(site.sh("named", "cat /etc/hosts").contains(&line));
    // A network that comes later has its line, and takes it along.
    site.ok("network create late");
    site.ok("network connect late web");
    let line = format!("{}\tbox\n", site.address("web", "late"));
    assert!(site.sh("web", "cat /etc/hosts").contains(&line));
    site.ok("network disconnect late web");
    assert!(!site.sh("web", "cat /etc/hosts").contains(&line));
}

#[test]
fn links_of_both_kinds() {
    requires!(root, docker, iproute);
    let site = Site::new();
    site.ok("run -d --name db -e SECRET=x --expose 5432 busybox sleep 1000");
    let address = site.address("db", "bridge");
    site.run("app", "--link db:database");
    let hosts = site.sh("app", "cat /etc/hosts");
    let id = site.ok("inspect -f {{.Id}} db");
    assert!(hosts.contains(&format!("{address}\tdatabase {} db\n", &id[..12])), "{hosts}");
    let env = site.sh("app", "tr '\\0' '\\n' < /proc/1/environ");
    for line in [
        "DATABASE_NAME=/app/database".to_owned(),
        format!("DATABASE_PORT=tcp://{address}:5432"),
        format!("DATABASE_PORT_5432_TCP_ADDR={address}"),
        "DATABASE_ENV_SECRET=x".to_owned(),
    ] {
        assert!(env.lines().any(|each| each == line), "{line} in {env}");
    }
    // On a network of the user's a link is a name of one's own.
    site.ok("network create net");
    site.run("server", "--network net");
    let linked = site.run("linked", "--network net --link server:mine");
    let other = site.run("other", "--network net");
    let server = site.address("server", "net");
    assert_eq!(ask(&linked.inside, "mine", A, Way::Udp).answers, [server]);
    assert_ne!(ask(&other.inside, "mine", A, Way::Udp).code, 0);
    site.refuses("run --link nobody busybox true", "could not get container for nobody");
}
