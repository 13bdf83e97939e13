//! What a container's filesystem became: its changes, the whole of it as a tar, and an image made of it.

use serde::{Deserialize, Serialize};

use super::container::ContainerConfig;
use super::query::{Pairs, Parameter, Query};
use super::{Endpoint, Method, Shape};

/// One line of `docker diff`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct FilesystemChange {
    pub path: String,
    /// 0 modified, 1 added, 2 deleted.
    pub kind: u8,
}

/// `POST /commit`. The parameter `changes` repeats.
#[derive(Clone, Debug, Default)]
pub struct CommitQuery {
    pub container: String,
    pub repo: String,
    pub tag: String,
    pub comment: String,
    pub author: String,
    /// Hold the container's processes meanwhile; absent means yes.
    pub pause: Option<bool>,
    /// Dockerfile instructions.
    pub changes: Vec<String>,
}

impl Query for CommitQuery {
    fn write(&self, pairs: &mut Pairs) {
        for (name, value) in [
            ("container", &self.container),
            ("repo", &self.repo),
            ("tag", &self.tag),
            ("comment", &self.comment),
            ("author", &self.author),
        ] {
            if let Some(text) = value.to_text() {
                pairs.push((name.to_owned(), text));
            }
        }
        if let Some(text) = self.pause.to_text() {
            pairs.push(("pause".to_owned(), text));
        }
        pairs.extend(self.changes.iter().map(|change| ("changes".to_owned(), change.clone())));
    }

    fn read(pairs: &Pairs) -> Result<CommitQuery, String> {
        let mut query = CommitQuery::default();
        for (name, value) in pairs.iter().rev() {
            match name.as_str() {
                "container" => query.container.clone_from(value),
                "repo" => query.repo.clone_from(value),
                "tag" => query.tag.clone_from(value),
                "comment" => query.comment.clone_from(value),
                "author" => query.author.clone_from(value),
                "pause" => query.pause = Parameter::from_text(value)?,
                _ => {}
            }
        }
        // One instruction, or several lines of them.
        let changes = pairs.iter().filter(|(name, _)| name == "changes").flat_map(|(_, value)| value.lines());
        query.changes = changes.filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
        Ok(query)
    }
}

/// The id of what was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageCommitted {
    pub id: String,
}

pub static CONTAINER_CHANGES: Endpoint<(), (), Vec<FilesystemChange>> =
    Endpoint::new("ContainerChanges", Method::Get, "/containers/{name}/changes", Shape::Json, 200).slow();
/// Answers a tar of the root filesystem, without what is mounted in it.
pub static CONTAINER_EXPORT: Endpoint<(), (), ()> =
    Endpoint::new("ContainerExport", Method::Get, "/containers/{name}/export", Shape::Stream, 200);
/// The body is laid over the container's own configuration.
pub static IMAGE_COMMIT: Endpoint<CommitQuery, Option<ContainerConfig>, ImageCommitted> =
    Endpoint::new("ImageCommit", Method::Post, "/commit", Shape::Json, 201).slow();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_repeat_and_may_be_lines() {
        let query = CommitQuery {
            container: "web".into(),
            pause: Some(false),
            changes: vec!["CMD a".into(), "ENV b=c".into()],
            ..CommitQuery::default()
        };
        let mut pairs = Vec::new();
        query.write(&mut pairs);
        let read = CommitQuery::read(&pairs).unwrap();
        assert_eq!((read.container.as_str(), read.pause, read.changes), ("web", Some(false), query.changes));
        let pairs = vec![("changes".to_owned(), "CMD a\n\nENV b=c\n".to_owned())];
        let read = CommitQuery::read(&pairs).unwrap();
        assert_eq!((read.pause, read.changes), (None, vec!["CMD a".to_owned(), "ENV b=c".to_owned()]));
    }
}
