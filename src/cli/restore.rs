//! `dewar restore`: new containers out of a checkpoint. The flags are `dewar clone`'s, too.

use std::collections::BTreeMap;

use crate::http::api::container::PortBinding;
use crate::http::api::copies::{CHECKPOINT_RESTORE, Copies, CopyRequest};

use super::command::{Action, Args, Command, Flag, Matches};
use super::container::values;
use super::context::print;
use super::error::Error;

pub static NAME: Flag = Flag::value("name", "NAME", "Name of the copy, of several NAME-1, NAME-2 and so on");
pub static COUNT: Flag = Flag::value("count", "N", "Make so many").default("1");
pub static IP: Flag = Flag::value("ip", "ADDRESS", "IPv4 address in the first network");
pub static IP6: Flag = Flag::value("ip6", "ADDRESS", "IPv6 address in the first network");
pub static MAC_ADDRESS: Flag = Flag::value("mac-address", "MAC", "MAC address in the first network");
pub static MAC: Flag = Flag::value("mac", "MAC", "The short spelling of --mac-address");
pub static PUBLISH: Flag =
    Flag::many("publish", "PORTS", "Publish these ports and no others ([HOST:]CONTAINER)").short('p');
pub static NETWORK: Flag = Flag::value("network", "NETWORK", "Be in this network, not in the original's");
pub static VOLUME: Flag =
    Flag::many("volume", "SOURCE:PATH", "Mount this volume or directory at a path that has one").short('v');
pub static COPY_VOLUMES: Flag = Flag::switch(
    "copy-volumes",
    "Give the copy volumes of its own, with the content of that moment (anonymous ones)",
);
pub static TCP_CLOSE: Flag = Flag::switch("tcp-close", "Let TCP connections come back closed");
static LAZY: Flag = Flag::switch("lazy", "Let the processes run before their memory is there");
static TRUST: Flag =
    Flag::switch("trust", "Thaw what may do more than the original may, or was not digested in time");
pub static RM: Flag = Flag::switch("rm", "Remove the copy when it ends");
pub static LABEL: Flag = Flag::many("label", "KEY=VALUE", "Add a label").short('l');
static CHECKPOINT_DIR: Flag =
    Flag::value("checkpoint-dir", "PATH", "Directory of the host that holds the checkpoints");

pub static RESTORE: Command = Command {
    names: &["restore", "checkpoint restore"],
    summary: "Make new containers out of a checkpoint",
    usage: "[OPTIONS] CONTAINER CHECKPOINT",
    about: "Each copy goes on where the checkpoint was taken, with an ID, a name, files and a log of its own; the \
            container that was frozen stays what it is, and may run. While that runs, or with --count, --network or \
            another --ip, copies have addresses of their own and their TCP connections come back closed; otherwise \
            the one copy has the old address, if nobody else does, and its connections go on. What the original \
            publishes is published for copies as far as the host's ports are free. A hostname that was the \
            original's short ID becomes the copy's; aliases in networks are not taken over. Volumes are shared with \
            the original unless --copy-volumes or --volume says otherwise. With --lazy the processes \
            run at once, and wait for each piece of memory when they first need it.",
    flags: &[
        &CHECKPOINT_DIR,
        &COPY_VOLUMES,
        &COUNT,
        &IP,
        &IP6,
        &LABEL,
        &LAZY,
        &MAC,
        &MAC_ADDRESS,
        &NAME,
        &NETWORK,
        &PUBLISH,
        &RM,
        &TCP_CLOSE,
        &TRUST,
        &VOLUME,
    ],
    args: Args::exactly(2),
    example: "dewar restore --count 3 --name worker web cp1",
    usage_code: 1,
    plan: |matches| {
        let request = CopyRequest {
            checkpoint_dir: matches.text(&CHECKPOINT_DIR),
            lazy: matches.is(&LAZY),
            trust: matches.is(&TRUST),
            ..request(matches)?
        };
        let (container, checkpoint) = (matches.args[0].clone(), matches.args[1].clone());
        Action::call(move |context| {
            tell(&context.call(&CHECKPOINT_RESTORE, &[&container, &checkpoint], &(), &request)?)
        })
    },
};

