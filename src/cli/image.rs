//! `dewar image`: list, tag and remove images, and move them in and out of archives.
//!
//! Archives are streamed: neither side holds one in memory.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;

use crate::http::api::image::{
    CreateQuery, DeleteQuery, IMAGE_CREATE, IMAGE_DELETE, IMAGE_GET_ALL, IMAGE_HISTORY, IMAGE_LIST,
    IMAGE_LOAD, IMAGE_TAG, ImageDeleteItem, ImageHistoryItem, ImageSummary, ListQuery, LoadQuery,
    PlatformQuery, SaveQuery, TagQuery,
};

use super::command::{Action, Args, Command, Flag, Matches};
use super::context::{each, filters, print};
use super::error::Error;
use super::format::{self, Column, Format, Row};
use super::progress::{self, Meter};
use super::reference::Reference;
use super::terminal::{is_typed, is_watched, output_error};

static ALL: Flag = Flag::switch("all", "Show intermediate images too").short('a');
static CHANGE: Flag =
    Flag::many("change", "INSTRUCTION", "Apply a Dockerfile instruction such as 'CMD [\"sh\"]'").short('c');
static DIGESTS: Flag = Flag::switch("digests", "Show digests");
static FILTER: Flag =
    Flag::many("filter", "KEY=VALUE", "Show only what matches, such as dangling=true").short('f');
static FORCE: Flag = Flag::switch("force", "Remove the image although something uses it").short('f');
static FORMAT: Flag = Flag::value("format", "FORMAT", "Print as table, json or by a Go template");
static ARTIFACTS: Flag = Flag::switch("artifacts", "List what is stored by name but is no image");
static HUMAN: Flag = Flag::switch("human", "Print sizes and ages in words").short('H').default("true");
static INPUT: Flag = Flag::value("input", "FILE", "Read this file instead of stdin").short('i');
static MESSAGE: Flag = Flag::value("message", "TEXT", "Comment in the image's history").short('m');
static NO_PRUNE: Flag = Flag::switch("no-prune", "Keep parents that have no name");
static NO_TRUNC: Flag = Flag::switch("no-trunc", "Show IDs and commands in full");
static OUTPUT: Flag = Flag::value("output", "FILE", "Write this file instead of stdout").short('o');
static PLATFORM: Flag = Flag::value("platform", "OS/ARCH", "Platform of the image");
static QUIET_IDS: Flag = Flag::switch("quiet", "Print IDs only").short('q');
static QUIET: Flag = Flag::switch("quiet", "Do not show progress").short('q');
static TREE: Flag =
    Flag::switch("tree", "Show the platforms of each image").refused("images here have one platform");

pub static IMAGES: Command = Command {
    names: &["images", "image ls", "image list"],
    summary: "List images",
    usage: "[OPTIONS] [REPOSITORY[:TAG]]",
    about: "",
    flags: &[&ALL, &ARTIFACTS, &DIGESTS, &FILTER, &FORMAT, &NO_TRUNC, &QUIET_IDS, &TREE],
    args: Args::between(0, 1),
    example: "dewar images",
    usage_code: 1,
    plan: |matches| {
        let request = list_request(matches)?;
        Action::call(move |context| {
            let format = Format::choose(request.format, context.config().text("imagesFormat"))?;
            let mut query = request.query;
            let columns = columns(query.digests);
            query.digests = query.digests || format.mentions(".Digest");
            let images = context.call(&IMAGE_LIST, &[], &query, &())?;
            let rows = rows(&images, request.no_trunc);
            print(&format.print(&rows, &columns, TITLES)?).map(|()| 0)
        })
    },
};

