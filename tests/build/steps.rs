//! RUN: what it sees, what is mounted, what it may use, what is left of it.

use base64::Engine as _;

use super::site::Site;
use crate::support::requires::requires;

#[test]
fn a_command_that_fails_names_itself_its_code_and_its_line() {
    requires!(root, docker);
    let site = Site::new();
    let dockerfile = "FROM busybox\n# comment\nRUN echo fine\nRUN echo \\\n  two; exit 3\n";
    let built = site.build(&[], dockerfile).fails(3);
    built
        .stderr_has("The command '/bin/sh -c echo   two; exit 3' returned a non-zero code: 3 (Dockerfile:4)");
    // As with docker it stays to be looked at, unless it is not to.
    let list = site.daemon.api("GET", "/containers/json?all=1").is(200).json();
    assert_eq!(list.as_array().map(Vec::len), Some(1), "{list}");
    site.daemon.docker(&["rm", list[0]["Id"].as_str().unwrap_or_default()]).ok();
    site.build(&["--force-rm"], dockerfile).fails(3);
    site.is_clean();
    site.build(&["--force-rm"], "FROM busybox\nRUN [\"/nope\"]\n").fails(1).stderr_has("/nope");
    site.is_clean();
}

#[test]
fn errors_have_dockers_words_and_the_line() {
    requires!(root, docker);
    let site = Site::new();
    site.file("one", "").file("two", "");
    for (dockerfile, wanted) in [
        ("FROM busybox\nFOO bar\n", "dockerfile parse error on line 2: unknown instruction: FOO"),
        (
            "FROM busybox\nCOPY nope /\n",
            "COPY failed: file not found in build context or excluded by .dockerignore: stat nope: file does not exist (Dockerfile:2)",
        ),
        ("FROM busybox\nADD nope /\n", "ADD failed: file not found in build context"),
        (
            "FROM busybox\nCOPY --from=busybox /nope /\n",
            "COPY failed: stat nope: file does not exist (Dockerfile:2)",
        ),
        ("FROM busybox\nCOPY *.zip /\n", "COPY failed: no source files were specified (Dockerfile:2)"),
        (
            "FROM busybox\nCOPY one two /x\n",
            "When using COPY with more than one source file, the destination must be a directory and end with a /",
        ),
        (
            "FROM busybox\nCOPY ../one /x\n",
            "COPY failed: forbidden path outside the build context: ../one ()",
        ),
        ("FROM busybox\nCOPY --chown=nobody-at-all one /\n", "unable to find user nobody-at-all"),
        ("FROM busybox\nCOPY one /bin/busybox/x\n", "not a directory"),
        ("FROM $NOPE\n", "base name ($NOPE) should not be blank (Dockerfile:1)"),
        ("FROM busybox\nEXPOSE x\n", "invalid containerPort: x (Dockerfile:2)"),
        ("FROM busybox\nSTOPSIGNAL nope\n", "(Dockerfile:2)"),
        ("FROM scratch\n", "No image was generated. Is your Dockerfile empty?"),
        ("FROM scratch\nRUN x\n", "(Dockerfile:2)"),
        ("FROM busybox\nRUN --security=insecure x\n", "only \"sandbox\" is allowed (Dockerfile:2)"),
    ] {
        site.build(&[], dockerfile).fails(1).stderr_has(wanted);
    }
    site.file("Dockerfile", "FROM busybox\n");
    let body = site.tar();
    site.post("dockerfile=nope", &[], &body).refuses(400, "Cannot locate specified Dockerfile: nope");
    site.post("squash=1", &[], &body).refuses(400, "squash is only supported with experimental mode");
    site.is_clean();
}

#[test]
fn here_documents_are_scripts_and_files() {
    requires!(root, docker);
    let site = Site::new();
    let dockerfile = "FROM busybox\nENV A=1\nRUN <<EOF\necho plain > /one\npwd >> /one\nEOF\n\
        RUN <<EOF\n#!/bin/cat\nitself\nEOF\nRUN cat > /two <<-EOF\n\ttabs $A\n\tEOF\n\
        COPY <<EOF <<\"RAW\" /files/\nA is $A\nEOF\nA is $A\nRAW\n";
    site.build(&["-t", "i"], dockerfile).ok().stdout_has("#!/bin/cat\nitself\n");
    assert_eq!(site.run("i", "cat /one /two /files/EOF /files/RAW"), "plain\n/\ntabs 1\nA is 1\nA is $A\n");
}

