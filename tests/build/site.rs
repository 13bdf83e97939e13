//! A daemon, and a directory to build from by the stock client.

use crate::support::http::{Connection, Reply};
use crate::support::{Cmd, Daemon, Output, TempDir};

pub struct Site {
    pub daemon: Daemon,
    pub context: TempDir,
}

impl Site {
    /// With the busybox image and an empty context.
    #[track_caller]
    pub fn new() -> Site {
        Site { daemon: Daemon::start(), context: TempDir::new() }
    }

    /// Writes a file of the context, and the directories it is in.
    #[track_caller]
    pub fn file(&self, path: &str, content: &str) -> &Site {
        let path = self.context.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a path in the context")).expect("a directory of ours");
        std::fs::write(path, content).expect("a directory of ours");
        self
    }

    /// Runs a script in the context.
    #[track_caller]
    pub fn sh(&self, script: &str) -> Output {
        let script = format!("cd \"$1\" && {script}");
        Cmd::new("sh").args(["-e", "-c", &script, "sh"]).arg(self.context.path()).ok()
    }

    /// `docker build`, by the classic builder.
    #[track_caller]
    pub fn build(&self, flags: &[&str], dockerfile: &str) -> Cmd {
        self.file("Dockerfile", dockerfile);
        let command = self.daemon.docker(&["build"]).env("DOCKER_BUILDKIT", "0");
        command.args(flags).arg(self.context.path())
    }

    /// What a command prints in an image.
    #[track_caller]
    pub fn run(&self, image: &str, script: &str) -> String {
        self.daemon
            .dewar(&["run", "--rm", "--network", "none", "--entrypoint", "sh", image, "-c", script])
            .ok()
            .stdout
    }

    /// `docker inspect` of an image.
    #[track_caller]
    pub fn inspect(&self, image: &str) -> serde_json::Value {
        self.daemon.api("GET", &format!("/images/{image}/json")).is(200).json()
    }

    /// The context as a tar.
    #[track_caller]
    pub fn tar(&self) -> Vec<u8> {
        let archive = self.daemon.dir().join("context.tar");
        Cmd::new("tar").arg("-C").arg(self.context.path()).arg("-cf").arg(&archive).arg(".").ok();
        std::fs::read(archive).expect("made above")
    }

    /// `POST /build` with this body.
    #[track_caller]
    pub fn post(&self, query: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut connection = Connection::open(&self.daemon.socket());
        let headers = [headers, &[("Connection", "close"), ("Content-Type", "application/x-tar")]].concat();
        connection.request("POST", &format!("/build?{query}"), &headers, Some(body));
        connection.reply("POST")
    }

    /// Nothing of any build may be there.
    #[track_caller]
    pub fn is_clean(&self) {
        assert_eq!(self.daemon.api("GET", "/containers/json?all=1").is(200).json(), serde_json::json!([]));
        for dir in ["data/build/tmp", "run/build"] {
            let left: Vec<_> = std::fs::read_dir(self.daemon.dir().join(dir)).expect("it is there").collect();
            assert!(left.is_empty(), "{dir}: {left:?}");
        }
        let mounts = crate::support::leftovers::mounts(self.daemon.dir());
        assert!(mounts.is_empty(), "{mounts:?}");
    }
}
