//! Dockerfiles built by docker's classic builder client, by docker-py and by dewar, and what is in the images then.
//!
//! Stays whole: tables, and the little that reads them.

use std::fs;
use std::path::Path;

use crate::clients::docker_py::python_script;
use crate::support::requires::requires;
use crate::support::{Cmd, Daemon, TempDir, requires};

/// One Dockerfile.
struct Case {
    name: &'static str,
    dockerfile: &'static str,
    /// More flags, as both command lines understand them.
    flags: &'static [&'static str],
    /// What a shell in a container of the image prints for a script.
    checks: &'static [(&'static str, &'static str)],
}

/// What every context has in it.
const FILES: &[(&str, &str)] = &[
    ("a.txt", "A\n"),
    ("b.txt", "B\n"),
    ("sp ace", "blank\n"),
    ("dir/x", "x\n"),
    ("dir/sub/y", "y\n"),
    ("dir/sub/z.o", "object\n"),
    ("script.sh", "#!/bin/sh\necho ran $1\n"),
    (".dockerignore", "**/*.o\nhidden\n"),
    ("hidden", "never\n"),
];

const CASES: &[Case] = &[
    Case {
        name: "variables",
        dockerfile: "ARG base=busybox\n\
                     FROM $base\n\
                     ARG A=1\n\
                     ARG B\n\
                     ARG C=unused D=$A$A\n\
                     ENV X=$A Y=\"a b\" Z=a\\ b Q='$A'\n\
                     ENV OLD style value\n\
                     ENV W=${B:-none} V=${A:+set} U=${NOPE-dflt} T=${OLD%value} S=${OLD/style/new}\n\
                     RUN echo \"$X|$Y|$Z|$Q|$OLD|$W|$V|$U|$T|$S|$B|$D\" > /env\n",
        flags: &["--build-arg", "B=given"],
        checks: &[
            ("cat /env", "1|a b|a b|$A|style value|given|set|dflt|style |new value|given|11\n"),
            ("echo \"$X|$Y|$A|$B\"", "1|a b||\n"),
        ],
    },
    Case {
        name: "places",
        dockerfile: "FROM busybox\n\
                     ENV N=deep\n\
                     WORKDIR /w\n\
                     WORKDIR sub/$N\n\
                     RUN pwd > /pwd\n\
                     USER 1000:100\n\
                     RUN id -u > /tmp/id && id -g >> /tmp/id\n\
                     COPY a.txt .\n",
        flags: &[],
        checks: &[(
            "cat /pwd /tmp/id; pwd; id -u; stat -c %u:%g a.txt",
            "/w/sub/deep\n1000\n100\n/w/sub/deep\n1000\n0:0\n",
        )],
    },
    Case {
        name: "run-forms",
        dockerfile: "FROM busybox\n\
                     RUN echo one \\\n\
                     # between\n\
                     \n\
                       two > /shell\n\
                     RUN [\"/bin/sh\", \"-c\", \"echo $HOME > /exec\"]\n\
                     SHELL [\"/bin/sh\", \"-ec\"]\n\
                     RUN false || true; echo $- > /flags\n",
        flags: &[],
        checks: &[("cat /shell /exec; grep -c e /flags", "one two\n/root\n1\n")],
    },
    Case {
        name: "copies",
        dockerfile: "FROM busybox\n\
                     COPY a.txt /one\n\
                     COPY a.txt b.txt /two/\n\
                     COPY *.txt /three/\n\
                     COPY dir /four\n\
                     COPY dir/ /five/\n\
                     COPY [\"sp ace\", \"/six/with blank\"]\n\
                     COPY --chown=12:34 a.txt /seven\n\
                     COPY --chmod=640 a.txt /eight\n\
                     COPY . /nine\n\
                     WORKDIR /ten\n\
                     COPY dir/x ./y/\n\
                     COPY d?r/su[b] eleven/\n",
        flags: &[],
        checks: &[
            ("cat /one; ls /two /three", "A\n/three:\na.txt\nb.txt\n\n/two:\na.txt\nb.txt\n"),
            (
                "find /four /five | sort | tr '\\n' ' '",
                "/five /five/sub /five/sub/y /five/x /four /four/sub /four/sub/y /four/x ",
            ),
            ("cat '/six/with blank'; stat -c %u:%g /seven; stat -c %a /eight", "blank\n12:34\n640\n"),
            (
                "ls -A /nine; ls -R /ten | grep -v '^$'",
                ".dockerignore\nDockerfile\na.txt\nb.txt\ndir\nscript.sh\nsp ace\n/ten:\neleven\ny\n/ten/eleven:\ny\n/ten/y:\nx\n",
            ),
        ],
    },
    Case {
        name: "stages",
        dockerfile: "FROM busybox AS first\n\
                     RUN mkdir /out && echo 1 > /out/f\n\
                     FROM busybox as second\n\
                     COPY --from=first /out /in\n\
                     RUN cat /in/f > /g && echo 2 >> /g\n\
                     FROM first\n\
                     COPY --from=1 /g /g\n\
                     COPY --from=busybox /bin/busybox /copied\n\
                     RUN ls /out > /last\n",
        flags: &[],
        checks: &[("cat /g /last; test -x /copied && echo there", "1\n2\nf\nthere\n")],
    },
    Case {
        name: "target",
        dockerfile: "FROM busybox AS one\n\
                     RUN echo one > /which\n\
                     FROM busybox AS two\n\
                     RUN echo two > /which; exit 1\n",
        flags: &["--target", "one"],
        checks: &[("cat /which", "one\n")],
    },
    Case {
        name: "here-documents",
        dockerfile: "FROM busybox\n\
                     ENV who=world\n\
                     RUN <<EOF\n\
                     set -e\n\
                     echo hello > /a\n\
                     echo \"again $who\" >> /a\n\
                     EOF\n\
                     COPY <<one <<-'two' /d/\n\
                     for $who\n\
                     one\n\
                     \t$who stays\n\
                     two\n\
                     RUN cat <<X > /b\n\
                     in $who\n\
                     X\n\
                     RUN <<S\n\
                     #!/bin/sh\n\
                     echo \"$0\" > /c\n\
                     S\n",
        flags: &[],
        checks: &[
            ("cat /a /d/one /d/two /b", "hello\nagain world\nfor world\n$who stays\nin world\n"),
            ("grep -c S /c", "1\n"),
        ],
    },
    Case {
        name: "mounts",
        dockerfile: "FROM busybox AS other\n\
                     RUN mkdir /o && echo other > /o/f\n\
                     FROM busybox\n\
                     RUN --mount=type=bind,target=/ctx cat /ctx/a.txt > /r; ls /ctx >> /r; touch /ctx/no 2>/dev/null || echo ro >> /r\n\
                     RUN --mount=type=bind,from=other,source=/o,target=/from cat /from/f >> /r\n\
                     RUN --mount=type=tmpfs,target=/t touch /t/x && grep -c ' /t tmpfs' /proc/mounts >> /r\n\
                     RUN --mount=type=cache,target=/cache echo kept > /cache/k\n\
                     RUN --mount=type=cache,target=/cache cat /cache/k >> /r\n\
                     RUN ls /t /cache | wc -l >> /r\n",
        flags: &[],
        checks: &[("cat /r", "A\nDockerfile\na.txt\nb.txt\ndir\nscript.sh\nsp ace\nro\nother\n1\nkept\n0\n")],
    },
    Case {
        name: "escape",
        dockerfile: "# escape=`\n\
                     FROM busybox\n\
                     ENV a=b`\n c=d\\e f=`$a\n\
                     RUN echo `\n\
                     # comment\n\
                       \"$a $c $f\" > /x\n",
        flags: &[],
        checks: &[("cat /x", "b d\\e $a\n")],
    },
    Case {
        name: "network",
        dockerfile: "FROM busybox\nRUN ls /sys/class/net > /net\n",
        flags: &["--network", "none"],
        checks: &[("cat /net", "lo\n")],
    },
    Case {
        name: "limits",
        dockerfile: "FROM busybox\nRUN ulimit -n > /n; df -k /dev/shm | tail -1 | awk '{print $2}' >> /n\n",
        flags: &["--ulimit", "nofile=123:456", "--shm-size", "8m"],
        checks: &[("cat /n", "123\n8192\n")],
    },
    Case {
        name: "hosts",
        dockerfile: "FROM busybox\nRUN grep somewhere /etc/hosts | tr '\\t' ' ' > /h\n",
        flags: &["--add-host", "somewhere:10.9.8.7"],
        checks: &[("cat /h; grep -c somewhere /etc/hosts", "10.9.8.7 somewhere\n0\n")],
    },
    Case {
        name: "changes",
        dockerfile: "FROM busybox\n\
                     RUN mkdir /d && echo 1 > /d/a && echo 2 > /d/b && ln -s a /d/l && echo x > /x\n\
                     RUN rm -r /d && mkdir /d && echo new > /d/c && rm /x\n\
                     RUN mkdir -p /m/n && chmod 1751 /m && chown 5:6 /m/n\n\
                     COPY script.sh /bin/script\n\
                     RUN chmod +x /bin/script && script it > /ran\n",
        flags: &[],
        checks: &[(
            "ls /d; test -e /x || echo gone; stat -c '%a %u:%g' /m /m/n; cat /ran",
            "c\ngone\n1751 0:0\n755 5:6\nran it\n",
        )],
    },
];

