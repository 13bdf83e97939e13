//! FROM, ARG, targets, labels, names, and stages side by side.

use super::site::Site;
use crate::support::requires::requires;

#[test]
fn a_build_of_two_stages_has_what_its_instructions_say() {
    requires!(root, docker);
    let site = Site::new();
    site.file("a.txt", "hello\n").file("sub/b.txt", "two\n");
    let dockerfile = "ARG BASE=nothing\nFROM $BASE AS one\nARG V=default\nENV A=1 B=\"two words\"\n\
        RUN echo \"$A $B $V\" > /made\nCOPY a.txt /dest/\nFROM busybox:latest\nCOPY --from=one /made /dest /copied/\n\
        WORKDIR /w\nWORKDIR x\nLABEL l=m \"n o\"=p\nEXPOSE 80 90-91/udp\nUSER 1:2\nVOLUME /v\nSTOPSIGNAL SIGINT\n\
        HEALTHCHECK --interval=90s CMD true\nSHELL [\"/bin/sh\", \"-ec\"]\nENTRYPOINT [\"cat\"]\nCMD [\"/copied/made\"]\n";
    let flags = [
        "-t",
        "first:1",
        "-t",
        "second",
        "--build-arg",
        "BASE=busybox",
        "--build-arg",
        "V=given",
        "--label",
        "x=it's",
    ];
    let built = site.build(&flags, dockerfile).ok();
    built
        .stdout_has("Step 1/20 : ARG BASE=nothing\n")
        .stdout_has("Step 2/20 : FROM $BASE AS one\n")
        .stdout_has("Step 20/20 : LABEL x=it's\n")
        .stdout_has("Successfully built ")
        .stdout_has("Successfully tagged first:1\n")
        .stdout_has("Successfully tagged second:latest\n")
        .stdout_lacks("not consumed");
    site.daemon.dewar(&["run", "--rm", "--network", "none", "first:1"]).ok().stdout_is("1 two words given\n");
    assert_eq!(site.run("second", "pwd; id -u; cat /copied/a.txt; ls -d /w/x"), "/w/x\n1\nhello\n/w/x\n");
    let image = site.inspect("second");
    let config = &image["Config"];
    assert_eq!(config["Labels"], serde_json::json!({ "l": "m", "n o": "p", "x": "it's" }));
    assert_eq!(config["ExposedPorts"], serde_json::json!({ "80/tcp": {}, "90/udp": {}, "91/udp": {} }));
    assert_eq!(config["Volumes"], serde_json::json!({ "/v": {} }));
    assert_eq!((&config["User"], &config["StopSignal"]), (&"1:2".into(), &"SIGINT".into()));
    assert_eq!(
        config["Healthcheck"],
        serde_json::json!({ "Test": ["CMD-SHELL", "true"], "Interval": 90_000_000_000_i64 })
    );
    assert_eq!(config["Cmd"], serde_json::json!(["/copied/made"]));
    // Arguments are nobody's environment afterwards.
    let env = config["Env"].to_string();
    assert!(env.contains("PATH=") && !env.contains("given"), "{env}");
    site.is_clean();
}

