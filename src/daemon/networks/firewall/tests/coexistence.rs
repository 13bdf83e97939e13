//! Hosts with rules of their own, and people who take ours away.

use std::thread;
use std::time::{Duration, Instant};

use super::site::{Site, nft, run};
use super::{Config, FOUR_AND_SIX, Firewall, leads, network, seen, start};

/// What dockerd 28 leaves behind, and a rule of the user's. The last line is one of ufw's kind.
const DOCKERS: &str = "*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-FORWARD - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER ! -i docker0 -o docker0 -j DROP
-A DOCKER-FORWARD -o docker0 -j DOCKER
-A DOCKER-FORWARD -i docker0 -j ACCEPT
-A DOCKER-USER -s 192.0.2.66/32 -m comment --comment \"mine\" -j DROP
-A FORWARD -i tun0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
";

/// Tells iptables what to have, as if another program had.
fn restore(text: &str) {
    for (program, text) in [
        ("iptables-nft-restore", text.to_owned()),
        ("ip6tables-nft-restore", text.replace("192.0.2.66/32", "2001:db8::66/128")),
    ] {
        let mut child = std::process::Command::new(format!("/usr/sbin/{program}"))
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{program}");
    }
}

/// All rules of the host, without counters, as iptables and nft see them.
fn everything() -> String {
    let saved = |program: &str| {
        let text = run(&format!("/usr/sbin/{program}"), "-t filter");
        // Dates, and the counters of policies.
        let lines = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
            if line.starts_with(':') {
                line.split('[').next().unwrap_or_default().to_owned()
            } else {
                line.to_owned()
            }
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    [saved("iptables-nft-save"), saved("ip6tables-nft-save"), nft("-s list ruleset")].join("\n")
}

/// Waits until something is so.
fn eventually(what: &str, is_so: impl Fn() -> bool) -> Duration {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(5), "{what}\n{}", nft("list ruleset"));
        thread::sleep(Duration::from_millis(1));
    }
    start.elapsed()
}

#[test]
fn a_policy_of_others_is_met_and_their_rules_stay() {
    Site::run(true, |site| {
        restore(DOCKERS);
        let before = everything();
        let firewall = start(&Config::default());
        let one = network("one", FOUR_AND_SIX[0], &[]);
        firewall.add_network(&one, "br1").unwrap();
        let list = [leads(&one, "0.0.0.0", 8080, "172.31.1.2"), leads(&one, "::", 8080, "fd01::2")].concat();
        firewall.publish("c1", &list).unwrap();
        for (host, lan) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")] {
            assert_eq!(seen(&site.neighbour, host, 8080).as_deref(), Some(lan));
            assert_eq!(seen(&site.containers[0], lan, 80).as_deref(), Some(host), "out");
        }
        assert_eq!(firewall.warnings(), Vec::<String>::new());
        // The host's rules decide first.
        run("/usr/sbin/iptables-nft", "-A DOCKER-USER -s 192.0.2.2 -j DROP");
        assert_eq!(seen(&site.neighbour, "192.0.2.1", 8080), None);
        run("/usr/sbin/iptables-nft", "-D DOCKER-USER -s 192.0.2.2 -j DROP");
        assert_eq!(seen(&site.neighbour, "192.0.2.1", 8080).as_deref(), Some("192.0.2.2"));
        // iptables can read what we wrote.
        let saved = run("/usr/sbin/iptables-nft-save", "-t filter");
        for rule in [
            r#"-o br1 -m comment --comment "dewar to br1""#,
            r#"-i br1 -m comment --comment "dewar from br1""#,
        ] {
            assert!(saved.contains(&format!("-A FORWARD {rule} -j ACCEPT")), "{saved}");
        }
        // Their owner writes them anew, as dockerd and ufw do when they start.
        restore(DOCKERS);
        eventually("accepted again", || {
            run("/usr/sbin/iptables-nft-save", "-t filter").contains("-A FORWARD -i br1 ")
        });
        assert_eq!(seen(&site.neighbour, "192.0.2.1", 8080).as_deref(), Some("192.0.2.2"));
        // Nothing drops: nothing is needed.
        run("/usr/sbin/iptables-nft", "-P FORWARD ACCEPT");
        eventually("not accepted", || !run("/usr/sbin/iptables-nft-save", "-t filter").contains("br1"));
        run("/usr/sbin/iptables-nft", "-P FORWARD DROP");
        eventually("accepted", || run("/usr/sbin/iptables-nft-save", "-t filter").contains("-i br1"));
        firewall.unpublish("c1").unwrap();
        firewall.remove_network(&one.id).unwrap();
        assert_eq!(everything(), before, "as it was");
        // A last rule that refuses what is left is as good as a policy.
        for last in ["-j REJECT --reject-with icmp-host-prohibited", "-j DROP"] {
            run("/usr/sbin/iptables-nft", "-P FORWARD ACCEPT");
            run("/usr/sbin/iptables-nft", &format!("-A FORWARD {last}"));
            let before = everything();
            firewall.add_network(&one, "br1").unwrap();
            firewall.publish("c1", &list).unwrap();
            assert_eq!(seen(&site.neighbour, "192.0.2.1", 8080).as_deref(), Some("192.0.2.2"), "{last}");
            // Before what is ours, it would make that useless.
            run("/usr/sbin/iptables-nft", &format!("-D FORWARD {last}"));
            run("/usr/sbin/iptables-nft", &format!("-I FORWARD 4 {last}"));
            let rules = || run("/usr/sbin/iptables-nft-save", "-t filter");
            eventually("before it", || {
                rules().find("-i br1").is_some_and(|ours| rules().find(last).is_some_and(|it| ours < it))
            });
            firewall.unpublish("c1").unwrap();
            firewall.remove_network(&one.id).unwrap();
            assert_eq!(everything(), before, "as it was");
            run("/usr/sbin/iptables-nft", &format!("-D FORWARD {last}"));
            run("/usr/sbin/iptables-nft", "-P FORWARD DROP");
        }
        firewall.add_network(&one, "br1").unwrap();
        firewall.uninstall();
        assert_eq!(everything(), before, "as it was");
    });
}

