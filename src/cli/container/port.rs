//! `dewar port`: where a container's ports are published.

use std::collections::BTreeMap;

use crate::cli::command::{Action, Args, Command};
use crate::cli::context::print;
use crate::cli::error::Error;
use crate::http::api::container::{CONTAINER_INSPECT, InspectQuery, PortBinding};

pub static PORT: Command = Command {
    names: &["port", "container port"],
    summary: "Show where the ports of a container are published",
    usage: "CONTAINER [PRIVATE_PORT[/PROTO]]",
    about: "",
    flags: &[],
    args: Args::between(1, 2),
    example: "dewar port web 80/tcp",
    usage_code: 1,
    plan: |matches| {
        let (container, port) = (matches.args[0].clone(), matches.args.get(1).cloned());
        Action::call(move |context| {
            let inspect = context.call(&CONTAINER_INSPECT, &[&container], &InspectQuery::default(), &())?;
            print(&listing(&inspect.network_settings.ports, &container, port.as_deref())?).map(|()| 0)
        })
    },
};

type Ports = BTreeMap<String, Option<Vec<PortBinding>>>;

fn listing(ports: &Ports, container: &str, asked: Option<&str>) -> Result<String, Error> {
    let address = |binding: &PortBinding| match binding.host_ip.contains(':') {
        true => format!("[{}]:{}", binding.host_ip, binding.host_port),
        false => format!("{}:{}", binding.host_ip, binding.host_port),
    };
    let bindings = |port: &str| ports.get(port).and_then(Option::as_deref).unwrap_or_default();
    let mut lines: Vec<(u16, String)> = Vec::new();
    if let Some(asked) = asked {
        let (number, protocol) = asked.split_once('/').unwrap_or((asked, "tcp"));
        if number.parse::<u16>().is_err() {
            // Compat: the words of Go's number parser.
            let is_large = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            let cause = if is_large { "value out of range" } else { "invalid syntax" };
            return Err(Error::Local(format!(
                "Error: invalid port ({number}): strconv.ParseUint: parsing {number:?}: {cause}"
            )));
        }
        let found = bindings(&format!("{number}/{protocol}"));
        if found.is_empty() {
            return Err(Error::Local(format!("Error: No public port '{asked}' published for {container}")));
        }
        lines.extend(found.iter().map(|binding| (0, address(binding))));
    } else {
        for port in ports.keys() {
            let number = port.split('/').next().and_then(|number| number.parse().ok()).unwrap_or(0);
            lines.extend(
                bindings(port).iter().map(|binding| (number, format!("{port} -> {}", address(binding)))),
            );
        }
    }
    lines.sort();
    Ok(lines.into_iter().map(|(_, line)| line + "\n").collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_listed_or_looked_up() {
        let binding = |ip: &str, port: &str| PortBinding { host_ip: ip.into(), host_port: port.into() };
        let ports: Ports = [
            ("443/tcp".to_owned(), Some(vec![binding("0.0.0.0", "8443"), binding("::", "8443")])),
            ("80/tcp".to_owned(), Some(vec![binding("127.0.0.1", "8080")])),
            ("53/udp".to_owned(), None),
        ]
        .into();
        let list = |asked| listing(&ports, "web", asked).map_err(|error| error.to_string());
        assert_eq!(
            list(None).unwrap(),
            "80/tcp -> 127.0.0.1:8080\n443/tcp -> 0.0.0.0:8443\n443/tcp -> [::]:8443\n"
        );
        assert_eq!(list(Some("80")).unwrap(), "127.0.0.1:8080\n");
        assert_eq!(list(Some("443/tcp")).unwrap(), "0.0.0.0:8443\n[::]:8443\n");
        assert_eq!(list(Some("53/udp")).unwrap_err(), "Error: No public port '53/udp' published for web");
        assert!(list(Some("x")).unwrap_err().contains("parsing \"x\": invalid syntax"));
        assert!(list(Some("99999")).unwrap_err().contains("value out of range"));
    }
}