fn context(dockerfile: &str) -> TempDir {
    let dir = TempDir::new();
    for (name, text) in FILES {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("below the directory")).expect("a fresh directory");
        fs::write(path, text).expect("a fresh directory");
    }
    fs::write(dir.path().join("Dockerfile"), dockerfile).expect("a fresh directory");
    dir
}

/// `docker build` with the classic builder.
fn docker(daemon: &Daemon, flags: &[&str], dir: &Path) -> Cmd {
    daemon.docker(&["build"]).env("DOCKER_BUILDKIT", "0").args(flags).arg(dir)
}

fn dewar(daemon: &Daemon, flags: &[&str], dir: &Path) -> Cmd {
    daemon.dewar(&["build"]).args(flags).arg(dir)
}

#[track_caller]
fn check(daemon: &Daemon, image: &str, case: &Case) {
    for (script, expected) in case.checks {
        let output = daemon.dewar(&["run", "--rm", "--network", "none", image, "sh", "-c", script]).run();
        assert!(output.stdout == *expected, "{}: expected {expected:?}: {output}", case.name);
    }
}

#[test]
fn dewar_builds_what_dockerfiles_say() {
    requires!(root);
    let daemon = Daemon::start();
    for case in CASES {
        let dir = context(case.dockerfile);
        let output = dewar(&daemon, &[case.flags, &["-t", case.name]].concat(), dir.path()).ok();
        output.stdout_has("Successfully tagged ").stdout_has("Step 1/");
        check(&daemon, case.name, case);
    }
}

