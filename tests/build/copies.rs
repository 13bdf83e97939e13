//! COPY and ADD: what lands where, whose it is, and what must not get in.

use super::site::Site;
use crate::support::requires::requires;

/// A line of `stat` for each path in the image.
fn stat(site: &Site, image: &str, paths: &str) -> String {
    site.run(image, &format!("cd / && stat -c '%n %a %u:%g %F' {paths}"))
}

#[test]
fn sources_land_where_the_target_says() {
    requires!(root, docker);
    let site = Site::new();
    site.file("f", "f\n")
        .file("g", "g\n")
        .file("dir/x", "x\n")
        .file("dir/sub/y", "y\n")
        .file("dir/n.txt", "n\n");
    site.sh("chmod 640 f && chmod 750 dir/sub && ln -s f link && ln -s x dir/lx && ln dir/x dir/hard && touch -d @1000000000 f dir/sub");
    for (instructions, paths, wanted) in [
        (
            "COPY f /new/deep/name",
            "new new/deep/name",
            "new 755 0:0 directory\nnew/deep/name 640 0:0 regular file\n",
        ),
        ("COPY f /tmp", "tmp tmp/f", "tmp 1777 0:0 directory\ntmp/f 640 0:0 regular file\n"),
        ("COPY f /d/", "d/f", "d/f 640 0:0 regular file\n"),
        ("WORKDIR /w\nCOPY f .", "w/f", "w/f 640 0:0 regular file\n"),
        ("WORKDIR /w\nCOPY f sub/n", "w/sub/n", "w/sub/n 640 0:0 regular file\n"),
        ("COPY f g /d/", "d/f d/g", "d/f 640 0:0 regular file\nd/g 644 0:0 regular file\n"),
        (
            "COPY dir /d",
            "d/x d/sub d/sub/y d/lx",
            "d/x 644 0:0 regular file\nd/sub 750 0:0 directory\nd/sub/y 644 0:0 regular file\nd/lx 777 0:0 symbolic link\n",
        ),
        ("COPY dir/ f /d/", "d/f d/x", "d/f 640 0:0 regular file\nd/x 644 0:0 regular file\n"),
        (
            "COPY dir/*.txt dir/[w-x] /d/",
            "d/n.txt d/x",
            "d/n.txt 644 0:0 regular file\nd/x 644 0:0 regular file\n",
        ),
        ("COPY link /l", "l", "l 640 0:0 regular file\n"),
        (
            "COPY --chown=3:4 --chmod=711 dir /d",
            "d/sub/y d/sub",
            "d/sub/y 711 3:4 regular file\nd/sub 711 3:4 directory\n",
        ),
        (
            "COPY --chmod=u=rwX,go= dir /d",
            "d/sub/y d/sub",
            "d/sub/y 600 0:0 regular file\nd/sub 700 0:0 directory\n",
        ),
        ("COPY --chown=7 f /new/n", "new/n new", "new/n 640 7:7 regular file\nnew 755 7:7 directory\n"),
        (
            "COPY --parents dir/sub/y f /d/",
            "d/dir/sub/y d/f",
            "d/dir/sub/y 644 0:0 regular file\nd/f 640 0:0 regular file\n",
        ),
        (
            "COPY --exclude=*.txt --exclude=sub dir /d\nRUN ! ls /d/n.txt /d/sub 2>/dev/null",
            "d/x",
            "d/x 644 0:0 regular file\n",
        ),
        ("COPY --link f /d/f", "d/f", "d/f 640 0:0 regular file\n"),
        (
            "RUN mkdir /tmp/real && ln -s /tmp/real /ln\nCOPY f /ln/\nCOPY f /ln/new/n",
            "ln tmp/real/f tmp/real/new/n",
            "ln 777 0:0 symbolic link\ntmp/real/f 640 0:0 regular file\ntmp/real/new/n 640 0:0 regular file\n",
        ),
        (
            "RUN ln -s ../../../../../tmp/far /ln\nCOPY f /ln/n",
            "tmp/far/n",
            "tmp/far/n 640 0:0 regular file\n",
        ),
    ] {
        site.build(&["-t", "i"], &format!("FROM busybox\n{instructions}\n")).ok();
        assert_eq!(stat(&site, "i", paths), wanted, "{instructions}");
    }
    site.build(&["-t", "i"], "FROM busybox\nCOPY f /f\nCOPY dir /d\n").ok();
    assert_eq!(
        site.run("i", "stat -c %Y /f /d/sub; stat -c %h /d/hard; [ /d/x -ef /d/hard ] && cat /d/hard"),
        "1000000000\n1000000000\n2\nx\n"
    );
    for (instructions, wanted) in [
        ("RUN mkdir /d\nCOPY dir /f", ""),
        ("COPY f /f\nCOPY dir /f", "cannot copy to non-directory: /f"),
        ("RUN mkdir -p /d/x\nCOPY dir /d", "cannot copy to directory: /d/x"),
        ("RUN touch /d\nCOPY f /d/", "/d: not a directory"),
    ] {
        let build = site.build(&[], &format!("FROM busybox\n{instructions}\n"));
        if wanted.is_empty() {
            build.ok();
        } else {
            build.fails(1).stderr_has(wanted);
        }
    }
    site.is_clean();
}

