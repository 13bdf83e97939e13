//! `dewar inspect`: what the engine knows of an object of any kind, as JSON or through a template.

use serde::Serialize;

use crate::http::api::container::{CONTAINER_INSPECT, InspectQuery};
use crate::http::api::image::{IMAGE_INSPECT, PlatformQuery};
use crate::http::api::network::{self, NETWORK_INSPECT};
use crate::http::api::volume::VOLUME_INSPECT;

use super::command::{Action, Args, Command, Flag, Matches};
use super::context::{Context, print};
use super::error::Error;
use super::format::serialize::value_of;
use super::format::template::Template;
use super::format::value::Value;

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
                let known = "\"container\", \"image\", \"network\", \"volume\"";
                return Err(Error::Local(format!("unknown type: {other:?}: must be one of {known}")));
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
    let names = matches.args.clone();
    show_all(matches.get(&FORMAT), move |context| {
        let one = |name: &String| {
            find(context, name, kind, size).map_err(|error| match error {
                Error::Daemon { .. } => Error::Local(error_text(name, kind, &error)),
                other => other,
            })
        };
        Ok(names.iter().map(one).collect())
    })
}

/// Prints the objects that `find` finds, and then why it did not find the others.
pub fn show_all(
    format: Option<&str>,
    find: impl Fn(&Context) -> Result<Vec<Result<Object, Error>>, Error> + 'static,
) -> Result<Action, Error> {
    let shape = shape(format)?;
    Action::call(move |context| {
        let mut found = Vec::new();
        let mut missing = Vec::new();
        for object in find(context)? {
            match object {
                Ok(object) => found.push(object),
                Err(error) => missing.push(error),
            }
        }
        let (text, failures) = show(&shape, &found);
        print(&text)?;
        missing.extend(failures);
        for error in &missing {
            super::say(&error.to_string());
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

/// An object as templates see it, its fields in the order of the wire.
#[derive(Debug)]
pub struct Object(Value);

impl Object {
    pub fn new(object: &impl Serialize) -> Result<Object, Error> {
        value_of(object).map(Object).map_err(|cause| Error::local("print the object", cause))
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

/// What is printed, and which objects a template does not apply to.
fn show(shape: &Shape, objects: &[Object]) -> (String, Vec<Error>) {
    let all = objects.iter().map(|Object(value)| value.clone()).collect();
    match shape {
        Shape::List => (Value::List(all).pretty() + "\n", Vec::new()),
        Shape::Json => (Value::List(all).json(false) + "\n", Vec::new()),
        Shape::Template(template) => {
            let (mut out, mut failures) = (String::new(), Vec::new());
            for Object(value) in objects {
                match template.render(value) {
                    Ok(text) => out += &(text + "\n"),
                    Err(cause) => failures.push(Error::local("template parsing error", cause)),
                }
            }
            // Compat: nothing at all is one empty line.
            (if out.is_empty() { "\n".to_owned() } else { out }, failures)
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
        let list = show(&Shape::List, &objects).0;
        assert!(list.starts_with("[\n    {\n        \"Id\": \"abc\",\n        \"Created\": \"\","), "{list}");
        assert!(list.ends_with("\n    }\n]\n"));
        let by = |format| show(&shape(Some(format)).unwrap(), &objects);
        assert_eq!(by("{{.Id}} {{.ID}} {{.State.Running}}").0, "abc abc false\n");
        assert!(by("json").0.starts_with("[{\"Id\":\"abc\",") && by("json").0.ends_with("}]\n"));
        assert!(by("{{json .Config}}").0.starts_with("{\"Hostname\":\"\","), "the order is the wire's");
        let (text, failures) = by("{{.Nope}}");
        assert_eq!(text, "\n");
        assert!(failures[0].to_string().contains("no entry for key \"Nope\""));
        assert_eq!(show(&Shape::List, &[]).0, "[]\n");
        assert_eq!(shape(Some("{{")).unwrap_err().code(), 64);
    }

    #[test]
    fn what_is_not_there_is_named_in_dockers_words() {
        let error = Error::Daemon { status: 404, message: "No such image: x".into() };
        assert_eq!(error_text("x", Kind::Any, &error), "Error: No such object: x");
        assert_eq!(error_text("x", Kind::Image, &error), "Error response from daemon: No such image: x");
    }
}