#[test]
fn the_history_is_what_dockers_builder_writes() {
    requires!(root, docker);
    let site = Site::new();
    let dockerfile = "FROM busybox\nMAINTAINER me\nARG V=1\nENV A=$V\nLABEL l=m\nEXPOSE 80\nWORKDIR /w\nUSER 1\nVOLUME /a /b\n\
        ENTRYPOINT [\"a b\", \"c\"]\nCMD say \"hi\"\nSTOPSIGNAL 9\nSHELL [\"/bin/sh\", \"-ec\"]\nONBUILD RUN x\n\
        HEALTHCHECK --retries=3 CMD true\n";
    site.build(&["-t", "i"], dockerfile).ok();
    let history = site.daemon.api("GET", "/images/i/history").is(200).json();
    let steps: Vec<_> = history.as_array().expect("a list").iter().rev().skip(1).collect();
    let texts: Vec<_> = steps.iter().map(|step| step["CreatedBy"].as_str().unwrap_or_default()).collect();
    let nop = |text: &str| format!("/bin/sh -c #(nop) {text}");
    let wanted = [
        nop(" MAINTAINER me"),
        nop(" ARG V=1"),
        nop(" ENV A=1"),
        nop(" LABEL l=m"),
        nop(" EXPOSE 80/tcp"),
        nop("WORKDIR /w"),
        nop(" USER 1"),
        nop(" VOLUME [/a /b]"),
        nop(" ENTRYPOINT [\"a b\" \"c\"]"),
        nop(" CMD [\"/bin/sh\" \"-c\" \"say \\\"hi\\\"\"]"),
        nop(" STOPSIGNAL 9"),
        "/bin/sh -ec #(nop)  SHELL [/bin/sh -ec]".to_owned(),
        "/bin/sh -ec #(nop)  ONBUILD RUN x".to_owned(),
        "/bin/sh -ec #(nop)  HEALTHCHECK &{[\"CMD-SHELL\" \"true\"] \"0s\" \"0s\" \"0s\" \"0s\" '\\x03'}"
            .to_owned(),
    ];
    assert_eq!(texts, wanted);
    // The directory is all that was written.
    let layers = site.inspect("i")["RootFS"]["Layers"].as_array().map(Vec::len);
    assert_eq!(layers, Some(2));
}

#[test]
fn only_what_the_target_needs_is_built() {
    requires!(root, docker);
    let site = Site::new();
    let dockerfile = "FROM busybox AS a\nRUN echo of-a > /f\nFROM busybox AS broken\nRUN exit 1\n\
        FROM scratch AS b\nCOPY --from=0 /f /g\nFROM b\nLABEL last=1\n";
    site.build(&["-t", "whole"], dockerfile)
        .ok()
        .stdout_has("Step 6/6 : LABEL last=1")
        .stdout_lacks("exit 1");
    site.build(&["-t", "part", "--target", "A"], dockerfile).ok().stdout_has("Step 2/2 : RUN");
    assert_eq!(site.run("part", "cat /f"), "of-a\n");
    // Nothing but the file is in it.
    let tar = site.daemon.dir().join("b.tar");
    site.daemon.dewar(&["create", "--name", "box", "--network", "none", "whole", "x"]).ok();
    site.daemon.dewar(&["export", "-o"]).arg(&tar).arg("box").ok();
    crate::support::Cmd::new("tar").arg("-tf").arg(&tar).ok().stdout_has("g\n").stdout_lacks("bin/");
    site.build(&["--target", "nope"], dockerfile)
        .fails(1)
        .stderr_has("target stage \"nope\" could not be found");
}

#[test]
fn stages_that_need_nothing_of_each_other_run_side_by_side() {
    requires!(root, docker);
    let site = Site::new();
    // Each waits for the other: one after the other they would never end.
    let meet = |own: &str, other: &str| {
        format!(
            "RUN --mount=type=cache,id=meet,target=/m touch /m/{own}; i=0; until [ -e /m/{other} ]; do \
             i=$((i+1)); [ $i -lt 600 ] || exit 1; sleep 0.1; done; echo \"met {other}\" > /{own}\n"
        )
    };
    let dockerfile = format!(
        "FROM busybox AS a\n{}FROM busybox AS b\n{}FROM busybox\nCOPY --from=a /one /\nCOPY --from=b /two /\n",
        meet("one", "two"),
        meet("two", "one")
    );
    site.build(&["-t", "met"], &dockerfile).ok();
    assert_eq!(site.run("met", "cat /one /two"), "met two\nmet one\n");
    site.is_clean();
}