#[test]
fn docker_builds_what_dockerfiles_say() {
    requires!(docker);
    let daemon = Daemon::start();
    for case in CASES {
        let dir = context(case.dockerfile);
        let output = docker(&daemon, &[case.flags, &["-t", case.name]].concat(), dir.path()).ok();
        output.stdout_has("Successfully tagged ");
        check(&daemon, case.name, case);
    }
}

#[test]
fn docker_py_builds_what_dockerfiles_say() {
    requires!(root, docker_py);
    let python = requires::python_path().expect("required above");
    let daemon = Daemon::start();
    for case in CASES.iter().filter(|case| case.flags.is_empty()) {
        let dir = context(case.dockerfile);
        let script = format!(
            "image, log = client.images.build(path='{}', tag='{}', rm=True)\n\
             print(image.tags, sum(1 for line in log if 'Step' in line.get('stream', '')) > 0)\n",
            dir.path().display(),
            case.name
        );
        python_script(&daemon, python.clone(), &script)
            .ok()
            .stdout_is(&format!("['{}:latest'] True\n", case.name));
        check(&daemon, case.name, case);
    }
}

#[test]
fn what_an_image_says_of_containers() {
    requires!(docker);
    let daemon = Daemon::start();
    let dir = context(
        "FROM busybox\n\
         MAINTAINER me <me@here>\n\
         ARG v=2\n\
         LABEL one=1 \"two words\"=\"a b\" v=$v\n\
         EXPOSE 80 90/udp 100-101/tcp\n\
         VOLUME /data /more\n\
         VOLUME [\"/json a\"]\n\
         WORKDIR /w\n\
         USER nobody\n\
         STOPSIGNAL SIGINT\n\
         HEALTHCHECK --interval=5s --timeout=3s --retries=2 --start-period=1m CMD test -e /x\n\
         ENTRYPOINT [\"echo\", \"$v\"]\n\
         CMD [\"a\", \"b c\"]\n\
         ONBUILD RUN echo later > /later\n\
         SHELL [\"/bin/sh\", \"-ec\"]\n",
    );
    dewar(&daemon, &["-t", "w", "--label", "flag=yes"], dir.path()).ok();
    docker(&daemon, &["-t", "d", "--no-cache", "--label", "flag=yes"], dir.path()).ok();
    let shown = |image: &str| {
        let inspect = daemon.api("GET", &format!("/images/{image}/json")).is(200).json();
        (inspect["Author"].clone(), inspect["Config"].clone())
    };
    let (author, config) = shown("w");
    assert_eq!(author, "me <me@here>");
    assert_eq!(shown("d"), (author, config.clone()));
    let expected = serde_json::json!({
        "Labels": { "one": "1", "two words": "a b", "v": "2", "flag": "yes" },
        "ExposedPorts": { "80/tcp": {}, "90/udp": {}, "100/tcp": {}, "101/tcp": {} },
        "Volumes": { "/data": {}, "/more": {}, "/json a": {} },
        "WorkingDir": "/w",
        "User": "nobody",
        "StopSignal": "SIGINT",
        "Healthcheck": {
            "Test": ["CMD-SHELL", "test -e /x"],
            "Interval": 5_000_000_000u64, "Timeout": 3_000_000_000u64, "StartPeriod": 60_000_000_000u64, "Retries": 2,
        },
        "Entrypoint": ["echo", "$v"],
        "Cmd": ["a", "b c"],
        "OnBuild": ["RUN echo later > /later"],
        "Shell": ["/bin/sh", "-ec"],
    });
    for (name, value) in expected.as_object().expect("an object") {
        assert_eq!(&config[name], value, "{name}");
    }
    // A child's triggers are carried out first; a new entry point drops the command.
    let child = context("FROM w\nUSER root\nRUN cat /later > /seen\nENTRYPOINT cat /seen\n");
    // The trigger is nobody's, who may not write to /.
    dewar(&daemon, &["-t", "child"], child.path()).fails(1).stdout_has("# Executing 1 build trigger");
    let parent =
        context("FROM busybox\nONBUILD RUN echo later > /later\nONBUILD COPY a.txt /copied\nCMD [\"x\"]\n");
    dewar(&daemon, &["-t", "parent"], parent.path()).ok();
    let child = context("FROM parent\nRUN cat /later /copied > /seen\nENTRYPOINT cat /seen\n");
    let output = dewar(&daemon, &["-t", "child"], child.path()).ok();
    output.stdout_has("# Executing 2 build triggers");
    daemon.dewar(&["run", "--rm", "--network", "none", "child"]).ok().stdout_is("later\nA\n");
    let (_, config) = shown("child");
    assert_eq!(config["Cmd"], serde_json::Value::Null);
    assert_eq!(config["Entrypoint"], serde_json::json!(["/bin/sh", "-c", "cat /seen"]));
    assert_eq!(config["OnBuild"], serde_json::Value::Null);
}

