//! `dewar context`: list, show, choose, make and remove contexts.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cli::command::{Action, Args, Command, Flag};
use crate::cli::config::write_whole;
use crate::cli::context::{Context, failing, print};
use crate::cli::error::Error;
use crate::cli::format::{Column, Format, Row};
use crate::cli::inspect::{self, Object};

use super::{
    CA, CERT, DEFAULT, ENDPOINT, Endpoint, Endpoints, KEY, Meta, Metadata, all, digest, find, meta_path,
    tls_dir,
};
use crate::http::tls::ClientFiles;

static DESCRIPTION: Flag = Flag::value("description", "TEXT", "What the context is for");
static DOCKER: Flag = Flag::value(
    "docker",
    "host=URL,…",
    "Where the daemon is; ca=, cert=, key=FILE and skip-tls-verify=true for TLS",
);
static FORCE: Flag = Flag::switch("force", "Remove it although it is the one in use").short('f');
static FORMAT: Flag = Flag::value("format", "FORMAT", "Print as table, json or by a Go template");
static INSPECT_FORMAT: Flag = Flag::value("format", "FORMAT", "Print as json or by a Go template").short('f');
static QUIET: Flag = Flag::switch("quiet", "Print names only").short('q');

pub static LS: Command = Command {
    names: &["context ls", "context list"],
    summary: "List contexts",
    usage: "[OPTIONS]",
    about: "",
    flags: &[&FORMAT, &QUIET],
    args: Args::NONE,
    example: "dewar context ls",
    usage_code: 1,
    plan: |matches| {
        let format = Format::parse(match matches.is(&QUIET) {
            true => "{{.Name}}",
            false => matches.get(&FORMAT).unwrap_or_default(),
        })?;
        let is_table = matches!(format, Format::Table(_));
        Action::call(move |context| {
            let mut rows = vec![default_meta(context)];
            rows.extend(all(context.config()));
            rows.sort_by(|one, other| one.name.cmp(&other.name));
            let rows: Vec<Row> = rows.iter().map(|meta| row(meta, context.name(), is_table)).collect();
            print(&format.print(&rows, COLUMNS, &[])?)?;
            if std::env::var("DOCKER_HOST").is_ok_and(|host| !host.is_empty()) {
                crate::cli::say(
                    "Warning: DOCKER_HOST environment variable overrides the active context. To use a context, \
                     either set the global --context flag, or unset DOCKER_HOST environment variable.",
                );
            }
            Ok(0)
        })
    },
};

pub static SHOW: Command = Command {
    names: &["context show"],
    summary: "Print the name of the context in use",
    usage: "",
    about: "",
    flags: &[],
    args: Args::NONE,
    example: "dewar context show",
    usage_code: 1,
    plan: |_| Action::call(move |context| print(&format!("{}\n", context.name())).map(|()| 0)),
};

pub static USE: Command = Command {
    names: &["context use"],
    summary: "Choose the context used from now on",
    usage: "CONTEXT",
    about: "",
    flags: &[],
    args: Args::exactly(1),
    example: "dewar context use default",
    usage_code: 1,
    plan: |matches| {
        let name = matches.args[0].clone();
        Action::call(move |context| {
            if name != DEFAULT {
                find(context.config(), &name)?;
            }
            context.config().set_context(&name)?;
            print(&format!("{name}\n"))?;
            crate::cli::say(&format!("Current context is now {name:?}"));
            if std::env::var("DOCKER_HOST").is_ok_and(|host| !host.is_empty()) && name != DEFAULT {
                crate::cli::say(&format!(
                    "Warning: DOCKER_HOST environment variable overrides the active context. To use {name:?}, \
                     either set the global --context flag, or unset DOCKER_HOST environment variable."
                ));
            }
            Ok(0)
        })
    },
};

pub static INSPECT: Command = Command {
    names: &["context inspect"],
    summary: "Show all that is known of contexts",
    usage: "[OPTIONS] [CONTEXT] [CONTEXT...]",
    about: "",
    flags: &[&INSPECT_FORMAT],
    args: Args::at_least(0),
    example: "dewar context inspect",
    usage_code: 1,
    plan: |matches| {
        let names = matches.args.clone();
        inspect::show_all(matches.get(&INSPECT_FORMAT), move |context| {
            let names = if names.is_empty() { vec![context.name().to_owned()] } else { names.clone() };
            let one = |name: &String| Object::new(&whole(context, name)?);
            Ok(names.iter().map(one).collect())
        })
    },
};

