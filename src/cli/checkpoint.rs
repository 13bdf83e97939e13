//! `dewar checkpoint`: freeze a container to disk, list and remove what was frozen.
//!
//! Thawing is `dewar start --checkpoint`, in `container/start.rs`.

use crate::http::api::checkpoint::{
    CHECKPOINT_CREATE, CHECKPOINT_DELETE, CHECKPOINT_LIST, CheckpointCreate, CheckpointQuery,
    CheckpointSummary,
};

use super::command::{Action, Args, Command, Flag, Matches};
use super::context::print;
use super::error::Error;
use super::format::{Column, Format, Row, ago, size_decimal};

static CHECKPOINT_DIR: Flag =
    Flag::value("checkpoint-dir", "PATH", "Directory of the host that holds the checkpoints");
static LEAVE_RUNNING: Flag = Flag::switch("leave-running", "Let the container run on after the checkpoint");
static FORMAT: Flag = Flag::value("format", "FORMAT", "Print as table, json or by a Go template");
static QUIET: Flag = Flag::switch("quiet", "Print names only").short('q');

pub static CREATE: Command = Command {
    names: &["checkpoint create"],
    summary: "Freeze a running container to disk",
    usage: "[OPTIONS] CONTAINER CHECKPOINT",
    about: "The container's processes, its terminal and its files are saved under the checkpoint's name, \
            without what is in its volumes and in directories of the host; \
            the container then stops unless --leave-running is given. dewar start --checkpoint thaws it.",
    flags: &[&CHECKPOINT_DIR, &LEAVE_RUNNING],
    args: Args::exactly(2),
    example: "dewar checkpoint create web cp1",
    usage_code: 1,
    plan: |matches| {
        let (container, request) = create_request(matches)?;
        Action::call(move |context| {
            context.call(&CHECKPOINT_CREATE, &[&container], &(), &request)?;
            print(&format!("{}\n", request.checkpoint_id)).map(|()| 0)
        })
    },
};

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
    };
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
    fn list_and_remove_look_where_they_are_told() {
        assert_eq!(list_request(&matches_of("checkpoint ls --checkpoint-dir /c web")).dir, "/c");
        assert_eq!(list_request(&matches_of("checkpoint rm web cp1")).dir, "");
    }
}
