//! Images.

use std::sync::Arc;

use super::{compat, progress};
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::images::config::Platform;
use crate::daemon::images::push::Destination;
use crate::daemon::images::{self, ImageId, Import, Reference};
use crate::daemon::{registry, usage};
use crate::http::api::auth::{AUTH_HEADER, AuthConfig};
use crate::http::api::image::*;
use crate::http::message::Headers;
use crate::http::reply::Reply;
use crate::http::request::Call;

pub fn list(engine: &Arc<Engine>, mut call: Call<ListQuery>) -> Result<Reply> {
    compat::lift_images(call.raw.version, &mut call.query);
    let used = usage::containers_of_images(engine);
    let count = |id: &ImageId| used.get(&id.to_string()).copied().unwrap_or(0);
    let query = &call.query;
    if query.artifacts {
        return compat::reply(&IMAGE_LIST, call.raw.version, &engine.images.artifacts());
    }
    let images = engine.images.list(query.all, query.shared_size, &query.filters, &count)?;
    compat::reply(&IMAGE_LIST, call.raw.version, &images)
}

pub fn inspect(engine: &Arc<Engine>, call: Call<PlatformQuery>) -> Result<Reply> {
    let name = call.param("name");
    engine.images.check_platform(name, Platform::from_query(&call.query.platform)?.as_ref())?;
    compat::reply(&IMAGE_INSPECT, call.raw.version, &engine.images.inspect(name)?)
}

pub fn history(engine: &Arc<Engine>, call: Call<PlatformQuery>) -> Result<Reply> {
    let name = call.param("name");
    engine.images.check_platform(name, Platform::from_query(&call.query.platform)?.as_ref())?;
    Ok(IMAGE_HISTORY.reply(&engine.images.history(name)?))
}

pub fn tag(engine: &Arc<Engine>, call: Call<TagQuery>) -> Result<Reply> {
    let name = call.param("name");
    let reference = engine.images.tag(name, &call.query.repo, &call.query.tag)?;
    let id = engine.images.resolve(name)?.id;
    publish(engine, "tag", &id.to_string(), &reference.familiar());
    Ok(IMAGE_TAG.reply(&()))
}

fn publish(engine: &Engine, action: &str, id: &str, name: &str) {
    // Compat: an image's labels come with its events, while it is there.
    let mut attributes =
        engine.images.resolve(id).map(|image| image.config.config.labels.clone()).unwrap_or_default();
    attributes.insert("name".to_owned(), name.to_owned());
    engine.events.publish("image", action, id, attributes);
}

pub fn delete(engine: &Arc<Engine>, call: Call<DeleteQuery>) -> Result<Reply> {
    let name = call.param("name");
    // What is left out for damage, and artifacts, have no image to look up.
    let id = engine.images.resolve(name).map(|image| image.id.to_string()).unwrap_or_default();
    let items =
        engine.images.remove(name, call.query.force, call.query.noprune, &usage::users_of_images(engine))?;
    for item in &items {
        match item {
            ImageDeleteItem::Untagged(reference) => {
                publish(engine, "untag", if id.is_empty() { reference } else { &id }, reference);
            }
            ImageDeleteItem::Deleted(image) => publish(engine, "delete", image, image),
        }
    }
    Ok(IMAGE_DELETE.reply(&items))
}

/// On whose behalf a request asks registries.
pub(super) fn client(headers: &Headers) -> registry::Client {
    let meta = headers.iter().filter(|(name, _)| name.to_ascii_lowercase().starts_with("x-meta-"));
    registry::Client {
        credentials: AuthConfig::from_header(headers.get(AUTH_HEADER)).into(),
        headers: meta.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        ..registry::Client::default()
    }
}

fn pull(engine: &Arc<Engine>, call: Call<CreateQuery>) -> Result<Reply> {
    let query = &call.query;
    let reference = Reference::named(&query.from_image, &query.tag)?;
    let platform = if query.platform.is_empty() { None } else { Some(Platform::parse(&query.platform)?) };
    let (engine, client, peer) = (Arc::clone(engine), client(&call.raw.headers), call.raw.peer);
    let cancel = client.cancel.clone();
    progress::stream_while_wanted(
        "pull",
        &peer,
        move || cancel.cancel(),
        move |tell| engine.pull(reference, platform, &client, tell).map(drop),
    )
}

