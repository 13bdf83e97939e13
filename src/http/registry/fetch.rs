//! A file that lies at a URL, got as registries' blobs are: through proxies, redirects followed, certificates checked.

use std::io::Read;

use ureq::http::Method;

use super::{Body, Options, Registry, RegistryError, authority};

/// A file on its way.
pub struct Fetched {
    pub body: Box<dyn Read + Send>,
    /// Headers; empty for what was not said.
    pub last_modified: String,
    pub disposition: String,
}

/// Begins to get the file at `url`, which is http or https. `options` name proxies and the cancel; their credentials
/// are nobody's here.
///
/// # Errors
/// Every answer but 200 is one.
pub fn fetch(url: &str, options: &Options) -> Result<Fetched, RegistryError> {
    // https, so that there are certificates to check should an answer lead there.
    let place = format!("https://{}", authority(url));
    let options =
        Options { proxies: options.proxies.clone(), cancel: options.cancel.clone(), ..Options::default() };
    let answer = Registry::new(&place, options)?.send(&Method::GET, url, &[], Body::None)?;
    if answer.status != 200 {
        let message = format!("the server answers with status {}", answer.status);
        return Err(RegistryError::Protocol { attempt: answer.attempt, message });
    }
    Ok(Fetched {
        last_modified: answer.header("last-modified").to_owned(),
        disposition: answer.header("content-disposition").to_owned(),
        body: answer.body,
    })
}
