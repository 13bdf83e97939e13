//! `dewar version`.

use std::fmt::Write as _;

use serde::Serialize;

use crate::cli::command::{Action, Args, Command, Flag};
use crate::cli::context::{Context, print};
use crate::http::api::API_VERSION;
use crate::http::api::system::{SYSTEM_VERSION, SystemVersion};

use super::{arch, line, template, template_line, to_value};

static FORMAT: Flag = Flag::value("format", "FORMAT", "Print as json or by a Go template").short('f');

pub static VERSION: Command = Command {
    names: &["version"],
    summary: "Show the versions of client and daemon",
    usage: "[OPTIONS]",
    about: "",
    flags: &[&FORMAT],
    args: Args::NONE,
    example: "dewar version",
    usage_code: 1,
    plan: |matches| {
        let template = template(matches, &FORMAT)?;
        Action::call(move |context| {
            let server = context.call(&SYSTEM_VERSION, &[], &(), &());
            // What is known of the client is printed whether or not a daemon answers.
            let versions = Versions { client: client(context), server: server.as_ref().ok() };
            print(&match &template {
                None => text(&versions),
                Some(template) => template_line(template, &to_value(&versions)?)?,
            })?;
            server.map(|_| 0)
        })
    },
};

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Versions<'a> {
    client: ClientVersion,
    server: Option<&'a SystemVersion>,
}

/// The client's half, with docker's fields.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ClientVersion {
    pub version: String,
    pub api_version: String,
    #[serde(rename = "DefaultAPIVersion")]
    pub default_api_version: String,
    pub git_commit: String,
    pub go_version: String,
    pub os: String,
    pub arch: String,
    pub build_time: String,
    pub context: String,
}

pub fn client(context: &Context) -> ClientVersion {
    ClientVersion {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        api_version: context.api_version(),
        default_api_version: API_VERSION.to_string(),
        git_commit: String::new(),
        go_version: String::new(),
        os: std::env::consts::OS.to_owned(),
        arch: arch().to_owned(),
        build_time: String::new(),
        context: context.name().to_owned(),
    }
}

fn text(versions: &Versions<'_>) -> String {
    let row = |out: &mut String, blanks: usize, name: &str, value: &str| {
        if !value.is_empty() {
            line(out, blanks, 20 - blanks, name, value);
        }
    };
    let client = &versions.client;
    let mut out = String::from("Client: dewar\n");
    row(&mut out, 1, "Version", &client.version);
    let default = match client.api_version == client.default_api_version {
        true => String::new(),
        false => format!(" (downgraded from {})", client.default_api_version),
    };
    row(&mut out, 1, "API version", &(client.api_version.clone() + &default));
    row(&mut out, 1, "OS/Arch", &format!("{}/{}", client.os, client.arch));
    row(&mut out, 1, "Context", &client.context);
    let Some(server) = versions.server else { return out };
    let _ = write!(out, "\nServer: {}", server.platform.name);
    for component in &server.components {
        let detail = |name: &str| component.details.get(name).map(String::as_str).unwrap_or_default();
        let _ = write!(out, "\n {}:\n", component.name);
        row(&mut out, 2, "Version", &component.version);
        if component.name != "Engine" {
            component.details.iter().for_each(|(name, value)| row(&mut out, 2, name, value));
            continue;
        }
        let versions = format!("{} (minimum version {})", detail("ApiVersion"), detail("MinAPIVersion"));
        row(&mut out, 2, "API version", &versions);
        row(&mut out, 2, "Go version", detail("GoVersion"));
        row(&mut out, 2, "Git commit", detail("GitCommit"));
        row(&mut out, 2, "Built", detail("BuildTime"));
        row(&mut out, 2, "OS/Arch", &format!("{}/{}", detail("Os"), detail("Arch")));
        row(&mut out, 2, "Experimental", detail("Experimental"));
        out.pop();
    }
    out + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::format::template::Template;
    use crate::http::api::system::Component;

    #[test]
    fn versions_are_shown_with_and_without_a_daemon() {
        let versions = |server| Versions { client: client(&Context::nowhere()), server };
        let alone = text(&versions(None));
        assert!(alone.contains("Client: dewar") && !alone.contains("Server"));
        let engine = Component {
            name: "Engine".into(),
            version: "1.2".into(),
            details: [("ApiVersion", "1.51"), ("MinAPIVersion", "1.24")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        };
        let server =
            SystemVersion { version: "1.2".into(), components: vec![engine], ..SystemVersion::default() };
        let both = text(&versions(Some(&server)));
        assert!(both.contains("\n Engine:\n  Version:          1.2\n"), "{both}");
        assert!(both.contains("  API version:      1.51 (minimum version 1.24)\n"), "{both}");
        let value = to_value(&versions(Some(&server))).unwrap();
        let template = Template::parse("{{.Server.Version}} {{.Client.APIVersion}}").unwrap();
        assert_eq!(template_line(&template, &value).unwrap(), format!("1.2 {API_VERSION}\n"));
    }
}