#[test]
fn rules_that_somebody_takes_away_come_back() {
    Site::run(true, |site| {
        let firewall = start(&Config::default());
        let one = network("one", FOUR_AND_SIX[0], &[]);
        firewall.add_network(&one, "br1").unwrap();
        firewall.publish("c1", &leads(&one, "0.0.0.0", 8080, "172.31.1.2")).unwrap();
        let ours = nft("list ruleset");
        for (what, arguments) in [
            ("everything", "flush ruleset"),
            ("a table", "delete table ip dewar"),
            ("all rules of a table", "flush table ip6 dewar"),
            ("the rules of a chain", "flush chain ip dewar forw"),
            ("an element", "delete element ip dewar bridges { \"br1\" }"),
            ("the published ports", "flush map ip dewar pub_any"),
        ] {
            nft(arguments);
            let took = eventually(what, || nft("list ruleset") == ours);
            println!("{what}: back after {took:?}");
        }
        assert_eq!(seen(&site.neighbour, "192.0.2.1", 8080).as_deref(), Some("192.0.2.2"));
        // Ours are no reason to write them anew, nor are other people's.
        nft("add table ip theirs");
        nft("delete table ip theirs");
        firewall.publish("c2", &leads(&one, "0.0.0.0", 8081, "172.31.1.3")).unwrap();
        firewall.unpublish("c2").unwrap();
        assert_eq!(nft("list ruleset"), ours);
        // Between the flush and the repair, a change is made all the same.
        nft("flush ruleset");
        firewall.publish("c2", &leads(&one, "0.0.0.0", 8081, "172.31.1.3")).unwrap();
        assert_eq!(seen(&site.neighbour, "192.0.2.1", 8081).as_deref(), Some("192.0.2.2"));
        firewall.uninstall();
        assert_eq!(nft("list ruleset"), "");
    });
}

