//! `dewar checkpoint`: say whether a container can be frozen, freeze it to disk; list, look into and remove what was frozen.
//!
//! Thawing is `dewar start --checkpoint`, in `container/start.rs`.

mod import;
mod stream;

use crate::http::api::Filters;
use crate::http::api::checkpoint::{
    CHECKPOINT_CHECK, CHECKPOINT_CREATE, CHECKPOINT_DELETE, CHECKPOINT_EXPORT, CHECKPOINT_INSPECT,
    CHECKPOINT_LIST, CHECKPOINT_PRUNE, CHECKPOINT_PULL, CHECKPOINT_PUSH, CheckpointCheck, CheckpointCreate,
    CheckpointExportQuery, CheckpointPruneQuery, CheckpointPullQuery, CheckpointPushQuery, CheckpointQuery,
    CheckpointSummary,
};

use super::age::keys::{self, For};
use super::command::{Action, Args, Command, Flag, Matches};
use super::context::{confirm, filters, print};
use super::error::Error;
use super::format::{Column, Format, Row, ago, size_decimal, size_total};
use super::image;
use super::inspect::{Object, show_all};
use super::progress;
use super::reference::Reference;

pub use import::IMPORT;

static CHECKPOINT_DIR: Flag =
    Flag::value("checkpoint-dir", "PATH", "Directory of the host that holds the checkpoints");
static LEAVE_RUNNING: Flag = Flag::switch("leave-running", "Let the container run on after the checkpoint");
static FORMAT: Flag = Flag::value("format", "FORMAT", "Print as table, json or by a Go template");
static SHOW_FORMAT: Flag = Flag::value("format", "FORMAT", "Print as json or by a Go template").short('f');
static TCP_ESTABLISHED: Flag =
    Flag::switch("tcp-established", "Save open TCP connections; they always are, unless --tcp-close");
static TCP_CLOSE: Flag = Flag::switch("tcp-close", "Do not save open TCP connections: they come back closed");
static FILE_LOCKS: Flag = Flag::switch("file-locks", "Save file locks; they always are");
static PRE_CHECK: Flag =
    Flag::switch("pre-check", "Look for what stands in the way first, and try nothing if there is something");
static NO_VOLUMES: Flag = Flag::switch("no-volumes", "Leave the content of the volumes out");
static SKIP_VOLUME: Flag =
    Flag::many("skip-volume", "NAME", "Leave this volume out, named by name or destination (repeatable)");
static COMPRESS: Flag = Flag::value("compress", "HOW", "Compress with zstd, gzip or none").default("zstd");
static ARCHIVE_FORMAT: Flag =
    Flag::value("format", "FORMAT", "Write it for dewar, or for podman to restore").default("dewar");
static PACK: Flag = Flag::switch("compress", "Keep the memory compressed, with zstd");
static OUTPUT: Flag = Flag::value("output", "FILE", "Write this file instead of stdout").short('o');
static IMPORT_NAME: Flag = Flag::value("name", "NAME", "Name of the container, if not the one it had");
static IMPORT_TRUST: Flag =
    Flag::switch("trust", "Let it ask for what is the host's, and have more than its configuration gives it");
static IMPORT_PULL: Flag = Flag::switch("pull", "Pull its image if that is not here");
static KEEP: Flag = Flag::value("keep", "N", "Leave the newest N of each container (1)");
static PRUNE_FILTER: Flag =
    Flag::many("filter", "FILTER", "Remove only what matches: until=TIMESTAMP or until=DURATION");
static YES: Flag = Flag::switch("force", "Do not ask").short('f');
static NO_PROGRESS: Flag = Flag::switch("quiet", "Print the name only").short('q');
static QUIET: Flag = Flag::switch("quiet", "Print names only").short('q');

