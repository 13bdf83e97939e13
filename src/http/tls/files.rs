//! PEM files: certificates, keys and lists of CAs, read and checked before they are in force.
//!
//! Every error names the attempt, the file and the cause.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::certificate::validity;

/// The certificates in a file, at least one.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let attempt = |cause: &dyn std::fmt::Display| format!("read certificate {path:?}: {cause}");
    let bytes = std::fs::read(path).map_err(|cause| attempt(&cause))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if found.is_empty() => Err(attempt(&"there is no PEM certificate in it")),
        Ok(found) => Ok(found),
        Err(cause) => Err(attempt(&pem_cause(&cause))),
    }
}

/// The private key in a file.
pub fn key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let attempt = |cause: &dyn std::fmt::Display| format!("read private key {path:?}: {cause}");
    let bytes = std::fs::read(path).map_err(|cause| attempt(&cause))?;
    let is_encrypted = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|cause| match cause {
        // PKCS#8's own label, and the header of the older form.
        pem::Error::NoItemsFound if is_encrypted(b"BEGIN ENCRYPTED PRIVATE KEY") => {
            attempt(&"it is encrypted, and nobody is there to be asked for the passphrase")
        }
        pem::Error::NoItemsFound => attempt(&"there is no PEM private key in it"),
        cause => attempt(&pem_cause(&cause)),
    })
}

fn pem_cause(cause: &pem::Error) -> String {
    match cause {
        pem::Error::Base64Decode(_) => "broken PEM: not base64".to_owned(),
        pem::Error::MissingSectionEnd { .. } => "broken PEM: no END line".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "broken PEM: not a BEGIN line".to_owned(),
        cause => format!("broken PEM: {cause}"),
    }
}

/// The CAs in a file, at least one, and what is odd about their dates.
pub fn roots(path: &Path) -> Result<(RootCertStore, Vec<String>), String> {
    let found = certificates(path)?;
    let mut roots = RootCertStore::empty();
    let mut warnings = Vec::new();
    let mut refused = None;
    // A system's list may have one or the other that is not understood.
    for certificate in found {
        warnings.extend(date_warning(path, &certificate));
        if let Err(cause) = roots.add(certificate) {
            refused = Some(cause);
        }
    }
    match refused {
        Some(cause) if roots.is_empty() => Err(format!("use CA certificate {path:?}: {cause}")),
        _ => Ok((roots, warnings)),
    }
}

/// Why a certificate and a key are no pair.
pub fn pair_error(cert: &Path, key: &Path, cause: &rustls::Error) -> String {
    match cause {
        rustls::Error::InconsistentKeys(_) => {
            format!("use certificate {cert:?} with private key {key:?}: the key is not the certificate's")
        }
        cause => format!("use certificate {cert:?} with private key {key:?}: {cause}"),
    }
}

/// What is odd about a certificate's dates. Not an error: a board without a clock starts in 1970, and its clients
/// are the ones to judge.
pub fn date_warning(path: &Path, certificate: &CertificateDer<'_>) -> Option<String> {
    let dates = validity(certificate)?;
    let now = jiff::Timestamp::now().strftime("%Y%m%d%H%M%S").to_string();
    let day = |date: &str| format!("{}-{}-{}", &date[..4], &date[4..6], &date[6..8]);
    if now > dates.end {
        Some(format!("certificate {path:?} has expired on {}", day(&dates.end)))
    } else if now < dates.start {
        Some(format!("certificate {path:?} is not valid before {}: is the clock right?", day(&dates.start)))
    } else {
        None
    }
}
