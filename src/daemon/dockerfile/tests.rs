//! Tables of what Docker makes of texts, and noise.

use super::{
    Command, Copy, HereDoc, Instruction, Run, Script, Source, Step, expand, expand_text, expand_words, mount,
    parse, parse_step,
};

fn steps(text: &str) -> Vec<Step> {
    let file =
        parse(format!("FROM x\n{text}").as_bytes()).unwrap_or_else(|cause| panic!("{text:?}: {cause}"));
    assert_eq!(file.stages.len(), 1, "{text:?}");
    file.stages.into_iter().next().unwrap().steps
}

fn step(text: &str) -> Instruction {
    let mut steps = steps(text);
    assert_eq!(steps.len(), 1, "{text:?}: {steps:?}");
    steps.pop().unwrap().instruction
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn shell(text: &str) -> Command {
    Command::Shell(text.to_owned())
}

fn exec(words: &[&str]) -> Command {
    Command::Exec(strings(words))
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn instructions_are_read() {
    let word = |text: &str| text.to_owned();
    for (text, expected) in [
        ("CMD echo hi", Instruction::Cmd(shell("echo hi"))),
        ("cmd  [ \"a\", \"b c\" ] ", Instruction::Cmd(exec(&["a", "b c"]))),
        ("CMD []", Instruction::Cmd(exec(&[]))),
        ("CMD", Instruction::Cmd(exec(&[]))),
        ("CMD ['a', 'b']", Instruction::Cmd(shell("['a', 'b']"))),
        ("CMD [\"a\", \"b\"", Instruction::Cmd(shell("[\"a\", \"b\""))),
        ("CMD [ -f x ] && y", Instruction::Cmd(shell("[ -f x ] && y"))),
        ("ENTRYPOINT [\"a\"]", Instruction::Entrypoint(exec(&["a"]))),
        ("SHELL [\"/bin/bash\", \"-c\"]", Instruction::Shell(strings(&["/bin/bash", "-c"]))),
        (
            "ENV a=b c=\"d e\" f=g\\ h",
            Instruction::Env(pairs(&[("a", "b"), ("c", "\"d e\""), ("f", "g\\ h")])),
        ),
        ("ENV a  b  c=d ", Instruction::Env(pairs(&[("a", "b  c=d")]))),
        ("ENV a=", Instruction::Env(pairs(&[("a", "")]))),
        ("ENV a='it is' b=\"x\\\"y z\"", Instruction::Env(pairs(&[("a", "'it is'"), ("b", "\"x\\\"y z\"")]))),
        ("LABEL \"a b\"=c", Instruction::Label(pairs(&[("\"a b\"", "c")]))),
        ("LABEL a b c", Instruction::Label(pairs(&[("a", "b c")]))),
        ("ARG a b=c d=\"e f\"", {
            let value = |value: &str| Some(value.to_owned());
            Instruction::Arg(vec![(word("a"), None), (word("b"), value("c")), (word("d"), value("\"e f\""))])
        }),
        ("EXPOSE 90/udp\t80 8000-8010", Instruction::Expose(strings(&["80", "8000-8010", "90/udp"]))),
        ("VOLUME /a  /b", Instruction::Volume(strings(&["/a", "/b"]))),
        ("VOLUME [\"/a b\"]", Instruction::Volume(strings(&["/a b"]))),
        ("WORKDIR /a b", Instruction::Workdir(word("/a b"))),
        ("USER $u:$g", Instruction::User(word("$u:$g"))),
        ("STOPSIGNAL SIGINT", Instruction::Stopsignal(word("SIGINT"))),
        ("MAINTAINER a <b@c>", Instruction::Maintainer(word("a <b@c>"))),
        ("ONBUILD  RUN  a\\\n b", Instruction::Onbuild(word("RUN  a b"))),
        ("ONBUILD COPY . /", Instruction::Onbuild(word("COPY . /"))),
    ] {
        assert_eq!(step(text), expected, "{text:?}");
    }
}

#[test]
fn lines_are_put_together() {
    let commands = |text: &str| -> Vec<String> {
        steps(text)
            .into_iter()
            .map(|step| match step.instruction {
                Instruction::Run(Run { command: Command::Shell(text), .. }) => text,
                other => panic!("{other:?}"),
            })
            .collect()
    };
    for (text, expected) in [
        ("RUN a \\\n  b", &["a   b"][..]),
        ("RUN a \\\r\n  b\r\nRUN c\r\n", &["a   b", "c"]),
        ("RUN a \\  \n b", &["a  b"]),
        ("RUN a \\\n# comment\n   # another \\\n b", &["a  b"]),
        ("RUN a \\\n\n\n b", &["a  b"]),
        ("RUN a # not a comment", &["a # not a comment"]),
        ("  RUN a\n\n\t\n# x\nRUN b", &["a", "b"]),
        ("RUN a \\", &["a"]),
        ("RUN a\\\\\\\nb", &["a\\\\b"]),
        ("RUN\ta", &["a"]),
        ("RUN \\\n a", &["a"]),
    ] {
        assert_eq!(commands(text), expected, "{text:?}");
    }
    let file = parse(b"\xef\xbb\xbfFROM x\nRUN a \\\n\n b\nRUN c").unwrap();
    let steps = &file.stages[0].steps;
    assert_eq!((steps[0].line, steps[0].last_line, steps[1].line), (2, 4, 5));
    assert_eq!(steps[0].text, "RUN a  b");
    assert_eq!(file.warnings[0].text, "Empty continuation line found in:\n    RUN a  b");
    assert_eq!(file.warnings[0].line, 2);
}

#[test]
fn directives_come_first() {
    let escape = |text: &str| parse(text.as_bytes()).map(|file| file.escape);
    assert_eq!(escape("# escape=`\nFROM x"), Ok('`'));
    assert_eq!(escape("# syntax=docker/dockerfile:1\n#  EsCape = ` \nFROM x"), Ok('`'));
    assert_eq!(escape("# check=skip=all\n# escape=`\nFROM x"), Ok('`'));
    assert_eq!(escape("# about\n# escape=`\nFROM x"), Ok('\\'));
    assert_eq!(escape("FROM x\n# escape=`"), Ok('\\'));
    assert_eq!(escape("\n# escape=`\nFROM x"), Ok('\\'));
    let fail = |text: &str| escape(text).unwrap_err().to_string();
    assert_eq!(
        fail("# escape=x\nFROM x"),
        "dockerfile parse error on line 1: invalid escape token 'x' does not match ` or \\"
    );
    assert_eq!(
        fail("#escape=\\\n#escape=\\\nFROM x"),
        "dockerfile parse error on line 2: only one escape parser directive can be used"
    );
    let file = parse(b"# escape=`\nFROM x\nRUN a `\n b\\\nRUN c").unwrap();
    let steps: Vec<_> = file.stages[0].steps.iter().map(|step| step.text.as_str()).collect();
    assert_eq!(steps, ["RUN a  b\\", "RUN c"]);
}

#[test]
fn stages_and_global_arguments() {
    let file =
        parse(b"ARG v=1\nFROM a:$v as One\nRUN x\nFROM --platform=$P one\nfrom scratch AS t.w-o_2").unwrap();
    assert_eq!(file.args.len(), 1);
    let stages: Vec<_> = file
        .stages
        .iter()
        .map(|stage| (stage.line, stage.from.as_str(), stage.name.as_deref(), stage.platform.as_deref()))
        .collect();
    assert_eq!(
        stages,
        [(2, "a:$v", Some("one"), None), (4, "one", None, Some("$P")), (5, "scratch", Some("t.w-o_2"), None)]
    );
    assert_eq!(file.stages[0].text, "FROM a:$v as One");
}

#[test]
fn flags_belong_to_instructions() {
    let Instruction::Copy(copy) =
        step("COPY --from=b --chown=1:2 --chmod=755 --link --parents=true --exclude=*.o --exclude=a x y z/")
    else {
        panic!()
    };
    let expected = Copy {
        from: Some("b".to_owned()),
        chown: Some("1:2".to_owned()),
        chmod: Some("755".to_owned()),
        link: true,
        parents: true,
        exclude: strings(&["*.o", "a"]),
        sources: vec![Source::Path("x".to_owned()), Source::Path("y".to_owned())],
        target: "z/".to_owned(),
        ..Copy::default()
    };
    assert_eq!(copy, expected);
    let Instruction::Add(add) = step("ADD --checksum=sha256:0 --keep-git-dir=false [\"a b\", \"/c d\"]")
    else {
        panic!()
    };
    assert_eq!(add.checksum.as_deref(), Some("sha256:0"));
    assert_eq!((&add.sources[0], add.target.as_str()), (&Source::Path("a b".to_owned()), "/c d"));
    let Instruction::Run(run) =
        step("RUN --mount=type=cache,target=/c --network=none --security=sandbox a --b")
    else {
        panic!()
    };
    assert_eq!(run.mounts, ["type=cache,target=/c"]);
    assert_eq!((run.network.as_deref(), run.security.as_deref()), (Some("none"), Some("sandbox")));
    assert_eq!(run.command, shell("a --b"));
    let Instruction::Run(run) = step("RUN -- --a") else { panic!() };
    assert_eq!(run.command, shell("--a"));
    let Instruction::Healthcheck(check) = step(
        "HEALTHCHECK --interval=1m30s --timeout=5ms --start-period=1h --start-interval=2s --retries=3 CMD a b",
    ) else {
        panic!()
    };
    assert_eq!(check.test, ["CMD-SHELL", "a b"]);
    assert_eq!((check.interval, check.timeout, check.retries), (90_000_000_000, 5_000_000, 3));
    assert_eq!((check.start_period, check.start_interval), (3_600_000_000_000, 2_000_000_000));
    let Instruction::Healthcheck(check) = step("HEALTHCHECK CMD [\"a\",\"b\"]") else { panic!() };
    assert_eq!(check.test, ["CMD", "a", "b"]);
    let Instruction::Healthcheck(check) = step("healthcheck none") else { panic!() };
    assert_eq!(check.test, ["NONE"]);
}

#[test]
fn here_documents() {
    let doc = |name: &str, content: &str, expand, chomp| HereDoc {
        name: name.to_owned(),
        content: content.to_owned(),
        expand,
        chomp,
    };
    let Instruction::Copy(copy) = step("COPY <<A <<\"B\" f <<-'C' /d/\na $x\n A\nA\nb\nB\n\tc\n\tC\n") else {
        panic!()
    };
    assert_eq!(
        copy.sources,
        [
            Source::Here(doc("A", "a $x\n A\n", true, false)),
            Source::Here(doc("B", "b\n", false, false)),
            Source::Path("f".to_owned()),
            Source::Here(doc("C", "\tc\n", false, true)),
        ]
    );
    let script = |text: &str| match step(text) {
        Instruction::Run(run) => run.script(),
        other => panic!("{other:?}"),
    };
    let runs = |text: &str| Script::Shell(text.to_owned());
    assert_eq!(script("RUN <<EOF\na\n  b\nEOF\n"), runs("a\n  b\n"));
    assert_eq!(script("RUN <<-EOF\r\n\ta\r\n\tEOF\r\n"), runs("a\r\n"));
    assert_eq!(script("RUN cat <<A >x && cat <<B\n1\nA\n2\nB"), runs("cat <<A >x && cat <<B\n1\nA\n2\nB"));
    assert_eq!(
        script("RUN <<EOF\n#!/usr/bin/env python\nx\nEOF"),
        Script::File { name: "EOF".to_owned(), content: "#!/usr/bin/env python\nx\n".to_owned() }
    );
    assert_eq!(script("RUN echo $((1 << 2))"), runs("echo $((1 << 2))"));
    assert_eq!(script("RUN cat <<<x"), runs("cat <<<x"));
    assert_eq!(script("RUN echo '<<EOF'"), runs("echo '<<EOF'"));
    assert_eq!(script("RUN [\"echo\", \"<<EOF\"]"), Script::Exec(strings(&["echo", "<<EOF"])));
    assert_eq!(step("CMD cat <<EOF"), Instruction::Cmd(shell("cat <<EOF")));
    let trigger = "RUN <<EOF\na\nEOF";
    assert_eq!(step(&format!("ONBUILD {trigger}")), Instruction::Onbuild(trigger.to_owned()));
    let Instruction::Run(run) = parse_step(trigger).unwrap().instruction else { panic!() };
    assert_eq!(run.script(), runs("a\n"));
    let steps = steps("RUN <<EOF\n# FROM y\nFROM z\nEOF\nRUN b");
    assert_eq!((steps[0].line, steps[0].last_line, steps[1].line), (2, 5, 6));
    assert_eq!(steps[0].text, "RUN <<EOF");
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    for (text, expected) in [
        ("FROM x\n\nFOO bar", "line 3: unknown instruction: FOO"),
        ("FROM x\nFRM y", "line 2: unknown instruction: FRM"),
        ("FROM", "line 1: FROM requires either one or three arguments"),
        ("FROM a b", "line 1: FROM requires either one or three arguments"),
        ("FROM a is b", "line 1: FROM requires either one or three arguments"),
        (
            "FROM a AS 1b",
            "line 1: invalid name for build stage: \"1b\", name can't start with a number or contain symbols",
        ),
        ("FROM a AS b\nFROM c AS B", "line 2: b stage name already used"),
        ("FROM --nope=1 a", "line 1: unknown flag: --nope"),
        ("RUN x", "line 1: no build stage in current context"),
        ("FROM x\nENV a", "line 2: ENV must have two arguments"),
        ("FROM x\nENV", "line 2: ENV requires at least one argument"),
        (
            "FROM x\nENV a=b c",
            "line 2: Syntax error - can't find = in \"c\". Must be of the form: name=value",
        ),
        ("FROM x\nENV =b", "line 2: ENV names can not be blank"),
        ("FROM x\nLABEL", "line 2: LABEL requires at least one argument"),
        ("FROM x\nARG", "line 2: ARG requires at least one argument"),
        ("FROM x\nARG =b", "line 2: ARG names can not be blank"),
        ("FROM x\nWORKDIR", "line 2: WORKDIR requires exactly one argument"),
        ("FROM x\nUSER ", "line 2: USER requires exactly one argument"),
        ("FROM x\nSTOPSIGNAL", "line 2: STOPSIGNAL requires exactly one argument"),
        ("FROM x\nEXPOSE", "line 2: EXPOSE requires at least one argument"),
        ("FROM x\nVOLUME", "line 2: VOLUME requires at least one argument"),
        ("FROM x\nVOLUME [\"\"]", "line 2: VOLUME specified can not be an empty string"),
        ("FROM x\nRUN", "line 2: RUN requires at least one argument"),
        ("FROM x\nRUN []", "line 2: RUN requires at least one argument"),
        (
            "FROM x\nRUN [\"a\", 1]",
            "line 2: when using JSON array syntax, arrays must be comprised of strings only",
        ),
        ("FROM x\nRUN --mount=type=foo a", "line 2: unsupported mount type \"foo\""),
        ("FROM x\nRUN --mount a", "line 2: Missing a value on flag: mount"),
        ("FROM x\nRUN --network=bridge a", "line 2: invalid network mode: bridge"),
        (
            "FROM x\nCOPY a",
            "line 2: COPY requires at least two arguments, but only one was provided. \
             Destination could not be determined",
        ),
        ("FROM x\nCOPY --link=maybe a b", "line 2: Expecting boolean value for flag link, not: maybe"),
        ("FROM x\nCOPY --from=a --from=b a b", "line 2: Duplicate flag specified: from"),
        ("FROM x\nCOPY --checksum=a a b", "line 2: unknown flag: --checksum"),
        ("FROM x\nADD --from=a a b", "line 2: unknown flag: --from"),
        ("FROM x\nCOPY a <<EOF\nEOF", "line 2: COPY cannot accept a heredoc as a destination"),
        ("FROM x\nCOPY <<EOF b\nc", "line 2: unterminated heredoc"),
        ("FROM x\nSHELL a", "line 2: SHELL requires the arguments to be in JSON form"),
        ("FROM x\nSHELL []", "line 2: SHELL requires at least one argument"),
        ("FROM x\nHEALTHCHECK", "line 2: HEALTHCHECK requires at least one argument"),
        ("FROM x\nHEALTHCHECK foo", "line 2: Unknown type \"FOO\" in HEALTHCHECK (try CMD)"),
        ("FROM x\nHEALTHCHECK CMD", "line 2: Missing command after HEALTHCHECK CMD"),
        ("FROM x\nHEALTHCHECK NONE a", "line 2: HEALTHCHECK NONE takes no arguments"),
        ("FROM x\nHEALTHCHECK --interval=1ns CMD a", "line 2: Interval \"interval\" cannot be less than 1ms"),
        ("FROM x\nHEALTHCHECK --timeout=x CMD a", "line 2: time: invalid duration \"x\""),
        ("FROM x\nHEALTHCHECK --retries=-1 CMD a", "line 2: --retries cannot be negative (-1)"),
        ("FROM x\nONBUILD", "line 2: ONBUILD requires at least one argument"),
        ("FROM x\nONBUILD ONBUILD RUN a", "line 2: Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("FROM x\nONBUILD FROM y", "line 2: FROM isn't allowed as an ONBUILD trigger"),
        ("FROM x\nONBUILD maintainer y", "line 2: MAINTAINER isn't allowed as an ONBUILD trigger"),
    ] {
        let error = parse(text.as_bytes()).expect_err(text).to_string();
        assert_eq!(error, format!("dockerfile parse error on {expected}"), "{text:?}");
    }
    for (text, expected) in [
        ("", "file with no instructions"),
        ("# only\n\n", "file with no instructions"),
        ("ARG a", "dockerfile contains no stages to build"),
    ] {
        assert_eq!(parse(text.as_bytes()).expect_err(text).to_string(), expected);
    }
    let long = format!("FROM x\nRUN {}", "a".repeat(70_000));
    assert!(parse(long.as_bytes()).unwrap_err().to_string().contains("max allowed size of 65535"));
}

fn lookup(name: &str) -> Option<String> {
    let value = match name {
        "x" => "val",
        "empty" => "",
        "path" => "/a/b.tar.gz",
        "blanks" => "a b",
        "stars" => "a*b",
        "1" => "one",
        "?" => "code",
        "\u{e9}" => "accent",
        _ => return None,
    };
    Some(value.to_owned())
}

#[test]
fn words_are_expanded_as_docker_does() {
    for (word, expected) in [
        ("", ""),
        ("abc", "abc"),
        ("$x", "val"),
        ("${x}y$x.z", "valyval.z"),
        ("$xy", ""),
        ("$nope", ""),
        ("a$", "a$"),
        ("$ a", "$ a"),
        ("$1x", "onex"),
        ("$?", "code"),
        ("$\u{e9}", "accent"),
        ("\\$x", "$x"),
        ("'$x'", "$x"),
        ("\"$x\"", "val"),
        ("\"\\$x\"", "$x"),
        ("\"a\\b\"", "a\\b"),
        ("a\\b", "ab"),
        ("a\\", "a"),
        ("\"it's\"", "it's"),
        ("'a\\'", "a\\"),
        ("'a'\"b\"c", "abc"),
        ("${x:-w}", "val"),
        ("${empty:-w}", "w"),
        ("${empty-w}", ""),
        ("${nope-w}", "w"),
        ("${nope:-$x}", "val"),
        ("${nope:-${nope:-${x}}}", "val"),
        ("${nope:-\"a}b\"}", "a}b"),
        ("${nope:-a\\}b}", "a}b"),
        ("${x:+w}", "w"),
        ("${empty:+w}", ""),
        ("${empty+w}", "w"),
        ("${nope+w}", ""),
        ("${x:?msg}", "val"),
        ("${empty?msg}", ""),
        ("${path#*/}", "a/b.tar.gz"),
        ("${path##*/}", "b.tar.gz"),
        ("${path%.*}", "/a/b.tar"),
        ("${path%%.*}", "/a/b"),
        ("${path#nope}", "/a/b.tar.gz"),
        ("${path#/?/}", "b.tar.gz"),
        ("${stars#a\\*}", "b"),
        ("${stars%\\*b}", "a"),
        ("${path/a/X}", "/X/b.tar.gz"),
        ("${path//a/X}", "/X/b.tXr.gz"),
        ("${path/.*/}", "/a/b"),
        ("${path//\\//_}", "_a_b.tar.gz"),
        ("${x/v/$1}", "oneal"),
        ("${nope/a/b}", ""),
    ] {
        assert_eq!(expand(word, '\\', &lookup).as_deref(), Ok(expected), "{word:?}");
    }
    assert_eq!(expand("a`$x\\$x", '`', &lookup).as_deref(), Ok("a$x\\val"));
    for (word, cause) in [
        ("'a", "unexpected end of statement while looking for matching single-quote"),
        ("\"a", "unexpected end of statement while looking for matching double-quote"),
        ("${", "syntax error: missing '}'"),
        ("${x", "syntax error: missing '}'"),
        ("${x:-w", "syntax error: missing '}'"),
        ("${}", "syntax error: bad substitution"),
        ("${:x}", "syntax error: bad substitution"),
        ("${{x}", "syntax error: bad substitution"),
        ("${x!y}", "unsupported modifier (!) in substitution"),
        ("${x:=y}", "unsupported modifier (:=) in substitution"),
        ("${nope:?}", "nope: is not allowed to be unset"),
        ("${empty:?}", "empty: is not allowed to be empty"),
        ("${nope?give it}", "nope: give it"),
        ("${x/a}", "syntax error: missing '/' in ${}"),
        ("${x/a/b", "syntax error: missing '}'"),
        ("${x#\\a}", "invalid pattern (\\a) in substitution: invalid escape '\\a'"),
    ] {
        let error = expand(word, '\\', &lookup).expect_err(word).to_string();
        assert_eq!(error, format!("failed to process {word:?}: {cause}"));
    }
}

#[test]
fn quotes_in_texts_are_their_own() {
    let text = expand_text("it's \"$x\" \\$x a\\b ${nope:-'}\n", &lookup).unwrap();
    assert_eq!(text, "it's \"val\" $x ab '\n");
}

#[test]
fn words_are_parted_where_nothing_quotes() {
    for (word, expected) in [
        ("a b", &["a", "b"][..]),
        ("$blanks c", &["a", "b", "c"]),
        ("\"$blanks\" c", &["a b", "c"]),
        ("x$blanks", &["xa", "b"]),
        ("a\\ b", &["a b"]),
        ("  ", &[]),
        ("$nope", &[]),
    ] {
        assert_eq!(expand_words(word, '\\', &lookup).unwrap(), expected, "{word:?}");
    }
}

#[test]
fn nothing_grows_or_nests_without_end() {
    let big = "y".repeat(1 << 19);
    let lookup = |_: &str| Some(big.clone());
    assert!(expand("$a$a$a", '\\', &lookup).unwrap_err().to_string().contains("more than"));
    assert!(expand("\"$a$a$a\"", '\\', &lookup).unwrap_err().to_string().contains("more than"));
    assert!(expand("${a//y/zzzz}", '\\', &lookup).unwrap_err().to_string().contains("more than"));
    let deep = "${a:-".repeat(100_000) + &"}".repeat(100_000);
    assert!(expand(&deep, '\\', &|_| None).unwrap_err().to_string().contains("nested too deeply"));
    let deep = "[".repeat(100_000);
    assert_eq!(
        parse_step(&format!("CMD {}", &deep[..60_000])).unwrap().instruction,
        Instruction::Cmd(shell(&deep[..60_000]))
    );
}

#[test]
fn mounts_are_read() {
    let read = |text: &str| mount::parse(text, &|word| expand(word, '\\', &lookup));
    let mount =
        read("type=cache,target=/c,id=$x,sharing=locked,mode=0700,uid=1,gid=2,from=s,source=d").unwrap();
    assert_eq!(
        mount,
        mount::Mount {
            kind: mount::Kind::Cache,
            target: "/c".to_owned(),
            id: "val".to_owned(),
            sharing: Some(mount::Sharing::Locked),
            mode: Some(0o700),
            uid: Some(1),
            gid: Some(2),
            from: "s".to_owned(),
            source: "d".to_owned(),
            ..mount::Mount::default()
        }
    );
    assert!(read("target=/x").unwrap().read_only && !read("target=/x,rw").unwrap().read_only);
    assert!(read("type=cache,dst=/x,readonly=true").unwrap().read_only);
    assert_eq!(read("type=tmpfs,target=/x,size=64m").unwrap().size, Some(64 << 20));
    assert!(read("type=secret,id=a,required").unwrap().required);
    assert_eq!(read("type=secret,id=a,env=TOKEN").unwrap().env.as_deref(), Some("TOKEN"));
    assert_eq!(read("\"target=/a,b\"").unwrap().target, "/a,b");
    for (text, cause) in [
        ("type=volume", "unsupported mount type \"volume\""),
        ("target", "invalid field 'target' must be a key=value pair"),
        ("nope=1", "unexpected key 'nope' in 'nope=1'"),
        ("type=bind,size=1", "unexpected key 'size' for mount type 'bind'"),
        ("type=bind,mode=7", "mode not allowed for \"bind\" type mounts"),
        ("type=secret", "invalid secret mount. one of source, target required"),
        ("type=bind,sharing=shared", "invalid cache sharing set for bind mount"),
        ("type=cache,sharing=x", "unsupported sharing value \"x\""),
        ("type=cache,mode=9", "invalid value 9 for mode"),
        ("rw=x", "invalid value for rw: x"),
        ("\"a", "failed to parse csv mounts: extraneous or missing \" in quoted-field"),
        ("a\"b", "failed to parse csv mounts: bare \" in non-quoted-field"),
        ("target=${", "failed to process \"${\": syntax error: missing '}'"),
    ] {
        assert_eq!(read(text).unwrap_err(), cause, "{text:?}");
    }
}

/// Noise from pieces that the parser trips over; `DEWAR_SEED` replays one.
#[test]
fn no_bytes_make_it_panic() {
    const PIECES: &[&[u8]] = &[
        b"FROM ",
        b"RUN ",
        b"COPY ",
        b"ADD ",
        b"ENV ",
        b"ARG ",
        b"ONBUILD ",
        b"HEALTHCHECK ",
        b"CMD ",
        b"\n",
        b"\r\n",
        b" ",
        b"\t",
        b"\\",
        b"\\\n",
        b"`",
        b"\"",
        b"'",
        b"$",
        b"${",
        b"}",
        b":-",
        b"#",
        b"%",
        b"/",
        b"*",
        b"?",
        b"<<",
        b"<<-",
        b"EOF",
        b"\nEOF\n",
        b"--",
        b"--mount=",
        b"--from=",
        b"type=cache",
        b",",
        b"=",
        b"[",
        b"]",
        b"[\"a\"]",
        b"# escape=`\n",
        b"\xef\xbb\xbf",
        b"\xff",
        b"\0",
        b"\xe2\x80\xa8",
        b"x",
        b"1",
        b"AS ",
    ];
    let seeds = match std::env::var("DEWAR_SEED").ok().and_then(|seed| seed.parse::<u64>().ok()) {
        Some(seed) => seed..seed + 1,
        None => 1..20_001,
    };
    for seed in seeds {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = move || {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            state.wrapping_mul(0x2545_f491_4f6c_dd1d)
        };
        let mut text = Vec::new();
        for _ in 0..next() % 40 {
            match next() % 8 {
                0 => text.push(next() as u8),
                _ => text.extend_from_slice(PIECES[(next() % PIECES.len() as u64) as usize]),
            }
        }
        let outcome = std::panic::catch_unwind(|| {
            let text_lossy = String::from_utf8_lossy(&text).into_owned();
            let _ = expand(&text_lossy, '\\', &lookup);
            let _ = expand_words(&text_lossy, '`', &lookup);
            let _ = parse_step(&text_lossy);
            let _ = mount::parse(&text_lossy, &|word| expand(word, '\\', &lookup));
            for step in parse(&text).into_iter().flat_map(|file| file.stages).flat_map(|stage| stage.steps) {
                if let Instruction::Run(run) = step.instruction {
                    let _ = run.script();
                }
            }
        });
        assert!(outcome.is_ok(), "DEWAR_SEED={seed}: {text:?}");
    }
}
