//! SIGHUP: the configuration is read again, all of it or none.
//!
//! Flags and environment are those of the start. Everything that can fail is prepared first; what is put in force
//! after that cannot fail, so a bad file leaves the daemon as it was.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::config::load::{self, Given, Loaded, as_go};
use super::config::options::{OPTIONS, When};
use super::config::{Config, Values};
use super::engine::Engine;
use super::error::Result;
use super::info::masked;
use super::listeners::secure;

/// Reloads, and logs how that went.
pub fn reload(engine: &Arc<Engine>, given: &Given) {
    match attempt(engine, given) {
        Ok(()) => log::info!("the configuration was reloaded"),
        Err(error) => log::error!("reload the configuration: {error}: it stays as it was"),
    }
}

fn attempt(engine: &Arc<Engine>, given: &Given) -> Result<()> {
    let Loaded { config, notes } = load::load(given, &|name| std::env::var(name).ok())?;
    let old = engine.config();
    let (values, waiting) = reloadable(&old.values, config.values);
    let config = Config::new(values)?;
    let authorization = engine.authorization.prepare(&config.authorization_plugins)?;
    // The files' names stay; what is in them may be new.
    let certificates = secure::certificates(&config)?;

    // Nothing fails from here on.
    notes.iter().for_each(|note| log::warn!("{note}"));
    if !waiting.is_empty() {
        log::warn!("a restart is needed for what changed in {}", waiting.join(", "));
    }
    log::set_max_level(super::log_level(&config));
    let attributes = attributes(&config.values);
    engine.authorization.commit(authorization);
    engine.set_config(config);
    if let (Some(acceptor), Some(certificates)) = (engine.acceptor.get(), certificates) {
        acceptor.replace(certificates);
    }
    engine.events.publish("daemon", "reload", &engine.id, attributes);
    Ok(())
}

/// The new values of what can change while the daemon runs, the old ones of all else; and the keys that wait.
fn reloadable(old: &Values, mut new: Values) -> (Values, Vec<&'static str>) {
    let mut waiting = Vec::new();
    for option in OPTIONS.iter().filter(|option| option.when == When::Start) {
        let before = old.get(option.key);
        if new.get(option.key) != before {
            waiting.push(option.key);
        }
        match before {
            Some(value) => new.insert(option.key, value.clone()),
            None => new.remove(option.key),
        };
    }
    (new, waiting)
}

/// What the event tells: the reloadable options that are set, and the host's name as dockerd has it.
fn attributes(values: &Values) -> BTreeMap<String, String> {
    let is_told = |key: &&str| OPTIONS.iter().any(|option| option.key == *key && option.when == When::Reload);
    let told = values.iter().filter(|(key, _)| is_told(key));
    let mut attributes: BTreeMap<String, String> = told
        .map(|(key, value)| {
            // Compat: dockerd writes lists and maps as JSON there.
            let text = if value.is_array() || value.is_object() { value.to_string() } else { as_go(value) };
            // Whoever may read events need not know the proxy's password.
            ((*key).to_owned(), if key.starts_with("proxies.") { masked(&text) } else { text })
        })
        .collect();
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    attributes.insert("name".to_owned(), name);
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_restart_stays() {
        let old = Values::from([("data-root", "/a".into()), ("debug", false.into()), ("labels", "x".into())]);
        let new = Values::from([("data-root", "/b".into()), ("debug", true.into()), ("group", "g".into())]);
        let (values, waiting) = reloadable(&old, new);
        assert_eq!(waiting, ["data-root", "group"]);
        assert_eq!(values, Values::from([("data-root", "/a".into()), ("debug", true.into())]));
        assert_eq!(attributes(&values)["debug"], "true");
        assert!(!attributes(&values).contains_key("data-root"));
        let proxy = Values::from([("proxies.http-proxy", "http://user:p@ss@proxy:3128".into())]);
        assert_eq!(attributes(&proxy)["proxies.http-proxy"], "http://xxxxx:xxxxx@proxy:3128");
    }
}