#[test]
fn mounts_are_there_while_a_command_runs_and_leave_nothing() {
    requires!(root, docker);
    let site = Site::new();
    site.file("src/f", "of the context\n");
    let dockerfile = "FROM busybox AS tool\nRUN mkdir /opt && echo tool > /opt/t && chown 7:8 /opt/t && ln -s /etc /opt/out\n\
        FROM busybox\n\
        RUN --mount=type=cache,target=/cache,mode=0700,uid=5 echo x >> /cache/n; wc -l < /cache/n; stat -c '%a %u' /cache\n\
        RUN --mount=type=bind,source=src,target=/a/b/m cat /a/b/m/f; ! echo no 2>/dev/null > /a/b/m/f\n\
        RUN --mount=source=src,target=/m,rw echo yes > /m/f && cat /m/f\n\
        RUN --mount=source=src/f,target=/m cat /m\n\
        RUN --mount=from=tool,source=/opt,target=/tool stat -c '%u:%g' /tool/t; ! touch /tool/x 2>/dev/null\n\
        RUN --mount=from=tool,source=/opt,target=/tool,rw touch /tool/x && ls /tool\n\
        RUN --mount=type=tmpfs,target=/t,size=1m df -k /t | tail -n1; touch /t/x\n\
        RUN ! ls -d /cache /a /m /tool /t 2>/dev/null\n";
    let built = site.build(&["-t", "i"], dockerfile).ok();
    for part in ["1\n700 5\n", "of the context\n", "yes\n", "7:8\n", "out\nt\nx\n", " 1024 "] {
        built.stdout_has(part);
    }
    assert_eq!(site.run("i", "! ls -d /cache /a /m /tool /t 2>/dev/null"), "");
    // What was written to the context was thrown away, and the cache was not.
    let again =
        "FROM busybox\nRUN --mount=type=cache,target=/cache wc -l < /cache/n; echo more >> /cache/n\n";
    site.build(&["--no-cache"], again).ok().stdout_has("\n1\n");
    site.build(&["--no-cache"], again).ok().stdout_has("\n2\n");
    site.build(&[], "FROM busybox\nRUN --mount=source=nope,target=/x true\n").fails(1).stderr_has("nope");
    let usage = site.daemon.api("GET", "/system/df").is(200).json()["BuildCache"].clone();
    assert_eq!(usage.as_array().map(Vec::len), Some(1), "{usage}");
    assert!(usage[0]["Size"].as_i64() > Some(0) && usage[0]["InUse"] == false, "{usage}");
    site.daemon.docker(&["system", "df"]).ok().stdout_has("Build Cache     1");
    site.daemon.dewar(&["system", "df"]).ok().stdout_has("Build Cache     1");
    site.daemon.dewar(&["builder", "prune", "-f"]).ok().stdout_has("Total reclaimed space:");
    assert_eq!(site.daemon.api("GET", "/system/df").is(200).json()["BuildCache"], serde_json::json!([]));
    site.is_clean();
}

#[test]
fn secrets_are_seen_by_their_command_alone() {
    requires!(root);
    let site = Site::new();
    let secret = "the-word-nobody-may-know";
    let dockerfile = "FROM busybox\n\
        RUN --mount=type=secret,id=key stat -c '%a' /run/secrets/key; grep -c nobody /run/secrets/key\n\
        RUN --mount=type=secret,id=key,target=/etc/key,mode=0444,uid=9 stat -c '%a %u' /etc/key; df /etc/key | tail -n1\n\
        RUN --mount=type=secret,id=none ! ls /run/secrets 2>/dev/null\n";
    site.file("Dockerfile", dockerfile);
    let encoded = base64::engine::general_purpose::STANDARD.encode(secret);
    let header =
        base64::engine::general_purpose::URL_SAFE.encode(serde_json::json!({ "key": encoded }).to_string());
    let reply = site.post("t=i", &[("X-Dewar-Build-Secrets", &header)], &site.tar()).is(200);
    // Output comes in pieces of any size.
    let messages = reply.text();
    let pieces = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let text: String = pieces.filter_map(|message| message["stream"].as_str().map(str::to_owned)).collect();
    assert!(text.contains("400\n1\n") && text.contains("444 9\n") && text.contains("tmpfs  "), "{text}");
    assert!(text.contains("Successfully tagged i:latest"), "{text}");
    let files = crate::support::Cmd::new("grep").args(["-rlF", secret]).arg(site.daemon.dir()).run();
    assert_eq!(files.stdout, "", "{files}");
    assert_eq!(site.run("i", "! ls -d /run /etc/key 2>/dev/null"), "");
    site.file("Dockerfile", "FROM busybox\nRUN --mount=type=secret,id=other,required=true true\n");
    let reply = site.post("", &[("X-Dewar-Build-Secrets", &header)], &site.tar()).is(200);
    assert!(reply.text().contains("secret other: not found"), "{}", reply.text());
    site.post("", &[("X-Dewar-Build-Secrets", secret)], &site.tar()).refuses(400, "invalid header");
    assert!(!site.daemon.log().contains(secret));
    site.is_clean();
}

#[test]
fn commands_have_the_limits_that_are_asked_for() {
    requires!(root, docker);
    let site = Site::new();
    let dockerfile = "FROM busybox\nUSER 1\nRUN id -u; ulimit -n; df -k /dev/shm | tail -n1; grep foo /etc/hosts; \
        cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; true\n\
        RUN --network=none ip -o link | wc -l\n";
    let flags = ["-m", "64m", "--ulimit", "nofile=77:77", "--shm-size", "2m", "--add-host", "foo:1.2.3.4"];
    let built = site.build(&flags, dockerfile).ok();
    for part in ["\n1\n77\nshm                       2048", "1.2.3.4\tfoo\n", "67108864\n"] {
        built.stdout_has(part);
    }
    site.build(&["--network", "none"], "FROM busybox\nRUN ip -o link | wc -l\n").ok().stdout_has("\n1\n");
}
