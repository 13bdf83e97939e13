//! Base images that are not here: fetched from their registry, with the user's name there.

use super::site::Site;
use crate::registry::fixture::{PASSWORD, RegistryServer, USER};
use crate::support::requires::requires;

#[test]
fn a_base_that_is_not_here_is_pulled_once() {
    requires!(root, docker, docker_registry);
    let site = Site::new();
    let registry = RegistryServer::plain(site.daemon.network(), 5000);
    let name = registry.name("base:1");
    site.daemon.dewar(&["tag", "busybox", &name]).ok();
    site.daemon.dewar(&["push", "-q", &name]).ok();
    site.daemon.dewar(&["rmi", &name]).ok();
    let two = format!("FROM {name} AS one\nFROM busybox\nCOPY --from={name} /bin/busybox /copy\n");
    let first = site.build(&["-t", "i"], &two).ok();
    first.stdout_has(&format!("Status: Downloaded newer image for {name}"));
    assert_eq!(site.run("i", "cmp /bin/busybox /copy && echo same"), "same\n");
    let again = site.build(&["-t", "i"], &two).ok();
    assert!(!again.stdout.contains("Status:"), "{again}");
    // Asked for anew on request, by both clients.
    site.build(&["--pull", "--target", "one"], &two).ok().stdout_has("Status: Image is up to date for");
    let context = site.context.path().display().to_string();
    site.daemon
        .dewar(&["build", "--pull", "--target", "one", &context])
        .ok()
        .stdout_has("Status: Image is up to date for");
    site.build(&[], &format!("FROM {}\n", registry.name("none:1"))).fails(1).stderr_has("manifest unknown");
    site.build(&["--pull"], "FROM scratch\nLABEL a=b\n").ok();
    site.is_clean();
}

#[test]
fn a_base_of_a_registry_with_passwords_is_pulled_as_the_user() {
    requires!(root, docker, docker_registry);
    let site = Site::new();
    let registry = RegistryServer::htpasswd(site.daemon.network(), 5000);
    let name = registry.name("base:1");
    site.daemon.dewar(&["tag", "busybox", &name]).ok();
    let config = site.daemon.dir().join("docker-config").display().to_string();
    let dewar = |args: &[&str]| site.daemon.dewar(&["--config", &config]).args(args);
    let dockerfile = format!("FROM {name}\n");
    let push = |user: &str| {
        dewar(&["login", "-u", user, "-p", PASSWORD, &registry.host()]).ok();
        dewar(&["push", "-q", &name]).ok();
        site.daemon.dewar(&["rmi", &name]).ok();
    };
    push(USER);
    let context = site.context.path().display().to_string();
    site.file("Dockerfile", &dockerfile);
    dewar(&["build", "-q", &context]).ok();
    site.daemon.dewar(&["rmi", &name]).ok();
    site.build(&["-q"], &dockerfile).ok();
    site.daemon.dewar(&["rmi", &name]).ok();
    dewar(&["logout", &registry.host()]).ok();
    dewar(&["build", &context]).fails(1).stderr_has("no basic auth credentials");
    site.build(&[], &dockerfile).fails(1).stderr_has("no basic auth credentials");
    site.is_clean();
}
