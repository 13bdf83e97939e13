//! What a build gets from the network itself: `ADD` of a URL, and a context that is one.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;

use rustix::fs::{Timespec, Timestamps};

use super::copy::gather::{Content, Item};
use super::stage::Stage;
use super::{Cancel, root};
use crate::daemon::config::Config;
use crate::daemon::dockerfile::Copy;
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::images::codec::{Digest, Hashing};
use crate::http::registry::{self, Options, Proxies};
use crate::runtime::layer::Limits;

/// The file at `url`, for `ADD`: of mode 600, from when its server says that it is.
pub fn item(stage: &Stage<'_>, copy: &Copy, url: &str, target: &str) -> Result<Item> {
    let failed = |cause: &dyn std::fmt::Display| Error::system(format!("download {url}"), cause);
    if std::path::Path::new(url).extension().is_some_and(|ending| ending == "git") {
        return Err(Error::not_implemented(format!("{url}: git repositories are not fetched")));
    }
    let wanted = match &copy.checksum {
        Some(word) => {
            let text = stage.expand(word)?;
            Some(Digest::parse(&text).ok_or_else(|| Error::invalid(format!("invalid checksum {text:?}")))?)
        }
        None => None,
    };
    let fetched = begin(stage.job.engine, url, stage.job.cancel)?;
    let name = name_of(url, &fetched.disposition);
    if name.is_empty() && target.ends_with('/') {
        return Err(Error::invalid(format!("cannot determine filename for source {url}")));
    }
    let path = stage.job.staging.make("download")?.join("file");
    let mut file = File::create_new(&path).map_err(|cause| failed(&cause))?;
    let mut body = Hashing::new(fetched.body);
    take(&mut body, &mut file).map_err(|cause| failed(&cause))?;
    let (digest, _) = body.finish();
    if let Some(wanted) = wanted.filter(|wanted| *wanted != digest) {
        return Err(Error::invalid(format!("digest mismatch for {url}: it is {digest}, {wanted} is wanted")));
    }
    let seconds = parse_http_date(&fetched.last_modified).unwrap_or_default();
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    rustix::fs::futimens(&file, &Timestamps { last_access: time, last_modification: time })
        .map_err(|errno| failed(&errno))?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600)).map_err(|cause| failed(&cause))?;
    let directory = root::open_directory(path.parent().unwrap_or(&path))?;
    let inode = root::open_plain(directory.as_fd(), b"file").map_err(|errno| failed(&errno))?;
    let content = Content::Tree { inode, excludes: Default::default(), keeps_owner: false };
    Ok(Item { name: name.into_bytes(), below: Vec::new(), content })
}

/// The context at `url`.
pub fn context(engine: &Engine, url: &str, cancel: &Cancel) -> Result<impl Read + use<>> {
    if !url.starts_with("http://") && !url.starts_with("https://") || url.ends_with(".git") {
        return Err(Error::not_implemented(format!("{url}: contexts are fetched by http and https only")));
    }
    Ok(begin(engine, url, cancel)?.body)
}

fn begin(engine: &Engine, url: &str, cancel: &Cancel) -> Result<registry::Fetched> {
    let config: &Config = &engine.config();
    let proxies = Proxies {
        http: config.http_proxy.clone(),
        https: config.https_proxy.clone(),
        none: config.no_proxy.clone(),
    };
    let options = Options { proxies, cancel: cancel.requests.clone(), ..Options::default() };
    registry::fetch(url, &options).map_err(|cause| Error::invalid(cause.to_string()))
}

fn take(body: &mut impl Read, file: &mut File) -> io::Result<()> {
    let most = Limits::default().bytes;
    match io::copy(&mut body.take(most + 1), file)? {
        count if count > most => Err(io::Error::other("it is too large")),
        _ => Ok(()),
    }
}

/// What a download is called: by its URL, or by what its server says.
fn name_of(url: &str, disposition: &str) -> String {
    let path =
        url.split_once("://").map_or(url, |(_, rest)| rest).split(['?', '#']).next().unwrap_or_default();
    let by_path = path.split_once('/').and_then(|(_, path)| path.rsplit('/').next()).unwrap_or_default();
    let by_header = disposition.split(';').filter_map(|part| part.trim().strip_prefix("filename=")).next();
    let names = [Some(by_path), by_header].into_iter().flatten();
    let mut names =
        names.map(|name| name.trim_matches('"')).map(|name| name.rsplit('/').next().unwrap_or_default());
    names.find(|name| !matches!(*name, "" | "." | "..")).unwrap_or_default().to_owned()
}

/// Seconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT`.
fn parse_http_date(text: &str) -> Option<i64> {
    jiff::fmt::rfc2822::parse(text).ok().map(|time| time.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downloads_have_names_and_times() {
        assert_eq!(name_of("http://h/a/b.txt?x=/y", ""), "b.txt");
        assert_eq!(name_of("http://h/", "attachment; filename=\"../c.txt\""), "c.txt");
        assert_eq!(name_of("http://h", ""), "");
        assert_eq!(parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(parse_http_date(""), None);
    }
}
