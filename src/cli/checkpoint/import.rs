//! `dewar checkpoint import`: a container out of a file.

use std::io::Read;

use super::super::age::keys::{self, By};
use super::super::command::{Action, Args, Command, Flag};
use super::super::context::print;
use super::super::error::Error;
use super::super::image;
use super::super::terminal::is_typed;
use super::{IMPORT_NAME, IMPORT_PULL, IMPORT_TRUST};
use crate::http::api::checkpoint::{CHECKPOINT_IMPORT, CheckpointImportQuery, CheckpointImported};
use crate::http::api::container::{CONTAINER_START, StartQuery};

static IMPORT_START: Flag = Flag::switch("start", "Let it go on at once, out of the checkpoint");

pub static IMPORT: Command = Command {
    names: &["checkpoint import"],
    summary: "Make a container out of a file with a checkpoint",
    usage: "[OPTIONS] FILE|-",
    about: "The container does not run and has the one checkpoint, which dewar start --checkpoint and dewar restore \
            thaw; with --start it is thawed at once. Its image must be here, or --pull pulls it. An archive of podman's is imported with --trust, as \
            checkpoint podman of its container. Volumes that are not here are made and filled; what is in one that is here \
            is exchanged only when the checkpoint is thawed. A file that is encrypted, by dewar or by age, is decrypted \
            by this command; the daemon sees no keys. Prints the container and the checkpoint.",
    flags: &[
        &keys::IDENTITY,
        &IMPORT_NAME,
        &keys::PASSPHRASE,
        &keys::PASSPHRASE_FILE,
        &IMPORT_PULL,
        &IMPORT_START,
        &IMPORT_TRUST,
    ],
    args: Args::exactly(1),
    example: "dewar checkpoint import --name web2 cp1.tar.zst",
    usage_code: 1,
    plan: |matches| {
        let query = CheckpointImportQuery {
            name: matches.text(&IMPORT_NAME),
            trust: matches.is(&IMPORT_TRUST),
            pull: matches.is(&IMPORT_PULL),
        };
        let input = matches.args[0].clone();
        let is_started = matches.is(&IMPORT_START);
        let by = By::of(matches)?;
        Action::call(move |context| {
            let (sealed, name): (Box<dyn Read + Send>, &str) = if input == "-" {
                if is_typed() {
                    let text = "the archive is to come from stdin, but stdin is a terminal";
                    return Err(Error::Local(text.to_owned()));
                }
                (Box::new(std::io::stdin()), "standard input")
            } else {
                (Box::new(image::open(&input)?), &input)
            };
            let source = by.decrypted(sealed, name)?;
            let answer = context.upload(&CHECKPOINT_IMPORT, &[], &query, source)?;
            let made: CheckpointImported = serde_json::from_reader(answer)
                .map_err(|cause| Error::local("read the daemon's answer", cause))?;
            for warning in &made.warnings {
                super::super::say(&format!("dewar: warning: {}: {warning}", made.name));
            }
            if is_started {
                let checkpoint = made.checkpoint.clone();
                let start = StartQuery { checkpoint, trust: query.trust, ..StartQuery::default() };
                context.call(&CONTAINER_START, &[&made.id], &start, &())?;
            }
            print(&format!("{} {}\n", made.name, made.checkpoint)).map(|()| 0)
        })
    },
};
