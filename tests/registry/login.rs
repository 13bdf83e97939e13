//! login and logout: what the registry says of who asks, and what both clients keep of it.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use super::fixture::{PASSWORD, RegistryServer, USER};
use crate::support::requires::requires;
use crate::support::terminal::Terminal;
use crate::support::{Cmd, Daemon, binary};

/// `tester:secret` in base64.
const AUTH: &str = "dGVzdGVyOnNlY3JldA==";

struct Site {
    // First: stopped before its network goes.
    registry: RegistryServer,
    daemon: Daemon,
}

impl Site {
    fn new() -> Site {
        let daemon = Daemon::start();
        let registry = RegistryServer::htpasswd(daemon.network(), 5000);
        daemon.dewar(&["tag", "busybox", "127.0.0.1:5000/box:1"]).ok();
        Site { registry, daemon }
    }

    fn config(&self) -> PathBuf {
        // Where the stock client of a test keeps its own.
        self.daemon.dir().join("docker-config")
    }

    fn dewar(&self, args: &[&str]) -> Cmd {
        self.daemon.dewar(&["--config"]).arg(self.config()).args(args)
    }

    fn docker(&self, args: &[&str]) -> Cmd {
        self.daemon.docker(args)
    }

    fn kept(&self) -> String {
        std::fs::read_to_string(self.config().join("config.json")).expect("a client wrote it")
    }
}

#[test]
fn each_client_reads_what_the_other_wrote() {
    requires!(docker_registry, docker);
    let site = Site::new();
    let host = site.registry.host();
    let login = site.dewar(&["login", "-u", USER, "--password-stdin", &host]).stdin("secret\r\n").ok();
    login.stdout_is("Login Succeeded\n");
    login.stderr_has("WARNING! Your credentials are stored unencrypted in '").stderr_has("/config.json'.");
    let mine = site.kept();
    assert_eq!(
        mine,
        format!("{{\n\t\"auths\": {{\n\t\t\"{host}\": {{\n\t\t\t\"auth\": \"{AUTH}\"\n\t\t}}\n\t}}\n}}")
    );
    let meta = std::fs::metadata(site.config().join("config.json")).expect("written above");
    assert_eq!(meta.mode() & 0o777, 0o600);
    site.docker(&["push", "127.0.0.1:5000/box:1"]).ok().stdout_has("Pushed");

    // By the stock client into the same file: nothing changes.
    let dockers = site.docker(&["login", "-u", USER, "-p", PASSWORD, &format!("https://{host}/v2/")]).ok();
    let insecure = "WARNING! Using --password via the CLI is insecure. Use --password-stdin.";
    dockers.stderr_has(insecure);
    assert_eq!(site.kept(), mine);
    let same = site.dewar(&["login", "-u", USER, "-p", PASSWORD, &format!("https://{host}/v2/")]).ok();
    assert_eq!((&same.stdout, &same.stderr), (&dockers.stdout, &dockers.stderr));
    // With what is kept already.
    let dockers = site.docker(&["login", &host]).ok();
    let again = site.dewar(&["login", &host]).ok();
    assert_eq!(again.stdout, dockers.stdout);
    assert_eq!(again.stderr, dockers.stderr.replace("'docker ", "'dewar "));
    site.dewar(&["push", "127.0.0.1:5000/box:1"]).ok().stdout_has("Layer already exists");

    // What is no business of ours stays, in its order.
    let more = format!(
        "{{\"zeta\": [1, {{\"b\": null}}], \"auths\": {{\"{host}\": {{}}, \"other\": {{}}}}, \"alpha\": 1.5}}"
    );
    std::fs::write(site.config().join("config.json"), more).expect("a directory of the test");
    site.dewar(&["logout", &format!("https://{host}/")])
        .ok()
        .stdout_is(&format!("Removing login credentials for {host}\n"));
    assert_eq!(
        site.kept(),
        "{\n\t\"zeta\": [\n\t\t1,\n\t\t{\n\t\t\t\"b\": null\n\t\t}\n\t],\n\t\"auths\": {\n\t\t\"other\": {}\n\t},\n\t\"alpha\": 1.5\n}"
    );
    site.docker(&["logout", &host]).ok().stdout_is(&format!("Removing login credentials for {host}\n"));
}