#[test]
fn mistakes_are_said_with_their_line() {
    requires!(docker);
    let daemon = Daemon::start();
    for (dockerfile, code, words) in [
        ("FROM busybox\n\nFOO bar\n", 1, "dockerfile parse error on line 3: unknown instruction: FOO"),
        ("FROM\n", 1, "dockerfile parse error on line 1: FROM requires either one or three arguments"),
        ("FROM busybox\nENV a\n", 1, "line 2: ENV must have two arguments"),
        ("FROM busybox\nCOPY a.txt\n", 1, "line 2: COPY requires at least two arguments"),
        ("", 1, "the Dockerfile (Dockerfile) cannot be empty"),
        ("# nothing\n", 1, "file with no instructions"),
        ("FROM busybox\nRUN exit 7\n", 7, "The command '/bin/sh -c exit 7' returned a non-zero code: 7"),
        ("FROM busybox\nRUN [\"false\"]\n", 1, "The command 'false' returned a non-zero code: 1"),
        ("FROM busybox\nCOPY nowhere /\n", 1, "nowhere"),
        ("FROM busybox\nCOPY hidden /\n", 1, "hidden"),
        ("FROM busybox\nCOPY ../x /\n", 1, "x"),
        ("FROM busybox\nCOPY --from=nope /x /\n", 1, "registry-1.docker.io"),
        ("FROM busybox\nENV a=\"${b:?is needed}\"\n", 1, "b: is needed"),
        ("FROM busybox\nRUN --mount=type=nope true\n", 1, "line 2: unsupported mount type \"nope\""),
    ] {
        let dir = context(dockerfile);
        for command in [dewar(&daemon, &[], dir.path()), docker(&daemon, &[], dir.path())] {
            command.fails(code).stderr_has(words);
        }
    }
    let dir = context("FROM busybox\n");
    for command in
        [dewar(&daemon, &["--target", "x"], dir.path()), docker(&daemon, &["--target", "x"], dir.path())]
    {
        command.fails(1).stderr_has("target stage \"x\" could not be found");
    }
}

