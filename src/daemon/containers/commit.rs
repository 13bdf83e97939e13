//! `docker commit`: a container's changes become a layer, and with its configuration an image.
//!
//! The container is held still meanwhile unless the caller wants it otherwise, and goes on afterwards
//! whatever came of it. No lock is held while files are read: a removal in between is a failure of the
//! commit, never of the removal.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use super::container::{Container, Record};
use super::state::State;
use super::{filesystem, lifecycle, rootfs, spec};
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::images::{Commit, ImageId, Reference, changes};
use crate::daemon::metrics;
use crate::http::api::container::ContainerConfig;
use crate::http::api::filesystem::CommitQuery;
use crate::http::api::image::ImageConfig;

/// Makes an image of a container as it is, and gives it the name asked for.
///
/// `config` is laid over the container's, then come the query's instructions.
///
/// # Errors
/// InvalidParameter for a name or an instruction that makes no sense, before anything is done.
pub fn commit(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    query: &CommitQuery,
    config: Option<ContainerConfig>,
) -> Result<ImageId> {
    let began = Instant::now();
    let reference = reference(&query.repo, &query.tag)?;
    let record = container.record();
    filesystem::check_whole(&record, "commit")?;
    let own = image_config(record.config.clone());
    let mut asked = config.map(image_config).unwrap_or_else(|| own.clone());
    changes::apply_all(&mut asked, &query.changes)?;
    let commit = Commit {
        parent: parent(&record)?,
        config: merge(asked, own),
        author: query.author.clone(),
        comment: query.comment.clone(),
        created_by: record.config.cmd.clone().unwrap_or_default().join(" "),
        reference,
        is_step: false,
    };
    let still = if query.pause.unwrap_or(true) { Still::hold(engine, container) } else { None };
    let now = container.record();
    let upper = container.layer_dir(now.layer).join("upper");
    let image = rootfs::below(engine, container, &now).and_then(|below| {
        engine.images.commit(&commit, &upper, below.as_fd(), &|| container.check_there(now.layer))
    });
    drop(still);
    let id = image.map_err(|error| error.during(format!("commit container {:?}", record.name)))?.id;
    engine.metrics.done(metrics::Action::Commit, began);
    let mut attributes = record.event_attributes();
    attributes.insert("comment".to_owned(), commit.comment);
    attributes.insert("imageID".to_owned(), id.to_string());
    let name = commit.reference.map(|reference| reference.familiar()).unwrap_or_default();
    attributes.insert("imageRef".to_owned(), name.clone());
    engine.events.publish("container", "commit", &container.id, attributes);
    if !name.is_empty() {
        let attributes = std::collections::BTreeMap::from([("name".to_owned(), name)]);
        engine.events.publish("image", "tag", &id.to_string(), attributes);
    }
    Ok(id)
}

fn reference(repo: &str, tag: &str) -> Result<Option<Reference>> {
    if repo.is_empty() {
        return Ok(None);
    }
    let reference = Reference::parse(repo)?;
    if reference.digest().is_some() {
        return Err(Error::invalid("cannot commit to digest reference"));
    }
    Ok(Some(if tag.is_empty() { reference.with_default_tag() } else { reference.with_tag(tag)? }))
}

fn parent(record: &Record) -> Result<ImageId> {
    ImageId::parse(&record.image_id).ok_or_else(|| {
        Error::system(format!("read the image of container {:?}", record.name), "not a digest")
    })
}

/// A container paused by us, which goes on when this is dropped.
struct Still<'a>(&'a Arc<Engine>, &'a Arc<Container>);

impl<'a> Still<'a> {
    /// `None` when there is nothing to hold: it does not run, or somebody else paused it.
    fn hold(engine: &'a Arc<Engine>, container: &'a Arc<Container>) -> Option<Still<'a>> {
        {
            let mut inner = container.lock();
            if inner.record.state != State::Running {
                return None;
            }
            // Should this daemon die meanwhile, the next one lets it go on.
            inner.record.is_held = true;
            if let Err(error) = container.save(&inner) {
                log::warn!("{error}");
            }
        }
        match lifecycle::pause(engine, container) {
            Ok(()) => Some(Still(engine, container)),
            // Ended or paused at this moment; either way it is still.
            Err(error) => {
                log::debug!("hold container {:?} for its commit: {error}", container.name());
                None
            }
        }
    }
}

