//! Every command, in the order help shows them.

use super::command::{Command, Flag, Noun};
use super::{
    build, checkpoint, clone, complete, container, contexts, daemon, disk_usage, doctor, image, inspect,
    login, manifest, migrate, network, prune, registry, restore, system, volume,
};

pub static HOST: Flag =
    Flag::many("host", "URL", "Address of the daemon (unix:///run/dewar.sock unless given)").short('H');
pub static CONFIG: Flag =
    Flag::value("config", "DIR", "Directory of the client's settings (~/.docker unless given)");
pub static CONTEXT: Flag = Flag::value(
    "context",
    "NAME",
    "Context to use (comes before DOCKER_HOST and the one that \"context use\" chose)",
)
.short('c');
pub static DEBUG: Flag = Flag::switch("debug", "Say on stderr what is asked of the daemon").short('D');
pub static LOG_LEVEL: Flag = Flag::value("log-level", "LEVEL", "Log at this level")
    .short('l')
    .ignored("the client keeps no log; --debug shows its requests");

pub static TLS: Flag = Flag::switch("tls", "Use TLS for tcp; implied by --tlsverify");
pub static TLS_CA: Flag = Flag::value("tlscacert", "FILE", "Trust only daemons this authority signed for");
pub static TLS_CERT: Flag = Flag::value("tlscert", "FILE", "Certificate to show to the daemon");
pub static TLS_KEY: Flag = Flag::value("tlskey", "FILE", "Private key of the certificate");
pub static TLS_VERIFY: Flag = Flag::switch("tlsverify", "Use TLS for tcp and verify the daemon");

/// Flags that stand before the command.
pub static GLOBALS: &[&Flag] =
    &[&CONFIG, &CONTEXT, &DEBUG, &HOST, &LOG_LEVEL, &TLS, &TLS_CA, &TLS_CERT, &TLS_KEY, &TLS_VERIFY];

/// The nouns, in the order help shows them.
pub static NOUNS: &[Noun] = &[
    Noun { name: "builder", summary: "Build images and manage the cache of that" },
    Noun { name: "checkpoint", summary: "Freeze containers to disk and manage what was frozen" },
    Noun { name: "container", summary: "Manage containers" },
    Noun { name: "context", summary: "Manage the places daemons are found at" },
    Noun { name: "image", summary: "Manage images" },
    Noun { name: "manifest", summary: "Look at what registries have" },
    Noun { name: "network", summary: "Manage the networks containers can be in" },
    Noun { name: "system", summary: "Look at the engine itself" },
    Noun { name: "volume", summary: "Manage volumes" },
];

