//! `dewar diff`, `dewar export`, `dewar commit`: what became of a container's files.

use std::fmt::Write as _;

use crate::cli::command::{Action, Args, Command, Flag, Matches};
use crate::cli::context::print;
use crate::cli::image::{name_and_tag, write_archive};
use crate::http::api::filesystem::{
    CONTAINER_CHANGES, CONTAINER_EXPORT, CommitQuery, FilesystemChange, IMAGE_COMMIT,
};

static AUTHOR: Flag = Flag::value("author", "NAME", "Author of the image").short('a');
static CHANGE: Flag =
    Flag::many("change", "INSTRUCTION", "Apply a Dockerfile instruction such as 'CMD [\"sh\"]'").short('c');
static MESSAGE: Flag = Flag::value("message", "TEXT", "Comment in the image's history").short('m');
static OUTPUT: Flag = Flag::value("output", "FILE", "Write this file instead of stdout").short('o');
static PAUSE: Flag =
    Flag::switch("pause", "Hold the container's processes meanwhile").short('p').default("true");

pub static DIFF: Command = Command {
    names: &["diff", "container diff"],
    summary: "Show what a container changed in its image's files",
    usage: "CONTAINER",
    about: "A is a file that was added, C one that was changed, D one that was deleted. A directory in which \
            something changed is changed itself.",
    flags: &[],
    args: Args::exactly(1),
    example: "dewar diff web",
    usage_code: 1,
    plan: |matches| {
        let name = matches.args[0].clone();
        Action::call(move |context| {
            let changes = context.call(&CONTAINER_CHANGES, &[&name], &(), &())?;
            print(&lines(&changes)).map(|()| 0)
        })
    },
};

pub static EXPORT: Command = Command {
    names: &["export", "container export"],
    summary: "Write a container's filesystem as a tar archive",
    usage: "[OPTIONS] CONTAINER",
    about: "What is mounted in the container is not in the archive.",
    flags: &[&OUTPUT],
    args: Args::exactly(1),
    example: "dewar export -o web.tar web",
    usage_code: 1,
    plan: |matches| {
        let (name, output) = (matches.args[0].clone(), matches.text(&OUTPUT));
        Action::call(move |context| {
            write_archive(&output, "Exporting - ", || context.stream(&CONTAINER_EXPORT, &[&name], &(), &()))
        })
    },
};

pub static COMMIT: Command = Command {
    names: &["commit", "container commit"],
    summary: "Make an image of what a container changed",
    usage: "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    about: "Mounts are not part of the image. Instructions may be CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, \
            LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME and WORKDIR.",
    flags: &[&AUTHOR, &CHANGE, &MESSAGE, &PAUSE],
    args: Args::between(1, 2),
    example: "dewar commit -m patched web web:patched",
    usage_code: 1,
    plan: |matches| {
        let query = commit_request(matches);
        Action::call(move |context| {
            let made = context.call(&IMAGE_COMMIT, &[], &query, &None)?;
            print(&format!("{}\n", made.id)).map(|()| 0)
        })
    },
};

fn lines(changes: &[FilesystemChange]) -> String {
    let mut out = String::new();
    for change in changes {
        let letter = match change.kind {
            0 => 'C',
            1 => 'A',
            2 => 'D',
            _ => '?',
        };
        // A name in a container must not move the cursor of whoever looks.
        let path: String = change.path.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let _ = writeln!(out, "{letter} {path}");
    }
    out
}

fn commit_request(matches: &Matches) -> CommitQuery {
    let (repo, tag) = matches.args.get(1).map(|name| name_and_tag(name)).unwrap_or_default();
    CommitQuery {
        container: matches.args[0].clone(),
        repo,
        tag,
        comment: matches.text(&MESSAGE),
        author: matches.text(&AUTHOR),
        pause: Some(matches.is(&PAUSE)),
        changes: matches.list(&CHANGE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::parse::matches_of;

    #[test]
    fn changes_are_letters_and_paths() {
        let change = |path: &str, kind| FilesystemChange { path: path.into(), kind };
        let changes = [change("/etc", 0), change("/etc/a\nb", 1), change("/x", 2)];
        assert_eq!(lines(&changes), "C /etc\nA /etc/a b\nD /x\n");
        assert_eq!(lines(&[]), "");
    }

    #[test]
    fn a_commit_is_asked_for() {
        let query = commit_request(&matches_of("commit -a me -m hi -c A -c B web localhost:5000/x:1"));
        assert_eq!(
            (query.container.as_str(), query.repo.as_str(), query.tag.as_str()),
            ("web", "localhost:5000/x", "1")
        );
        assert_eq!((query.author.as_str(), query.comment.as_str()), ("me", "hi"));
        assert_eq!((query.changes, query.pause), (vec!["A".to_owned(), "B".to_owned()], Some(true)));
        assert_eq!(commit_request(&matches_of("commit --pause=false web")).pause, Some(false));
        assert_eq!(commit_request(&matches_of("commit -p=false web")).repo, "");
    }
}