/// What is not there and who may not comes in the stream, as with Docker: it begins at once.
pub fn push(engine: &Arc<Engine>, call: Call<PushQuery>) -> Result<Reply> {
    let mut name = Reference::parse(call.param("name"))?;
    if name.digest().is_some() {
        return Err(Error::invalid("cannot push a digest reference"));
    }
    if !call.query.tag.is_empty() {
        name = name.with_tag(&call.query.tag)?;
    }
    let platform = Platform::from_query(&call.query.platform)?;
    let (engine, client, peer) = (Arc::clone(engine), client(&call.raw.headers), call.raw.peer);
    let registry = registry::registry(&engine.config(), name.domain(), &client)?;
    progress::stream_while_wanted(
        "push",
        &peer,
        move || client.cancel.cancel(),
        move |tell| {
            let uploads = usize::try_from(engine.config().max_concurrent_uploads).unwrap_or(1);
            let to = Destination { registry: &registry, name: &name, platform: platform.as_ref(), uploads };
            let mut on_pushed =
                |tag: &Reference| publish(&engine, "push", &tag.familiar(), &tag.familiar_name());
            engine.images.push(to, tell, &mut on_pushed)
        },
    )
}

pub fn search(engine: &Arc<Engine>, call: Call<SearchQuery>) -> Result<Reply> {
    let query = &call.query;
    let client = client(&call.raw.headers);
    let found = registry::search(&engine.config(), &query.term, query.limit, &query.filters, &client)?;
    Ok(IMAGE_SEARCH.reply(&found))
}

pub fn distribution(engine: &Arc<Engine>, call: Call) -> Result<Reply> {
    let client = client(&call.raw.headers);
    Ok(DISTRIBUTION_INSPECT.reply(&images::distribution(&engine.config(), call.param("name"), &client)?))
}

/// `docker pull` and `docker import`.
pub fn create(engine: &Arc<Engine>, call: Call<CreateQuery>) -> Result<Reply> {
    let query = &call.query;
    if !query.from_image.is_empty() {
        return pull(engine, call);
    }
    if query.from_src != "-" {
        return Err(Error::not_implemented(format!(
            "import from {:?}: only the request's own body (\"-\") can be imported",
            query.from_src
        )));
    }
    let reference = if query.repo.is_empty() {
        None
    } else {
        let repository = Reference::parse(&query.repo)?;
        Some(match query.tag.as_str() {
            "" => repository.with_default_tag(),
            tag => repository.with_tag(tag)?,
        })
    };
    let platform = if query.platform.is_empty() { None } else { Some(Platform::parse(&query.platform)?) };
    let import =
        Import { reference, changes: query.changes.clone(), message: query.message.clone(), platform };
    let (engine, mut body) = (Arc::clone(engine), call.raw.body);
    progress::stream("import", move |tell| {
        let id = engine.images.import(&mut body, &import, tell)?.to_string();
        publish(&engine, "import", &id, &id);
        tell(JsonMessage::status(id));
        Ok(())
    })
}

pub fn load(engine: &Arc<Engine>, call: Call<LoadQuery>) -> Result<Reply> {
    let is_quiet = call.query.quiet.unwrap_or(true);
    let platform = Platform::from_query(&call.query.platform)?;
    let (engine, mut body) = (Arc::clone(engine), call.raw.body);
    progress::stream("load", move |tell| {
        let loaded = engine.images.load(&mut body, platform.as_ref(), &mut |message| {
            let is_result = message.stream.is_some();
            if is_result || !is_quiet {
                tell(message);
            }
        })?;
        for image in &loaded.images {
            let id = image.id.to_string();
            publish(&engine, "load", &id, &id);
        }
        Ok(())
    })
}

pub fn save(engine: &Arc<Engine>, call: Call<PlatformQuery>) -> Result<Reply> {
    save_all(engine, vec![call.param("name").to_owned()], &call.query.platform)
}

pub fn save_several(engine: &Arc<Engine>, call: Call<SaveQuery>) -> Result<Reply> {
    if call.query.names.is_empty() {
        return Err(Error::invalid("save: no image named"));
    }
    save_all(engine, call.query.names, &call.query.platform)
}

fn save_all(engine: &Arc<Engine>, names: Vec<String>, platform: &str) -> Result<Reply> {
    engine.images.check_names(&names, Platform::from_query(platform)?.as_ref())?;
    let engine = Arc::clone(engine);
    Ok(Reply::stream("application/x-tar", move |out| {
        let saved = engine.images.save(&names, out);
        for id in saved.map_err(|error| std::io::Error::other(error.message))? {
            publish(&engine, "save", &id.to_string(), &id.to_string());
        }
        Ok(())
    }))
}
