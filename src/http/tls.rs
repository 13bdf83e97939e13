//! TLS for both ends: what a daemon shows and asks for, what a client trusts, and the connection itself.
//!
//! | file | what |
//! |---|---|
//! | `client` | a client's end: whom it trusts |
//! | `files` | PEM files, read and checked; errors name file and cause |
//! | `certificate` | the little a certificate is asked for that rustls keeps to itself: names and dates |
//! | `session` | one connection: read, write, shut down |
//!
//! TLS 1.2 and 1.3, rustls's choice of ciphers, ring's cryptography. No session is resumed: every connection proves
//! anew who it is, under the certificates of that moment.

mod certificate;
mod client;
mod files;
mod session;

use std::fmt;
use std::io;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ServerConfig, ServerConnection};

pub use client::{ClientFiles, Connector};
pub use session::TlsSocket;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The files of a daemon's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Who signs the clients' certificates; `None` asks for none.
    pub client_ca: Option<PathBuf>,
}

/// A daemon's end, read and checked, not yet in force.
pub struct Prepared {
    config: Arc<ServerConfig>,
    /// What is odd about the files, and does not keep them from being used: logged when they are put in force.
    warnings: Vec<String>,
}

impl Prepared {
    fn warn(&self) {
        self.warnings.iter().for_each(|warning| log::warn!("{warning}"));
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Prepared({:?})", self.warnings)
    }
}

impl ServerFiles {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// Names the file and the cause.
    pub fn prepare(&self) -> Result<Prepared, String> {
        let chain = files::certificates(&self.cert)?;
        let key = files::key(&self.key)?;
        let mut warnings = Vec::new();
        warnings.extend(files::date_warning(&self.cert, &chain[0]));
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .map_err(|cause| cause.to_string())?;
        let builder = match &self.client_ca {
            Some(path) => {
                let (roots, dates) = files::roots(path)?;
                warnings.extend(dates);
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
                let verifier =
                    verifier.build().map_err(|cause| format!("use CA certificate {path:?}: {cause}"))?;
                builder.with_client_cert_verifier(verifier)
            }
            None => builder.with_no_client_auth(),
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|cause| files::pair_error(&self.cert, &self.key, &cause))?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Prepared { config: Arc::new(config), warnings })
    }
}

/// What a listener makes TLS of its connections with; its files can be read again while it serves.
pub struct Acceptor(RwLock<Arc<ServerConfig>>);

impl fmt::Debug for Acceptor {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Acceptor")
    }
}

impl Acceptor {
    pub fn new(prepared: Prepared) -> Acceptor {
        prepared.warn();
        Acceptor(RwLock::new(prepared.config))
    }

    /// Puts newly read files in force, for connections from now on.
    pub fn replace(&self, prepared: Prepared) {
        prepared.warn();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = prepared.config;
    }

    /// The daemon's end of a new connection. Does not block: the handshake happens in the first reads.
    pub fn accept(&self, stream: TcpStream) -> io::Result<TlsSocket> {
        let config = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        let session = ServerConnection::new(config).map_err(io::Error::other)?;
        Ok(TlsSocket::new(stream, session.into()))
    }
}