pub static CREATE: Command = Command {
    names: &["checkpoint create"],
    summary: "Freeze a running container to disk",
    usage: "[OPTIONS] CONTAINER CHECKPOINT",
    about: "The container's processes, its terminal, its files and what is in its volumes are saved under the \
            checkpoint's name, all as they were at one moment; the container then stops unless --leave-running is \
            given. dewar start --checkpoint thaws it. Left out are directories of the host, volumes that are \
            mounted read-only or are another device, and volumes with the label dewar.checkpoint=skip. With -o the \
            checkpoint becomes a file here, or goes to standard output, while it is made, compressed and, with \
            recipients or a passphrase, encrypted as checkpoint export does it; checkpoint import makes a container of \
            it. No memory is written to the daemon's disk then. The container ends when all of it is here, and runs on \
            if anything breaks before. One with a terminal cannot be streamed. Digests of large files are taken after the \
            answer, in the background; if the machine goes down before that, only start --trust thaws the checkpoint.",
    flags: &[
        &CHECKPOINT_DIR,
        &PACK,
        &FILE_LOCKS,
        &LEAVE_RUNNING,
        &NO_VOLUMES,
        &stream::OUTPUT,
        &stream::COMPRESS,
        &keys::PASSPHRASE,
        &keys::PASSPHRASE_FILE,
        &PRE_CHECK,
        &keys::RECIPIENT,
        &keys::RECIPIENTS_FILE,
        &SKIP_VOLUME,
        &TCP_CLOSE,
        &TCP_ESTABLISHED,
    ],
    args: Args::exactly(2),
    example: "dewar checkpoint create web cp1",
    usage_code: 1,
    plan: |matches| {
        if let Some(action) = stream::plan(matches)? {
            return Ok(action);
        }
        let (container, request) = create_request(matches)?;
        Action::call(move |context| {
            context.call(&CHECKPOINT_CREATE, &[&container], &(), &request)?;
            print(&format!("{}\n", request.checkpoint_id)).map(|()| 0)
        })
    },
};

pub static CHECK: Command = Command {
    names: &["checkpoint check"],
    summary: "Say whether a running container can be frozen",
    usage: "[OPTIONS] CONTAINER",
    about: "Its processes are looked at, and go on meanwhile. What stands in the way of a checkpoint is named: which \
            descriptor, mapping, socket or mount of which process, why, and what to do about it. The exit status is 0 \
            if it can be frozen, else 1.",
    flags: &[&SHOW_FORMAT],
    args: Args::exactly(1),
    example: "dewar checkpoint check web",
    usage_code: 1,
    plan: |matches| {
        let container = matches.args[0].clone();
        let format = Format::given(matches.get(&SHOW_FORMAT))?;
        Action::call(move |context| {
            let check = context.call(&CHECKPOINT_CHECK, &[&container], &(), &())?;
            match &format {
                None | Some(Format::Table(None)) => print(&verdict(&check)?)?,
                // One object, whatever is in it.
                Some(format) => {
                    let row = serde_json::to_value(&check)
                        .map_err(|cause| Error::local("print what was found", cause))?;
                    let row: Row = row.as_object().cloned().unwrap_or_default();
                    print(&format.print(&[row], &[], &[])?)?;
                }
            }
            Ok(u8::from(!check.can_freeze))
        })
    },
};

/// What a check found, in words and a table.
fn verdict(check: &CheckpointCheck) -> Result<String, Error> {
    let name = &check.container.name;
    let processes = match check.processes {
        1 => "1 process".to_owned(),
        many => format!("{many} processes"),
    };
    let mut out = match check.can_freeze {
        true => format!("{name} can be frozen ({processes})\n"),
        false => format!("{name} cannot be frozen ({processes}):\n\n"),
    };
    if !check.obstacles.is_empty() {
        let rows: Vec<Row> = check
            .obstacles
            .iter()
            .map(|it| {
                Row::from_iter([
                    ("PID".to_owned(), it.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()).into()),
                    ("Command".to_owned(), if it.command.is_empty() { "-" } else { &it.command }.into()),
                    ("Object".to_owned(), it.object.clone().into()),
                    ("Reason".to_owned(), it.reason.clone().into()),
                    ("Remedy".to_owned(), it.remedy.clone().into()),
                ])
            })
            .collect();
        const COLUMNS: &[Column] = &[
            ("PID", "PID"),
            ("COMMAND", "Command"),
            ("WHAT", "Object"),
            ("WHY", "Reason"),
            ("REMEDY", "Remedy"),
        ];
        out += &Format::Table(None).print(&rows, COLUMNS, &[])?;
    }
    for note in &check.notes {
        out += &format!("note: {note}\n");
    }
    Ok(out)
}