#[test]
fn a_refusal_keeps_nothing_and_says_why() {
    requires!(docker_registry, docker);
    let site = Site::new();
    let words = "login attempt to http://127.0.0.1:5000/v2/ failed with status: 401 Unauthorized";
    for (user, password) in [(USER, "wrong"), ("nobody", PASSWORD)] {
        let args = ["login", "-u", user, "-p", password, "127.0.0.1:5000"];
        site.dewar(&args).fails(1).stderr_has(words);
        site.docker(&args).fails(1).stderr_has(words);
    }
    assert!(!site.config().join("config.json").exists());
    let usage = [
        (
            &["login", "--password-stdin", "x"][..],
            "the --password-stdin option requires --username to be set",
        ),
        (
            &["login", "-u", "a", "-p", "b", "--password-stdin"][..],
            "conflicting options: cannot specify both --password and --password-stdin",
        ),
        (
            &["login", "-u", "a", "127.0.0.1:5000"][..],
            "Error: Cannot perform an interactive login from a non TTY device",
        ),
    ];
    for (args, words) in usage {
        site.dewar(args).fails(1).stderr_has(words);
        site.docker(args).fails(1).stderr_has(words);
    }
    let ask = |body| site.daemon.api_json("POST", "/auth", &body);
    let good = serde_json::json!({"username": USER, "password": PASSWORD, "serveraddress": "127.0.0.1:5000"});
    assert_eq!(
        ask(good).is(200).json(),
        serde_json::json!({"Status": "Login Succeeded", "IdentityToken": ""})
    );
    let bad = serde_json::json!({"username": USER, "password": "x", "serveraddress": "127.0.0.1:5000"});
    ask(bad).refuses(401, words);
    let nowhere = serde_json::json!({"username": USER, "password": "x", "serveraddress": "127.0.0.1:1"});
    ask(nowhere)
        .refuses(500, "Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused");
    let script = format!(
        "print(client.login('{USER}', '{PASSWORD}', registry='127.0.0.1:5000', dockercfg_path='/nonexistent')['Status'])\n"
    );
    if crate::support::requires::docker_py().is_ok() {
        site.daemon.python(&script).ok().stdout_is("Login Succeeded\n");
    }
}

#[test]
fn a_helper_keeps_the_secret() {
    requires!(docker_registry, docker);
    let site = Site::new();
    // One file per server, named by its digest; what it is asked is noted.
    let helper = r#"#!/bin/sh
dir=$(dirname "$0"); echo "$1" >> "$dir/asked"
key() { printf %s "$1" | sha256sum | cut -d' ' -f1; }
case $1 in
store) text=$(cat); url=$(printf %s "$text" | sed 's/.*"ServerURL":"\([^"]*\)".*/\1/'); printf %s "$text" > "$dir/kept-$(key "$url")";;
get) file="$dir/kept-$(key "$(cat)")"; if [ -f "$file" ]; then cat "$file"; else echo "credentials not found in native keychain"; exit 1; fi;;
erase) rm -f "$dir/kept-$(key "$(cat)")";;
esac
"#;
    let bin = site.daemon.dir().join("bin");
    std::fs::create_dir_all(&bin).expect("a directory of ours");
    let program = bin.join("docker-credential-dewartest");
    std::fs::write(&program, helper).expect("a directory of ours");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("a file of ours");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let settings = "{\n\t\"credHelpers\": {\n\t\t\"127.0.0.1:5000\": \"dewartest\"\n\t}\n}";
    std::fs::create_dir_all(site.config()).expect("a directory of ours");
    std::fs::write(site.config().join("config.json"), settings).expect("a directory of ours");
    let dewar = |args: &[&str]| site.dewar(args).env("PATH", &path);
    let docker = |args: &[&str]| site.docker(args).env("PATH", &path);

    let login = dewar(&["login", "-u", USER, "-p", PASSWORD, "127.0.0.1:5000"]).ok();
    assert!(!login.stderr.contains("unencrypted"), "{login}");
    assert!(!site.kept().contains(AUTH) && site.kept().contains("\"127.0.0.1:5000\": {}"), "{}", site.kept());
    docker(&["push", "127.0.0.1:5000/box:1"]).ok().stdout_has("Pushed");
    dewar(&["logout", "127.0.0.1:5000"]).ok();
    dewar(&["push", "127.0.0.1:5000/box:1"]).fails(1).stderr_has("no basic auth credentials");
    docker(&["login", "-u", USER, "-p", PASSWORD, "127.0.0.1:5000"]).ok();
    dewar(&["push", "127.0.0.1:5000/box:1"]).ok().stdout_has("Layer already exists");
    let asked = std::fs::read_to_string(bin.join("asked")).expect("it was asked");
    assert!(asked.contains("store") && asked.contains("get") && asked.contains("erase"), "{asked}");
    // One that is not there is told about, and the registry decides.
    let gone = settings.replace("dewartest", "dewargone");
    std::fs::write(site.config().join("config.json"), gone).expect("a directory of ours");
    dewar(&["login", "-u", USER, "-p", PASSWORD, "127.0.0.1:5000"]).fails(1).stderr_has(
        "Error saving credentials: error storing credentials - err: exec: \"docker-credential-dewargone\": \
         executable file not found in $PATH, out: ``",
    );
}

#[test]
fn a_password_is_asked_for_and_not_shown() {
    requires!(docker_registry, docker);
    let site = Site::new();
    let config = site.config();
    let host = site.daemon.host();
    let args = ["-H", &host, "--config", config.to_str().expect("a path of ours"), "login", "127.0.0.1:5000"];
    let mut terminal = Terminal::start(&binary(), &args);
    terminal.expect("Username: ");
    terminal.send("tester\r");
    terminal.expect("Password: ");
    terminal.send("secreX\x7ft\r");
    assert_eq!(terminal.wait(), 0, "{}", terminal.seen());
    terminal.expect("Login Succeeded");
    assert!(!terminal.seen().contains("secre"), "{}", terminal.seen());
    assert!(site.kept().contains(AUTH));
    // Broken off, the terminal is as it was.
    std::fs::remove_file(config.join("config.json")).expect("written above");
    let mut terminal = Terminal::start(&binary(), &args);
    terminal.send("tester\r");
    terminal.expect("Password: ");
    terminal.send("\x03");
    assert_eq!(terminal.wait(), 130, "{}", terminal.seen());
    assert!(!config.join("config.json").exists());
}