#[test]
fn lines_of_stages_side_by_side_are_kept_whole() {
    requires!(root, docker);
    let site = Site::new();
    let noisy = |word: &str| {
        format!("RUN for i in $(seq 200); do printf {word}; printf {word}; printf '{word}\\n'; done\n")
    };
    let dockerfile = format!(
        "FROM busybox AS a\n{}FROM busybox AS b\n{}FROM busybox\nCOPY --from=a /etc/passwd /\nCOPY --from=b /etc/passwd /\n",
        noisy("aaaa"),
        noisy("bbbb")
    );
    let built = site.build(&[], &dockerfile).ok();
    for word in ["aaaaaaaaaaaa", "bbbbbbbbbbbb"] {
        assert_eq!(built.stdout.lines().filter(|line| *line == word).count(), 200, "{built}");
    }
}

#[test]
fn a_failing_stage_ends_the_others() {
    requires!(root, docker);
    let site = Site::new();
    let dockerfile = "FROM busybox AS a\nRUN sleep 1000\nFROM busybox AS b\nRUN exit 7\nFROM busybox\n\
        COPY --from=a / /a\nCOPY --from=b / /b\n";
    site.build(&["--force-rm"], dockerfile).fails(7).stderr_has("returned a non-zero code: 7 (Dockerfile:4)");
    site.is_clean();
}

#[test]
fn arguments_that_nobody_declares_are_told_of() {
    requires!(root, docker);
    let site = Site::new();
    let dockerfile = "FROM busybox\nARG A\nRUN echo \"[$A][$B][$HTTP_PROXY]\"\n";
    let flags = ["--build-arg", "A=1", "--build-arg", "B=2", "--build-arg", "HTTP_PROXY=p"];
    site.build(&flags, dockerfile)
        .ok()
        .stdout_has("\n[1][][p]\n")
        .stdout_has("[Warning] One or more build-args [B] were not consumed\n");
}

#[test]
fn triggers_run_in_the_build_that_stands_on_the_image() {
    requires!(root, docker);
    let site = Site::new();
    site.file("f", "content\n");
    site.build(&["-t", "base"], "FROM busybox\nONBUILD COPY f /g\nONBUILD RUN cat /g > /h\n").ok();
    assert_eq!(
        site.inspect("base")["Config"]["OnBuild"],
        serde_json::json!(["COPY f /g", "RUN cat /g > /h"])
    );
    site.build(&["-t", "next"], "FROM base\nRUN cat /h\n").ok().stdout_has("# Executing 2 build triggers\n");
    assert_eq!(site.run("next", "cat /h"), "content\n");
    assert_eq!(site.inspect("next")["Config"]["OnBuild"], serde_json::Value::Null);
}

#[test]
fn a_quiet_build_tells_the_image_and_why_there_is_none() {
    requires!(root, docker);
    let site = Site::new();
    let built = site.build(&["-q", "-t", "i"], "FROM busybox\nRUN echo said\n").ok();
    assert_eq!(built.stdout.trim(), site.inspect("i")["Id"].as_str().unwrap_or_default(), "{built}");
    site.build(&["-q", "--force-rm"], "FROM busybox\nRUN echo said; exit 4\n").fails(4).says("said");
}

#[test]
fn docker_py_builds() {
    requires!(root, docker_py);
    let site = Site::new();
    site.file("f", "content\n").file("Dockerfile", "FROM busybox\nCOPY f /g\nRUN cat /g\n");
    let script = format!(
        "image, lines = client.images.build(path={:?}, tag='py:1', rm=True)\n\
         print(image.tags, any('content' in line.get('stream', '') for line in lines))\n\
         try:\n    import io; client.images.build(fileobj=io.BytesIO(b'FROM busybox\\nRUN exit 5\\n'), forcerm=True)\n\
         except docker.errors.BuildError as error: print(error.msg)\n\
         print(client.containers.run('py:1', 'cat /g', network_mode='none', remove=True))\n",
        site.context.path()
    );
    let said = site.daemon.python(&script).ok();
    said.stdout_has("['py:1'] True\n").stdout_has("returned a non-zero code: 5").stdout_has("b'content\\n'");
}