pub static LS: Command = Command {
    names: &["checkpoint ls", "checkpoint list"],
    summary: "List the checkpoints of a container",
    usage: "[OPTIONS] CONTAINER",
    about: "",
    flags: &[&CHECKPOINT_DIR, &FORMAT, &QUIET],
    args: Args::exactly(1),
    example: "dewar checkpoint ls web",
    usage_code: 1,
    plan: |matches| {
        let query = list_request(matches);
        let container = matches.args[0].clone();
        let format = Format::parse(match matches.is(&QUIET) {
            true => "{{.Name}}",
            false => matches.get(&FORMAT).unwrap_or_default(),
        })?;
        Action::call(move |context| {
            let checkpoints = context.call(&CHECKPOINT_LIST, &[&container], &query, &())?;
            let rows: Vec<Row> = checkpoints.into_iter().map(row).collect();
            const COLUMNS: &[Column] =
                &[("CHECKPOINT NAME", "Name"), ("CREATED", "CreatedSince"), ("SIZE", "Size")];
            const TITLES: &[Column] = &[("CREATED AT", "CreatedAt")];
            print(&format.print(&rows, COLUMNS, TITLES)?).map(|()| 0)
        })
    },
};

pub static INSPECT: Command = Command {
    names: &["checkpoint inspect"],
    summary: "Show what is in a checkpoint",
    usage: "[OPTIONS] CONTAINER CHECKPOINT",
    about: "Its processes, sizes, volumes, connections and places in networks, what of the container is not in it, and \
            what it needs to be thawed.",
    flags: &[&CHECKPOINT_DIR, &SHOW_FORMAT],
    args: Args::exactly(2),
    example: "dewar checkpoint inspect web cp1",
    usage_code: 1,
    plan: |matches| {
        let query = list_request(matches);
        let (container, checkpoint) = (matches.args[0].clone(), matches.args[1].clone());
        show_all(matches.get(&SHOW_FORMAT), move |context| {
            let detail = context.call(&CHECKPOINT_INSPECT, &[&container, &checkpoint], &query, &())?;
            Ok(vec![Object::new(&detail)])
        })
    },
};

pub static EXPORT: Command = Command {
    names: &["checkpoint export"],
    summary: "Write a checkpoint to one file",
    usage: "[OPTIONS] CONTAINER CHECKPOINT",
    about: "The file holds everything but the image: memory, filesystem, volumes and the container's configuration. \
            dewar checkpoint import makes a container of it, here or elsewhere. It is a tar laid out as podman's, which \
            checkpointctl reads; for podman container restore -i it is written with --format podman. podman must have the \
            image then, by the same name and id (dewar save, podman load), and a network of the same name as each that \
            the container is in, but for the default one; open TCP connections want its --tcp-established or \
            --tcp-close. The container has no /sys/fs/cgroup there. \
            Whoever can read it has the memory of the processes, with all secrets in it: with a recipient or a \
            passphrase it is encrypted, by this command and not by the daemon, in the format of age, which can \
            decrypt it, too.",
    flags: &[
        &CHECKPOINT_DIR,
        &COMPRESS,
        &ARCHIVE_FORMAT,
        &OUTPUT,
        &keys::PASSPHRASE,
        &keys::PASSPHRASE_FILE,
        &keys::RECIPIENT,
        &keys::RECIPIENTS_FILE,
    ],
    args: Args::exactly(2),
    example: "dewar checkpoint export -o cp1.tar.zst web cp1",
    usage_code: 1,
    plan: |matches| {
        let query = export_request(matches)?;
        let to = For::of(matches)?;
        let (container, checkpoint) = (matches.args[0].clone(), matches.args[1].clone());
        let output = matches.get(&OUTPUT).filter(|path| *path != "-").unwrap_or_default().to_owned();
        Action::call(move |context| {
            let recipients = to.as_ref().map(For::recipients).transpose()?;
            let fetch = || {
                let plain = context.stream(&CHECKPOINT_EXPORT, &[&container, &checkpoint], &query, &())?;
                keys::encrypted(plain, recipients.as_ref())
            };
            image::write_archive(&output, "Exporting - ", fetch)
        })
    },
};

