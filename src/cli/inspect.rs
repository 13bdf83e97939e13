//! `dewar inspect`: what the engine knows of an object of any kind, as JSON or through a template.

use serde::Serialize;
use serde_json::ser::PrettyFormatter;

use crate::http::api::container::{CONTAINER_INSPECT, InspectQuery};
use crate::http::api::image::{IMAGE_INSPECT, PlatformQuery};
use crate::http::api::network::{self, NETWORK_INSPECT};
use crate::http::api::volume::VOLUME_INSPECT;

use super::command::{Action, Args, Command, Flag, Matches};
use super::context::{Context, print};
use super::error::Error;
use super::format::template::Template;

static FORMAT: Flag = Flag::value("format", "FORMAT", "Print as json or by a Go template").short('f');
static SIZE: Flag = Flag::switch("size", "Measure how much a container has written").short('s');
static VERBOSE: Flag = Flag::switch("verbose", "Show what a swarm knows too").short('v');
static TYPE: Flag = Flag::value("type", "TYPE", "Look for a container, an image, a network or a volume only");

pub static INSPECT: Command = Command {
    names: &["inspect"],
    summary: "Show all the engine knows of objects of any kind",
    usage: "[OPTIONS] NAME|ID [NAME|ID...]",
    about: "",
    flags: &[&FORMAT, &SIZE, &TYPE],
    args: Args::at_least(1),
    example: "dewar inspect -f '{{.State.Status}}' web",
    usage_code: 1,
    plan: |matches| {
        let kind = match matches.get(&TYPE) {
            None | Some("") => Kind::Any,
            Some("container") => Kind::Container,
            Some("image") => Kind::Image,
            Some("network") => Kind::Network,
            Some("volume") => Kind::Volume,
            Some(other) => {
                return Err(Error::value(&TYPE, other, "expected container, image, network or volume"));
            }
        };
        plan(matches, kind, matches.is(&SIZE))
    },
};

pub static CONTAINER_INSPECT_COMMAND: Command = Command {
    names: &["container inspect"],
    summary: "Show all the engine knows of containers",
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "",
    flags: &[&FORMAT, &SIZE],
    args: Args::at_least(1),
    example: "dewar container inspect web",
    usage_code: 1,
    plan: |matches| plan(matches, Kind::Container, matches.is(&SIZE)),
};

pub static IMAGE_INSPECT_COMMAND: Command = Command {
    names: &["image inspect"],
    summary: "Show all the engine knows of images",
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "",
    flags: &[&FORMAT],
    args: Args::at_least(1),
    example: "dewar image inspect alpine",
    usage_code: 1,
    plan: |matches| plan(matches, Kind::Image, false),
};

pub static NETWORK_INSPECT_COMMAND: Command = Command {
    names: &["network inspect"],
    summary: "Show all the engine knows of networks",
    usage: "[OPTIONS] NETWORK [NETWORK...]",
    about: "",
    flags: &[&FORMAT, &VERBOSE],
    args: Args::at_least(1),
    example: "dewar network inspect bridge",
    usage_code: 1,
    plan: |matches| {
        // Asks for what only a swarm has to add.
        matches.is(&VERBOSE);
        plan(matches, Kind::Network, false)
    },
};

pub static VOLUME_INSPECT_COMMAND: Command = Command {
    names: &["volume inspect"],
    summary: "Show all the engine knows of volumes",
    usage: "[OPTIONS] VOLUME [VOLUME...]",
    about: "",
    flags: &[&FORMAT],
    args: Args::at_least(1),
    example: "dewar volume inspect data",
    usage_code: 1,
    plan: |matches| plan(matches, Kind::Volume, false),
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Any,
    Container,
    Image,
    Network,
    Volume,
}

/// How each object is printed.
#[derive(Debug)]
enum Shape {
    /// One indented list of all.
    List,
    /// One line each.
    Json,
    Template(Template),
}

fn shape(format: Option<&str>) -> Result<Shape, Error> {
    match format {
        None | Some("") => Ok(Shape::List),
        Some("json") => Ok(Shape::Json),
        Some(text) => Template::parse(text)
            .map(Shape::Template)
            .map_err(|cause| Error::Template(format!("template parsing error: {cause}"))),
    }
}

