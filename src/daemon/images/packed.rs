//! How layers were packed where they came from or went to, kept beside them: a layer that is pushed to where it
//! came from need not be packed again, and one that is offered packed is known without fetching it.

use serde::{Deserialize, Serialize};

use super::Store;
use super::codec::Digest;
use crate::daemon::error::{Error, Result};

/// The most forms that are kept of a layer, and places of a form; the newest count.
const MOST: usize = 16;

/// One packed form of a layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Packed {
    pub digest: Digest,
    /// Bytes, packed.
    pub size: u64,
    pub media_type: String,
    /// `registry/repository` that have it, as far as is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<String>,
}

impl Store {
    /// Remembers a packed form of a layer in the store, and where it is. Writes only what is new.
    pub fn remember_packed(&self, diff_id: &Digest, packed: &Packed) -> Result<()> {
        // Two that remember at once must not forget each other's.
        let _tables = self.lock();
        let mut info = self.layer(diff_id)?;
        match info.packed.iter_mut().find(|known| known.digest == packed.digest) {
            Some(known) => {
                let new: Vec<_> =
                    packed.from.iter().filter(|place| !known.from.contains(place)).cloned().collect();
                if new.is_empty() {
                    return Ok(());
                }
                known.from.extend(new);
                let excess = known.from.len().saturating_sub(MOST);
                known.from.drain(..excess);
            }
            None => {
                info.packed.push(packed.clone());
                let excess = info.packed.len().saturating_sub(MOST);
                info.packed.drain(..excess);
            }
        }
        let text = serde_json::to_vec(&info).map_err(|cause| Error::system("describe layer", cause))?;
        self.write_atomically(&self.layer_dir(diff_id).join("layer.json"), &text)
    }
}
