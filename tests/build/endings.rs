//! Builds that end before their time, and what they leave: nothing.

use super::site::Site;
use crate::support::eventually;
use crate::support::requires::requires;

const ENDLESS: &str = "FROM busybox AS a\nRUN sleep 1000\nFROM busybox AS b\n\
    RUN --mount=from=busybox,target=/x --mount=type=cache,target=/c sleep 1000\nFROM busybox\n\
    COPY --from=a / /a\nCOPY --from=b / /b\n";

fn running(site: &Site) -> usize {
    site.daemon.api("GET", "/containers/json").is(200).json().as_array().map_or(0, Vec::len)
}

#[test]
fn a_client_that_goes_away_ends_its_build() {
    requires!(root, docker);
    let site = Site::new();
    let client = site.build(&[], ENDLESS).spawn();
    eventually("both stages", || running(&site) == 2);
    drop(client);
    eventually("the end of both", || {
        site.daemon.api("GET", "/containers/json?all=1").is(200).json() == serde_json::json!([])
    });
    eventually("an empty directory", || {
        std::fs::read_dir(site.daemon.dir().join("data/build/tmp")).is_ok_and(|mut dir| dir.next().is_none())
    });
    site.is_clean();
    // What it held can be had.
    site.build(&[], "FROM busybox\nRUN --mount=type=cache,target=/c,sharing=locked true\n").ok();
}

#[test]
fn a_daemon_that_is_killed_leaves_nothing_for_the_next() {
    requires!(root, docker);
    let mut site = Site::new();
    let client = site.build(&[], ENDLESS).spawn();
    eventually("both stages", || running(&site) == 2);
    site.daemon.kill9();
    drop(client);
    site.daemon.restart();
    site.is_clean();
    site.build(&["-t", "i"], "FROM busybox\nRUN echo x > /f\n").ok();
    assert_eq!(site.run("i", "cat /f"), "x\n");
}

#[test]
fn images_of_a_build_under_way_are_not_pruned() {
    requires!(root, docker);
    let site = Site::new();
    let dockerfile = "FROM busybox\nRUN echo one > /f\n\
        RUN --mount=type=cache,id=gate,target=/m touch /m/here; until [ -e /m/go ]; do sleep 0.1; done\nRUN cat /f\n";
    let mut client = site.build(&["-t", "i"], dockerfile).spawn();
    eventually("the second command", || running(&site) == 1);
    site.daemon.docker(&["container", "prune", "-f"]).ok();
    site.daemon.docker(&["image", "prune", "-af"]).ok();
    site.daemon.docker(&["builder", "prune", "-af"]).ok();
    site.build(&[], "FROM busybox\nRUN --mount=type=cache,id=gate,target=/m touch /m/go\n").ok();
    assert_eq!(client.wait(), 0);
    assert_eq!(site.run("i", "cat /f"), "one\n");
}