/// Reads the flags that both commands have.
pub fn request(matches: &Matches) -> Result<CopyRequest, Error> {
    let mut port_bindings: BTreeMap<String, Option<Vec<PortBinding>>> = BTreeMap::new();
    for (port, binding) in matches.read_all(&PUBLISH, values::publish)?.into_iter().flatten() {
        port_bindings.entry(port).or_default().get_or_insert_default().push(binding);
    }
    let count: u32 = matches.parse(&COUNT, "a number of copies")?.unwrap_or(1);
    if count == 0 {
        return Err(Error::Local("--count 0 makes nothing".to_owned()));
    }
    let mac = [matches.text(&MAC_ADDRESS), matches.text(&MAC)];
    let request = CopyRequest {
        name: matches.text(&NAME),
        count,
        checkpoint_dir: String::new(),
        ipv4_address: matches.text(&IP),
        ipv6_address: matches.text(&IP6),
        mac_address: mac.into_iter().find(|text| !text.is_empty()).unwrap_or_default(),
        port_bindings: matches.given(&PUBLISH).then_some(port_bindings),
        network: matches.text(&NETWORK),
        volumes: values::map(matches.read_all(&VOLUME, volume)?),
        copy_volumes: matches.is(&COPY_VOLUMES),
        tcp_close: matches.is(&TCP_CLOSE),
        lazy: false,
        trust: false,
        auto_remove: matches.is(&RM),
        labels: values::map(matches.read_all(&LABEL, values::pair)?),
    };
    let addresses = [&request.ipv4_address, &request.ipv6_address, &request.mac_address];
    if count > 1 && addresses.iter().any(|text| !text.is_empty()) {
        return Err(Error::Local("--ip, --ip6 and --mac-address go with one copy only".to_owned()));
    }
    Ok(request)
}

/// `SOURCE:PATH`, the other way round: path, then volume or directory.
fn volume(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((source, path)) if !source.is_empty() && path.starts_with('/') && !path.contains(':') => {
            Ok((path.to_owned(), source.to_owned()))
        }
        _ => Err("expected SOURCE:PATH, the path in the container".to_owned()),
    }
}

/// Prints the names, and beside them what there is to complain of.
pub fn tell(copies: &Copies) -> Result<u8, Error> {
    for copy in &copies.containers {
        for warning in &copy.warnings {
            super::say(&format!("dewar: warning: {}: {warning}", copy.name));
        }
        print(&format!("{}\n", copy.name))?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::parse::matches_of;

    #[test]
    fn a_rich_line_reaches_every_corner_of_the_request() {
        let line = "restore --name w --network shop --ip 10.9.0.7 --ip6 fd00::7 --mac 02:42:0a:09:00:07 -p 8080:80 \
                    -p 443 -v data:/data -v /srv:/srv --tcp-close --rm -l a=b web cp1";
        let made = request(&matches_of(line)).unwrap();
        assert_eq!((made.name.as_str(), made.network.as_str(), made.count), ("w", "shop", 1));
        assert_eq!((made.ipv4_address.as_str(), made.ipv6_address.as_str()), ("10.9.0.7", "fd00::7"));
        assert_eq!(made.mac_address, "02:42:0a:09:00:07");
        assert!(made.tcp_close && made.auto_remove);
        assert_eq!(made.labels["a"], "b");
        assert_eq!((made.volumes["/data"].as_str(), made.volumes["/srv"].as_str()), ("data", "/srv"));
        let ports = made.port_bindings.unwrap();
        assert_eq!(ports["80/tcp"].as_ref().unwrap()[0].host_port, "8080");
        assert_eq!(ports["443/tcp"].as_ref().unwrap()[0].host_port, "");
    }

    #[test]
    fn nothing_said_is_nothing_asked() {
        let made = request(&matches_of("restore web cp1")).unwrap();
        assert_eq!(made, CopyRequest { count: 1, ..CopyRequest::default() });
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for line in [
            "restore --count 2 --ip 10.9.0.7 web cp1",
            "restore --count 0 web cp1",
            "restore --count x web cp1",
            "restore -v data web cp1",
            "restore -v data:data web cp1",
            "restore -v a:/b:ro web cp1",
        ] {
            assert!(request(&matches_of(line)).is_err(), "{line}");
        }
    }
}
