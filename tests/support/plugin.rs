//! An authorization plugin written for the tests: it answers as it is told and remembers what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

/// One question.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The plugin that was asked.
    pub plugin: String,
    /// Whether it is about an answer.
    pub is_answer: bool,
    pub question: Value,
}

impl Asked {
    pub fn field(&self, name: &str) -> &str {
        self.question[name].as_str().unwrap_or_default()
    }

    /// `POST /containers/create`
    pub fn line(&self) -> String {
        format!("{} {}", self.field("RequestMethod"), self.field("RequestUri"))
    }

    /// A field that is base64.
    #[track_caller]
    pub fn body(&self, name: &str) -> String {
        let bytes = BASE64.decode(self.field(name)).expect("a body is base64");
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

pub type Notebook = Arc<Mutex<Vec<Asked>>>;

/// A plugin that listens until it is dropped.
pub struct Plugin {
    path: PathBuf,
}

/// What a plugin that has nothing against it says.
pub fn yes() -> (u16, String) {
    (200, r#"{"Allow":true}"#.to_owned())
}

/// A denial with a reason.
pub fn no(message: &str) -> (u16, String) {
    (200, serde_json::json!({"Allow": false, "Msg": message}).to_string())
}

impl Plugin {
    /// Serves `NAME.sock` in `directory`; `decide` gives status and body of each answer.
    #[track_caller]
    pub fn start(
        directory: &Path,
        name: &str,
        notebook: &Notebook,
        decide: impl Fn(&Asked) -> (u16, String) + Send + Sync + 'static,
    ) -> Plugin {
        Plugin::of_kind("authz", directory, name, notebook, decide)
    }

    /// As [`Plugin::start`], for another kind of plugin.
    #[track_caller]
    pub fn of_kind(
        kind: &'static str,
        directory: &Path,
        name: &str,
        notebook: &Notebook,
        decide: impl Fn(&Asked) -> (u16, String) + Send + Sync + 'static,
    ) -> Plugin {
        std::fs::create_dir_all(directory).expect("the daemon's directory is the test's");
        let path = directory.join(format!("{name}.sock"));
        let listener = UnixListener::bind(&path).expect("nobody listens there");
        let (name, notebook, decide) = (name.to_owned(), Arc::clone(notebook), Arc::new(decide));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (name, notebook, decide) = (name.clone(), Arc::clone(&notebook), Arc::clone(&decide));
                std::thread::spawn(move || serve(stream, kind, &name, &notebook, &*decide));
            }
        });
        Plugin { path }
    }
}

impl Drop for Plugin {
    /// Nobody finds it any more; its thread ends with the test.
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.path));
    }
}

fn serve(
    stream: UnixStream,
    kind: &str,
    name: &str,
    notebook: &Notebook,
    decide: &dyn Fn(&Asked) -> (u16, String),
) -> Option<()> {
    let mut reader = BufReader::new(&stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let method = line.split(' ').nth(1)?.trim_start_matches('/').to_owned();
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (status, answer) = match method.as_str() {
        "Plugin.Activate" => (200, serde_json::json!({"Implements": [kind]}).to_string()),
        "AuthZPlugin.AuthZReq" | "AuthZPlugin.AuthZRes" => {
            let question = serde_json::from_slice(&body).ok()?;
            let asked = Asked { plugin: name.to_owned(), is_answer: method.ends_with("Res"), question };
            notebook.lock().ok()?.push(asked.clone());
            decide(&asked)
        }
        _ => (404, String::new()),
    };
    let head = format!(
        "HTTP/1.1 {status} x\r\nContent-Type: application/vnd.docker.plugins.v1.1+json\r\nContent-Length: {}\r\n\r\n",
        answer.len()
    );
    (&stream).write_all((head + &answer).as_bytes()).ok()
}