pub static PUSH: Command = Command {
    names: &["checkpoint push"],
    summary: "Send a checkpoint to a registry",
    usage: "[OPTIONS] CONTAINER CHECKPOINT NAME[:TAG]",
    about: "It becomes an image of one layer, annotated as podman and checkpointctl do; the image below the container \
            is not part of it. Whoever can pull it has the memory of the processes, with all secrets in it.",
    flags: &[&CHECKPOINT_DIR, &NO_PROGRESS],
    args: Args::exactly(3),
    example: "dewar checkpoint push web cp1 localhost:5000/frozen/web:cp1",
    usage_code: 1,
    plan: |matches| {
        let name = Reference::parse(&matches.args[2]).map_err(Error::Local)?.or_latest();
        let query = CheckpointPushQuery { dir: matches.text(&CHECKPOINT_DIR), reference: name.to_string() };
        let (container, checkpoint) = (matches.args[0].clone(), matches.args[1].clone());
        let quiet = matches.is(&NO_PROGRESS);
        Action::call(move |context| {
            let vars = [container.as_str(), &checkpoint];
            let reader = context.as_known_at(&name.name).stream(&CHECKPOINT_PUSH, &vars, &query, &())?;
            progress::show(reader, quiet, std::io::stdout())?;
            if quiet { print(&format!("{name}\n")).map(|()| 0) } else { Ok(0) }
        })
    },
};

pub static PULL: Command = Command {
    names: &["checkpoint pull"],
    summary: "Make a container out of a checkpoint in a registry",
    usage: "[OPTIONS] NAME[:TAG|@DIGEST]",
    about: "As dewar checkpoint import, of what dewar checkpoint push sent.",
    flags: &[&IMPORT_NAME, &IMPORT_PULL, &IMPORT_TRUST],
    args: Args::exactly(1),
    example: "dewar checkpoint pull --name web2 localhost:5000/frozen/web:cp1",
    usage_code: 1,
    plan: |matches| {
        let reference = Reference::parse(&matches.args[0]).map_err(Error::Local)?.or_latest();
        let query = CheckpointPullQuery {
            reference: matches.args[0].clone(),
            name: matches.text(&IMPORT_NAME),
            trust: matches.is(&IMPORT_TRUST),
            pull: matches.is(&IMPORT_PULL),
        };
        Action::call(move |context| {
            let reader = context.as_known_at(&reference.name).stream(&CHECKPOINT_PULL, &[], &query, &())?;
            progress::show(reader, false, std::io::stdout()).map(|()| 0)
        })
    },
};

fn export_request(matches: &Matches) -> Result<CheckpointExportQuery, Error> {
    let compress = matches.text(&COMPRESS);
    if !matches!(compress.as_str(), "zstd" | "gzip" | "none") {
        return Err(Error::Local(format!("--compress {compress}: there are zstd, gzip and none")));
    }
    let format = matches.text(&ARCHIVE_FORMAT);
    if !matches!(format.as_str(), "dewar" | "podman") {
        return Err(Error::Local(format!("--format {format}: there are dewar and podman")));
    }
    Ok(CheckpointExportQuery { dir: matches.text(&CHECKPOINT_DIR), compress, format })
}

pub static PRUNE: Command = Command {
    names: &["checkpoint prune"],
    summary: "Remove all but the newest checkpoints of every container",
    usage: "[OPTIONS]",
    about: "Checkpoints in directories given with --checkpoint-dir are left alone.",
    flags: &[&KEEP, &PRUNE_FILTER, &YES],
    args: Args::NONE,
    example: "dewar checkpoint prune --keep 3 --filter until=24h",
    usage_code: 1,
    plan: |matches| {
        let query = prune_request(matches)?;
        let is_sure = matches.is(&YES);
        Action::call(move |context| {
            let keep = query.keep.unwrap_or(1);
            let which = if query.filters == Filters::default() { "" } else { " that match the filter" };
            let warning = format!(
                "WARNING! This will remove all checkpoints{which} but the {keep} newest of each container."
            );
            if !is_sure && !confirm(&warning)? {
                return Ok(0);
            }
            let pruned = context.call(&CHECKPOINT_PRUNE, &[], &query, &())?;
            let mut out = String::new();
            if !pruned.checkpoints_deleted.is_empty() {
                out = format!("Deleted Checkpoints:\n{}\n\n", pruned.checkpoints_deleted.join("\n"));
            }
            let bytes = i64::try_from(pruned.space_reclaimed).unwrap_or(i64::MAX);
            out += &format!("Total reclaimed space: {}\n", size_total(bytes));
            print(&out).map(|()| 0)
        })
    },
};

fn prune_request(matches: &Matches) -> Result<CheckpointPruneQuery, Error> {
    let keep = matches
        .get(&KEEP)
        .map(|text| text.parse::<u32>().map_err(|_| Error::Local(format!("--keep {text}: not a number"))))
        .transpose()?;
    let filters = filters(&matches.list(&PRUNE_FILTER), &PRUNE_FILTER)?;
    Ok(CheckpointPruneQuery { keep: keep.map(i64::from), filters })
}

