//! A client's end: whom it trusts, what it shows, and the handshake.

use std::fmt;
use std::io;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::session::TlsSocket;
use super::{files, provider};

/// How long a client waits for the handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// The files of a client's end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientFiles {
    /// Who signs the daemon's certificate; `None` trusts the system's list.
    pub ca: Option<PathBuf>,
    /// Who is trusted beside those.
    pub more_cas: Vec<PathBuf>,
    /// What is shown to a daemon that asks, and its key.
    pub pair: Option<(PathBuf, PathBuf)>,
    /// Takes whatever the daemon shows. Whoever sits between reads everything.
    pub trusts_anyone: bool,
}

/// A client's end, read and checked.
#[derive(Clone)]
pub struct Connector(Arc<ClientConfig>);

impl fmt::Debug for Connector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Connector")
    }
}

/// Where distributions keep the list of those everybody trusts.
const SYSTEM_ROOTS: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
];

const NO_ROOTS: &str = "verify the server's certificate: no CA certificate given, and this system has none";

/// The files of those everybody trusts. `SSL_CERT_FILE` and `SSL_CERT_DIR` replace the usual places, as OpenSSL and
/// Go have it.
fn system_roots() -> Vec<PathBuf> {
    let named = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let mut paths: Vec<PathBuf> = match named("SSL_CERT_FILE") {
        Some(file) => vec![file.into()],
        None => SYSTEM_ROOTS.iter().map(PathBuf::from).filter(|path| path.exists()).take(1).collect(),
    };
    let directories = named("SSL_CERT_DIR");
    for directory in directories.iter().flat_map(std::env::split_paths) {
        let files = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
        // Hashed names are links to the others.
        paths.extend(files.filter(|path| {
            path.extension().is_some_and(|extension| extension == "pem" || extension == "crt")
        }));
    }
    paths
}

impl ClientFiles {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// Names the file and the cause.
    pub fn prepare(&self) -> Result<Connector, String> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .map_err(|cause| cause.to_string())?;
        let builder = if self.trusts_anyone {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider())))
        } else {
            let mut paths = match &self.ca {
                Some(path) => vec![path.clone()],
                None => system_roots(),
            };
            paths.extend_from_slice(&self.more_cas);
            let mut roots = RootCertStore::empty();
            for path in &paths {
                roots.extend(files::roots(path)?.0.roots);
            }
            if roots.is_empty() {
                return Err(NO_ROOTS.to_owned());
            }
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
                .build()
                .map_err(|cause| format!("use CA certificates {paths:?}: {cause}"))?;
            builder.with_webpki_verifier(verifier)
        };
        let mut config = match &self.pair {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => builder
                .with_client_auth_cert(files::certificates(cert)?, files::key(key)?)
                .map_err(|cause| files::pair_error(cert, key, &cause))?,
        };
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Connector(Arc::new(config)))
    }
}

impl Connector {
    /// Makes TLS of a connection to the host called `name`. Blocks for [`HANDSHAKE_TIME`] at most.
    ///
    /// # Errors
    /// InvalidData with rustls's words for what is wrong with either end's certificate; TimedOut.
    pub fn connect(&self, name: &str, stream: TcpStream) -> io::Result<TlsSocket> {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let session = ClientConnection::new(self.0.clone(), name).map_err(io::Error::other)?;
        let socket = TlsSocket::new(stream, session.into());
        socket.handshake(HANDSHAKE_TIME)?;
        Ok(socket)
    }
}

/// Takes any certificate, and still wants the proof that its owner is there.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