pub static TAG: Command = Command {
    names: &["tag", "image tag"],
    summary: "Give an image a further name",
    usage: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    about: "",
    flags: &[],
    args: Args::exactly(2),
    example: "dewar tag alpine mine:1",
    usage_code: 1,
    plan: |matches| {
        Reference::parse(&matches.args[1]).map_err(|cause| {
            Error::Local(format!(
                "Error parsing reference: {:?} is not a valid repository/tag: {cause}",
                matches.args[1]
            ))
        })?;
        let (repo, tag) = name_and_tag(&matches.args[1]);
        let (source, query) = (matches.args[0].clone(), TagQuery { repo, tag });
        Action::call(move |context| context.call(&IMAGE_TAG, &[&source], &query, &()).map(|()| 0))
    },
};

pub static RMI: Command = Command {
    names: &["rmi", "image rm", "image remove"],
    summary: "Remove images",
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "",
    flags: &[&FORCE, &NO_PRUNE],
    args: Args::at_least(1),
    example: "dewar rmi mine:1",
    usage_code: 1,
    plan: |matches| {
        let query = DeleteQuery { force: matches.is(&FORCE), noprune: matches.is(&NO_PRUNE) };
        let names = matches.args.clone();
        Action::call(move |context| {
            each(&names, |name| {
                let mut out = String::new();
                for item in context.call(&IMAGE_DELETE, &[name], &query, &())? {
                    out += &match item {
                        ImageDeleteItem::Untagged(reference) => format!("Untagged: {reference}\n"),
                        ImageDeleteItem::Deleted(id) => format!("Deleted: {id}\n"),
                    };
                }
                print(&out)
            })
        })
    },
};

pub static HISTORY: Command = Command {
    names: &["history", "image history"],
    summary: "Show how an image came about",
    usage: "[OPTIONS] IMAGE",
    about: "",
    flags: &[&FORMAT, &HUMAN, &NO_TRUNC, &PLATFORM, &QUIET_IDS],
    args: Args::exactly(1),
    example: "dewar history alpine",
    usage_code: 1,
    plan: |matches| {
        let format = Format::parse(match matches.is(&QUIET_IDS) {
            true => "{{.ID}}",
            false => matches.get(&FORMAT).unwrap_or_default(),
        })?;
        let (human, no_trunc) = (matches.is(&HUMAN), matches.is(&NO_TRUNC));
        let query = PlatformQuery { platform: matches.text(&PLATFORM) };
        let image = matches.args[0].clone();
        Action::call(move |context| {
            let items = context.call(&IMAGE_HISTORY, &[&image], &query, &())?;
            let rows: Vec<Row> = items.iter().map(|item| history_row(item, human, no_trunc)).collect();
            let mut columns = HISTORY_COLUMNS.to_vec();
            columns[1] = if human { ("CREATED", "CreatedSince") } else { ("CREATED AT", "CreatedAt") };
            print(&format.print(&rows, &columns, &[])?).map(|()| 0)
        })
    },
};

pub static IMPORT: Command = Command {
    names: &["import", "image import"],
    summary: "Make an image from the tar archive of a filesystem",
    usage: "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    about: "",
    flags: &[&CHANGE, &MESSAGE, &PLATFORM],
    args: Args::between(1, 2),
    example: "dewar import rootfs.tar mine:1",
    usage_code: 1,
    plan: |matches| {
        let (source, query) = import_request(matches);
        Action::call(move |context| {
            let reader = match &source {
                Source::Daemon => context.stream(&IMAGE_CREATE, &[], &query, &())?,
                Source::File(path) => context.upload(&IMAGE_CREATE, &[], &query, open(path)?)?,
                Source::Stdin => context.upload(&IMAGE_CREATE, &[], &query, io::stdin())?,
            };
            progress::show(reader, false, io::stdout()).map(|()| 0)
        })
    },
};

