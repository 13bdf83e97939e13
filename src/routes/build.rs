//! Building images.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::progress;
use crate::daemon::bell::Bell;
use crate::daemon::build::{self, Cancel, Options, Secret};
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::images::Reference;
use crate::daemon::images::config::Platform;
use crate::http::api::auth::{self, CONFIG_HEADER};
use crate::http::api::build::{BuildQuery, SECRETS};
use crate::http::api::container::Resources;
use crate::http::api::image::{ErrorDetail, JsonMessage};
use crate::http::message::Headers;
use crate::http::reply::Reply;
use crate::http::request::Call;

/// A client that goes away ends its build.
pub fn build(engine: &Arc<Engine>, call: Call<BuildQuery>) -> Result<Reply> {
    let options = options(&call.query, &call.raw.headers)?;
    let (engine, peer, mut body) = (Arc::clone(engine), call.raw.peer, call.raw.body);
    let (cancel, done) = (Arc::new(Cancel::new()?), Arc::new(Bell::new()?));
    let watch = {
        let (cancel, done) = (Arc::clone(&cancel), Arc::clone(&done));
        move || {
            if !peer.wait(&[done.as_fd()], None) {
                cancel.set();
            }
        }
    };
    // While the context comes, its own end tells of a client that goes away.
    let on_context = || {
        if let Err(error) = crate::daemon::spawn("build watch", watch) {
            log::warn!("{error}");
        }
    };
    progress::stream("build", move |tell| {
        let has_told = Cell::new(false);
        let mut tell = |message| {
            has_told.set(true);
            tell(message);
        };
        let outcome = build::build(&engine, &options, &mut body, on_context, &cancel, &mut tell);
        done.ring();
        match outcome {
            Ok(_) => Ok(()),
            Err(failure) if has_told.get() => {
                let message = failure.error.message;
                tell(JsonMessage {
                    error: Some(message.clone()),
                    error_detail: Some(ErrorDetail { code: failure.code, message }),
                    ..JsonMessage::default()
                });
                Ok(())
            }
            Err(failure) => Err(failure.error),
        }
    })
}

fn options(query: &BuildQuery, headers: &Headers) -> Result<Options> {
    if query.squash {
        // Compat: what a daemon without experimental features says.
        return Err(Error::invalid("squash is only supported with experimental mode"));
    }
    if query.version == "2" || !query.session.is_empty() || !query.outputs.is_empty() {
        return Err(Error::not_implemented(
            "build with BuildKit: only the classic builder is here (DOCKER_BUILDKIT=0)",
        ));
    }
    let mut names: Vec<Reference> = Vec::new();
    for text in &query.tags {
        let reference = Reference::parse(text)?;
        if reference.digest().is_some() {
            return Err(Error::invalid("build tag cannot contain a digest"));
        }
        let reference = reference.with_default_tag();
        if !names.contains(&reference) {
            names.push(reference);
        }
    }
    let platform = if query.platform.is_empty() { None } else { Some(Platform::parse(&query.platform)?) };
    Ok(Options {
        dockerfile: query.dockerfile.clone(),
        remote: query.remote.clone(),
        names,
        quiet: query.quiet,
        no_cache: query.no_cache,
        pull: query.pull,
        remove: query.remove.unwrap_or(true),
        force_remove: query.force_remove,
        args: query.build_args.clone(),
        labels: query.labels.clone(),
        target: query.target.clone(),
        platform,
        cache_from: query.cache_from.clone(),
        network: query.network_mode.clone(),
        extra_hosts: query.extra_hosts.clone(),
        resources: Resources {
            memory: query.memory,
            memory_swap: query.memory_swap,
            cpu_shares: query.cpu_shares,
            cpu_period: query.cpu_period,
            cpu_quota: query.cpu_quota,
            cpuset_cpus: query.cpuset_cpus.clone(),
            cpuset_mems: query.cpuset_mems.clone(),
            cgroup_parent: query.cgroup_parent.clone(),
            ulimits: query.ulimits.clone(),
            ..Resources::default()
        },
        shm_size: query.shm_size,
        secrets: secrets(headers.get(SECRETS).unwrap_or_default())?,
        credentials: auth::configs_from_header(headers.get(CONFIG_HEADER))
            .into_iter()
            .map(|(server, who)| (server, who.into()))
            .collect(),
        security_opt: query.security_opt.clone(),
    })
}

/// Secrets by their names. What they are is in no error.
fn secrets(text: &str) -> Result<BTreeMap<String, Secret>> {
    if text.is_empty() {
        return Ok(BTreeMap::new());
    }
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let [outer, inner] = [&URL_SAFE, &STANDARD].map(|alphabet| GeneralPurpose::new(alphabet, config));
    let invalid = || Error::invalid(format!("invalid header {SECRETS}"));
    let json = outer.decode(text).map_err(|_| invalid())?;
    let encoded: BTreeMap<String, String> = serde_json::from_slice(&json).map_err(|_| invalid())?;
    let decode = |(id, text): (String, String)| Ok((id, Secret(inner.decode(text).map_err(|_| invalid())?)));
    encoded.into_iter().map(decode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read_and_never_shown() {
        let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(r#"{"a":"cGFzcw=="}"#);
        assert_eq!(secrets(&text).unwrap()["a"].0, b"pass");
        assert!(secrets("").unwrap().is_empty());
        assert_eq!(secrets("%%").unwrap_err().message, "invalid header X-Dewar-Build-Secrets");
    }
}