impl Drop for Still<'_> {
    fn drop(&mut self) {
        let Still(engine, container) = self;
        if container.record().state == State::Paused
            && let Err(error) = lifecycle::unpause(engine, container)
        {
            log::warn!("let container {:?} go on after its commit: {error}", container.name());
        }
    }
}

/// What of a container's configuration an image has.
fn image_config(config: ContainerConfig) -> ImageConfig {
    ImageConfig {
        user: config.user,
        exposed_ports: config.exposed_ports,
        env: config.env,
        entrypoint: config.entrypoint,
        cmd: config.cmd,
        volumes: config.volumes.unwrap_or_default(),
        working_dir: config.working_dir,
        labels: config.labels,
        stop_signal: config.stop_signal,
        healthcheck: config.healthcheck,
        on_build: config.on_build.unwrap_or_default(),
        shell: config.shell,
        args_escaped: false,
    }
}

/// What was asked for over what the container has. Source: Docker's merge rules.
fn merge(mut asked: ImageConfig, own: ImageConfig) -> ImageConfig {
    if asked.user.is_empty() {
        asked.user = own.user;
    }
    if asked.working_dir.is_empty() {
        asked.working_dir = own.working_dir;
    }
    let given = std::mem::replace(&mut asked.env, own.env);
    spec::merge_env(&mut asked.env, &given);
    if asked.entrypoint.as_ref().is_none_or(Vec::is_empty) {
        if asked.cmd.as_ref().is_none_or(Vec::is_empty) {
            asked.cmd = own.cmd;
        }
        if asked.entrypoint.is_none() {
            asked.entrypoint = own.entrypoint;
        }
    }
    for (key, value) in own.labels {
        asked.labels.entry(key).or_insert(value);
    }
    asked.exposed_ports.extend(own.exposed_ports);
    asked.volumes.extend(own.volumes);
    asked.healthcheck = asked.healthcheck.or(own.healthcheck);
    asked.stop_signal = asked.stop_signal.filter(|signal| !signal.is_empty()).or(own.stop_signal);
    if asked.on_build.is_empty() {
        asked.on_build = own.on_build;
    }
    asked.shell = asked.shell.or(own.shell);
    asked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Option<Vec<String>> {
        Some(words.iter().map(|word| (*word).to_owned()).collect())
    }

    #[test]
    fn what_is_asked_for_lies_over_what_the_container_has() {
        let own = ImageConfig {
            entrypoint: words(&["/e"]),
            cmd: words(&["c"]),
            env: vec!["A=1".into(), "B=2".into()],
            user: "1".into(),
            labels: [("l".to_owned(), "own".to_owned())].into(),
            stop_signal: Some("TERM".into()),
            ..ImageConfig::default()
        };
        let merged = merge(ImageConfig::default(), own.clone());
        assert_eq!(merged, own);
        let asked = ImageConfig {
            cmd: words(&["d"]),
            env: vec!["B=3".into()],
            labels: [("l".to_owned(), "mine".to_owned())].into(),
            ..ImageConfig::default()
        };
        let merged = merge(asked, own.clone());
        assert_eq!((&merged.entrypoint, &merged.cmd), (&own.entrypoint, &words(&["d"])));
        assert_eq!((merged.env, merged.labels["l"].as_str()), (vec!["A=1".into(), "B=3".into()], "mine"));
        // An entry point of one's own has no use for the other's arguments.
        let asked = ImageConfig { entrypoint: words(&["/x"]), ..ImageConfig::default() };
        assert_eq!(merge(asked, own).cmd, None);
    }

    #[test]
    fn names_are_checked() {
        assert_eq!(reference("", "v1").unwrap(), None);
        assert_eq!(reference("a/b", "").unwrap().unwrap().familiar(), "a/b:latest");
        assert_eq!(reference("a", "v1").unwrap().unwrap().familiar(), "a:v1");
        let digest = format!("a@sha256:{}", "0".repeat(64));
        for (repo, tag) in [("UPPER", ""), ("a", "b c"), (digest.as_str(), "")] {
            assert!(reference(repo, tag).is_err(), "{repo}:{tag}");
        }
    }
}