fn plan(matches: &Matches, kind: Kind, size: bool) -> Result<Action, Error> {
    let shape = shape(matches.get(&FORMAT))?;
    let names = matches.args.clone();
    Action::call(move |context| {
        let mut found = Vec::new();
        let mut missing = Vec::new();
        for name in &names {
            match find(context, name, kind, size) {
                Ok(object) => found.push(object),
                Err(error @ Error::Daemon { .. }) => missing.push(error_text(name, kind, &error)),
                Err(other) => return Err(other),
            }
        }
        print(&show(&shape, &found)?)?;
        for text in &missing {
            super::say(text);
        }
        Ok(u8::from(!missing.is_empty()))
    })
}

/// Compat: scripts look for `No such object`.
fn error_text(name: &str, kind: Kind, error: &Error) -> String {
    match kind {
        Kind::Any if error.is_not_found() => format!("Error: No such object: {name}"),
        _ => error.to_string(),
    }
}

/// An object, kept as the text it has on the wire so that its fields stay in order.
#[derive(Debug)]
struct Object {
    pretty: String,
    value: serde_json::Value,
}

impl Object {
    fn new(object: &impl Serialize) -> Result<Object, Error> {
        let failed = |cause| Error::local("print the object", cause);
        let mut pretty = Vec::new();
        let mut serializer =
            serde_json::Serializer::with_formatter(&mut pretty, PrettyFormatter::with_indent(b"    "));
        object.serialize(&mut serializer).map_err(failed)?;
        let value = serde_json::to_value(object).map_err(failed)?;
        Ok(Object { pretty: String::from_utf8_lossy(&pretty).into_owned(), value })
    }
}

fn find(context: &Context, name: &str, kind: Kind, size: bool) -> Result<Object, Error> {
    if matches!(kind, Kind::Any | Kind::Container) {
        match context.call(&CONTAINER_INSPECT, &[name], &InspectQuery { size }, &()) {
            Ok(container) => return Object::new(&container),
            Err(error) if kind == Kind::Any && error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    if matches!(kind, Kind::Any | Kind::Image) {
        match context.call(&IMAGE_INSPECT, &[name], &PlatformQuery::default(), &()) {
            Ok(image) => return Object::new(&image),
            // What cannot be an image's name may still be another object's.
            Err(Error::Daemon { status: 400 | 404, .. }) if kind == Kind::Any => {}
            Err(error) => return Err(error),
        }
    }
    if matches!(kind, Kind::Any | Kind::Network) {
        match context.call(&NETWORK_INSPECT, &[name], &network::InspectQuery::default(), &()) {
            Ok(network) => return Object::new(&network),
            Err(error) if kind == Kind::Any && error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Object::new(&context.call(&VOLUME_INSPECT, &[name], &(), &())?)
}

fn show(shape: &Shape, objects: &[Object]) -> Result<String, Error> {
    match shape {
        Shape::List if objects.is_empty() => Ok("[]\n".to_owned()),
        Shape::List => {
            let indent = |object: &Object| object.pretty.replace('\n', "\n    ");
            let all: Vec<String> = objects.iter().map(indent).collect();
            Ok(format!("[\n    {}\n]\n", all.join(",\n    ")))
        }
        Shape::Json => Ok(objects.iter().map(|object| format!("{}\n", object.value)).collect()),
        Shape::Template(template) => {
            let mut out = String::new();
            for object in objects {
                out +=
                    &template.render(&object.value).map_err(|cause| Error::local("apply --format", cause))?;
                out.push('\n');
            }
            Ok(out)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::api::container::ContainerInspect;

    #[test]
    fn objects_print_as_docker_prints_them() {
        let container =
            Object::new(&ContainerInspect { id: "abc".into(), ..ContainerInspect::default() }).unwrap();
        let objects = [container];
        let list = show(&Shape::List, &objects).unwrap();
        assert!(list.starts_with("[\n    {\n        \"Id\": \"abc\",\n        \"Created\": \"\","), "{list}");
        assert!(list.ends_with("\n    }\n]\n"));
        let by = |format| show(&shape(Some(format)).unwrap(), &objects);
        assert_eq!(by("{{.Id}} {{.State.Running}}").unwrap(), "abc false\n");
        assert!(by("json").unwrap().ends_with("}\n"));
        assert!(by("{{.Nope}}").unwrap_err().to_string().contains("no field \"Nope\""));
        assert_eq!(show(&Shape::List, &[]).unwrap(), "[]\n");
        assert!(shape(Some("{{")).is_err());
    }

    #[test]
    fn what_is_not_there_is_named_in_dockers_words() {
        let error = Error::Daemon { status: 404, message: "No such image: x".into() };
        assert_eq!(error_text("x", Kind::Any, &error), "Error: No such object: x");
        assert_eq!(error_text("x", Kind::Image, &error), "Error response from daemon: No such image: x");
    }
}
