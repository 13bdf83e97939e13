//! Compose: three services on two networks, from up to down.

use super::site::{HOST, OUTSIDE, Site};
use super::traffic::{Server, answers, is_cut};
use crate::support::requires::requires;
use crate::support::{Cmd, requires};

const SHOP: &str = r#"
name: shop
services:
  web:
    image: busybox
    command: sleep 1000
    init: true
    ports: ["8080:80", "8080:80/udp"]
    networks: [front]
    depends_on: [app]
  app:
    image: busybox
    command: sleep 1000
    init: true
    networks:
      front:
        aliases: [api]
      back:
        ipv4_address: 10.95.0.20
        priority: 1
  db:
    image: busybox
    command: sleep 1000
    init: true
    networks: [back]
networks:
  front: {}
  back:
    internal: true
    driver_opts: {com.docker.network.driver.mtu: "1400"}
    labels: {tier: data}
    ipam:
      config: [{subnet: 10.95.0.0/24, ip_range: 10.95.0.128/25, gateway: 10.95.0.254}]
"#;

#[test]
fn three_services_on_two_networks() {
    requires!(root, docker, compose, iproute);
    let site = Site::new();
    let file = site.daemon.dir().join("compose.yaml");
    std::fs::write(&file, SHOP).expect("a fresh directory");
    let compose = |args: &[&str]| {
        Cmd::new(requires::compose_path().expect("required above"))
            .arg("-f")
            .arg(&file)
            .args(args)
            .env("DOCKER_HOST", site.daemon.host())
            .env("DOCKER_CONFIG", site.daemon.dir().join("docker-config"))
    };
    compose(&["up", "-d"])
        .ok()
        .stderr_has("Network shop_back  Created")
        .stderr_has("Container shop-web-1  Started");
    let [web, app, db] = ["web", "app", "db"].map(|name| site.running(&format!("shop-{name}-1")));
    let _servers = [&web, &app, &db].map(|each| Server::start(&each.inside, &each.name, 80));
    let at = |name: &str, network: &str| {
        format!("{}:80", site.address(&format!("shop-{name}-1"), &format!("shop_{network}")))
    };
    // The shop is open, its stock is reached through the counter only.
    answers(&site.outside, &format!("{HOST}:8080"), &format!("shop-web-1 {OUTSIDE}"));
    answers(
        &web.inside,
        &at("app", "front"),
        &format!("shop-app-1 {}", site.address("shop-web-1", "shop_front")),
    );
    answers(&app.inside, &at("db", "back"), "shop-db-1 10.95.0.20");
    is_cut(&web.inside, &at("db", "back"));
    is_cut(&db.inside, &format!("{HOST}:8080"));
    for (from, name, address) in [
        ("web", "app", site.address("shop-app-1", "shop_front")),
        ("web", "api", site.address("shop-app-1", "shop_front")),
        ("app", "db", site.address("shop-db-1", "shop_back")),
        ("db", "app", "10.95.0.20".to_owned()),
    ] {
        let text = compose(&["exec", "-T", from, "nslookup", name]).run().stdout;
        assert!(text.contains(&address), "{from} asks for {name}: {text}");
    }
    assert!(!compose(&["exec", "-T", "web", "nslookup", "db"]).run().stdout.contains("10.95"));
    assert_eq!(site.sh("shop-db-1", "cat /sys/class/net/eth0/mtu"), "1400\n");
    assert_eq!(site.network("shop_back")["Labels"]["tier"], "data");
    // Up again changes nothing; more of one share a name.
    let id = site.ok("inspect -f {{.Id}} shop-db-1");
    compose(&["up", "-d", "--scale", "db=3"]).ok();
    assert_eq!(site.ok("inspect -f {{.Id}} shop-db-1"), id);
    let all = super::resolver::ask(&app.inside, "db", super::resolver::A, super::resolver::Way::Udp);
    assert_eq!(all.answers.len(), 3, "{all:?}");
    assert_eq!(compose(&["port", "web", "80"]).ok().trimmed(), "0.0.0.0:8080");
    // A changed service is made anew, in its networks.
    std::fs::write(&file, SHOP.replace("8080:80", "8090:80")).expect("ours");
    compose(&["up", "-d", "-t", "0"]).ok();
    let web = site.running("shop-web-1");
    let _server = Server::start(&web.inside, "new", 80);
    answers(&site.outside, &format!("{HOST}:8090"), &format!("new {OUTSIDE}"));
    compose(&["down", "-t", "0"]).ok().stderr_has("Network shop_front  Removed");
    assert_eq!(site.ok("network ls -q --filter type=custom"), "");
    let left: Vec<String> = site.interfaces().into_iter().filter(|name| name.starts_with("br-")).collect();
    assert!(left.is_empty(), "{left:?}");
}
