//! Shell completions, written from the command table: `dewar completion bash|zsh|fish`.
//!
//! The scripts hold the table's words and no logic of the engine. Names of containers, images and networks are
//! asked of the daemon, quietly, at the moment of completion.

use super::command::{Action, Args, Command, Flag, Kind, Matches};
use super::commands::{COMMANDS, GLOBALS, NOUNS};
use super::context::print;
use super::error::Error;

pub static COMPLETION: Command = Command {
    names: &["completion"],
    summary: "Print the completion script of a shell",
    usage: "bash|zsh|fish",
    about: "",
    flags: &[],
    args: Args::exactly(1),
    example: "dewar completion bash",
    usage_code: 1,
    plan,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

fn request(matches: &Matches) -> Result<Shell, Error> {
    match matches.args[0].as_str() {
        "bash" => Ok(Shell::Bash),
        "zsh" => Ok(Shell::Zsh),
        "fish" => Ok(Shell::Fish),
        other => Err(Error::Local(format!("unknown shell {other:?}: expected bash, zsh or fish"))),
    }
}

fn plan(matches: &Matches) -> Result<Action, Error> {
    let shell = request(matches)?;
    Action::call(move |_| print(&script(shell)).map(|()| 0))
}

fn script(shell: Shell) -> String {
    match shell {
        Shell::Bash => bash(),
        // zsh runs bash's completions through its own adapter, so one script serves both.
        Shell::Zsh => format!("#compdef dewar\nautoload -U +X bashcompinit && bashcompinit\n{}", bash()),
        Shell::Fish => fish(),
    }
}

/// What the arguments of a command name, read off its usage line.
fn objects(command: &Command) -> &'static str {
    let says = |word: &str| command.usage.contains(word);
    if says("NETWORK CONTAINER") {
        "members"
    } else if says("NETWORK") {
        "networks"
    } else if says("CONTAINER") {
        "containers"
    } else if says("IMAGE") {
        "images"
    } else {
        "files"
    }
}

fn longs(flags: &[&Flag]) -> String {
    flags
        .iter()
        .map(|flag| format!("--{}", flag.long))
        .chain(["--help".to_owned()])
        .collect::<Vec<_>>()
        .join(" ")
}

fn bash() -> String {
    let nouns = NOUNS.iter().map(|noun| noun.name);
    let tops = COMMANDS.iter().flat_map(|command| command.names).filter(|name| !name.contains(' ')).copied();
    let mut top: Vec<&str> = nouns.chain(tops).collect();
    top.sort_unstable();
    let mut cases = String::new();
    for noun in NOUNS {
        let words: Vec<&str> = COMMANDS
            .iter()
            .flat_map(|command| command.names)
            .filter_map(|name| name.strip_prefix(noun.name)?.strip_prefix(' '))
            .collect();
        cases += &format!("        '{}') words='{}' ;;\n", noun.name, words.join(" "));
    }
    for command in COMMANDS {
        let names: Vec<String> = command.names.iter().map(|name| format!("'{name}'")).collect();
        let valued = command.flags.iter().filter(|flag| flag.kind != Kind::Switch);
        let valued: Vec<String> = valued
            .flat_map(|flag| {
                flag.short.map(|short| format!("-{short}")).into_iter().chain([format!("--{}", flag.long)])
            })
            .collect();
        cases += &format!(
            "        {}) flags='{}' valued=' {} ' objects={} ;;\n",
            names.join("|"),
            longs(command.flags),
            valued.join(" "),
            objects(command)
        );
    }
    format!(
        r#"# bash completion for dewar
_dewar() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}}
    local name='' word words='{top}' flags='{globals}' valued='' objects='' i
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${{COMP_WORDS[i]}}
        case $word in -*) continue ;; esac
        if [ -z "$name" ]; then name=$word
        elif [ -n "$words" ] && [ -z "$objects" ]; then name="$name $word"
        else break; fi
        words=''
        case $name in
{cases}        esac
    done
    case $prev in --net|--network) flags='' objects=networks valued='' ;; esac
    case "$valued" in *" $prev "*) COMPREPLY=($(compgen -f -- "$cur")); return ;; esac
    case $cur in
        -*) COMPREPLY=($(compgen -W "$flags" -- "$cur")); return ;;
    esac
    if [ -n "$words" ]; then COMPREPLY=($(compgen -W "$words" -- "$cur")); return; fi
    case $objects in
        containers) words=$(dewar ps -a --format '{{{{.Names}}}}' 2>/dev/null) ;;
        networks) words=$(dewar network ls --format '{{{{.Name}}}}' 2>/dev/null) ;;
        members) words=$(dewar network ls --format '{{{{.Name}}}}' 2>/dev/null; dewar ps -a --format '{{{{.Names}}}}' 2>/dev/null) ;;
        images) words=$(dewar images --format '{{{{.Repository}}}}:{{{{.Tag}}}}' 2>/dev/null) ;;
        *) COMPREPLY=($(compgen -f -- "$cur")); return ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
}}
complete -F _dewar dewar
"#,
        top = top.join(" "),
        globals = longs(GLOBALS),
    )
}