#[test]
fn a_start_clears_what_the_last_daemon_left() {
    Site::run(true, |_| {
        let one = network("one", FOUR_AND_SIX[0], &[]);
        let two = network("two", FOUR_AND_SIX[1], &[]);
        let before = start(&Config::default());
        before.add_network(&one, "br1").unwrap();
        before.publish("c1", &leads(&one, "0.0.0.0", 8080, "172.31.1.2")).unwrap();
        let wanted = nft("list ruleset");
        before.add_network(&two, "br2").unwrap();
        before.publish("c2", &leads(&one, "0.0.0.0", 8081, "172.31.1.3")).unwrap();
        let left = nft("-s list table ip dewar");
        drop(before);
        nft("add table ip theirs");
        // Another daemon's rules have another name.
        let other = start(&Config { exec_root: "/run/other".into(), ..Config::default() });
        other.add_network(&one, "br1").unwrap();
        assert!(nft("list tables").contains("table ip dewar-"));
        other.uninstall();
        let now = Firewall::open(&Config::default());
        now.add_network(&one, "br1").unwrap();
        now.publish("c1", &leads(&one, "0.0.0.0", 8080, "172.31.1.2")).unwrap();
        assert_eq!(nft("-s list table ip dewar"), left, "who lives is led as before until all is known");
        now.synchronize().unwrap();
        nft("delete table ip theirs");
        assert_eq!(nft("list ruleset"), wanted);
        drop(now);
        Firewall::open(&Config::default()).synchronize().unwrap();
        assert_eq!(nft("list ruleset"), "");
    });
}

#[test]
fn no_rules_are_made_for_a_family_that_is_to_have_none() {
    Site::run(true, |_| {
        let one = network("one", FOUR_AND_SIX[0], &[]);
        start(&Config::default()).add_network(&one, "br1").unwrap();
        let mut config = Config::default();
        config.network.ip6tables = false;
        let firewall = start(&config);
        firewall.add_network(&one, "br1").unwrap();
        firewall.synchronize().unwrap();
        assert_eq!(nft("list tables"), "table ip dewar\n");
        drop(firewall);
        config.network.iptables = false;
        let firewall = start(&config);
        firewall.add_network(&one, "br1").unwrap();
        firewall.publish("c1", &leads(&one, "0.0.0.0", 8080, "172.31.1.2")).unwrap();
        firewall.synchronize().unwrap();
        firewall.unpublish("c1").unwrap();
        firewall.remove_network(&one.id).unwrap();
        assert_eq!(nft("list ruleset"), "");
    });
}

#[test]
fn what_cannot_be_met_is_told() {
    Site::run(true, |_| {
        nft("add table inet strict");
        nft("add chain inet strict fence { type filter hook forward priority 0 ; policy drop ; }");
        nft("add table inet firewalld");
        nft(
            "add chain inet firewalld filter_FORWARD { type filter hook forward priority 10 ; policy accept ; }",
        );
        let firewall = start(&Config::default());
        let one = network("one", FOUR_AND_SIX[0], &[]);
        assert_eq!(firewall.warnings(), Vec::<String>::new());
        firewall.add_network(&one, "br1").unwrap();
        let told = firewall.warnings();
        assert!(told[0].contains("firewall-cmd --permanent --zone=trusted --add-interface=br1"), "{told:?}");
        assert!(told[1].contains("\"inet strict fence\""), "{told:?}");
        assert_eq!(told.len(), 2);
        nft("delete table inet strict");
        nft("delete table inet firewalld");
        eventually("nothing to tell", || firewall.warnings().is_empty());
        // The older iptables sends no news.
        for program in ["iptables-legacy", "ip6tables-legacy"] {
            run(&format!("/usr/sbin/{program}"), "-I FORWARD -i br7 -j ACCEPT");
        }
        firewall.synchronize().unwrap();
        assert_eq!(firewall.warnings(), Vec::<String>::new());
        for program in ["iptables-legacy", "ip6tables-legacy"] {
            run(&format!("/usr/sbin/{program}"), "-P FORWARD DROP");
        }
        firewall.synchronize().unwrap();
        let told = firewall.warnings();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("of iptables-legacy for") && told[1].contains("of ip6tables-legacy for"));
    });
}
