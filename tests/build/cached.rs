//! The cache: what is found again, what is not, and what is kept.

use super::site::Site;
use crate::support::Output;
use crate::support::requires::requires;

fn hits(output: &Output) -> usize {
    output.stdout.matches(" ---> Using cache\n").count()
}

#[test]
fn a_step_is_found_again_while_nothing_it_depends_on_changes() {
    requires!(root, docker);
    let site = Site::new();
    site.file("f", "one\n").file("d/x", "x\n");
    let dockerfile = "FROM busybox\nARG A=1\nCOPY f d /c/\nRUN echo run\nENV B=2\nWORKDIR /w\nCMD [\"x\"]\n";
    let first = site.build(&["-t", "i"], dockerfile).ok();
    assert_eq!(hits(&first), 0);
    let id = site.inspect("i")["Id"].clone();
    let again = site.build(&["-t", "i"], dockerfile).ok();
    assert_eq!((hits(&again), &site.inspect("i")["Id"]), (6, &id), "{again}");
    // Times do not count, contents, names and modes do.
    site.sh("touch -d @1 f d/x d");
    assert_eq!(hits(&site.build(&[], dockerfile).ok()), 6);
    for (change, wanted) in [("echo two > f", 1), ("chmod 600 f", 1), ("mv d/x d/y", 1), ("touch other", 6)] {
        site.build(&[], dockerfile).ok();
        site.sh(change);
        assert_eq!(hits(&site.build(&[], dockerfile).ok()), wanted, "{change}");
    }
    assert_eq!(hits(&site.build(&["--no-cache"], dockerfile).ok()), 0);
    // An argument counts where a command can see it.
    assert_eq!(hits(&site.build(&["--build-arg", "A=2"], dockerfile).ok()), 2);
    assert_eq!(hits(&site.build(&["--build-arg", "A=2"], dockerfile).ok()), 6);
    assert_eq!(hits(&site.build(&["--build-arg", "HTTP_PROXY=x"], "FROM busybox\nRUN echo p\n").ok()), 0);
    assert_eq!(hits(&site.build(&["--build-arg", "HTTP_PROXY=y"], "FROM busybox\nRUN echo p\n").ok()), 1);
    // What follows a miss is made, even if there is such a step somewhere.
    let other = dockerfile.replace("echo run", "echo other");
    assert_eq!(hits(&site.build(&[], &other).ok()), 2);
    site.is_clean();
}

#[test]
fn what_is_mounted_counts_and_secrets_do_not() {
    requires!(root, docker);
    let site = Site::new();
    site.file("src/f", "one\n");
    let dockerfile = "FROM busybox\nRUN --mount=source=src,target=/m cat /m/f > /f\n";
    site.build(&["-t", "i"], dockerfile).ok();
    assert_eq!(hits(&site.build(&[], dockerfile).ok()), 1);
    site.file("src/f", "two\n");
    assert_eq!(hits(&site.build(&["-t", "i"], dockerfile).ok()), 0);
    assert_eq!(site.run("i", "cat /f"), "two\n");
}

#[test]
fn only_steps_made_here_are_taken_unless_an_image_is_named() {
    requires!(root, docker);
    let site = Site::new();
    let dockerfile = "FROM busybox\nRUN echo one > /f\nRUN echo two > /g\n";
    site.build(&["-t", "i"], dockerfile).ok();
    let archive = site.daemon.dir().join("i.tar");
    site.daemon.docker(&["save", "-o"]).arg(&archive).args(["i", "busybox"]).ok();
    let other = Site::new();
    other.daemon.docker(&["rmi", "busybox"]).ok();
    other.daemon.docker(&["load", "-i"]).arg(&archive).ok();
    assert_eq!(hits(&other.build(&["--cache-from", "i", "-t", "k"], dockerfile).ok()), 2);
    assert_eq!(other.run("k", "cat /f /g"), "one\ntwo\n");
    let third = Site::new();
    third.daemon.docker(&["rmi", "busybox"]).ok();
    third.daemon.docker(&["load", "-i"]).arg(&archive).ok();
    assert_eq!(hits(&third.build(&[], dockerfile).ok()), 0);
}

#[test]
fn steps_are_parents_that_are_shown_when_asked_for_and_go_with_their_image() {
    requires!(root, docker);
    let site = Site::new();
    site.build(&["-t", "i"], "FROM busybox\nRUN echo one > /f\nENV A=1\nCMD [\"x\"]\n").ok();
    let count = |all: &str| {
        site.daemon.api("GET", &format!("/images/json{all}")).is(200).json().as_array().map(Vec::len)
    };
    assert_eq!((count(""), count("?all=1")), (Some(2), Some(4)));
    assert!(site.inspect("i")["Parent"].as_str().is_some_and(|parent| parent.starts_with("sha256:")));
    // A second image of the name leaves the first without one.
    site.build(&["-t", "i"], "FROM busybox\nRUN echo other > /f\n").ok();
    assert_eq!((count(""), count("?all=1")), (Some(3), Some(5)));
    site.daemon.docker(&["image", "prune", "-f"]).ok().stdout_has("deleted: sha256:");
    assert_eq!((count(""), count("?all=1")), (Some(2), Some(2)));
    site.daemon.docker(&["rmi", "i"]).ok();
    assert_eq!(count("?all=1"), Some(1));
}

#[test]
fn containers_of_steps_stay_when_they_are_to() {
    requires!(root, docker);
    let site = Site::new();
    site.build(&["--rm=false"], "FROM busybox\nRUN echo kept > /f\n")
        .ok()
        .stdout_lacks("Removed intermediate");
    let list = site.daemon.api("GET", "/containers/json?all=1").is(200).json();
    assert_eq!(list.as_array().map(Vec::len), Some(1), "{list}");
    let mut site = site;
    // It is nobody's step any more: the next daemon leaves it alone.
    site.daemon.stop();
    site.daemon.restart();
    let id = list[0]["Id"].as_str().unwrap_or_default();
    site.daemon.docker(&["diff", id]).ok().stdout_has("A /f");
    site.daemon.docker(&["rm", id]).ok();
    site.is_clean();
}