pub static LOAD: Command = Command {
    names: &["load", "image load"],
    summary: "Take images out of an archive that save made",
    usage: "[OPTIONS]",
    about: "",
    flags: &[&INPUT, &PLATFORM, &QUIET],
    args: Args::NONE,
    example: "dewar load -i images.tar",
    usage_code: 1,
    plan: |matches| {
        let input = matches.text(&INPUT);
        let quiet = matches.is(&QUIET) || !is_watched();
        let query = LoadQuery { quiet: Some(quiet), platform: matches.text(&PLATFORM) };
        Action::call(move |context| {
            let reader = if input.is_empty() || input == "-" {
                if is_typed() {
                    return Err(Error::Local(
                        "requested load from stdin, but stdin is a terminal".to_owned(),
                    ));
                }
                context.upload(&IMAGE_LOAD, &[], &query, io::stdin())?
            } else {
                context.upload(&IMAGE_LOAD, &[], &query, open(&input)?)?
            };
            progress::show(reader, false, io::stdout()).map(|()| 0)
        })
    },
};

pub static SAVE: Command = Command {
    names: &["save", "image save"],
    summary: "Write images to a tar archive",
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "",
    flags: &[&OUTPUT, &PLATFORM],
    args: Args::at_least(1),
    example: "dewar save -o images.tar alpine",
    usage_code: 1,
    plan: |matches| {
        let query = SaveQuery { names: matches.args.clone(), platform: matches.text(&PLATFORM) };
        let output = matches.text(&OUTPUT);
        Action::call(move |context| {
            write_archive(&output, "Saving - ", || context.stream(&IMAGE_GET_ALL, &[], &query, &()))
        })
    },
};

#[derive(Debug)]
struct ListRequest {
    query: ListQuery,
    format: Option<Format>,
    no_trunc: bool,
}

fn list_request(matches: &Matches) -> Result<ListRequest, Error> {
    let format = match matches.is(&QUIET_IDS) {
        true => Some("{{.ID}}"),
        false => matches.get(&FORMAT),
    };
    let mut filters = filters(&matches.list(&FILTER), &FILTER)?;
    if let Some(reference) = matches.args.first() {
        filters.add("reference", reference);
    }
    let query = ListQuery {
        all: matches.is(&ALL),
        filters,
        shared_size: false,
        digests: matches.is(&DIGESTS),
        artifacts: matches.is(&ARTIFACTS),
        ..ListQuery::default()
    };
    Ok(ListRequest { query, format: Format::given(format)?, no_trunc: matches.is(&NO_TRUNC) })
}

fn columns(digests: bool) -> Vec<Column> {
    let mut columns = vec![("REPOSITORY", "Repository"), ("TAG", "Tag")];
    if digests {
        columns.push(("DIGEST", "Digest"));
    }
    columns.extend([("IMAGE ID", "ID"), ("CREATED", "CreatedSince"), ("SIZE", "Size")]);
    columns
}

const TITLES: &[Column] = &[("DIGEST", "Digest"), ("CREATED AT", "CreatedAt"), ("CONTAINERS", "Containers")];

/// One row per name: an image with two tags is two lines, one without any is `<none>`.
fn rows(images: &[ImageSummary], no_trunc: bool) -> Vec<Row> {
    let mut rows = Vec::new();
    for image in images {
        let digest_of = |repository: &str| {
            let prefix = format!("{repository}@");
            let found = image.repo_digests.iter().find_map(|digest| digest.strip_prefix(&prefix));
            found.unwrap_or("<none>").to_owned()
        };
        let mut names: Vec<(String, String, String)> = image
            .repo_tags
            .iter()
            .filter(|tag| tag.as_str() != "<none>:<none>")
            .map(|reference| {
                let (repository, tag) = name_and_tag(reference);
                let digest = digest_of(&repository);
                (repository, tag, digest)
            })
            .collect();
        if names.is_empty() {
            // Known by digest only: the repository is still worth showing.
            let by_digest = image.repo_digests.first().and_then(|digest| digest.split_once('@'));
            let (repository, digest) = by_digest.unwrap_or(("<none>", "<none>"));
            names.push((repository.to_owned(), "<none>".to_owned(), digest.to_owned()));
        }
        for (repository, tag, digest) in names {
            let id = if no_trunc { image.id.clone() } else { format::short_id(&image.id) };
            let fields = [
                ("ID", id),
                ("Repository", repository),
                ("Tag", tag),
                ("Digest", digest),
                ("CreatedSince", format::ago(image.created)),
                ("CreatedAt", format::moment(image.created)),
                ("Size", format::size_decimal(image.size)),
                ("VirtualSize", format::size_total(image.size)),
                (" type", "*formatter.imageContext".to_owned()),
                (
                    "Containers",
                    if image.containers < 0 { "N/A".to_owned() } else { image.containers.to_string() },
                ),
                ("SharedSize", "N/A".to_owned()),
                ("UniqueSize", "N/A".to_owned()),
            ];
            rows.push(fields.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect());
        }
    }
    rows
}

