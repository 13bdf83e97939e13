//! `dewar clone`: copies of a running container, its memory and its files included.

use crate::http::api::copies::CONTAINER_CLONE;

use super::command::{Action, Args, Command};
use super::restore::{
    self, COPY_VOLUMES, COUNT, IP, IP6, LABEL, MAC, MAC_ADDRESS, NAME, NETWORK, PUBLISH, RM, TCP_CLOSE,
    VOLUME,
};

pub static CLONE: Command = Command {
    names: &["clone", "container clone"],
    summary: "Copy a running container with its memory",
    usage: "[OPTIONS] CONTAINER",
    about: "The container stands still for as long as it takes to write its memory, which is told, then runs on; its \
            clients keep their connections. Each copy goes on from that moment as a container of its own: with an \
            ID, a name, addresses, files and a log of its own, and with its TCP connections closed. Volumes are \
            shared with the original unless --copy-volumes or --volume says otherwise: two databases on one volume \
            would ruin it.",
    flags: &[
        &COPY_VOLUMES,
        &COUNT,
        &IP,
        &IP6,
        &LABEL,
        &MAC,
        &MAC_ADDRESS,
        &NAME,
        &NETWORK,
        &PUBLISH,
        &RM,
        &TCP_CLOSE,
        &VOLUME,
    ],
    args: Args::exactly(1),
    example: "dewar clone --count 10 --name worker warm",
    usage_code: 1,
    plan: |matches| {
        let request = restore::request(matches)?;
        let container = matches.args[0].clone();
        Action::call(move |context| {
            let copies = context.call(&CONTAINER_CLONE, &[&container], &(), &request)?;
            if let Some(stopped) = copies.stopped_milliseconds {
                super::say(&format!("{container} stood still for {stopped} ms"));
            }
            restore::tell(&copies)
        })
    },
};