fn fish() -> String {
    let mut out = String::from("# fish completion for dewar\ncomplete -c dewar -f\n");
    let quoted = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    let flag_line = |condition: &str, flag: &Flag| {
        let short = flag.short.map(|short| format!(" -s {short}")).unwrap_or_default();
        let value = if flag.kind == Kind::Switch { "" } else { " -r" };
        format!(
            "complete -c dewar -n '{condition}'{short} -l {}{value} -d {}\n",
            flag.long,
            quoted(flag.help)
        )
    };
    for flag in GLOBALS {
        out += &flag_line("__fish_use_subcommand", flag);
    }
    for noun in NOUNS {
        out += &format!(
            "complete -c dewar -n __fish_use_subcommand -a {} -d {}\n",
            noun.name,
            quoted(noun.summary)
        );
    }
    for command in COMMANDS {
        for name in command.names {
            let condition = match name.split_once(' ') {
                None => {
                    out += &format!(
                        "complete -c dewar -n __fish_use_subcommand -a {name} -d {}\n",
                        quoted(command.summary)
                    );
                    format!("__fish_seen_subcommand_from {name}")
                }
                Some((noun, verb)) => {
                    out += &format!(
                        "complete -c dewar -n '__fish_seen_subcommand_from {noun}' -a {verb} -d {}\n",
                        quoted(command.summary)
                    );
                    format!("__fish_seen_subcommand_from {noun}; and __fish_seen_subcommand_from {verb}")
                }
            };
            for flag in command.flags {
                out += &flag_line(&condition, flag);
            }
            let list = match objects(command) {
                "networks" => "(dewar network ls --format \"{{.Name}}\" 2>/dev/null)",
                "members" => {
                    "(dewar network ls --format \"{{.Name}}\" 2>/dev/null; dewar ps -a --format \"{{.Names}}\" 2>/dev/null)"
                }
                "containers" => "(dewar ps -a --format \"{{.Names}}\" 2>/dev/null)",
                "images" => "(dewar images --format \"{{.Repository}}:{{.Tag}}\" 2>/dev/null)",
                _ => continue,
            };
            out += &format!("complete -c dewar -n '{condition}' -a '{list}'\n");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command as Process;

    #[test]
    fn bash_accepts_the_script_and_completes_with_it() {
        let ask = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let script = format!(
                "dewar() {{ if [ \"$1\" = network ]; then echo front; else echo web; fi; }}\n{}\nCOMP_WORDS=({}); COMP_CWORD={}; _dewar; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
                bash(),
                words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
                words.len() - 1
            );
            let output = Process::new("bash").args(["--norc", "-c", &script]).output().unwrap();
            assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(ask("dewar checkp"), ["checkpoint"]);
        assert_eq!(ask("dewar checkpoint cr"), ["create"]);
        assert_eq!(ask("dewar checkpoint create --lea"), ["--leave-running"]);
        assert_eq!(ask("dewar network rm fr"), ["front"]);
        assert_eq!(ask("dewar network connect front w"), ["web"]);
        assert_eq!(ask("dewar run --network fr"), ["front"]);
        assert_eq!(ask("dewar stop w"), ["web"]);
        assert_eq!(ask("dewar run --memory-sw"), ["--memory-swap", "--memory-swappiness"]);
    }

    #[test]
    fn every_name_is_in_every_script() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell);
            for name in COMMANDS.iter().flat_map(|command| command.names) {
                let last = name.rsplit(' ').next().unwrap();
                assert!(script.contains(last), "{shell:?}: {name}");
            }
        }
    }
}