#[test]
fn owners_and_attributes_come_along_from_another_stage() {
    requires!(root, docker);
    let site = Site::new();
    let dockerfile = "FROM busybox AS a\nRUN mkdir -p /s/d && echo x > /s/f && chown 5:6 /s/f /s/d && chmod 2750 /s/d && ln /s/f /s/g\n\
        RUN echo u:x:50:60::/: >> /etc/passwd && echo grp:x:70: >> /etc/group\n\
        FROM a\nCOPY --from=a /s /kept\nCOPY --from=a --chown=u /s/f /by-name\nCOPY --from=a --chown=u:grp /s/f /by-both\n\
        COPY --from=busybox /etc/passwd /of-image\n";
    site.build(&["-t", "i"], dockerfile).ok();
    let wanted = "kept/f 644 5:6 regular file\nkept/g 644 5:6 regular file\nkept/d 2750 5:6 directory\n\
        by-name 644 50:60 regular file\nby-both 644 50:70 regular file\nof-image 644 0:0 regular file\n";
    assert_eq!(stat(&site, "i", "kept/f kept/g kept/d by-name by-both of-image"), wanted);
}

#[test]
fn archives_are_unpacked_by_add_alone() {
    requires!(root, docker);
    let site = Site::new();
    site.sh("mkdir t && echo in > t/in && chmod 640 t/in && chown 3:4 t/in && touch -d @1000000000 t/in");
    site.sh("tar cf a.tar t && gzip -c a.tar > a.tgz && gzip -c t/in > plain.gz && rm -r t && head -c 700 a.tar > cut.tar");
    let dockerfile = "FROM busybox\nADD a.tar /new\nADD a.tgz plain.gz /both/\nADD --chown=7:8 a.tar /owned\nCOPY a.tgz /copied/\n";
    site.build(&["-t", "i"], dockerfile).ok();
    let paths = "new/t/in both/t/in both/plain.gz owned/t/in copied/a.tgz";
    let wanted = "new/t/in 640 3:4 regular file\nboth/t/in 640 3:4 regular file\nboth/plain.gz 644 0:0 regular file\n\
        owned/t/in 640 7:8 regular file\ncopied/a.tgz 644 0:0 regular file\n";
    assert_eq!(stat(&site, "i", paths), wanted);
    assert_eq!(site.run("i", "stat -c %Y /new/t/in"), "1000000000\n");
    site.build(&[], "FROM busybox\nADD cut.tar /x\n").fails(1).stderr_has("truncated");
    site.is_clean();
}

#[test]
fn dockerignore_keeps_files_out_and_the_dockerfile_readable() {
    requires!(root, docker);
    let site = Site::new();
    site.file(".dockerignore", "*.log\nsecret\nDockerfile\n.dockerignore\n!keep.log\n");
    site.file("a.log", "").file("keep.log", "").file("secret/x", "").file("b", "");
    site.build(&["-t", "i"], "FROM busybox\nCOPY . /c/\n").ok();
    assert_eq!(site.run("i", "ls -A /c"), "b\nkeep.log\n");
    // A client that leaves nothing out: of these two the daemon knows that they were only sent to be read.
    let reply = site.post("t=j", &[], &site.tar()).is(200);
    assert!(reply.text().contains("Successfully built"), "{}", reply.text());
    assert_eq!(site.run("j", "ls -A /c"), "a.log\nb\nkeep.log\nsecret\n");
}