pub static RM: Command = Command {
    names: &["checkpoint rm", "checkpoint remove"],
    summary: "Remove a checkpoint",
    usage: "[OPTIONS] CONTAINER CHECKPOINT",
    about: "",
    flags: &[&CHECKPOINT_DIR],
    args: Args::exactly(2),
    example: "dewar checkpoint rm web cp1",
    usage_code: 1,
    plan: |matches| {
        let query = list_request(matches);
        let (container, checkpoint) = (matches.args[0].clone(), matches.args[1].clone());
        Action::call(move |context| {
            context.call(&CHECKPOINT_DELETE, &[&container, &checkpoint], &query, &())?;
            Ok(0)
        })
    },
};

/// A line of the list. What a checkpoint of old does not say is left open.
fn row(checkpoint: CheckpointSummary) -> Row {
    let created = checkpoint.created.parse::<jiff::Timestamp>().ok();
    let since = created.map_or_else(|| "N/A".to_owned(), |at| ago(at.as_second()));
    let size = checkpoint.size.map_or_else(|| "N/A".to_owned(), |bytes| size_decimal(bytes as i64));
    Row::from_iter([
        ("Name".to_owned(), checkpoint.name.into()),
        ("CreatedAt".to_owned(), checkpoint.created.into()),
        ("CreatedSince".to_owned(), since.into()),
        ("Size".to_owned(), size.into()),
    ])
}

fn create_request(matches: &Matches) -> Result<(String, CheckpointCreate), Error> {
    let request = CheckpointCreate {
        checkpoint_id: matches.args[1].clone(),
        checkpoint_dir: matches.text(&CHECKPOINT_DIR),
        exit: !matches.is(&LEAVE_RUNNING),
        tcp_close: matches.is(&TCP_CLOSE),
        no_volumes: matches.is(&NO_VOLUMES),
        skip_volumes: matches.list(&SKIP_VOLUME).to_vec(),
        pre_check: matches.is(&PRE_CHECK),
        compress: matches.is(&PACK),
    };
    matches.is(&FILE_LOCKS);
    if matches.is(&TCP_ESTABLISHED) && request.tcp_close {
        return Err(Error::Local("--tcp-established and --tcp-close exclude one another".to_owned()));
    }
    Ok((matches.args[0].clone(), request))
}

fn list_request(matches: &Matches) -> CheckpointQuery {
    CheckpointQuery { dir: matches.text(&CHECKPOINT_DIR) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::parse::matches_of;

    #[test]
    fn create_stops_the_container_unless_told_otherwise() {
        let (container, request) = create_request(&matches_of("checkpoint create web cp1")).unwrap();
        assert_eq!((container.as_str(), request.checkpoint_id.as_str(), request.exit), ("web", "cp1", true));
        let line = "checkpoint create --leave-running --checkpoint-dir /c web cp1";
        let (_, request) = create_request(&matches_of(line)).unwrap();
        assert_eq!((request.exit, request.checkpoint_dir.as_str()), (false, "/c"));
    }

    #[test]
    fn a_verdict_names_what_stands_in_the_way() {
        let mut check = CheckpointCheck { can_freeze: true, processes: 2, ..CheckpointCheck::default() };
        check.container.name = "web".to_owned();
        assert_eq!(verdict(&check).unwrap(), "web can be frozen (2 processes)\n");
        check.can_freeze = false;
        check.processes = 1;
        check.obstacles.push(crate::http::api::checkpoint::CheckpointObstacle {
            pid: Some(7),
            command: "redis".to_owned(),
            object: "fd 3".to_owned(),
            reason: "why".to_owned(),
            remedy: "what to do".to_owned(),
            ..Default::default()
        });
        check.notes.push("something else".to_owned());
        let text = verdict(&check).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..2], ["web cannot be frozen (1 process):", ""]);
        assert!(lines[2].starts_with("PID ") && lines[2].ends_with("REMEDY"), "{text}");
        assert!(lines[3].starts_with("7 ") && lines[3].ends_with("what to do"), "{text}");
        assert_eq!(lines[4], "note: something else");
    }

    #[test]
    fn list_and_remove_look_where_they_are_told() {
        assert_eq!(list_request(&matches_of("checkpoint ls --checkpoint-dir /c web")).dir, "/c");
        assert_eq!(list_request(&matches_of("checkpoint rm web cp1")).dir, "");
    }
}
