//! Blobs on their way to a registry: mounted from another repository of the same, or sent.

use std::io::Read;

use ureq::http::Method;

use super::{Body, Registry, RegistryError, Scope};

/// A blob that is being sent; the registry forgets it if it is not finished.
#[derive(Debug)]
pub struct Upload {
    scope: Scope,
    /// Where the next part goes, absolute; the registry changes it with each answer.
    location: String,
}

/// What came of asking for a mount.
#[derive(Debug)]
pub enum Mount {
    /// The blob is there now.
    Mounted,
    /// It has to be sent.
    Upload(Upload),
}

impl Registry {
    /// Begins to send a blob to `repository`.
    pub fn start_upload(&self, repository: &str) -> Result<Upload, RegistryError> {
        match self.begin(repository, &[], Scope::push(repository))? {
            Mount::Upload(upload) => Ok(upload),
            Mount::Mounted => Err(RegistryError::Protocol {
                attempt: format!("start an upload to {repository}"),
                message: "the registry says that it is done".to_owned(),
            }),
        }
    }

    /// Asks for a blob that the same registry has in the repository `from`.
    ///
    /// A registry that does not know it there, or does not let us read it, begins an upload instead.
    pub fn mount(&self, repository: &str, digest: &str, from: &str) -> Result<Mount, RegistryError> {
        let scope = Scope::push(repository).and_pull(from);
        self.begin(repository, &[("mount", digest), ("from", from)], scope)
    }

    fn begin(&self, repository: &str, query: &[(&str, &str)], scope: Scope) -> Result<Mount, RegistryError> {
        let url = self.url(&format!("{repository}/blobs/uploads/"), query)?;
        let answer = self.ask(&Method::POST, &url, &scope, &[], Body::Bytes(&[]))?;
        match answer.status {
            201 if !query.is_empty() => Ok(Mount::Mounted),
            202 => {
                let location = self.location(&answer, &url)?;
                Ok(Mount::Upload(Upload { scope: Scope::push(repository), location }))
            }
            _ => Err(answer.refusal()),
        }
    }

    /// Sends all of `content` as one part, of unknown length if `length` is `None`. Blocks until it is there.
    pub fn patch(
        &self,
        upload: &mut Upload,
        content: &mut (dyn Read + Send),
        length: Option<u64>,
    ) -> Result<(), RegistryError> {
        let mut headers = vec![("Content-Type", "application/octet-stream".to_owned())];
        headers.extend(length.map(|length| ("Content-Length", length.to_string())));
        let answer =
            self.ask(&Method::PATCH, &upload.location, &upload.scope, &headers, Body::Stream(content))?;
        if answer.status != 202 {
            return Err(answer.refusal());
        }
        upload.location = self.location(&answer, &upload.location)?;
        Ok(())
    }

    /// Ends an upload: the registry compares what it has with `digest`.
    pub fn finish(&self, upload: Upload, digest: &str) -> Result<(), RegistryError> {
        let separator = if upload.location.contains('?') { '&' } else { '?' };
        let digest = digest.replace(':', "%3A");
        let url = format!("{}{separator}digest={digest}", upload.location);
        let answer = self.ask(&Method::PUT, &url, &upload.scope, &[], Body::Bytes(&[]))?;
        match answer.status {
            201 | 204 => Ok(()),
            _ => Err(answer.refusal()),
        }
    }

    /// Tells the registry to forget an upload; that it has is all that is wanted.
    pub fn cancel_upload(&self, upload: Upload) {
        let _ = self.ask(&Method::DELETE, &upload.location, &upload.scope, &[], Body::None);
    }
}
