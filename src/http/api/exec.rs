//! Further processes in a running container.

use serde::{Deserialize, Serialize};

use super::container::ResizeQuery;
use super::{Endpoint, Method, Shape};

/// What to run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ExecCreate {
    pub user: String,
    pub privileged: bool,
    pub tty: bool,
    /// Height and width in characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console_size: Option<[u16; 2]>,
    pub attach_stdin: bool,
    pub attach_stdout: bool,
    pub attach_stderr: bool,
    pub detach_keys: String,
    pub env: Vec<String>,
    pub working_dir: String,
    pub cmd: Vec<String>,
}

/// The name of what was created.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ExecCreated {
    pub id: String,
}

/// How to start it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ExecStart {
    pub detach: bool,
    pub tty: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console_size: Option<[u16; 2]>,
}

/// How it fares.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ExecInspect {
    #[serde(rename = "ID")]
    pub id: String,
    pub running: bool,
    /// `null` while it runs.
    pub exit_code: Option<i32>,
    pub process_config: ProcessConfig,
    pub open_stdin: bool,
    pub open_stderr: bool,
    pub open_stdout: bool,
    pub can_remove: bool,
    #[serde(rename = "ContainerID")]
    pub container_id: String,
    pub detach_keys: String,
    pub pid: i32,
}

/// The command as it was given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessConfig {
    pub tty: bool,
    pub entrypoint: String,
    pub arguments: Vec<String>,
    pub privileged: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
}

pub static CONTAINER_EXEC: Endpoint<(), ExecCreate, ExecCreated> =
    Endpoint::new("ContainerExec", Method::Post, "/containers/{name}/exec", Shape::Json, 201);
/// With `Detach` the answer is empty and the status 200.
pub static EXEC_START: Endpoint<(), ExecStart, ()> =
    Endpoint::new("ExecStart", Method::Post, "/exec/{id}/start", Shape::Hijack, 101);
pub static EXEC_RESIZE: Endpoint<ResizeQuery, (), ()> =
    Endpoint::new("ExecResize", Method::Post, "/exec/{id}/resize", Shape::Empty, 200).slow();
pub static EXEC_INSPECT: Endpoint<(), (), ExecInspect> =
    Endpoint::new("ExecInspect", Method::Get, "/exec/{id}/json", Shape::Json, 200);