pub static CREATE: Command = Command {
    names: &["context create"],
    summary: "Give the place of a daemon a name",
    usage: "[OPTIONS] CONTEXT",
    about: "",
    flags: &[&DESCRIPTION, &DOCKER],
    args: Args::exactly(1),
    example: "dewar context create far --docker host=tcp://127.0.0.1:2375",
    usage_code: 1,
    plan: |matches| {
        let name = matches.args[0].clone();
        let place = matches.read(&DOCKER, Place::parse)?.unwrap_or_default();
        let description = matches.text(&DESCRIPTION);
        Action::call(move |context| {
            check_name(&name)?;
            if find(context.config(), &name).is_ok() {
                return Err(Error::Local(format!("context {name:?} already exists")));
            }
            if let Some(files) = place.files() {
                // What could not be used is not kept.
                let invalid = |why| Error::Local(format!("invalid docker endpoint options: {why}"));
                files.prepare().map_err(invalid)?;
            }
            let host = if place.host.is_empty() { context.host() } else { place.host.clone() };
            let endpoint = Endpoint { host, skip_tls_verify: place.skips_verification };
            let (metadata, endpoints) = (Metadata { description }, Endpoints { docker: endpoint });
            let meta = Meta { name: name.clone(), metadata, endpoints };
            place.keep(&tls_dir(context.config(), &name).join(ENDPOINT))?;
            let path = meta_path(context.config(), &name);
            let failed = |cause: std::io::Error| Error::local(format!("write {}", path.display()), cause);
            std::fs::create_dir_all(path.parent().expect("the file is in a directory")).map_err(failed)?;
            write_whole(&path, &serde_json::to_vec(&meta).expect("texts are JSON")).map_err(failed)?;
            print(&format!("{name}\n"))?;
            crate::cli::say(&format!("Successfully created context {name:?}"));
            Ok(0)
        })
    },
};

/// `--docker host=…,ca=…,cert=…,key=…,skip-tls-verify=…`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Place {
    host: String,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    skips_verification: bool,
}

impl Place {
    fn parse(text: &str) -> Result<Place, String> {
        let mut place = Place::default();
        for part in text.split(',') {
            let (key, value) =
                part.split_once('=').ok_or_else(|| format!("expected KEY=VALUE, not {part:?}"))?;
            let file = || Some(PathBuf::from(value)).filter(|path| !path.as_os_str().is_empty());
            match key.trim() {
                "host" => place.host = value.to_owned(),
                "ca" => place.ca = file(),
                "cert" => place.cert = file(),
                "key" => place.key = file(),
                "skip-tls-verify" => {
                    place.skips_verification =
                        value.parse().map_err(|_| "expected skip-tls-verify=true or false".to_owned())?;
                }
                other => return Err(format!("unrecognized config key: {other}")),
            }
        }
        match (&place.cert, &place.key) {
            (Some(_), None) => Err("a certificate needs its key".to_owned()),
            (None, Some(_)) => Err("a key needs its certificate".to_owned()),
            _ => Ok(place),
        }
    }

    /// What TLS is made with, if there is any.
    fn files(&self) -> Option<ClientFiles> {
        let pair = self.cert.clone().zip(self.key.clone());
        let is_on = self.skips_verification || self.ca.is_some() || pair.is_some();
        is_on.then(|| ClientFiles {
            ca: self.ca.clone(),
            more_cas: Vec::new(),
            pair,
            trusts_anyone: self.skips_verification,
        })
    }

    /// Copies the files to where a context has them, for its owner alone.
    fn keep(&self, dir: &Path) -> Result<(), Error> {
        for (from, name) in [(&self.ca, CA), (&self.cert, CERT), (&self.key, KEY)] {
            let Some(from) = from else { continue };
            let to = dir.join(name);
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).and_then(|()| {
                let mut file =
                    std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&to)?;
                file.write_all(&std::fs::read(from)?)
            });
            made.map_err(|cause| {
                Error::local(format!("copy {} to {}", from.display(), to.display()), cause)
            })?;
        }
        Ok(())
    }
}

pub static RM: Command = Command {
    names: &["context rm", "context remove"],
    summary: "Remove contexts",
    usage: "CONTEXT [CONTEXT...]",
    about: "",
    flags: &[&FORCE],
    args: Args::at_least(1),
    example: "dewar context rm far",
    usage_code: 1,
    plan: |matches| {
        let (names, force) = (matches.args.clone(), matches.is(&FORCE));
        Action::call(move |context| {
            let failed = failing(&names, |name| remove(context, name, force))?;
            Ok(u8::from(!failed.is_empty()))
        })
    },
};

