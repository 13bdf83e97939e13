//! Debian's docker-registry, run in a network of a test's.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::certificates::Certificates;
use crate::support::{Cmd, Namespace, TempDir, busybox_tar, eventually, requires};

/// Who may come into a registry with passwords.
pub const USER: &str = "tester";
pub const PASSWORD: &str = "secret";
/// `htpasswd -nbB tester secret`
const HTPASSWD: &str = "tester:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";
/// An address of a registry that is not loopback, so that nobody trusts it unasked.
pub const ADDRESS: &str = "10.77.0.1";

/// A registry under way; killed when dropped.
pub struct RegistryServer {
    process: Child,
    network: Namespace,
    address: &'static str,
    port: u16,
    is_tls: bool,
    has_passwords: bool,
    _dir: TempDir,
}

impl RegistryServer {
    /// http on loopback, for everybody.
    #[track_caller]
    pub fn plain(network: &Namespace, port: u16) -> RegistryServer {
        RegistryServer::start(network, "127.0.0.1", port, false, &[])
    }

    /// http on loopback, for [`USER`] with [`PASSWORD`].
    #[track_caller]
    pub fn htpasswd(network: &Namespace, port: u16) -> RegistryServer {
        RegistryServer::start(network, "127.0.0.1", port, true, &[])
    }

    /// https on [`ADDRESS`] with a certificate of the test's authority; clients show one of it too if `mutual`.
    #[track_caller]
    pub fn tls(network: &Namespace, port: u16, certificates: &Certificates, mutual: bool) -> RegistryServer {
        certificates.sign("ca", "registry", "/CN=registry", &format!("subjectAltName=IP:{ADDRESS}"));
        let mut settings = vec![
            ("REGISTRY_HTTP_TLS_CERTIFICATE", certificates.path("registry.pem")),
            ("REGISTRY_HTTP_TLS_KEY", certificates.path("registry-key.pem")),
        ];
        if mutual {
            settings.push(("REGISTRY_HTTP_TLS_CLIENTCAS", format!("[{}]", certificates.path("ca.pem"))));
        }
        RegistryServer::start(network, ADDRESS, port, false, &settings)
    }

    #[track_caller]
    fn start(
        network: &Namespace,
        address: &'static str,
        port: u16,
        has_passwords: bool,
        settings: &[(&str, String)],
    ) -> RegistryServer {
        let program = requires::docker_registry_path().expect("the test requires docker_registry");
        let dir = TempDir::new();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let config = "version: 0.1\nlog: {level: warn}\nstorage: {filesystem: {}, delete: {enabled: true}}\nhttp: {}\n";
        std::fs::write(path("config.yml"), config).expect("a directory of ours");
        std::fs::write(path("htpasswd"), HTPASSWD).expect("a directory of ours");
        if address == ADDRESS {
            outside(network);
        }
        let log = std::fs::File::create(path("log")).expect("a directory of ours");
        let mut command = Command::new(program);
        command
            .args(["serve", &path("config.yml")])
            .env("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", path("data"))
            .env("REGISTRY_HTTP_ADDR", format!("{address}:{port}"))
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor can be copied"))
            .stderr(log);
        if has_passwords {
            command.env("REGISTRY_AUTH", "htpasswd");
            command.env("REGISTRY_AUTH_HTPASSWD_REALM", "test");
            command.env("REGISTRY_AUTH_HTPASSWD_PATH", path("htpasswd"));
        }
        let mut process = network.within(|| command.spawn()).expect("docker-registry starts");
        eventually("the registry listens", || {
            if let Some(status) = process.try_wait().expect("a child of ours") {
                let log = std::fs::read_to_string(path("log")).unwrap_or_default();
                panic!("the registry ended with {status}:\n{log}");
            }
            network.within(|| std::net::TcpStream::connect((address, port)).is_ok())
        });
        let is_tls = address == ADDRESS;
        RegistryServer { process, network: network.clone(), address, port, is_tls, has_passwords, _dir: dir }
    }

    /// `host:port`, as it stands before a repository's name.
    pub fn host(&self) -> String {
        format!("{}:{}", self.address, self.port)
    }