#[test]
fn contexts_come_in_several_forms() {
    requires!(root, docker);
    let site = Site::new();
    site.file("f", "content\n").file("sub/Other", "FROM busybox\nCOPY f /g\n");
    site.file("Dockerfile", "FROM busybox\nCOPY f /g\n");
    let tar = site.tar();
    for (program, args) in [("gzip", "-c"), ("zstd", "-qc")] {
        let packed = site.daemon.dir().join("packed");
        let script = format!("{program} {args} \"$1\" > \"$2\"");
        crate::support::Cmd::new("sh")
            .args(["-c", &script, "sh"])
            .arg(site.daemon.dir().join("context.tar"))
            .arg(&packed)
            .ok();
        let body = std::fs::read(&packed).expect("made above");
        site.post(&format!("t={program}"), &[], &body).is(200);
        assert_eq!(site.run(program, "cat /g"), "content\n");
    }
    site.post("t=other&dockerfile=sub/Other", &[], &tar).is(200);
    assert_eq!(site.run("other", "cat /g"), "content\n");
    site.post("t=alone", &[], b"FROM busybox\nRUN echo alone > /g\n").is(200);
    assert_eq!(site.run("alone", "cat /g"), "alone\n");
    // `-f -`: the client puts a Dockerfile of a random name into the archive, which it does not end.
    let command = site.daemon.docker(&["build", "-t", "dash", "-f", "-"]).env("DOCKER_BUILDKIT", "0");
    command.arg(site.context.path()).stdin("FROM busybox\nCOPY f /h\n").ok();
    assert_eq!(site.run("dash", "cat /h"), "content\n");
    site.daemon
        .docker(&["build", "-t", "stdin", "-"])
        .env("DOCKER_BUILDKIT", "0")
        .stdin("FROM busybox\nRUN touch /i\n")
        .ok();
    site.post("remote=git://example.com/x.git", &[], b"").refuses(501, "");
}

#[test]
fn no_context_leads_out_of_itself() {
    requires!(root, docker);
    let site = Site::new();
    site.sh("ln -s ../../../../../../etc/passwd up && ln -s /etc/passwd abs && mkdir d && ln -s ../../../../../../etc d/etc");
    for source in ["up", "abs", "d/etc/passwd", "./d/../../../../etc/passwd"] {
        site.build(&[], &format!("FROM busybox\nCOPY {source} /x\n")).fails(1).stderr_has("COPY failed: ");
    }
    // Links in a directory are copied as links.
    site.build(&["-t", "i"], "FROM busybox\nCOPY d /d\n").ok();
    assert_eq!(site.run("i", "readlink /d/etc"), "../../../../../../etc\n");
    let outside = site.daemon.dir().join("outside");
    std::fs::create_dir(&outside).expect("a directory of ours");
    for (name, kind, link) in [("../outside/x", '0', ""), ("a/../../outside/x", '0', "")] {
        site.post("", &[], &entry(name, kind, link)).refuses(400, "");
    }
    let through = [entry("l", '2', &outside.display().to_string()), entry("l/x", '0', "")].concat();
    site.post("", &[], &through);
    assert_eq!(std::fs::read_dir(&outside).expect("made above").count(), 0);
    // A file of such a name would delete what is below it.
    site.file(".wh.bin", "");
    site.build(&[], "FROM busybox\nCOPY .wh.bin /\n")
        .fails(1)
        .stderr_has("a layer cannot hold a file of this name");
    // A mount's source is in its tree, too.
    site.build(&[], "FROM busybox\nRUN --mount=source=abs,target=/x cat /x\n").fails(1).stderr_has("abs");
    site.post("", &[], b"\x1f\x8bnot gzip").refuses(400, "");
    site.is_clean();
}

/// A header of a tar, of an entry without content.
fn entry(name: &str, kind: char, link: &str) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.as_mut_bytes()[156] = kind as u8;
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header.set_mode(0o644);
    header.set_size(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    header.as_bytes().to_vec()
}
