//! `dewar info`.

use std::fmt::Write as _;

use crate::cli::command::{Action, Args, Command, Flag};
use crate::cli::context::{Context, print};
use crate::cli::error::Error;
use crate::cli::format;
use crate::cli::format::value::{Field, Value};
use crate::http::api::system::{SYSTEM_INFO, SystemInfo};

use super::version::client;
use super::{line, template, template_line, to_value};

static FORMAT: Flag = Flag::value("format", "FORMAT", "Print as json or by a Go template").short('f');

pub static INFO: Command = Command {
    names: &["info", "system info"],
    summary: "Show the state of the engine and its machine",
    usage: "[OPTIONS]",
    about: "",
    flags: &[&FORMAT],
    args: Args::NONE,
    example: "dewar info",
    usage_code: 1,
    plan: |matches| {
        let template = template(matches, &FORMAT)?;
        Action::call(move |context| {
            let info = context.call(&SYSTEM_INFO, &[], &(), &());
            let Some(template) = template else {
                print(&client_text(context))?;
                print(&info.as_ref().map_or_else(|_| "\nServer:\n".to_owned(), server_text))?;
                for warning in &info?.warnings {
                    crate::cli::say(warning);
                }
                return Ok(0);
            };
            let info = match info {
                Ok(info) => info,
                // Compat: the line is there, empty.
                Err(error) => return print("\n").and(Err(error)),
            };
            print(&template_line(&template, &value(&info, context)?)?).map(|()| 0)
        })
    },
};

/// The daemon's information, with the client's at the end.
fn value(info: &SystemInfo, context: &Context) -> Result<Value, Error> {
    let Value::Struct(mut fields) = to_value(info)? else { return Err(Error::local("print", "no fields")) };
    let mut client = match to_value(&client(context))? {
        Value::Struct(fields) => fields,
        _ => Vec::new(),
    };
    let debug = Value::Bool(context.is_debugging());
    client.insert(0, Field { name: "Debug".to_owned(), value: debug, shown: true });
    fields.push(Field { name: "ClientInfo".to_owned(), value: Value::Struct(client), shown: true });
    let kind = Value::Text("system.dockerInfo".to_owned());
    fields.push(Field { name: " type".to_owned(), value: kind, shown: false });
    Ok(Value::Struct(fields))
}

fn client_text(context: &Context) -> String {
    let mut out = String::from("Client: dewar\n");
    line(&mut out, 1, 12, "Version", env!("CARGO_PKG_VERSION"));
    line(&mut out, 1, 12, "Context", context.name());
    line(&mut out, 1, 12, "Debug Mode", &context.is_debugging().to_string());
    out
}

fn server_text(info: &SystemInfo) -> String {
    let mut out = String::from("\nServer:\n");
    // Compat: some lines are there whatever they say, others only if they say something.
    let always = |out: &mut String, name: &str, value: &str| {
        let _ = writeln!(out, " {name}: {value}");
    };
    let some = |out: &mut String, name: &str, value: &str| {
        if !value.is_empty() {
            always(out, name, value);
        }
    };
    always(&mut out, "Containers", &info.containers.to_string());
    always(&mut out, " Running", &info.containers_running.to_string());
    always(&mut out, " Paused", &info.containers_paused.to_string());
    always(&mut out, " Stopped", &info.containers_stopped.to_string());
    always(&mut out, "Images", &info.images.to_string());
    some(&mut out, "Server Version", &info.server_version);
    some(&mut out, "Storage Driver", &info.driver);
    for [name, value] in &info.driver_status {
        always(&mut out, &format!(" {name}"), value);
    }
    some(&mut out, "Logging Driver", &info.logging_driver);
    some(&mut out, "Cgroup Driver", &info.cgroup_driver);
    some(&mut out, "Cgroup Version", &info.cgroup_version);
    out += " Plugins:\n";
    always(&mut out, " Volume", &info.plugins.volume.join(" "));
    always(&mut out, " Network", &info.plugins.network.join(" "));
    some(&mut out, " Authorization", &info.plugins.authorization.join(" "));
    always(&mut out, " Log", &info.plugins.log.join(" "));
    some(&mut out, "Checkpoints", &info.criu);
    always(&mut out, "Swarm", &info.swarm.local_node_state);
    let runtimes: Vec<&str> = info.runtimes.keys().map(String::as_str).collect();
    some(&mut out, "Runtimes", &runtimes.join(" "));
    some(&mut out, "Default Runtime", &info.default_runtime);
    some(&mut out, "Init Binary", &info.init_binary);
    some(&mut out, "containerd version", &info.containerd_commit.id);
    some(&mut out, "runc version", &info.runc_commit.id);
    some(&mut out, "init version", &info.init_commit.id);
    if !info.security_options.is_empty() {
        out += " Security Options:\n";
    }
    // `name=seccomp,profile=builtin`
    for option in &info.security_options {
        for pair in option.split(',') {
            match pair.split_once('=') {
                Some(("name", name)) => {
                    let _ = writeln!(out, "  {name}");
                }
                Some((key, value)) => {
                    let _ = writeln!(out, "   {}{}: {value}", key[..1].to_uppercase(), &key[1..]);
                }
                None => {}
            }
        }
    }
    some(&mut out, "Kernel Version", &info.kernel_version);
    some(&mut out, "Operating System", &info.operating_system);
    some(&mut out, "OSType", &info.os_type);
    some(&mut out, "Architecture", &info.architecture);
    always(&mut out, "CPUs", &info.ncpu.to_string());
    let memory = format::size_binary(i64::try_from(info.mem_total).unwrap_or(i64::MAX));
    always(&mut out, "Total Memory", &memory);
    some(&mut out, "Name", &info.name);
    some(&mut out, "ID", &info.id);
    always(&mut out, "Docker Root Dir", &info.docker_root_dir);
    always(&mut out, "Debug Mode", &info.debug.to_string());
    some(&mut out, "HTTP Proxy", &info.http_proxy);
    some(&mut out, "HTTPS Proxy", &info.https_proxy);
    some(&mut out, "No Proxy", &info.no_proxy);
    if !info.labels.is_empty() {
        out += " Labels:\n";
    }
    for label in &info.labels {
        let _ = writeln!(out, "  {label}");
    }
    always(&mut out, "Experimental", &info.experimental_build.to_string());
    always(&mut out, "Live Restore Enabled", &info.live_restore_enabled.to_string());
    out + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_shows_what_is_known() {
        let info = SystemInfo {
            containers: 3,
            mem_total: 2 << 30,
            criu: "4.2".into(),
            security_options: vec!["name=seccomp,profile=builtin".into()],
            ..SystemInfo::default()
        };
        let text = server_text(&info);
        assert!(text.contains(" Containers: 3\n") && text.contains(" Total Memory: 2GiB\n"));
        assert!(text.contains(" Checkpoints: 4.2\n") && !text.contains(" Name:"));
        assert!(text.contains(" Security Options:\n  seccomp\n   Profile: builtin\n"), "{text}");
        let value = value(&info, &Context::nowhere()).unwrap();
        let template = format::template::Template::parse("{{.MemTotal}} {{.ClientInfo.Context}}").unwrap();
        assert_eq!(template.render(&value).unwrap(), "2147483648 default");
    }
}
