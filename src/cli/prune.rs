//! `dewar container prune`, `image prune`, `builder prune` and `system prune`: what nobody needs goes.
//!
//! Compat: warnings, lists and sums are the docker client's; an answer other than "y" ends with 0.

use crate::http::api::Filters;
use crate::http::api::image::{IMAGE_PRUNE, ImageDeleteItem, PruneQuery};
use crate::http::api::usage::{BUILD_PRUNE, CONTAINER_PRUNE};
use crate::http::api::{network, volume};

use super::command::{Action, Args, Command, Flag, Matches};
use super::context::{Context, confirm, filters, print};
use super::error::Error;
use super::format::size_total;

static ALL: Flag =
    Flag::switch("all", "Remove every image no container has, not only nameless ones").short('a');
static CACHE_ALL: Flag = Flag::switch("all", "Remove what is not dangling too").short('a');
static FILTER: Flag = Flag::many("filter", "KEY=VALUE", "Remove only what matches, such as until=24h");
static FORCE: Flag = Flag::switch("force", "Do not ask").short('f');
static KEEP_STORAGE: Flag =
    Flag::value("keep-storage", "BYTES", "Leave so much").ignored("there is no build cache");
static VOLUMES: Flag = Flag::switch("volumes", "Remove anonymous volumes too");

pub static CONTAINERS: Command = Command {
    names: &["container prune"],
    summary: "Remove every container that does not run",
    usage: "[OPTIONS]",
    about: "",
    flags: &[&FILTER, &FORCE],
    args: Args::NONE,
    example: "dewar container prune -f --filter until=24h",
    usage_code: 1,
    plan: |matches| {
        let filters = filters(&matches.list(&FILTER), &FILTER)?;
        let is_sure = matches.is(&FORCE);
        Action::call(move |context| {
            if !is_sure && !confirm("WARNING! This will remove all stopped containers.")? {
                return Ok(0);
            }
            print_total(&[containers(context, &filters)?])
        })
    },
};

pub static IMAGES: Command = Command {
    names: &["image prune"],
    summary: "Remove images that nobody uses",
    usage: "[OPTIONS]",
    about: "",
    flags: &[&ALL, &FILTER, &FORCE],
    args: Args::NONE,
    example: "dewar image prune -a -f",
    usage_code: 1,
    plan: |matches| {
        let filters = filters(&matches.list(&FILTER), &FILTER)?;
        let (is_sure, is_all) = (matches.is(&FORCE), matches.is(&ALL));
        Action::call(move |context| {
            let warning = match is_all {
                true => {
                    "WARNING! This will remove all images without at least one container associated to them."
                }
                false => "WARNING! This will remove all dangling images.",
            };
            if !is_sure && !confirm(warning)? {
                return Ok(0);
            }
            print_total(&[images(context, &filters, is_all)?])
        })
    },
};

pub static BUILDER: Command = Command {
    names: &["builder prune"],
    summary: "Remove the build cache",
    usage: "[OPTIONS]",
    about: "",
    flags: &[&CACHE_ALL, &FILTER, &FORCE, &KEEP_STORAGE],
    args: Args::NONE,
    example: "dewar builder prune -f",
    usage_code: 1,
    plan: |matches| {
        let filters = filters(&matches.list(&FILTER), &FILTER)?;
        let (is_sure, is_all) = (matches.is(&FORCE), matches.is(&CACHE_ALL));
        Action::call(move |context| {
            let what = if is_all { "all build cache" } else { "all dangling build cache" };
            if !is_sure && !confirm(&format!("WARNING! This will remove {what}."))? {
                return Ok(0);
            }
            print_total(&[build_cache(context, &filters)?])
        })
    },
};

pub static SYSTEM: Command = Command {
    names: &["system prune"],
    summary: "Remove everything that nobody uses",
    usage: "[OPTIONS]",
    about: "",
    flags: &[&ALL, &FILTER, &FORCE, &VOLUMES],
    args: Args::NONE,
    example: "dewar system prune -f --filter label=stage=test",
    usage_code: 1,
    plan: |matches| {
        let request = system_request(matches)?;
        Action::call(move |context| {
            if !request.is_sure && !confirm(&request.warning())? {
                return Ok(0);
            }
            let mut parts = vec![containers(context, &request.filters)?];
            parts.push(networks(context, &request.filters)?);
            if request.volumes {
                parts.push(volumes(context, &request.filters)?);
            }
            parts.push(images(context, &request.filters, request.is_all)?);
            parts.push(build_cache(context, &request.filters)?);
            print_total(&parts)
        })
    },
};

#[derive(Debug)]
struct SystemRequest {
    filters: Filters,
    is_all: bool,
    is_sure: bool,
    volumes: bool,
}

fn system_request(matches: &Matches) -> Result<SystemRequest, Error> {
    let request = SystemRequest {
        filters: filters(&matches.list(&FILTER), &FILTER)?,
        is_all: matches.is(&ALL),
        is_sure: matches.is(&FORCE),
        volumes: matches.is(&VOLUMES),
    };
    if request.volumes && !request.filters.get("until").is_empty() {
        return Err(Error::Local(
            "ERROR: The \"until\" filter is not supported with \"--volumes\"".to_owned(),
        ));
    }
    Ok(request)
}

