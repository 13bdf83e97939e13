//! `dewar pull`, `push` and `search`: the client's half. Whether there is a registry to talk to is the
//! daemon's affair, and so are the words when there is none.

use crate::cli::format::{Column, Format, Row};
use crate::http::api::image::{CreateQuery, IMAGE_CREATE, IMAGE_PUSH, IMAGE_SEARCH, PushQuery, SearchQuery};

use super::command::{Action, Args, Command, Flag};
use super::context::{filters, print};
use super::error::Error;
use super::format;
use super::progress;
use super::reference::Reference;

static ALL_TAGS: Flag = Flag::switch("all-tags", "Every tag of the repository").short('a');
static CONTENT_TRUST: Flag = Flag::switch("disable-content-trust", "Skip the check of image signatures")
    .ignored("image signatures are not checked");
static FILTER: Flag =
    Flag::many("filter", "KEY=VALUE", "Show only what matches, such as is-official=true").short('f');
static FORMAT: Flag = Flag::value("format", "FORMAT", "Print as table, json or by a Go template");
static LIMIT: Flag = Flag::value("limit", "COUNT", "Show so many results");
static NO_TRUNC: Flag = Flag::switch("no-trunc", "Show descriptions in full");
static PLATFORM: Flag = Flag::value("platform", "OS/ARCH", "Platform of the image");
static QUIET: Flag = Flag::switch("quiet", "Print the image's name only").short('q');

pub static PULL: Command = Command {
    names: &["pull", "image pull"],
    summary: "Fetch an image from a registry",
    usage: "[OPTIONS] NAME[:TAG|@DIGEST]",
    about: "",
    flags: &[&ALL_TAGS, &CONTENT_TRUST, &PLATFORM, &QUIET],
    args: Args::exactly(1),
    example: "dewar pull alpine:3.20",
    usage_code: 1,
    plan: |matches| {
        let (all, quiet) = (matches.is(&ALL_TAGS), matches.is(&QUIET));
        let plain = Reference::parse(&matches.args[0]).map_err(Error::Local)?;
        let has_version = !plain.version().is_empty();
        if all && has_version {
            return Err(Error::Local("tag can't be used with --all-tags/-a".to_owned()));
        }
        let reference = if all { plain } else { plain.or_latest() };
        let query = CreateQuery {
            from_image: reference.name.clone(),
            tag: reference.version().to_owned(),
            platform: matches.text(&PLATFORM),
            ..CreateQuery::default()
        };
        Action::call(move |context| {
            if !all && !has_version && !quiet {
                print("Using default tag: latest\n")?;
            }
            let reader = context.as_known_at(&reference.name).stream(&IMAGE_CREATE, &[], &query, &())?;
            progress::show(reader, quiet, std::io::stdout())?;
            let full = match (reference.tag.as_str(), reference.digest.as_str()) {
                ("", "") => reference.name,
                (tag, "") => format!("{}:{tag}", reference.name),
                (_, digest) => format!("{}@{digest}", reference.name),
            };
            print(&format!("{full}\n")).map(|()| 0)
        })
    },
};

pub static PUSH: Command = Command {
    names: &["push", "image push"],
    summary: "Send an image to a registry",
    usage: "[OPTIONS] NAME[:TAG]",
    about: "",
    flags: &[&ALL_TAGS, &CONTENT_TRUST, &PLATFORM, &QUIET],
    args: Args::exactly(1),
    example: "dewar push localhost:5000/mine:1",
    usage_code: 1,
    plan: |matches| {
        let (all, quiet) = (matches.is(&ALL_TAGS), matches.is(&QUIET));
        let plain = Reference::parse(&matches.args[0]).map_err(Error::Local)?;
        let has_tag = !plain.tag.is_empty();
        if all && has_tag {
            return Err(Error::Local("tag can't be used with --all-tags/-a".to_owned()));
        }
        let reference = if all { plain } else { plain.or_latest() };
        let platform = matches.read(&PLATFORM, platform)?.unwrap_or_default();
        let query = PushQuery { tag: reference.tag.clone(), platform };
        Action::call(move |context| {
            if !all && !has_tag && !quiet {
                print("Using default tag: latest\n")?;
            }
            let reader = context.as_known_at(&reference.name).stream(
                &IMAGE_PUSH,
                &[&reference.familiar],
                &query,
                &(),
            )?;
            progress::show(reader, quiet, std::io::stdout())?;
            if quiet { print(&format!("{reference}\n")).map(|()| 0) } else { Ok(0) }
        })
    },
};

/// Compat: a push takes its platform as JSON.
fn platform(text: &str) -> Result<String, String> {
    let mut parts = text.split('/');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(os), Some(architecture), variant, None) if !os.is_empty() && !architecture.is_empty() => {
            let mut platform = serde_json::json!({ "architecture": architecture, "os": os });
            if let Some(variant) = variant {
                platform["variant"] = variant.into();
            }
            Ok(platform.to_string())
        }
        _ => Err("expected os/architecture[/variant]".to_owned()),
    }
}

pub static SEARCH: Command = Command {
    names: &["search"],
    summary: "Look for images in a registry",
    usage: "[OPTIONS] TERM",
    about: "",
    flags: &[&FILTER, &FORMAT, &LIMIT, &NO_TRUNC],
    args: Args::exactly(1),
    example: "dewar search alpine",
    usage_code: 1,
    plan: |matches| {
        // Compat: a term that names a host is looked for there; any other at Docker Hub.
        let name = Reference::parse(&matches.args[0]).map(|term| term.name).unwrap_or_default();
        let query = SearchQuery {
            term: matches.args[0].clone(),
            limit: matches.integer(&LIMIT)?,
            filters: filters(&matches.list(&FILTER), &FILTER)?,
        };
        let no_trunc = matches.is(&NO_TRUNC);
        let format = Format::parse(matches.get(&FORMAT).unwrap_or_default())?;
        Action::call(move |context| {
            let found = context.as_known_at(&name).call(&IMAGE_SEARCH, &[], &query, &())?;
            let rows: Vec<Row> = found
                .into_iter()
                .map(|image| {
                    let text = image.description.replace(['\n', '\r'], " ");
                    let text = if no_trunc { text } else { format::ellipsis(&text, 45) };
                    Row::from_iter([
                        ("Name".to_owned(), image.name.into()),
                        ("Description".to_owned(), text.into()),
                        ("StarCount".to_owned(), image.star_count.to_string().into()),
                        ("IsOfficial".to_owned(), if image.is_official { "[OK]" } else { "" }.into()),
                    ])
                })
                .collect();
            print(&format.print(&rows, SEARCH_COLUMNS, &[])?).map(|()| 0)
        })
    },
};

const SEARCH_COLUMNS: &[Column] =
    &[("NAME", "Name"), ("DESCRIPTION", "Description"), ("STARS", "StarCount"), ("OFFICIAL", "IsOfficial")];
