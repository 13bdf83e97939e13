//! Certificates for one test, made by openssl: two authorities that know nothing of each other, and what they signed.

use std::path::{Path, PathBuf};

use super::{Cmd, TempDir};

/// In the directory: `ca.pem`, `server.pem` (for localhost and 127.0.0.1), `client.pem` (of alice), each with its
/// `…-key.pem`; `other-ca.pem` and `stranger.pem` (of mallory) of the other authority.
pub struct Certificates(TempDir);

impl Certificates {
    pub fn new() -> Certificates {
        let certificates = Certificates(TempDir::new());
        certificates.authority("ca");
        certificates.authority("other-ca");
        certificates.sign("ca", "server", "/CN=dewar", "subjectAltName=DNS:localhost,IP:127.0.0.1");
        certificates.sign("ca", "client", "/O=dewar/CN=alice", "extendedKeyUsage=clientAuth");
        certificates.sign("other-ca", "stranger", "/CN=mallory", "extendedKeyUsage=clientAuth");
        certificates
    }

    pub fn dir(&self) -> &Path {
        self.0.path()
    }

    /// `NAME.pem`, `NAME-key.pem`, or whatever else.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// The same as text, as flags want it.
    pub fn path(&self, name: &str) -> String {
        self.file(name).display().to_string()
    }

    fn openssl(&self, line: &str) {
        // Words with spaces do not occur.
        Cmd::new("env").args(["-C", &self.path("")]).arg("openssl").args(line.split(' ')).ok();
    }

    /// A new authority called `name`.
    pub fn authority(&self, name: &str) {
        self.openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN={name} \
             -keyout {name}-key.pem -out {name}.pem"
        ));
    }

    /// A certificate of `authority` with one extension, over whatever had its name.
    pub fn sign(&self, authority: &str, name: &str, subject: &str, extension: &str) {
        self.sign_for(30, authority, name, subject, extension);
    }

    /// The same, for a number of days that may be past.
    pub fn sign_for(&self, days: i32, authority: &str, name: &str, subject: &str, extension: &str) {
        std::fs::write(self.file("extensions"), extension).expect("a directory of ours");
        self.openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj {subject} -keyout {name}-key.pem -out request"
        ));
        self.openssl(&format!(
            "x509 -req -in request -CA {authority}.pem -CAkey {authority}-key.pem -CAcreateserial -days {days} \
             -extfile extensions -out {name}.pem"
        ));
    }

    /// The daemon's flags for verified TLS on a port of its own.
    pub fn daemon_flags(&self) -> Vec<String> {
        let flags = [
            "-H".to_owned(),
            "tcp://127.0.0.1:0".to_owned(),
            "--tlsverify".to_owned(),
            format!("--tlscacert={}", self.path("ca.pem")),
            format!("--tlscert={}", self.path("server.pem")),
            format!("--tlskey={}", self.path("server-key.pem")),
        ];
        flags.to_vec()
    }

    /// A client's flags to show the certificate `name`, docker's and dewar's.
    pub fn client_flags(&self, name: &str) -> Vec<String> {
        let flags = [
            "--tlsverify".to_owned(),
            format!("--tlscacert={}", self.path("ca.pem")),
            format!("--tlscert={}", self.path(&format!("{name}.pem"))),
            format!("--tlskey={}", self.path(&format!("{name}-key.pem"))),
        ];
        flags.to_vec()
    }

    /// A client's session with alice's certificate.
    pub fn session(&self) -> rustls::ClientConnection {
        use rustls::pki_types::pem::PemObject;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let mut roots = rustls::RootCertStore::empty();
        let pem = |name: &str| CertificateDer::from_pem_file(self.file(name)).expect("a certificate");
        roots.add(pem("ca.pem")).expect("an authority");
        let key = PrivateKeyDer::from_pem_file(self.file("client-key.pem")).expect("a key");
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .expect("both versions")
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![pem("client.pem")], key)
            .expect("a pair");
        let name = "localhost".try_into().expect("a name");
        rustls::ClientConnection::new(config.into(), name).expect("a session")
    }

    /// A connection of that session, its handshake done.
    pub fn connect(&self, port: u16) -> Tls {
        let stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("the daemon listens");
        stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).expect("a timeout");
        let mut tls = rustls::StreamOwned::new(self.session(), stream);
        tls.conn.complete_io(&mut tls.sock).expect("a handshake");
        tls
    }
}

/// A client's end of TLS.
pub type Tls = rustls::StreamOwned<rustls::ClientConnection, std::net::TcpStream>;