const HISTORY_COLUMNS: &[Column] = &[
    ("IMAGE", "ID"),
    ("CREATED", "CreatedSince"),
    ("CREATED BY", "CreatedBy"),
    ("SIZE", "Size"),
    ("COMMENT", "Comment"),
];

fn history_row(item: &ImageHistoryItem, human: bool, no_trunc: bool) -> Row {
    let command = item.created_by.replace('\t', " ");
    let created = jiff::Timestamp::from_second(item.created).map(|time| time.to_string()).unwrap_or_default();
    let fields = [
        ("ID", if no_trunc { item.id.clone() } else { format::short_id(&item.id) }),
        ("CreatedSince", format::ago(item.created)),
        ("CreatedAt", created),
        ("CreatedBy", if no_trunc { command } else { format::ellipsis(&command, 45) }),
        ("Size", if human { format::size_decimal(item.size) } else { item.size.to_string() }),
        ("Comment", item.comment.clone()),
        (" type", "*formatter.historyContext".to_owned()),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
}

/// A name taken apart; the tag is empty where there is none. A colon before a slash is a port's;
/// one with nothing after it is the daemon's to refuse.
pub fn name_and_tag(reference: &str) -> (String, String) {
    match reference.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') && !name.is_empty() && !tag.is_empty() => {
            (name.to_owned(), tag.to_owned())
        }
        _ => (reference.to_owned(), String::new()),
    }
}

/// Where an import's archive is.
#[derive(Debug, PartialEq)]
enum Source {
    Stdin,
    File(String),
    /// The daemon fetches it.
    Daemon,
}

fn import_request(matches: &Matches) -> (Source, CreateQuery) {
    let from = matches.args[0].as_str();
    let (source, from_src) = match from {
        "-" => (Source::Stdin, "-"),
        _ if from.starts_with("http://") || from.starts_with("https://") => (Source::Daemon, from),
        _ => (Source::File(from.to_owned()), "-"),
    };
    let (repo, tag) = matches.args.get(1).map(|name| name_and_tag(name)).unwrap_or_default();
    let query = CreateQuery {
        from_src: from_src.to_owned(),
        repo,
        tag,
        message: matches.text(&MESSAGE),
        platform: matches.text(&PLATFORM),
        changes: matches.list(&CHANGE),
        ..CreateQuery::default()
    };
    (source, query)
}

pub fn open(path: &str) -> Result<File, Error> {
    let failed = |cause: io::Error| Error::open(path, &cause);
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        return Err(Error::Local(format!("open {path}: it is a directory, not an archive")));
    }
    Ok(file)
}

/// Writes an archive to a file, or to stdout when `output` is empty; a terminal is refused before `fetch` asks
/// for anything.
pub fn write_archive(
    output: &str,
    header: &'static str,
    fetch: impl FnOnce() -> Result<Box<dyn Read + Send>, Error>,
) -> Result<u8, Error> {
    if output.is_empty() {
        if is_watched() {
            let text = "cowardly refusing to save to a terminal. Use the -o flag or redirect";
            return Err(Error::Local(text.to_owned()));
        }
        return io::copy(&mut fetch()?, &mut io::stdout().lock()).map_err(output_error).map(|_| 0);
    }
    let reader = fetch()?;
    let meter = Meter::start(header, true);
    save_to(&mut meter.count(reader), output).map(|()| 0)
}