fn remove(context: &Context, name: &str, force: bool) -> Result<(), Error> {
    let config = context.config();
    if name == DEFAULT {
        return Err(Error::Local("context \"default\" cannot be removed".to_owned()));
    }
    if !force {
        find(config, name)?;
        if context.name() == name {
            return Err(Error::Local(format!("context {name:?} is in use, set -f flag to force remove")));
        }
    }
    if config.text("currentContext") == Some(name) {
        config.set_context(DEFAULT)?;
    }
    let meta = config.contexts_dir().join("meta").join(digest(name));
    for dir in [meta, tls_dir(config, name)] {
        match std::fs::remove_dir_all(&dir) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::local(format!("remove {}", dir.display()), cause));
            }
            _ => {}
        }
    }
    print(&format!("{name}\n"))
}

/// Compat: what docker takes for a name.
fn check_name(name: &str) -> Result<(), Error> {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"_.+-".contains(&byte);
    let is_fine = name.len() > 1 && name.bytes().all(is_part) && name.as_bytes()[0].is_ascii_alphanumeric();
    match name {
        DEFAULT => Err(Error::Local("\"default\" is a reserved context name".to_owned())),
        _ if is_fine => Ok(()),
        _ => Err(Error::Local(format!(
            "context name {name:?} is invalid, names are validated against regexp \"^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$\""
        ))),
    }
}

const COLUMNS: &[Column] = &[
    ("NAME", "Name"),
    ("DESCRIPTION", "Description"),
    ("DOCKER ENDPOINT", "DockerEndpoint"),
    ("ERROR", "Error"),
];

fn default_meta(context: &Context) -> Meta {
    let description = "Current DOCKER_HOST based configuration".to_owned();
    let endpoint = Endpoint { host: context.default_host(), skip_tls_verify: false };
    Meta {
        name: DEFAULT.to_owned(),
        metadata: Metadata { description },
        endpoints: Endpoints { docker: endpoint },
    }
}

fn row(meta: &Meta, current: &str, is_table: bool) -> Row {
    let is_current = meta.name == current;
    let name = if is_current && is_table { format!("{} *", meta.name) } else { meta.name.clone() };
    Row::from_iter([
        ("Name".to_owned(), name.into()),
        ("Description".to_owned(), meta.metadata.description.clone().into()),
        ("DockerEndpoint".to_owned(), meta.endpoints.docker.host.clone().into()),
        ("Current".to_owned(), is_current.into()),
        ("Error".to_owned(), "".into()),
        (" type".to_owned(), "*formatter.clientContextContext".into()),
    ])
}

/// A context with where it is kept, as `inspect` shows it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Whole {
    name: String,
    metadata: Metadata,
    endpoints: Endpoints,
    #[serde(rename = "TLSMaterial")]
    tls_material: BTreeMap<String, Vec<String>>,
    storage: Storage,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Storage {
    metadata_path: String,
    #[serde(rename = "TLSPath")]
    tls_path: String,
}

fn whole(context: &Context, name: &str) -> Result<Whole, Error> {
    let memory = || "<IN MEMORY>".to_owned();
    let path = |path: std::path::PathBuf| path.display().to_string();
    let (meta, storage) = if name == DEFAULT {
        let mut meta = default_meta(context);
        meta.metadata = Metadata::default();
        (meta, Storage { metadata_path: memory(), tls_path: memory() })
    } else {
        let config = context.config();
        let metadata_path = path(config.contexts_dir().join("meta").join(digest(name)));
        (find(config, name)?, Storage { metadata_path, tls_path: path(tls_dir(config, name)) })
    };
    let Meta { name, metadata, endpoints } = meta;
    let dir = tls_dir(context.config(), &name).join(ENDPOINT);
    let kept: Vec<String> =
        [CA, CERT, KEY].into_iter().filter(|file| dir.join(file).exists()).map(str::to_owned).collect();
    let tls_material = if kept.is_empty() { BTreeMap::new() } else { [(ENDPOINT.to_owned(), kept)].into() };
    Ok(Whole { name, metadata, endpoints, tls_material, storage })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dockers() {
        assert!(check_name("far-away_1.2+x").is_ok());
        for name in ["default", "a", "-ab", "a/b", "", "ä"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn places_are_written_as_docker_writes_them() {
        let place = Place::parse("host=tcp://far:2376,ca=/ca,cert=/c,key=/k,skip-tls-verify=true").unwrap();
        assert_eq!((place.host.as_str(), place.skips_verification), ("tcp://far:2376", true));
        assert!(place.files().unwrap().pair.is_some());
        assert_eq!(Place::parse("host=unix:///a").unwrap().files(), None);
        for bad in ["tcp://far", "host=x,what=y", "cert=/c", "key=/k", "skip-tls-verify=perhaps"] {
            assert!(Place::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_one_in_use_is_marked_in_the_table_only() {
        let meta = default_meta(&Context::nowhere());
        assert_eq!(row(&meta, "default", true)["Name"], "default *");
        assert_eq!(row(&meta, "default", false)["Name"], "default");
        assert_eq!(row(&meta, "far", true)["Current"], false);
    }
}