    /// The name of something in it.
    pub fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.host())
    }

    /// Copies an image into it by skopeo, with further flags.
    #[track_caller]
    pub fn fill(&self, source: &str, name: &str, flags: &[&str]) {
        let credentials = format!("--dest-creds={USER}:{PASSWORD}");
        let target = format!("docker://{}", self.name(name));
        let mut args = vec!["--insecure-policy", "copy", "-q"];
        args.extend(flags);
        args.push("--dest-tls-verify=false");
        if self.has_passwords {
            args.push(&credentials);
        }
        args.extend([source, &target]);
        self.network.run("skopeo", &args);
    }

    /// What skopeo says of a name in it; `--raw` for the manifest.
    #[track_caller]
    pub fn inspect(&self, name: &str, flags: &[&str]) -> String {
        let target = format!("docker://{}", self.name(name));
        let credentials = format!("--creds={USER}:{PASSWORD}");
        let mut args = vec!["inspect", "--tls-verify=false"];
        if self.has_passwords {
            args.push(&credentials);
        }
        args.extend(flags);
        args.push(&target);
        self.network.run("skopeo", &args)
    }

    /// The digest a name has in it.
    #[track_caller]
    pub fn digest(&self, name: &str) -> String {
        self.inspect(name, &["--format", "{{.Digest}}"]).trim().to_owned()
    }

    /// certs.d for it in `root`: the authority, and alice's certificate if `mutual`.
    pub fn certs_dir(&self, root: &Path, certificates: &Certificates, mutual: bool) -> PathBuf {
        assert!(self.is_tls, "only a registry with TLS has certificates");
        let dir = root.join("certs.d");
        let host = dir.join(self.host());
        std::fs::create_dir_all(&host).expect("a directory of ours");
        let copy = |from: &str, to: &str| {
            std::fs::copy(certificates.file(from), host.join(to)).expect("files of ours");
        };
        copy("ca.pem", "ca.crt");
        if mutual {
            copy("client.pem", "client.cert");
            copy("client-key.pem", "client.key");
        }
        dir
    }
}

impl Drop for RegistryServer {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Gives a network an address that is not loopback.
pub fn outside(network: &Namespace) {
    let addresses = network.run("busybox", &["ip", "addr", "show", "dev", "lo"]);
    if !addresses.contains(ADDRESS) {
        network.run("busybox", &["ip", "addr", "add", &format!("{ADDRESS}/32"), "dev", "lo"]);
    }
}

/// An OCI layout with the image `box`: busybox, then `layers` layers of a file of `bytes` that hardly shrinks. Made by
/// tar, gzip and sha256sum, for skopeo to copy: `oci:PATH:box`.
#[track_caller]
pub fn layout(dir: &Path, layers: u32, bytes: u32) -> PathBuf {
    let layout = dir.join(format!("layout-{layers}-{bytes}"));
    let script = r#"
set -e
mkdir -p "$1/blobs/sha256"; cd "$1"
put() { sum=$(sha256sum "$1" | cut -d' ' -f1); size=$(wc -c < "$1"); mv "$1" "blobs/sha256/$sum"; }
cp "$2" layer.tar; diffs= descriptors=
add() {
    diff=$(sha256sum layer.tar | cut -d' ' -f1); gzip -1 -n -c layer.tar > layer; rm layer.tar; put layer
    diffs="$diffs,\"sha256:$diff\""
    descriptors="$descriptors,{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar+gzip\",\"digest\":\"sha256:$sum\",\"size\":$size}"
}
add
n=0; while [ $n -lt "$3" ]; do
    n=$((n+1)); mkdir -p work; head -c "$4" /dev/urandom > work/file-$n
    tar --owner=0 --group=0 -C work -cf layer.tar file-$n; rm work/file-$n; add
done
printf '{"architecture":"amd64","os":"linux","config":{"Cmd":["sh","-c","echo pulled"],"Env":["FROM=registry"],"Labels":{"from":"registry"}},"rootfs":{"type":"layers","diff_ids":[%s]}}' "${diffs#,}" > config
put config; config=$sum configsize=$size
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s},"layers":[%s]}' "$config" "$configsize" "${descriptors#,}" > manifest
put manifest
printf '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%s,"annotations":{"org.opencontainers.image.ref.name":"box"}}]}' "$sum" "$size" > index.json
printf '{"imageLayoutVersion":"1.0.0"}' > oci-layout
"#;
    if !layout.exists() {
        let (layers, bytes) = (layers.to_string(), bytes.to_string());
        Cmd::new("sh").args(["-c", script, "sh"]).arg(&layout).arg(busybox_tar()).args([layers, bytes]).ok();
    }
    layout
}

/// What skopeo calls the image of [`layout`].
pub fn source(layout: &Path) -> String {
    format!("oci:{}:box", layout.display())
}