/// Writes beside `path`, then renames: a failed save leaves no half archive under the name asked for.
fn save_to(reader: &mut impl Read, path: &str) -> Result<(), Error> {
    // A device or pipe is written as it is.
    if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        let mut file = File::options()
            .write(true)
            .open(path)
            .map_err(|cause| Error::local(format!("open {path:?}"), cause))?;
        return io::copy(reader, &mut file)
            .map(drop)
            .map_err(|cause| Error::local(format!("write {path:?}"), cause));
    }
    let partial = format!("{path}.partial-{}", std::process::id());
    let failed = |cause: io::Error| {
        // The reason is already known; a leftover that will not go adds nothing.
        let _ = std::fs::remove_file(&partial);
        Error::local(format!("write {path:?}"), cause)
    };
    // Compat: others may not read it; there may be secrets in it.
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&partial)
        .map_err(|cause| Error::local(format!("write {path:?}"), cause))?;
    io::copy(reader, &mut file).map_err(failed)?;
    std::fs::rename(&partial, path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::parse::matches_of;

    #[test]
    fn images_are_listed_a_line_per_name() {
        let image = ImageSummary {
            id: "sha256:0123456789abcdef".into(),
            repo_tags: vec!["alpine:3".into(), "localhost:5000/a:x".into()],
            created: jiff::Timestamp::now().as_second() - 3 * 86400,
            size: 7_834_000,
            ..ImageSummary::default()
        };
        let nameless =
            ImageSummary { id: "sha256:ff".into(), created: image.created, ..ImageSummary::default() };
        let table = Format::parse("").unwrap();
        let table = table.print(&rows(&[image, nameless], false), &columns(false), TITLES).unwrap();
        assert_eq!(
            table,
            "REPOSITORY         TAG       IMAGE ID       CREATED      SIZE\n\
             alpine             3         0123456789ab   3 days ago   7.83MB\n\
             localhost:5000/a   x         0123456789ab   3 days ago   7.83MB\n\
             <none>             <none>    ff             3 days ago   0B\n"
        );
    }

    #[test]
    fn a_name_to_list_is_a_filter() {
        let made = list_request(&matches_of("images -a --filter dangling=true alpine")).unwrap();
        assert!(made.query.all);
        assert_eq!(made.query.filters.get("reference"), ["alpine"]);
        assert_eq!(made.query.filters.get("dangling"), ["true"]);
    }

    #[test]
    fn an_import_says_where_its_archive_is() {
        let (source, query) = import_request(&matches_of("import -m hi -c A -c B a.tar localhost:5000/x:1"));
        assert_eq!(source, Source::File("a.tar".into()));
        assert_eq!(
            (query.from_src.as_str(), query.repo.as_str(), query.tag.as_str()),
            ("-", "localhost:5000/x", "1")
        );
        assert_eq!((query.message.as_str(), query.changes), ("hi", vec!["A".to_owned(), "B".to_owned()]));
        assert_eq!(import_request(&matches_of("import -")).0, Source::Stdin);
        let (source, query) = import_request(&matches_of("import http://x/y.tar"));
        assert_eq!((source, query.from_src.as_str()), (Source::Daemon, "http://x/y.tar"));
    }

    #[test]
    fn a_failed_save_leaves_nothing() {
        struct Cut;
        impl Read for Cut {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::ConnectionReset.into())
            }
        }
        let path = std::env::temp_dir().join(format!("dewar-save-{}", std::process::id()));
        let text = path.to_str().unwrap();
        assert!(save_to(&mut Cut, text).is_err());
        assert!(!path.exists());
        save_to(&mut &b"tar"[..], text).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"tar");
        std::fs::remove_file(&path).unwrap();
    }
}