/// Every command.
pub static COMMANDS: &[&Command] = &[
    &container::run::RUN,
    &container::exec::EXEC,
    &container::list::PS,
    &image::IMAGES,
    &container::attach::ATTACH,
    &clone::CLONE,
    &build::BUILD,
    &container::filesystem::COMMIT,
    &container::copy::CP,
    &container::run::CREATE,
    &container::filesystem::DIFF,
    &system::EVENTS,
    &container::filesystem::EXPORT,
    &image::HISTORY,
    &image::IMPORT,
    &system::info::INFO,
    &inspect::INSPECT,
    &inspect::CONTAINER_INSPECT_COMMAND,
    &inspect::IMAGE_INSPECT_COMMAND,
    &container::KILL,
    &image::LOAD,
    &login::LOGIN,
    &login::LOGOUT,
    &container::logs::LOGS,
    &migrate::MIGRATE,
    &container::PAUSE,
    &system::PING,
    &container::port::PORT,
    &registry::PULL,
    &registry::PUSH,
    &container::RENAME,
    &container::RESTART,
    &restore::RESTORE,
    &container::RM,
    &image::RMI,
    &image::SAVE,
    &registry::SEARCH,
    &container::start::START,
    &container::stats::STATS,
    &container::STOP,
    &image::TAG,
    &container::TOP,
    &container::UNPAUSE,
    &container::update::UPDATE,
    &system::version::VERSION,
    &container::WAIT,
    &checkpoint::CHECK,
    &checkpoint::CREATE,
    &checkpoint::EXPORT,
    &checkpoint::IMPORT,
    &checkpoint::INSPECT,
    &checkpoint::LS,
    &checkpoint::PRUNE,
    &checkpoint::PULL,
    &checkpoint::PUSH,
    &checkpoint::RM,
    &manifest::INSPECT,
    &network::CONNECT,
    &network::CREATE,
    &network::DISCONNECT,
    &inspect::NETWORK_INSPECT_COMMAND,
    &network::LS,
    &network::PRUNE,
    &network::RM,
    &volume::CREATE,
    &inspect::VOLUME_INSPECT_COMMAND,
    &volume::LS,
    &volume::PRUNE,
    &volume::RM,
    &prune::BUILDER,
    &prune::CONTAINERS,
    &prune::IMAGES,
    &disk_usage::DF,
    &system::dial::DIAL_STDIO,
    &prune::SYSTEM,
    &contexts::commands::CREATE,
    &contexts::commands::INSPECT,
    &contexts::commands::LS,
    &contexts::commands::RM,
    &contexts::commands::SHOW,
    &contexts::commands::USE,
    &daemon::DAEMON,
    &doctor::DOCTOR,
    &complete::COMPLETION,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::command::Fate;
    use crate::cli::parse::{Parsed, parse};
    use std::collections::BTreeSet;

    fn words(line: &str) -> Vec<std::ffi::OsString> {
        line.split_whitespace().skip(1).map(|word| word.trim_matches('\'').into()).collect()
    }

    #[test]
    fn names_are_unique_and_nouns_exist() {
        let mut seen = BTreeSet::new();
        for name in COMMANDS.iter().flat_map(|command| command.names) {
            assert!(seen.insert(name), "{name} is there twice");
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || " -".contains(c)), "{name}");
            if let Some((noun, _)) = name.split_once(' ') {
                assert!(NOUNS.iter().any(|known| known.name == noun), "{name}: no such noun");
            } else {
                assert!(NOUNS.iter().all(|known| known.name != *name), "{name} is a noun too");
            }
        }
    }

    #[test]
    fn texts_are_short_and_well_formed() {
        let check = |text: &str, whose: &str| {
            assert!(!text.is_empty() && !text.ends_with('.'), "{whose}: {text:?}");
            assert!(
                text.starts_with(|c: char| !c.is_ascii_lowercase()) || text.contains('='),
                "{whose}: {text:?}"
            );
        };
        for command in COMMANDS {
            check(command.summary, command.name());
            assert!(command.summary.chars().count() <= 60, "{}", command.name());
            assert!(!command.example.is_empty(), "{} has no example", command.name());
            let mut seen = BTreeSet::new();
            for flag in command.flags.iter().chain(GLOBALS) {
                check(flag.help, flag.long);
                assert!(flag.help.chars().count() <= 90, "--{}", flag.long);
            }
            for flag in command.flags {
                assert!(seen.insert(flag.long.to_owned()), "{} --{}", command.name(), flag.long);
                assert!(flag.long.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'));
                if let Some(short) = flag.short {
                    assert!(seen.insert(short.to_string()), "{} -{short}", command.name());
                }
            }
        }
    }

    /// Reading a flag that is not declared panics in `Matches`; this catches the other direction.
    #[test]
    fn examples_work_and_every_declared_flag_is_read() {
        for command in COMMANDS {
            let parsed = parse(words(command.example));
            let Ok(Parsed::Run { matches, command: found, .. }) = parsed else {
                panic!("{}: {parsed:?}", command.example)
            };
            assert!(std::ptr::eq(found, *command), "{}", command.example);
            if let Err(error) = (command.plan)(&matches) {
                panic!("{}: {error}", command.example);
            }
            let read = matches.flags_read();
            for flag in command.flags.iter().filter(|flag| flag.fate == Fate::Honoured) {
                assert!(
                    read.contains(&flag.long),
                    "{} declares --{} and never reads it",
                    command.name(),
                    flag.long
                );
            }
        }
    }
}