#[test]
fn a_secret_is_there_for_one_step_and_nowhere_afterwards() {
    requires!(root);
    let daemon = Daemon::start();
    let dir = context(
        "FROM busybox\n\
         RUN --mount=type=secret,id=s cat /run/secrets/s | md5sum > /sum\n\
         RUN --mount=type=secret,id=s,target=/there,mode=0400 stat -c %a /there > /mode\n\
         RUN ls /run/secrets /there 2>/dev/null | wc -l > /left\n\
         RUN --mount=type=secret,id=none true\n",
    );
    fs::write(dir.path().join("secret"), "squeamish ossifrage").expect("a fresh directory");
    fs::write(dir.path().join(".dockerignore"), "secret\n").expect("a fresh directory");
    let secret = format!("id=s,src={}", dir.path().join("secret").display());
    dewar(&daemon, &["-t", "s", "--secret", &secret], dir.path()).ok();
    let output = daemon.dewar(&["run", "--rm", "--network", "none", "s", "cat", "/sum", "/mode"]).ok();
    output.stdout_is("5c535024cac5199153e3834fe5c92e6a  -\n400\n");
}

#[test]
fn a_dockerfile_that_is_hidden_is_not_copied() {
    requires!(docker);
    let daemon = Daemon::start();
    let dir = context("FROM scratch\n");
    let text = "FROM busybox\nCOPY . /c\n";
    for (index, command) in [
        dewar(&daemon, &["-t", "i0", "-f", "-"], dir.path()),
        docker(&daemon, &["-t", "i1", "-f", "-"], dir.path()),
    ]
    .into_iter()
    .enumerate()
    {
        command.stdin(text).ok();
        let names =
            daemon.dewar(&["run", "--rm", "--network", "none", &format!("i{index}"), "ls", "-A", "/c"]).ok();
        names.stdout_lacks(".dockerfile.").stdout_has("Dockerfile\n");
    }
    let dir = context(text);
    fs::write(dir.path().join(".dockerignore"), "Dockerfile\n.dockerignore\n").expect("a fresh directory");
    dewar(&daemon, &["-t", "i2"], dir.path()).ok();
    let names = daemon.dewar(&["run", "--rm", "--network", "none", "i2", "ls", "-A", "/c"]).ok();
    names.stdout_lacks("ockerfile").stdout_lacks("dockerignore");
}