impl SystemRequest {
    /// What would go, in the docker client's words; the last line is empty.
    fn warning(&self) -> String {
        let mut lines = vec!["all stopped containers", "all networks not used by at least one container"];
        if self.volumes {
            lines.push("all anonymous volumes not used by at least one container");
        }
        lines.extend(match self.is_all {
            true => ["all images without at least one container associated to them", "all build cache"],
            false => ["all dangling images", "unused build cache"],
        });
        let mut text = "WARNING! This will remove:\n".to_owned();
        for line in lines {
            text += &format!("  - {line}\n");
        }
        if !self.filters.0.is_empty() {
            text += "\n  Items to be pruned will be filtered with:\n";
            for (key, values) in &self.filters.0 {
                for value in values {
                    text += &format!("  - {key}={value}\n");
                }
            }
        }
        text
    }
}

/// What went, for people to read, and the bytes that were freed.
struct Part {
    text: String,
    bytes: u64,
}

/// `Deleted …:` and a line for each; nothing when nothing went.
fn part(title: &str, gone: impl IntoIterator<Item = String>, bytes: u64) -> Part {
    let lines: String = gone.into_iter().map(|line| line + "\n").collect();
    let text = if lines.is_empty() { String::new() } else { format!("{title}:\n{lines}\n") };
    Part { text, bytes }
}

fn containers(context: &Context, filters: &Filters) -> Result<Part, Error> {
    let pruned = context.call(&CONTAINER_PRUNE, &[], &PruneQuery { filters: filters.clone() }, &())?;
    Ok(part("Deleted Containers", pruned.containers_deleted, pruned.space_reclaimed))
}

fn networks(context: &Context, filters: &Filters) -> Result<Part, Error> {
    let query = network::PruneQuery { filters: filters.clone() };
    let gone = context.call(&network::NETWORK_PRUNE, &[], &query, &())?.networks_deleted.unwrap_or_default();
    Ok(part("Deleted Networks", gone, 0))
}

fn volumes(context: &Context, filters: &Filters) -> Result<Part, Error> {
    let query = volume::ListQuery { filters: filters.clone() };
    let pruned = context.call(&volume::VOLUME_PRUNE, &[], &query, &())?;
    Ok(part("Deleted Volumes", pruned.volumes_deleted, pruned.space_reclaimed))
}

fn images(context: &Context, filters: &Filters, is_all: bool) -> Result<Part, Error> {
    let mut filters = filters.clone();
    filters.0.insert("dangling".to_owned(), vec![(!is_all).to_string()]);
    let pruned = context.call(&IMAGE_PRUNE, &[], &PruneQuery { filters }, &())?;
    let lines = pruned.images_deleted.into_iter().map(|item| match item {
        ImageDeleteItem::Untagged(name) => format!("untagged: {name}"),
        ImageDeleteItem::Deleted(id) => format!("deleted: {id}"),
    });
    Ok(part("Deleted Images", lines, pruned.space_reclaimed))
}

fn build_cache(context: &Context, filters: &Filters) -> Result<Part, Error> {
    let pruned = context.call(&BUILD_PRUNE, &[], &PruneQuery { filters: filters.clone() }, &())?;
    let gone = pruned.caches_deleted.unwrap_or_default();
    Ok(part("Deleted build cache objects", gone, pruned.space_reclaimed))
}

fn print_total(parts: &[Part]) -> Result<u8, Error> {
    let bytes = parts.iter().map(|part| part.bytes).fold(0, u64::saturating_add);
    let lists: String = parts.iter().map(|part| part.text.as_str()).collect();
    let total = size_total(i64::try_from(bytes).unwrap_or(i64::MAX));
    print(&format!("{lists}Total reclaimed space: {total}\n")).map(|()| 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::parse::matches_of;

    #[test]
    fn a_warning_says_all_that_would_go() {
        let warning = |line: &str| system_request(&matches_of(line)).unwrap().warning();
        assert_eq!(
            warning("system prune"),
            "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one \
             container\n  - all dangling images\n  - unused build cache\n"
        );
        assert_eq!(
            warning("system prune -a --volumes --filter label=x"),
            "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one \
             container\n  - all anonymous volumes not used by at least one container\n  - all images without at \
             least one container associated to them\n  - all build cache\n\n  Items to be pruned will be filtered \
             with:\n  - label=x\n"
        );
        let refused = system_request(&matches_of("system prune --volumes --filter until=1h")).unwrap_err();
        assert!(refused.to_string().contains("\"until\" filter is not supported"));
    }

    #[test]
    fn what_went_is_listed_and_nothing_is_not() {
        assert_eq!(
            part("Deleted Containers", ["a".into(), "b".into()], 1).text,
            "Deleted Containers:\na\nb\n\n"
        );
        assert_eq!(part("Deleted Containers", [], 0).text, "");
    }
}
