//! Artifacts beside the images: kept, carried through, and damaged.

use std::fs;

use super::{Scratch, above, base, docker_archive, load, tar, unused};
use crate::daemon::images::{Digest, Store, artifact};
use crate::http::api::Class;
use crate::http::api::image::ImageDeleteItem;
use crate::runtime::layer::Limits;

/// An OCI layout in a tar: an artifact of two blobs, about another, and its name.
fn artifact_layout(annotations: &str, content: &[u8]) -> (Vec<u8>, Digest) {
    let config = b"{}".as_slice();
    let manifest = format!(
        r#"{{ "schemaVersion": 2, "artifactType": "application/vnd.example.dump", "unknown": [1],
             "config": {{"mediaType": "application/vnd.oci.empty.v1+json", "digest": "{}", "size": 2, "data": "e30="}},
             "layers": [{{"mediaType": "application/vnd.example.pages", "digest": "{}", "size": {}}}],
             "subject": {{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "{}", "size": 7}},
             "annotations": {{"org.opencontainers.image.created": "2024-05-06T07:08:09Z", "a": "b"}} }}"#,
        Digest::of(config),
        Digest::of(content),
        content.len(),
        Digest::of(b"subject"),
    );
    let digest = Digest::of(manifest.as_bytes());
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":{},"artifactType":"application/vnd.example.dump","annotations":{{{annotations}}}}}]}}"#,
        manifest.len()
    );
    let name = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
    let tar = tar(&[
        ("index.json", index.as_bytes()),
        ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
        (&name(manifest.as_bytes()), manifest.as_bytes()),
        (&name(config), config),
        (&name(content), content),
    ]);
    (tar, digest)
}

#[test]
fn artifacts_are_kept_beside_the_images_and_carried_through() {
    let scratch = Scratch::new("artifacts");
    let content: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    let named = r#""io.containerd.image.name":"docker.io/me/dump:1","x":"y""#;
    let (archive, digest) = artifact_layout(named, &content);
    let store = scratch.store();
    let loaded = store.load(archive.as_slice(), None, &mut |_| {}).unwrap();
    assert!(loaded.images.is_empty());
    assert_eq!(loaded.artifacts[0].name(), "me/dump:1");
    let image = load(&store, &docker_archive("tool:1", [&base(), &above("1")], "x")).unwrap()[0].id.clone();

    // The next daemon has it too, and its sweep leaves the blobs.
    drop(store);
    let store = scratch.store();
    let artifact = store.artifact("me/dump:1").unwrap();
    assert_eq!(artifact, store.artifact(digest.short()).unwrap());
    assert_eq!(artifact.descriptor.digest, digest);
    assert_eq!(artifact.descriptor.annotations["x"], "y");
    assert_eq!(artifact.manifest.kind(), "application/vnd.example.dump");
    assert_eq!(artifact.manifest.subject.as_ref().unwrap().digest, Digest::of(b"subject"));
    let blob = artifact.manifest.blobs().nth(1).unwrap();
    let mut read = Vec::new();
    store.write_artifact_blob(blob, &mut read).unwrap();
    assert!(read == content);
    assert_eq!(store.images().len(), 1);
    let shown = store.artifacts();
    assert_eq!((shown.len(), shown[0].repo_tags[0].as_str()), (1, "me/dump:1"));
    assert_eq!(shown[0].created, 1_714_979_289);

    // Saved beside an image, and loaded elsewhere: byte for byte the same.
    let mut saved = Vec::new();
    let names = ["tool:1".to_owned(), "me/dump:1".to_owned()];
    assert_eq!(store.save(&names, &mut saved).unwrap(), [image]);
    let manifest = format!("blobs/sha256/{}", digest.hex());
    assert_eq!(member(&saved, &manifest), member(&archive, &manifest));
    let other = Store::open(&scratch.0.join("other")).unwrap();
    let loaded = other.load(saved.as_slice(), None, &mut |_| {}).unwrap();
    assert_eq!((loaded.images.len(), loaded.artifacts.len()), (1, 1));
    assert_eq!(other.artifact("me/dump:1").unwrap().descriptor.annotations["x"], "y");

    // A second name keeps the blobs; the last one takes them along.
    let (unnamed, _) = artifact_layout(r#""org.opencontainers.image.ref.name":"v1""#, &content);
    let loaded = store.load(unnamed.as_slice(), None, &mut |_| {}).unwrap();
    assert_eq!(loaded.artifacts[0].name(), digest.to_string());
    let items = store.remove("me/dump:1", false, false, &unused).unwrap();
    assert!(matches!(&items[..], [ImageDeleteItem::Untagged(name)] if name == "me/dump:1"), "{items:?}");
    let blobs = || fs::read_dir(store.root.join(artifact::BLOBS)).unwrap().count();
    assert_eq!(blobs(), 3);
    assert_eq!(store.remove(digest.as_str(), false, false, &unused).unwrap().len(), 2);
    assert_eq!(blobs(), 0);
    assert_eq!(store.remove("me/dump:1", false, false, &unused).unwrap_err().class, Class::NotFound);
}

#[test]
fn a_damaged_table_of_artifacts_costs_their_names_only() {
    let scratch = Scratch::new("artifact-damage");
    let (archive, digest) = artifact_layout(r#""io.containerd.image.name":"docker.io/me/dump:1""#, b"pages");
    let table = {
        let store = scratch.store();
        store.load(archive.as_slice(), None, &mut |_| {}).unwrap();
        store.root.join("artifacts/references.json")
    };
    fs::write(&table, "{").unwrap();
    let store = scratch.store();
    assert_eq!(store.artifact(digest.as_str()).unwrap().reference, None);
    drop(store);
    // A later dewar's table is left alone, and so is everything it may lead to.
    fs::write(&table, r#"{"format": 99, "artifacts": {}}"#).unwrap();
    let store = scratch.store();
    assert!(store.load(archive.as_slice(), None, &mut |_| {}).is_err());
    assert_eq!(fs::read_dir(store.root.join(artifact::BLOBS)).unwrap().count(), 3);
    assert!(fs::read_to_string(&table).unwrap().contains("99"));
}

/// The member of this name in an archive.
fn member(archive: &[u8], name: &str) -> Vec<u8> {
    let mut reader = crate::runtime::layer::tar::Reader::new(archive, Limits::default());
    while let Some(entry) = reader.next_entry().unwrap() {
        if entry.path == name.as_bytes() {
            let mut content = vec![0; entry.size as usize];
            let mut filled = 0;
            while filled < content.len() {
                filled += reader.read(&mut content[filled..]).unwrap();
            }
            return content;
        }
    }
    panic!("no {name}");
}
